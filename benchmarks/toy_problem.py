"""The toy problem of ACosR's eq. 1: a minimum over {0, 1} that rounding the free minimum misses.

    f(w) = 3 (w - 0.4)²    w ≤ 0.4            min over {0, 1} of f is f(1) = 0.36, f(0) = 0.48
         =   (w - 0.4)²    w > 0.4            argmin f = 0.4, which rounds to 0

python benchmarks/toy_problem.py [--steps 1000] [--png FILE]

Every way of compressing trains one weight from each of 21 starts, side by side and independent of each
other, in the one training loop.  Printed is the share of starts that end at 1.  Nguyen et al. 2020, §2.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from greenasr.compress.acosr import Acosr
from greenasr.compress.admm import Admm
from greenasr.compress.bp import BackPropagation
from greenasr.compress.clusters import make_clusters
from greenasr.compress.fit import Training, fit_
from greenasr.compress.none import NoCompression
from greenasr.data.files import atomic
from greenasr.ops.periodic import absolute_cosine
from greenasr.report.drawing import METHODS, clean
from greenasr.roles import BitMap, Compressor, Quantized

STARTS = 21
LR = 0.01
METHOD = {  # what trains on the two levels; ACosR as it is by default, but for a slower growth of its pull
    "post-training": NoCompression,
    "BP": lambda bit_map: BackPropagation(bit_map, freeze=0.0),
    "ADMM": lambda bit_map: Admm(bit_map, freeze=0.0),
    "ACosR": lambda bit_map: Acosr(bit_map, theta=1.0, begin=4e-3, end=0.04),
    "ACosR, eq. 5 alone": lambda bit_map: Acosr(
        bit_map, theta=1.0, coupled=True, straight_through=False, alpha=2.0
    ),
}  # fmt: skip


def toy(w: Tensor) -> Tensor:
    """Eq. 1, element by element.

    >>> toy(torch.tensor([0.0, 0.4, 1.0]))
    tensor([0.4800, 0.0000, 0.3600])
    """
    return torch.where(w <= 0.4, 3.0, 1.0) * (w - 0.4) ** 2


class Weights(nn.Module):
    """Independent weights w = (1 + v) / 2: on the 1-bit table v = ±1 they are 0 and 1."""

    def __init__(self, starts: Tensor):
        super().__init__()
        self.line = nn.Linear(1, len(starts), bias=False)
        with torch.no_grad():
            self.line.weight.copy_(2 * starts[:, None] - 1)

    def w(self) -> Tensor:
        """The weights as the loss sees them, (n,)."""
        return (1 + self.line.weight.flatten()) / 2


@dataclass(frozen=True)
class Sum:
    """The loss: f of every weight, in sum, so that none feels another."""

    steps: int

    def loss(self, model: Weights, batch: None) -> Tensor:
        """Σ f(w)."""
        return toy(model.w()).sum()

    def batches(self, split: str, seed: int = 0) -> Iterator[None]:
        """As many as there are steps, with nothing in them."""
        return iter([None] * self.steps)

    def n_batches(self, split: str) -> int:
        """One a step."""
        return self.steps


@dataclass
class Levels:
    """A compressor whose table is {-1, 1} from the first step on, and the weights' path, (n,) a step."""

    compressor: Compressor
    path: list[Tensor] = field(default_factory=list)

    def prepare_(self, model: nn.Module) -> None:
        """The compressor's, then the step that the problem gives."""
        self.compressor.prepare_(model)
        for step in dict(model.named_buffers()).items():
            if step[0].endswith("step_0"):
                step[1].fill_(1.0)

    def penalty(self, model: nn.Module) -> Tensor | float:
        """The compressor's."""
        return self.compressor.penalty(model)

    def after_step_(self, model: nn.Module, progress: float) -> Mapping[str, float]:
        """The compressor's, then a look at the weights."""
        figures = self.compressor.after_step_(model, progress)
        (weight,) = model.parameters()
        self.path.append((1 + weight.detach().flatten()) / 2)
        return figures

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """The compressor's: after it the weights are 0 or 1."""
        return self.compressor.finish_(model)


def trained(make: Callable[[BitMap], Compressor], steps: int, lr: float = LR) -> tuple[Tensor, Tensor]:
    """What every start ends at, 0 or 1, (n,), and the way there, (steps, n)."""
    model = Weights(torch.linspace(0, 1, STARTS))
    levels = Levels(make(BitMap.uniform(make_clusters(model), 1)))
    fit_(model, Sum(steps), levels, Training(epochs=1, lr=lr, weight_decay=0.0, clip=math.inf))
    return model.w().detach().round(), torch.stack(levels.path)


def figure(paths: Mapping[str, Tensor]) -> Figure:
    """Left f and what eq. 5 makes of it; right the weight that starts at 0.4, over training."""
    w = torch.linspace(-0.1, 1.1, 400)
    made = Figure(figsize=(8.4, 3.1), layout="constrained")
    left, right = made.subplots(1, 2)
    left.plot(w, toy(w), color="black", label="f(w), eq. 1")
    left.plot([0, 1], [0.48, 0.36], "o", color="black", markersize=5)
    left.plot([0.4], [0.0], "x", color="black", markersize=7)
    for alpha, line in ((0.3, ":"), (2.0, "-")):
        lifted = toy(w) + alpha * (1 - absolute_cosine(w, 1.0))
        label = f"f + α (1 - |cos πw|), α = {alpha:g}"
        left.plot(w, lifted, line, color=METHODS["ACosR"][0], label=label)
    left.set_ylim(-0.15, 3.1)
    left.set_xlabel("w")
    left.legend(fontsize=8, frameon=False, loc="upper left")
    for name, colour in (("BP", METHODS["BP uniform"][0]), ("ACosR", METHODS["ACosR"][0])):
        path = paths[name][:, round(0.4 * (STARTS - 1))]
        right.plot(range(1, len(path) + 1), path, color=colour, linewidth=1, label=name)
    right.axhline(0.5, color="#999999", linewidth=0.8, linestyle="--")
    right.set_xlabel("step")
    right.set_ylabel("w that starts at 0.4")
    right.set_ylim(-0.1, 1.1)
    right.legend(fontsize=8, frameon=False, loc="lower right")
    for axes in (left, right):
        clean(axes)
    return made


def main() -> None:
    """Print the share of starts that end at 1, method by method; draw the figure where a file is named."""
    parser = argparse.ArgumentParser(description="Eq. 1 of ACosR by every way of compressing.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--png", type=Path, help="where to draw f and the ways of two weights")
    options = parser.parse_args()
    paths = {}
    print(f"| method | starts that end at 1, of {STARTS} | f there, mean |\n|:--|--:|--:|")
    for name, make in METHOD.items():
        ends, paths[name] = trained(make, options.steps)
        print(f"| {name} | {int(ends.sum())} | {float(toy(ends).mean()):.3f} |", flush=True)
    if options.png:
        with atomic(options.png) as temporary:
            figure(paths).savefig(temporary, dpi=150, format="png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
