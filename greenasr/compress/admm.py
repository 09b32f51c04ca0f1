"""ADMM: pull every weight onto its grid while the loss is still being minimised.

    W ← argmin  L(W) + ρ/2 ‖W - G + U‖²      gradient steps, the training loop
    G ← Π(W + U)                             projection, codes and step in turn
    U ← U + W - G                            running sum of the gap

Scaled form, Boyd et al. 2011, §3.1.1; for language models MPLM §4.1.  The W-step follows the
extragradient method of Leng et al. 2018 (arXiv 1707.09870, eq. 9–10): a prediction, then a correction
whose gradient is taken at the predicted point.  The prediction here is the proximal step of the penalty,

    W' = W + m (G - W),   m = ρ / (1 + ρ)
    W ← W - lr ∇L(W') - κ (W - G + U) dt,   U ← U + ν (W - G) dt

with dt = 1 / steps, so κ and ν mean the same for a training of any length: κ is how far the penalty
alone would draw a weight (by exp(-κ)), ν how fast the dual grows.  ρ is driven by the primal residual of
the predicted point, r = ‖W' - G‖ / ‖W‖ = (1 - m) ‖W - G‖ / ‖W‖: it grows as fast as brings the measured r
down a straight line, to zero after the share ``hard`` of training.  From there on the loss is seen at the
grid itself, so nothing is lost when training ends: a residual of a few percent decides otherwise.
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
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.point: Tensor
        self.dual: Tensor
        self.share: Tensor
        self.progress: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """The predicted point, with the identity's derivative."""
        return weight + (self.share * (self.point - weight)).detach()


@dataclass
class Admm:
    """ADMM onto the tables of a bit map: ``begin`` is m at the first step, ``hard`` when it reaches 1.

    ``pull`` is κ and ``dual`` ν of the file's head.  Steps follow the weights until the share ``freeze`` of
    training is done, and stay from there on.
    """

    bit_map: BitMap
    begin: float = 0.8
    hard: float = 0.3
    pull: float = 0.3
    dual: float = 0.3
    freeze: float = 0.5
    _sites: dict[str, Gap] = field(default_factory=dict, init=False, repr=False)
    _weights: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _goal: float = field(default=0.0, init=False, repr=False)

    def prepare_(self, model: nn.Module) -> None:
        """Attach G and U to every site of every weight."""
        parameters = dict(model.named_parameters())
        grids = attach.make_grids(model, self.bit_map)
        self._sites = {name: Gap(grid, parameters[name].detach()) for name, grid in grids.items()}
        self._weights = {name: parameters[name] for name in self._sites}
        for site in self._sites.values():
            site.share.fill_(self.begin)
        self._goal = (1 - self.begin) * self._gap()
        attach.attach_(model, self._sites)

    def penalty(self, model: nn.Module) -> float:
        """The penalty acts after the step, apart from the optimizer's own scaling."""
        return 0.0

    @torch.no_grad()
    def after_step_(self, model: nn.Module, progress: float) -> Mapping[str, float]:
        """The penalty's step, then G, U and ρ; the log gets the primal residual."""
        for name, site in self._sites.items():
            weight = self._weights[name]
            dt = progress - float(site.progress)
            weight -= self.pull * dt * (weight - site.point + site.dual)
            shifted = weight + site.dual
            if progress < self.freeze:
                site.grid.refit_(shifted)
            site.point.copy_(site.grid.project(shifted))
            site.dual += self.dual * dt * (weight - site.point)
            site.progress.fill_(progress)
        gap = self._gap()
        share = 1 - self._goal * max(0.0, 1 - progress / self.hard) / max(gap, 1e-12)
        share = min(1.0, max(0.0, share))
        for site in self._sites.values():
            site.share.fill_(share)
        return {"gap": gap, "residual": (1 - share) * gap, "m": share}

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Put every weight on G, where the loss was last seen."""
        attach.detach_(model)
        with torch.no_grad():
            for name, site in self._sites.items():
                self._weights[name].copy_(site.point)
        return attach.settle_(model, {name: site.grid for name, site in self._sites.items()})

    def _gap(self) -> float:
        """‖W - G‖ / ‖W‖ over all weights."""
        pairs = [(self._weights[name].detach(), site.point) for name, site in self._sites.items()]
        gap = sum(float((weight - point).square().sum()) for weight, point in pairs)
        return float((gap / max(sum(float(weight.square().sum()) for weight, _ in pairs), 1e-30)) ** 0.5)
