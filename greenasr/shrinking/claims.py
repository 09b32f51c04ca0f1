"""Who works on a job, known from files alone: workers share a folder and nothing else.

    <job>/claim.0        linked where no such file is, so by one worker; says who it is
    <job>/claim.0.beat   a count that its owner raises every few seconds
    <job>/claim.1        whoever finds claim.0 dead makes the next, in the same way

The claim with the highest number holds.  An owner is dead when it ran on this machine and its process is
gone, or when its count has stood still for `PATIENCE` seconds on the looker's own monotonic clock: no time
of day is written or compared, so clocks may jump or disagree.  An owner that was only asleep finds the
higher claim at its next step and stops; files are atomic and work is deterministic, so nothing is lost.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

BEAT = 2.0  # seconds between counts
PATIENCE = 60.0  # seconds without a new count after which an owner on another machine is dead
ME = uuid.uuid4().hex


class Superseded(Exception):
    """Another worker has taken this job over."""


@dataclass(frozen=True)
class Owner:
    """A process: its machine since it was switched on, its number there, and when that began, in ticks."""

    machine: str
    pid: int
    started: str
    token: str = ME

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(_machine(), os.getpid(), _started(os.getpid()))

    def surely_dead(self) -> bool:
        """Whether it ran on this machine and is no more; False where that cannot be known."""
        known = bool(self.started) and self.machine == _machine()
        return known and _started(self.pid) != self.started


def _machine() -> str:
    """Host, boot and process numbering of this process; numbers are comparable where all three agree."""
    parts = [socket.gethostname()]
    try:
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    except OSError:
        parts.append("unknown")
    return " ".join(parts)


def _started(pid: int) -> str:
    """Ticks from boot to a process's start; "" where there is no such process, or no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text[text.rindex(")") + 2 :].split()
    return "" if fields[0] in "ZX" else fields[19]


@dataclass
class Held:
    """A claim that this process holds, and the thread that counts for it."""

    path: Path
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Begin to count."""
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        count = 0
        while not self.stop.wait(BEAT if count else 0):
            count += 1
            try:
                _beat(self.path).write_text(str(count))
            except OSError:
                continue  # the disk may be full: the work itself will say so

    def check(self) -> None:
        """Raise `Superseded` where another worker holds a higher claim."""
        if newest(self.path.parent) != int(self.path.suffix[1:]):
            raise Superseded(self.path)

    def release(self) -> None:
        """Stop counting and take the claim away."""
        self.stop.set()
        self.path.unlink(missing_ok=True)
        _beat(self.path).unlink(missing_ok=True)


def _beat(claim: Path) -> Path:
    return claim.with_name(f"{claim.name}.beat")


def newest(folder: Path) -> int | None:
    """The number of the claim that holds; None where there is none."""
    numbers = [int(p.name[6:]) for p in folder.glob("claim.*") if p.name[6:].isdecimal()]
    return max(numbers, default=None)


@dataclass
class Watch:
    """What one worker has seen of the others' counts, by its own clock."""

    clock: Callable[[], float] = time.monotonic
    patience: float = PATIENCE
    seen: dict[Path, tuple[str, float]] = field(default_factory=dict)

    def take(self, folder: Path) -> Held | None:
        """Claim the job in ``folder``; None while another worker, perhaps alive, holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        number = newest(folder)
        if number is not None and not self._dead(folder / f"claim.{number}"):
            return None
        path = folder / f"claim.{0 if number is None else number + 1}"
        named = folder / f"claim-{uuid.uuid4().hex}"
        named.write_text(json.dumps(asdict(Owner.here())))
        try:
            os.link(named, path)  # whole or not at all, and only where there is none
        except FileExistsError:
            return None  # another was quicker
        finally:
            named.unlink(missing_ok=True)
        return Held(path)

    def _dead(self, claim: Path) -> bool:
        try:
            if Owner(**json.loads(claim.read_text())).surely_dead():
                return True
        except FileNotFoundError:
            return False  # released just now: look again
        except (ValueError, TypeError):
            pass  # damaged: its count will stand still
        try:
            count = _beat(claim).read_text()
        except OSError:
            count = ""
        before = self.seen.get(claim)
        if before is None or before[0] != count:
            self.seen[claim] = count, self.clock()
            return False
        return self.clock() - before[1] > self.patience
