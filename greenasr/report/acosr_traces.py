"""What ACosR left of a row's training: convergence line by line, weights among the levels, θ of every table.

    <row>/wgtc.jsonl, levels.npz (see `pipeline.convergence`), model.packed

Of the first part and seed that has them; a row that ACosR did not train has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.pipeline.convergence import read_wgtc
from greenasr.runtime import format as packed_format


@dataclass(frozen=True, eq=False)
class Levels:
    """How many weights lie where among the levels: at ``progress`` (K,), 0 to 1, between ``edges`` (B + 1,).

    ``counts`` are (K, L, B) for L ``layers``; the unit of the edges is the spacing of the levels.
    """

    edges: NDArray[np.float64]
    progress: NDArray[np.float64]
    layers: Sequence[str]
    counts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trace:
    """A row's ``lines`` of wgtc.jsonl, its ``levels``, and 1 / spacing of each of its tables, ``thetas``."""

    lines: Sequence[Mapping[str, Any]]
    levels: Levels | None
    thetas: NDArray[np.float64]


def traces(value: Mapping[str, Any], run: Path) -> dict[str, Trace]:
    """Row name -> what ACosR left in the run folder; rows without are left out."""
    homes = [run / part / f"seed{seed}" for part in value["parts"] for seed in value["seeds"]]
    found = {}
    for row in value["rows"]:
        for home in homes:
            folder = home / row["name"]
            if lines := read_wgtc(folder / "wgtc.jsonl"):
                levels = _levels(folder / "levels.npz", int(lines[-1]["of"]))
                found[row["name"]] = Trace(lines, levels, thetas(folder / "model.packed"))
                break
    return found


def _levels(path: Path, total: int) -> Levels | None:
    """The counts, None where there is no file or no layer in it."""
    if not path.exists():
        return None
    with np.load(path) as there:
        layers = [str(name) for name in there["layers"]]
        made = Levels(there["edges"], there["steps"] / max(1, total), layers, there["counts"])
    return made if layers else None


def thetas(path: Path) -> NDArray[np.float64]:
    """θ of every table in a packed file: 1 / step, at 1 bit 1 / (2 step); none where there is no file."""
    if not path.exists():
        return np.zeros(0)
    spans = packed_format.read(path).spans.values()
    spacings = [span.step.astype(np.float64).ravel() * (2 if span.bits == 1 else 1) for span in spans]
    every = np.concatenate(spacings) if spacings else np.zeros(0)
    return 1 / every[every > 0]
