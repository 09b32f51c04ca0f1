"""One run by several processes, as ``torchrun`` starts them: the first leads, the others train with it.

    leader     works in the run folder, holds its lock, prints
    others     walk through the same stages; where one trains they run it too, in a scratch folder beside the
               stage's own, else they wait for what the leader says, days if need be

    said(x)    the leader's value on all processes, by torch's store: no timeout, no shared clock
    together   one piece of work on all processes, whose trainings share every batch (`ops.crew`)

All machines see the run folder under the same path.  accelerate's `PartialState` makes the process group,
gloo between CPUs and nccl between GPUs, and gives every process its GPU.  Nothing is imported before.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # how long a process waits for another's share of a step
MEETING = timedelta(minutes=30)  # how long they look for each other
POLL = (0.01, 0.5)  # seconds between looks at the store, the first and the longest


@dataclass
class _Run:
    """The processes of this run, and how often the leader has spoken."""

    rank: int
    size: int
    store: Any
    spoken: int = 0


_run: _Run | None = None


def begin() -> None:
    """Join the processes that torchrun started, once; nothing where there is one alone.

    Raises ValueError without accelerate, ChildProcessError where they do not find each other.
    """
    global _run
    if _run is not None or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return
    if not {"RANK", "MASTER_ADDR"} <= os.environ.keys():
        return
    try:
        from accelerate.state import PartialState
    except ImportError:
        raise ValueError("several processes need accelerate: pip install 'greenasr[distributed]'.") from None
    import torch
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    on_gpu = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    try:
        store, rank, size = next(rendezvous("env://", timeout=MEETING))
        store = PrefixStore(f"greenasr {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        PartialState(
            not on_gpu, backend="cuda:nccl,cpu:gloo" if on_gpu else None,
            store=store, rank=rank, world_size=size, timeout=PATIENCE,
        )  # fmt: skip
    except RuntimeError as error:
        raise ChildProcessError(f"the processes of this run do not find each other: {error}") from error
    _run = _Run(rank, size, PrefixStore("run", store))
    signal.signal(signal.SIGTERM, _stopped)  # torchrun sends it when another process has failed


def end() -> None:
    """Leave together, when all is done."""
    if _run is not None:
        from accelerate.state import PartialState

        _meet()
        PartialState().destroy_process_group()


def size() -> int:
    """How many processes are at this run."""
    return 1 if _run is None else _run.size


def first() -> bool:
    """Whether this process leads; it does where it is alone."""
    return _run is None or _run.rank == 0


def first_to_fail() -> bool:
    """Whether no other process of the run has failed before: then this one says why."""
    if _run is None:
        return True
    try:
        return bool(_run.store.add("failed", 1) == 1)
    except RuntimeError:  # nobody is left to ask
        return first()


def name() -> str:
    """How messages call this process: nothing for the leader."""
    return "" if _run is None or _run.rank == 0 else f"process {_run.rank} of {_run.size}: "


def check_device(device: str) -> None:
    """Refuse a GPU for all processes, or fewer GPUs than processes."""
    if _run is None or device == "cpu":
        return
    import torch
    from accelerate.state import PartialState

    if device != "cuda":
        raise ValueError(f"--device {device} under torchrun: give cuda, and every process takes its own.")
    if PartialState().device.type != "cuda":
        raise ValueError(
            f"--device cuda: this machine has {torch.cuda.device_count()} GPUs for "
            f"{os.environ.get('LOCAL_WORLD_SIZE')} processes: start one process a GPU."
        )


def said(value: Any) -> Any:
    """The leader's ``value``, JSON, on every process; the others' own are not looked at."""
    if _run is None:
        return value
    _run.spoken += 1
    store, key = _run.store, f"said {_run.spoken}"
    if _run.rank == 0:
        store.set(key, json.dumps(value))
        return value
    _wait(lambda: store.check([key]))
    return json.loads(store.get(key))


def together(folder: Path, work: Callable[[Path], T]) -> T:
    """Work that trains, on all processes: the leader in ``folder``, others in a copy that is thrown away.

    So they find the checkpoints that the leader finds, and nothing is written twice.
    """
    if _run is None:
        return work(folder)
    place, scratch = folder, f".{folder.name}.process"
    if _run.rank == 0:
        for left in folder.parent.glob(f"{scratch}*"):  # by processes that were killed
            shutil.rmtree(left, ignore_errors=True)
    _meet()
    if _run.rank:
        place = folder.with_name(f"{scratch}{_run.rank}")
        if folder.exists():
            shutil.copytree(folder, place)
    _meet()
    from greenasr.ops import crew

    try:
        with crew.working(_run.rank, _run.size):
            return work(place)
    finally:
        if _run.rank:
            shutil.rmtree(place, ignore_errors=True)


def _meet() -> None:
    """Wait until every process is here."""
    assert _run is not None
    _run.spoken += 1
    store, size, key = _run.store, _run.size, f"met {_run.spoken}"
    store.add(key, 1)
    _wait(lambda: store.add(key, 0) >= size)


def _wait(there: Callable[[], bool]) -> None:
    """Until ``there``; ends with the run when another process fails."""
    assert _run is not None
    pause, longest = POLL
    try:
        while True:
            if _run.store.check(["failed"]):
                raise _lost()
            if there():
                return
            time.sleep(pause)
            pause = min(longest, 1.2 * pause)
    except RuntimeError as error:  # the store is gone, and with it the run
        raise _lost() from error


def _stopped(number: int, frame: FrameType | None) -> None:
    raise _lost()


def _lost() -> ChildProcessError:
    from greenasr.ops import crew

    return ChildProcessError(crew.LOST)
