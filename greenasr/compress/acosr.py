"""ACosR: a regularizer whose minima are the levels, so that training itself gathers the weights there.

    L        = L_accuracy - α Σ_w |cos(π θ w)|                  eq. 4–6, levels m / θ
    w       <- w - κ / (π θ) sin(π (θ w - round(θ w)))          its gradient step, eq. 7

Nguyen et al. 2020.  The paper has one table for the whole network (θ = 2^7 for 8 bits, 2^5 for 6); with
``theta=None`` every span has its fitted step instead, θ = 1 / step, and a 1-bit table with levels ±step
is the same function shifted by a step with θ = 1 / (2 step).

Two forms.  *Coupled* is the paper's: the regularizer is a part of the loss.  Under Adam its gradient is
then divided by the gradients' size, and clipped with them, so α says little about what it does.  The
default is *decoupled*, as AdamW decays weights: the gradient acts after the optimizer's step with
α = κ / (π θ)², which makes κ the share of its distance that a weight near a level loses in one step,

    κ = begin (end / begin)^(p⁴)          p = 0 … 1 over training

At κ = 1 a weight near a level lands on it.  Beyond the outermost level the pull stays at its crest.  Steps
follow the weights until ``freeze``; after that weights are kept in the table's range.

The regularizer alone never shows the loss what rounding costs: at 6 and 8 bits, the paper's, that hardly
matters, at 2 bits it does.  So by default the loss is taken straight through the grid, as BP does, and
the regularizer gathers the weights; ``straight_through=False`` is the paper's float forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from greenasr.compress import attach
from greenasr.compress.bp import StraightThrough
from greenasr.compress.levels import AbsoluteCosines, hold_, pull_, tables, wgtc
from greenasr.roles import BitMap, Quantized


class Table(nn.Module):
    """Identity on the weight; carries its tables, so that their steps are saved with the model."""

    def __init__(self, grid: attach.Grid):
        super().__init__()
        self.grid = grid

    def forward(self, weight: Tensor) -> Tensor:
        """The weight itself."""
        return weight

    def forget_(self) -> None:
        """Nothing is kept."""


@dataclass
class Acosr:
    """ACosR onto the tables of a bit map; ``converged`` is WgtC, measured every so many steps and at the end.

    ``theta`` gives all spans one step, 1 / θ, as in the paper.  ``coupled`` adds the regularizer to the
    loss, with the paper's ``alpha``, which grows from 0 over the share ``ramp`` of training; otherwise
    ``begin`` and ``end`` are κ at both ends of training.  The paper's own setting is
    ``Acosr(bit_map, theta=2.0**7, coupled=True, straight_through=False)``.
    """

    bit_map: BitMap
    alpha: float = 0.005
    theta: float | None = None
    coupled: bool = False
    straight_through: bool = True
    begin: float = 1e-5
    end: float = 1.0
    ramp: float = 0.0
    freeze: float = 0.5
    every: int = 100
    converged: float = field(default=math.nan, init=False)
    _grids: dict[str, attach.Grid] = field(default_factory=dict, init=False, repr=False)
    _sites: Mapping[str, StraightThrough | Table] = field(default_factory=dict, init=False, repr=False)
    _weights: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _steps: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse settings that push weights off their levels."""
        if self.theta is not None and self.theta <= 0:
            raise ValueError(
                f"theta is 1 / the spacing of the levels and must be positive, got {self.theta:g}."
            )
        if not 0 < self.begin <= self.end <= 1:
            raise ValueError(
                f"begin and end must satisfy 0 < begin <= end <= 1, got {self.begin:g} and {self.end:g}."
            )
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"ramp is a share of training and must be 0 to 1, got {self.ramp:g}.")
        if self.alpha <= 0:
            raise ValueError(
                f"alpha must be positive, got {self.alpha:g}: a negative one repels from the levels."
            )

    def prepare_(self, model: nn.Module) -> None:
        """Attach the tables to every site of every weight."""
        self._grids = attach.make_grids(model, self.bit_map, None if self.theta is None else 1 / self.theta)
        for grid in self._grids.values() if self.ramp else ():
            grid.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self._weights = {name: p for name, p in model.named_parameters() if name in self._grids}
        kind = StraightThrough if self.straight_through else Table
        self._sites = {name: kind(grid) for name, grid in self._grids.items()}
        attach.attach_(model, self._sites)

    def penalty(self, model: nn.Module) -> Tensor | float:
        """Eq. 5 and 6 when coupled: -α Σ |cos(π θ w)| over all weights."""
        if not self.coupled:
            return 0.0
        strength = self.alpha
        if self.ramp:
            progress = float(next(iter(self._grids.values())).get_buffer("progress"))
            strength *= min(1.0, progress / self.ramp)
        sums = [AbsoluteCosines.apply(self._weights[name], grid) for name, grid in self._grids.items()]
        return -strength * torch.stack(sums).sum()

    @torch.no_grad()
    def after_step_(self, model: nn.Module, progress: float) -> Mapping[str, float]:
        """The regularizer's own step when decoupled; steps follow, then weights are held in the range."""
        kappa = self.begin * (self.end / self.begin) ** (progress**4)
        for name, grid in self._grids.items():
            weight = self._weights[name]
            if self.theta is None and progress < self.freeze:
                grid.refit_(weight)
            hold = self.theta is not None or progress >= self.freeze
            for rows, step, bits in tables(grid, weight):
                if not self.coupled:
                    pull_(rows, step, bits, kappa, hold)
                elif hold:
                    hold_(rows, step, bits)
            if self.ramp:
                grid.get_buffer("progress").fill_(progress)
            self._sites[name].forget_()
        self._steps += 1
        if self._steps % self.every == 0 or progress == 1:
            self.converged = self.share_converged()
        figures = {} if self.coupled else {"kappa": kappa}
        return figures if math.isnan(self.converged) else {**figures, "wgtc": self.converged}

    def share_converged(self) -> float:
        """WgtC over all weights of the bit map."""
        shares = self.shares_converged()
        total = sum(n for n, _ in shares.values())
        return sum(n * share for n, share in shares.values()) / total

    def shares_converged(self) -> dict[str, tuple[int, float]]:
        """Parameter name -> its number of weights and their WgtC."""
        out = {}
        for name, grid in self._grids.items():
            parts = [
                (rows.numel(), wgtc(rows, step, bits))
                for rows, step, bits in tables(grid, self._weights[name])
            ]
            total = sum(n for n, _ in parts)
            out[name] = total, sum(n * share for n, share in parts) / total
        return out

    @torch.no_grad()
    def places(self, name: str) -> Tensor:
        """Where the weights of a parameter lie among the levels: θ w, with levels at whole numbers, (n,)."""
        found = []
        for rows, step, bits in tables(self._grids[name], self._weights[name]):
            shift, spacing = (step, 2 * step) if bits == 1 else (torch.zeros_like(step), step)
            found.append(((rows - shift) / spacing.clamp(min=torch.finfo(rows.dtype).tiny)).flatten())
        return torch.cat(found)

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Project the weights that have not converged."""
        self.converged = self.share_converged()
        attach.detach_(model)
        return attach.settle_(model, self._grids)
