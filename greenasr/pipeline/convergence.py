"""How weights gather at the levels while ACosR trains: what the paper's Fig. 4 and WgtC columns show.

    <row>/wgtc.jsonl   {"step", "of", "total", "layers": {parameter: share}}, about `LINES` lines
    <row>/levels.npz   edges (B + 1,), steps (K,), layers (L,), counts (K, L, B)

WgtC is the share of weights within 1e-6 of a level (Nguyen et al. 2020, §5).  ``counts`` are of θ w, in
which levels are whole numbers, for a few parameters at `MOMENTS` of training; outliers are not counted.
A run that was killed writes again what it repeats, so both files are those of a run that was not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from greenasr.compress.acosr import Acosr
from greenasr.data.files import atomic, write_atomic
from greenasr.roles import Quantized

LINES = 50  # of wgtc.jsonl, about
MOMENTS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 1.0)  # shares of training at which levels are counted
EDGES = np.linspace(-4.5, 4.5, 181)  # levels -4 … 4, twenty bins each


@dataclass
class Watched:
    """ACosR, and after its steps a look at the weights; files go into ``folder``.

    ``total`` is how many steps training has; ``layers`` are the parameters whose levels are counted.
    """

    compressor: Acosr
    folder: Path
    total: int
    layers: Sequence[str] = ()

    def prepare_(self, model: nn.Module) -> None:
        """Prepare ACosR; the first look, unless the folder has it."""
        self.compressor.prepare_(model)
        if not (self.folder / "levels.npz").exists():
            self._count_levels(0)

    def penalty(self, model: nn.Module) -> Tensor | float:
        """ACosR's."""
        return self.compressor.penalty(model)

    def after_step_(self, model: nn.Module, progress: float) -> Mapping[str, float]:
        """ACosR's step, then a line or a count where one is due."""
        figures = self.compressor.after_step_(model, progress)
        step = round(progress * self.total)
        if step % max(1, self.total // LINES) == 0 or step == self.total:
            self._write_line(step)
        if step in {round(share * self.total) for share in MOMENTS}:
            self._count_levels(step)
        return figures

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Finish ACosR."""
        return self.compressor.finish_(model)

    def _write_line(self, step: int) -> None:
        path = self.folder / "wgtc.jsonl"
        lines = [line for line in read_wgtc(path) if line["step"] < step]
        lines.append({"step": step, "of": self.total, **convergence(self.compressor)})
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))

    def _count_levels(self, step: int) -> None:
        if not self.layers:
            return
        path = self.folder / "levels.npz"
        steps, counts = np.zeros(0, np.int64), np.zeros((0, len(self.layers), len(EDGES) - 1), np.int64)
        if path.exists():
            with np.load(path) as there:
                before = there["steps"] < step
                steps, counts = there["steps"][before], there["counts"][before]
        edges = torch.from_numpy(EDGES)
        now = [
            torch.histogram(self.compressor.places(name).double().cpu(), edges).hist for name in self.layers
        ]
        with atomic(path) as temporary:
            np.savez(
                temporary,
                edges=EDGES,
                steps=np.append(steps, step),
                layers=np.array(self.layers),
                counts=np.concatenate([counts, torch.stack(now).long().numpy()[None]]),
            )


def convergence(compressor: Acosr) -> dict[str, Any]:
    """WgtC of all weights as ``total``, and of every parameter under ``layers``."""
    shares = compressor.shares_converged()
    return {
        "total": compressor.share_converged(),
        "layers": {name: share for name, (_, share) in shares.items()},
    }


def read_wgtc(path: Path) -> list[dict[str, Any]]:
    """The lines of wgtc.jsonl; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
