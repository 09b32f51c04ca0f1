"""BP: quantized weights forward, full-precision weights updated (Courbariaux et al. 2015).

    forward   y = f(x; Q(W))
    backward  W ← W - lr dL/dQ(W)         straight through the rounding
    table     step ← <W, q> / <q, q>      one alternation a step

MPLM §4.1 and GREEN call this modified back-propagation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from greenasr.compress import attach
from greenasr.roles import BitMap, Quantized


class StraightThrough(nn.Module):
    """The weight's nearest grid point; its gradient is the weight's.

    The projection is kept until the weight's version changes.  A fused optimizer changes weights without
    a new version, so whoever trains calls `refit_` or `forget_` after every step.
    """

    def __init__(self, grid: attach.Grid):
        super().__init__()
        self.grid = grid
        self.memo: tuple[int, Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Q(W) with the identity's derivative; sites of a tied weight share the projection."""
        if self.memo is None or self.memo[0] != weight._version:
            self.memo = (weight._version, self.grid.project(weight))
        return weight + (self.memo[1] - weight).detach()

    def refit_(self, weight: Tensor) -> None:
        """Move the steps after the weights have moved."""
        self.grid.refit_(weight)
        self.forget_()

    def forget_(self) -> None:
        """Project anew at the next use: the weights have moved."""
        self.memo = None


@dataclass
class BackPropagation:
    """Straight-through training on the tables of a bit map.

    Steps follow the weights until the share ``freeze`` of training is done, and stay from there on: refitted
    to the end they shrink with the weights that they hold near a threshold, and two bits lose a third.
    """

    bit_map: BitMap
    freeze: float = 0.5
    _sites: dict[str, StraightThrough] = field(default_factory=dict, init=False, repr=False)
    _weights: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def prepare_(self, model: nn.Module) -> None:
        """Attach the tables to every site of every weight."""
        self._sites = {
            name: StraightThrough(grid) for name, grid in attach.make_grids(model, self.bit_map).items()
        }
        self._weights = {name: p for name, p in model.named_parameters() if name in self._sites}
        attach.attach_(model, self._sites)

    def penalty(self, model: nn.Module) -> float:
        """Nothing to add."""
        return 0.0

    def after_step_(self, model: nn.Module, progress: float) -> dict[str, float]:
        """Move the steps of all tables after the weights."""
        for name, site in self._sites.items():
            if progress < self.freeze:
                site.refit_(self._weights[name])
            else:
                site.forget_()
        return {}

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Put every weight on the point that the forward pass used."""
        attach.detach_(model)
        return attach.settle_(model, {name: site.grid for name, site in self._sites.items()})
