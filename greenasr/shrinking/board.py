"""Jobs of one run folder, done by whoever comes: this process, and any other that was given the same command.

    <run>/<job>/result.json   written last: the job is done, for everyone
    <run>/<job>/claim.*       who does it now, see `claims`

Every worker walks through the same plan.  What it needs and nobody does it does itself; where others do all
that is needed it works ahead on what is ``likely``, or waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenasr.data.files import read_json
from greenasr.pipeline.run import RESULT, Progress, Stage, run_stage
from greenasr.shrinking.claims import Superseded, Watch

Result = dict[str, Any]
Tell = Callable[[int, int, str], None]
POLL = 0.5  # seconds between looks at what others do


@dataclass(frozen=True)
class Job:
    """A named piece of work; ``work(folder, tell)`` returns the JSON value of its result."""

    name: str
    work: Callable[[Path, Tell], Mapping[str, Any]]


def nothing() -> Iterable[Job]:
    """No job ahead."""
    return ()


@dataclass
class Board:
    """The run folder, and how this worker tells of its progress."""

    run: Path
    tell: Progress = lambda name, done, of, note: None
    watch: Watch = field(default_factory=Watch)
    sleep: Callable[[float], None] = time.sleep

    def done(self, name: str) -> Result | None:
        """The result of a job, None where it is not finished."""
        path = self.run / name / RESULT
        return dict(read_json(path)) if path.exists() else None

    def do(self, jobs: Sequence[Job], likely: Callable[[], Iterable[Job]] = nothing) -> list[Result]:
        """The results of all jobs, in their order; whatever they raise is raised."""
        while missing := [job for job in jobs if not (self.run / job.name / RESULT).exists()]:
            if not any(self._try(job) for job in missing) and not any(self._try(job) for job in likely()):
                self.sleep(POLL)
        return [dict(read_json(self.run / job.name / RESULT)) for job in jobs]

    def _try(self, job: Job) -> bool:
        """Do a job unless it is done or another worker has it."""
        folder = self.run / job.name
        if (folder / RESULT).exists() or (held := self.watch.take(folder)) is None:
            return False

        def tell(stage: str, done: int, of: int, note: str) -> None:
            held.check()
            self.tell(stage, done, of, note)

        def work(folder: Path, tell: Tell) -> Mapping[str, Any]:
            began = time.process_time()
            found = job.work(folder, tell)
            return {**found, "seconds_cpu": time.process_time() - began}

        try:
            run_stage(Stage(job.name, (), work), self.run, tell)
        except Superseded:
            return False
        finally:
            held.release()
        for left in folder.glob("claim*"):  # of workers that died here
            left.unlink(missing_ok=True)
        return True
