"""A run folder: stages whose results are kept, never repeated, and run side by side.

    <run>/recipe.json          what is being run; another recipe in the same folder is refused
    <run>/<stage>/result.json  written last: a stage that has it is finished
    <run>/.lock                held while a process works here

A stage names what it needs.  Stages that are ready run in worker processes, each with its share of
the cores.  A killed run goes on where its unfinished stages left their checkpoints.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from greenasr.data.files import read_json, write_json
from greenasr.pipeline import together
from greenasr.runtime.kernels import native

Progress = Callable[[str, int, int, str], None]  # stage, done, of, note
RESULT = "result.json"


@dataclass(frozen=True)
class Stage:
    """A named piece of work; ``work(folder, tell)`` returns the JSON value of its result.

    Several processes share a stage that ``trains`` (`pipeline.together`); the first does the others alone.
    """

    name: str
    needs: tuple[str, ...]
    work: Callable[[Path, Callable[[int, int, str], None]], Mapping[str, Any]]
    trains: bool = False


@contextmanager
def claimed(run: Path, recipe: Mapping[str, Any]) -> Iterator[None]:
    """Hold a run folder for one process and one recipe.

    Raises ValueError when another process works there or the folder holds another run.  Of the processes of
    one run the first holds it for all.
    """
    if not together.first():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with open(run / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{run}: another greenasr is working here: wait for it or choose another --out."
            ) from None
        before = set(os.listdir(run))
        check_same(run / "recipe.json", recipe)
        try:
            yield
        except BaseException:
            if "recipe.json" not in before and set(os.listdir(run)) <= before | {"recipe.json", ".lock"}:
                (run / "recipe.json").unlink()  # nothing was made: the folder stays free for other settings
            raise


def check_same(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` to ``path``, or raise ValueError naming what differs from what is there."""
    if not together.first():
        return
    plain = json.loads(json.dumps(value))
    if not path.exists():
        write_json(path, plain)
        return
    there = read_json(path)
    if there != plain:
        changed = [key for key in sorted(plain.keys() | there.keys()) if plain.get(key) != there.get(key)]
        raise ValueError(
            f"{path}: this folder holds a run with other settings ({', '.join(changed)}): "
            "choose another --out, or delete the folder to begin anew."
        )


def run_stage(stage: Stage, run: Path, tell: Progress) -> dict[str, Any]:
    """The result of a stage: read if it is there, worked out and written if not."""
    folder = run / stage.name
    if together.said((folder / RESULT).exists()):
        pass
    elif stage.trains:
        together.together(folder, lambda place: _work_out(stage, place, tell))
    elif together.first():
        _work_out(stage, folder, tell)
    return dict(together.said(read_json(folder / RESULT) if together.first() else None))


def _work_out(stage: Stage, folder: Path, tell: Progress) -> None:
    """Do a stage's work and write its result."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    result = dict(stage.work(folder, lambda done, of, note: tell(stage.name, done, of, note)))
    result.setdefault("seconds", time.perf_counter() - began)
    write_json(folder / RESULT, result)
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def run_stages(
    stages: Sequence[Stage], run: Path, tell: Progress, jobs: int = 1
) -> dict[str, dict[str, Any]]:
    """All stages in an order that respects their needs, ``jobs`` at a time; name -> result.

    The first stage to fail stops new ones from starting; those that run are let finish.  Processes of a run
    by torchrun go through the stages one at a time.
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: expected 1 or more stages at a time.")
    if jobs == 1 or together.size() > 1:
        _use_threads(torch.get_num_threads())
        return {stage.name: run_stage(stage, run, tell) for stage in _in_order(stages)}
    done: dict[str, dict[str, Any]] = {}
    waiting = list(_in_order(stages))
    context = multiprocessing.get_context("spawn")
    news: Any = context.Queue()
    threads = max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // jobs))
    with ProcessPoolExecutor(jobs, context, _begin_worker, (threads, os.getpid(), news)) as pool:
        running: dict[Future[dict[str, Any]], str] = {}
        failure: BaseException | None = None
        while waiting or running:
            for stage in [s for s in waiting if set(s.needs) <= done.keys()] if failure is None else []:
                if len(running) < jobs:
                    running[pool.submit(run_stage, stage, run, _tell_parent)] = stage.name
                    waiting.remove(stage)
            if not running:
                break
            finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            with suppress(queue.Empty):
                while True:
                    tell(*news.get_nowait())
            for future in finished:
                name = running.pop(future)
                if error := future.exception():
                    failure = failure or _explained(error, name)
                else:
                    done[name] = future.result()
        if failure is not None:
            raise failure
    return done


def _explained(error: BaseException, stage: str) -> BaseException:
    """The error of a stage; one in words for a worker that was killed."""
    if isinstance(error, BrokenProcessPool):
        return ChildProcessError(
            f"the worker of stage '{stage}' was killed, perhaps for want of memory: give the command again, "
            "what is finished is kept, or use fewer --jobs"
        )
    return error


def needed(stages: Sequence[Stage], names: Sequence[str]) -> list[Stage]:
    """The named stages and all that they need; ValueError for a name that no stage has."""
    by_name = {stage.name: stage for stage in stages}
    if unknown := [name for name in names if name not in by_name]:
        raise ValueError(f"no stage '{unknown[0]}'; there are {', '.join(by_name)}.")
    wanted = list(names)
    for name in wanted:
        wanted += [need for need in by_name[name].needs if need not in wanted]
    return [stage for stage in stages if stage.name in wanted]


def finished(stages: Sequence[Stage], run: Path) -> dict[str, dict[str, Any]]:
    """Results that a run folder holds already."""
    paths = {stage.name: run / stage.name / RESULT for stage in stages}
    return {name: dict(read_json(path)) for name, path in paths.items() if path.exists()}


_news: Any = None  # in a worker: the queue to the parent, and when it was last used
_told = 0.0


def _begin_worker(threads: int, parent: int, news: Any) -> None:
    """Set a worker up; it ends when its parent does, so that a killed run leaves nobody writing."""
    global _news
    _news = news
    news.cancel_join_thread()
    _use_threads(threads)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _use_threads(threads: int) -> None:
    """So many for torch and for the runtime."""
    torch.set_num_threads(threads)
    if native.available():
        native.set_threads(min(threads, native.cores()))


def _tell_parent(stage: str, done: int, of: int, note: str) -> None:
    """Progress from a worker, a few times a second, on its way to the screen."""
    global _told
    if done >= of or time.monotonic() - _told > 0.2:
        _told = time.monotonic()
        _news.put((stage, done, of, note))


def _in_order(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Stages after what they need; ValueError for a need that nothing makes."""
    names = {stage.name for stage in stages}
    for stage in stages:
        if missing := set(stage.needs) - names:
            raise ValueError(
                f"the row '{stage.name}' needs '{sorted(missing)[0]}', which the recipe does not have."
            )
    left, made = list(stages), set[str]()
    while left:
        ready = next((s for s in left if set(s.needs) <= made), None)
        if ready is None:
            raise ValueError(f"the rows {', '.join(s.name for s in left)} wait for each other.")
        left.remove(ready)
        made.add(ready.name)
        yield ready
