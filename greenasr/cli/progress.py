"""Progress with an ETA on standard error, and the commands' two ways of printing a result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

err = Console(stderr=True)
out = Console()


class Bars:
    """One bar a stage; ``tell(stage, done, of, note)`` moves it."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.bars: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, of: int, note: str) -> None:
        """Move the stage's bar."""
        if stage not in self.bars:
            self.bars[stage] = self.progress.add_task(stage, total=of, note="")
        self.progress.update(self.bars[stage], completed=done, total=of, note=note)
        if done >= of:
            self.progress.stop_task(self.bars[stage])


@contextmanager
def bars() -> Iterator[Bars]:
    """Bars on standard error while the block runs; plain lines where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err, refresh_per_second=4) as progress:
        yield Bars(progress)


def show(result: Mapping[str, Any], as_json: bool, line: str) -> None:
    """A command's result: one JSON object, or one line for people."""
    if as_json:
        print(json.dumps(result))
    else:
        out.print(line, highlight=False, soft_wrap=True)
