"""Progress with an ETA on standard error, and the commands' two ways of printing a result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from greenasr.pipeline import together

err = Console(stderr=True)
out = Console()
EVERY, AT_ONCE = 30.0, 2.0  # seconds between lines where standard error is no terminal


class Bars:
    """One bar a stage; ``tell(stage, done, of, note)`` moves it, and starts it anew when it went back.

    Where standard error is no terminal a stage writes a line now and then, and one when it is done, unless
    it was done at once.
    """

    def __init__(self, progress: Progress):
        self.progress = progress
        self.bars: dict[str, TaskID] = {}
        self.told: dict[str, float] = {}

    def __call__(self, stage: str, done: int, of: int, note: str = "") -> None:
        """Move the stage's bar; of several processes the first shows it."""
        if not together.first():
            return
        if stage not in self.bars:
            self.bars[stage] = self.progress.add_task(stage, total=of, note="")
            self.told[stage] = time.monotonic()
        bar = self.bars[stage]
        task = next(t for t in self.progress.tasks if t.id == bar)
        if done < task.completed:
            self.progress.reset(bar, total=of)
        self.progress.update(bar, completed=done, total=of, note=note)
        if done >= of:
            self.progress.stop_task(bar)
        due = (task.elapsed or 0) > AT_ONCE if done >= of else time.monotonic() - self.told[stage] > EVERY
        if not err.is_terminal and due:
            self.told[stage] = time.monotonic()
            left = "?" if task.time_remaining is None else timedelta(seconds=int(task.time_remaining))
            err.print(f"{stage} {done}/{of} ETA {left} {note}".rstrip(), markup=False, highlight=False)

    def of(self, stage: str) -> Callable[[int, int], None]:
        """A callback for one stage: (done, of)."""
        return partial(self, stage)


@contextmanager
def bars() -> Iterator[Bars]:
    """Bars on standard error while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(
        *columns, console=err, refresh_per_second=4, disable=not (err.is_terminal and together.first())
    ) as progress:
        yield Bars(progress)


def show(result: Mapping[str, Any], as_json: bool, line: str) -> None:
    """A command's result: one JSON object, or one line for people; of several processes the first prints."""
    if not together.first():
        return
    if as_json:
        print(json.dumps(result))
    else:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
