"""The smallest packed model that loses no words: one call for any model.

    answer = greenasr.shrink(model, task, "runs/small", question=Question(max_wer_increase=0.1))

The run folder is the only memory: a killed run goes on when it is called again, several processes with the
same call share the work, and another question to a finished run begins with all that is known.

    OUT/shrink.json        what is searched; another search in the same folder is refused
    OUT/<job>/…            see `search` and `board`
    OUT/answer.json        the answer to the last question
    OUT/smallest.packed    the model
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from greenasr.data.files import atomic, check_writable, read_json, write_json
from greenasr.pipeline.lm import check_device
from greenasr.pipeline.run import Progress, check_same
from greenasr.shrinking.answer import answer
from greenasr.shrinking.board import Board
from greenasr.shrinking.package import OwnClass, Package
from greenasr.shrinking.search import Search
from greenasr.shrinking.settings import FORMAT, Question, Space
from greenasr.shrinking.task import ShrinkTask, check_apart

NEEDED = 32  # bytes of disk a parameter: a checkpoint beside the last one, and packed files
SETTINGS = "shrink.json"


@dataclass(frozen=True)
class Shrunk:
    """The smallest model's file, None where none may take the full one's place, and all figures."""

    path: Path | None
    answer: dict[str, Any]


def shrink(
    model: nn.Module,
    task: ShrinkTask,
    out: str | Path,
    *,
    space: Space | None = None,
    question: Question | None = None,
    package: Package | None = None,
    allow_overlap: bool = False,
    worker: bool = False,
    device: str = "cpu",
    tell: Progress = lambda name, done, of, note: None,
) -> Shrunk | None:
    """Search, score the finalists on test once, and write the answer; ``model`` stays as it is.

    ``package`` makes files of models and reads them, by default `OwnClass`.  A ``worker`` shares the work of
    another call with the same settings and writes no answer; it returns None.

    Raises ValueError for models that are not in finite float32 or have nothing to quantize, sets that
    overlap, scorers that do not count, folders of another run or version, and a disk without room.
    """
    out, space = Path(out), space or Space()
    check_device(device)
    check_model(model)
    check_writable(out / SETTINGS)
    parameters = sum(p.numel() for p in model.parameters())
    check_room(out, NEEDED * parameters)
    notes = check_apart(task, allow_overlap)
    board = Board(out, tell)
    package = package or OwnClass(model)
    search = Search(model, task, package, space, question or Question(), board, device)
    settings = {"model": fingerprint(model), "data": {**data_of(task), **task.describe()}}
    settings["space"] = space.to_json()
    _ = search.works.clusters, search.works.teaching  # what cannot be searched makes no folder
    check_version(out / SETTINGS)
    check_same(out / SETTINGS, {"format": FORMAT, **settings})
    search.run()
    if worker:
        return None
    value = answer(search, notes)
    smallest = None
    if value["smallest"] is not None:
        smallest = out / "smallest.packed"
        with atomic(smallest) as temporary:
            (row,) = (row for row in value["models"] if row["name"] == value["smallest"])
            shutil.copyfile(out / row["file"] / "model.packed", temporary)
    else:
        (out / "smallest.packed").unlink(missing_ok=True)
    write_json(out / "answer.json", value)
    return Shrunk(smallest, value)


def check_model(model: nn.Module) -> None:
    """Raise ValueError for weights that training and packing cannot work with."""
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ValueError(f"'{name}' is {parameter.dtype}: give the model in float32, as model.float().")
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"'{name}' holds weights that are not finite: train the model again.")


def check_room(out: Path, needed: int) -> None:
    """Raise ValueError where the disk has not room for a training's checkpoints."""
    free = shutil.disk_usage(out).free
    if free < needed:
        raise ValueError(
            f"{out}: {free / 1e6:,.0f} MB are free, the search needs about {needed / 1e6:,.0f} MB for "
            "checkpoints and models: make room or choose another --out."
        )


def check_version(path: Path) -> None:
    """Raise ValueError where a folder was begun by another version."""
    if path.exists() and (found := read_json(path).get("format")) != FORMAT:
        raise ValueError(
            f"{path}: begun by another version of greenasr ('{found}', this one writes '{FORMAT}'): "
            "choose another --out, or go on with that version."
        )


def fingerprint(model: nn.Module) -> str:
    """16 hex digits of all weights and their names."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name}{tuple(value.shape)}".encode())
        found.update(value.detach().cpu().reshape(-1).numpy().tobytes())
    return found.hexdigest()[:16]


def data_of(task: ShrinkTask) -> dict[str, Any]:
    """16 hex digits of the utterances of each set, where the task tells them."""
    found = {}
    for split in ("train", "dev", "test"):
        rows = sorted(task.utterances(split).items())
        found[f"{split}_utterances"] = hashlib.sha256(repr(rows).encode()).hexdigest()[:16] if rows else ""
    return found
