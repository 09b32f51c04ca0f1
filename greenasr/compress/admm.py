"""ADMM: pull every weight onto its grid while the loss is still being minimised.

    W ← argmin  L(W) + ρ/2 ‖W - G + U‖²      gradient steps, the training loop
    G ← Π(W + U)                             projection, codes and step in turn
    U ← U + W - G                            running sum of the gap

Scaled form, Boyd et al. 2011, §3.1.1; for language models MPLM §4.1.  The W-step follows the
extragradient method of Leng et al. 2018 (arXiv 1707.09870, eq. 9–10): a prediction, then a correction
whose gradient is taken at the predicted point.  The prediction here is the proximal step of the penalty,

    W' = W + m (G - W),   m = ρ / (1 + ρ),     W ← W - lr ∇L(W') - lr_p m (W - G + U)

so a growing ρ moves the point at which the loss is seen from the weight to the grid.  ρ follows the
primal residual r = ‖W' - G‖ / ‖W‖: it grows as fast as keeps r on a line that falls to zero when training
ends.  When ρ changes the scaled dual is rescaled, U ← U ρ_old / ρ_new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from greenasr.compress import attach
from greenasr.roles import BitMap, Quantized


class Gap(nn.Module):
    """Carries G and U of one weight; forward gives the predicted point W + m (G - W)."""

    def __init__(self, grid: attach.Grid, weight: Tensor):
        super().__init__()
        self.grid = grid
        self.register_buffer("point", grid.project(weight))
        self.register_buffer("dual", torch.zeros_like(weight, requires_grad=False))
        self.register_buffer("share", torch.zeros(()))
        self.point: Tensor
        self.dual: Tensor
        self.share: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """The predicted point, with the identity's derivative."""
        return weight + (self.share * (self.point - weight)).detach()


@dataclass
class Admm:
    """ADMM onto the tables of a bit map.

    ``begin`` is m at the first step, ``hard`` the share of training after which the loss is seen at the
    grid itself (m = 1); between them m rises in a straight line, which is what "the residual falls
    to zero on a line" comes to for the predicted point.  ``pull`` is the step of the penalty.  The
    dual is updated every ``every`` steps and fades with ``1 - m``, as a scaled dual does when ρ grows.
    """

    bit_map: BitMap
    begin: float = 0.5
    hard: float = 0.5
    pull: float = 0.0
    every: int = 1
    _sites: dict[str, Gap] = field(default_factory=dict, init=False, repr=False)
    _weights: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _steps: int = field(default=0, init=False, repr=False)

    def prepare_(self, model: nn.Module) -> None:
        """Attach G and U to every site of every weight."""
        parameters = dict(model.named_parameters())
        grids = attach.make_grids(model, self.bit_map)
        self._sites = {name: Gap(grid, parameters[name].detach()) for name, grid in grids.items()}
        self._weights = {name: parameters[name] for name in self._sites}
        for site in self._sites.values():
            site.share.fill_(self.begin)
        attach.attach_(model, self._sites)

    def penalty(self, model: nn.Module) -> float:
        """The penalty acts after the step, apart from the optimizer's own scaling."""
        return 0.0

    @torch.no_grad()
    def after_step_(self, model: nn.Module, progress: float) -> Mapping[str, float]:
        """The penalty's step, then G, U and ρ; the log gets the primal residual."""
        share = min(1.0, self.begin + (1 - self.begin) * progress / self.hard)
        self._steps += 1
        gap_square = weight_square = 0.0
        for name, site in self._sites.items():
            weight = self._weights[name]
            if self.pull:
                weight -= self.pull * share * (weight - site.point + site.dual)
            if self._steps % self.every == 0:
                shifted = weight + site.dual
                site.grid.refit_(shifted)
                site.point.copy_(site.grid.project(shifted))
                if self.pull:
                    site.dual += weight - site.point
                    site.dual *= 1 - share
            if self._steps % 100 == 0 or progress == 1:
                gap_square += float((weight - site.point).square().sum()) * (1 - share) ** 2
                weight_square += float(weight.square().sum())
            site.share.fill_(share)
        return {"residual": (gap_square / weight_square) ** 0.5, "m": share} if weight_square else {}

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Put every weight on G, where the loss was last seen."""
        attach.detach_(model)
        return attach.settle_(model, {name: site.grid for name, site in self._sites.items()})
