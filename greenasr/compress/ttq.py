"""TTQ: ternary weights whose two levels are learned (Zhu et al. 2017, arXiv 1612.01064).

    forward    w_t = W⁺ where w > Δ,  -W⁻ where w < -Δ,  0 between        Δ = 0.05 max|w|     eq. 6, 9
    levels     dL/dW⁺ = Σ_{w > Δ} dL/dw_t       dL/dW⁻ = -Σ_{w < -Δ} dL/dw_t                  eq. 7
    weights    dL/dw  = dL/dw_t times W⁺, 1 or W⁻, as w is above, between or below            eq. 8

Eq. 7 prints both sums with a plus; the derivative in W⁻, which enters as -W⁻, has a minus.  W⁺ and W⁻ begin
as the mean size of the weights that they stand for, and are kept positive.  Every table of a bit map has a
pair of its own: one a cluster as in the paper ("layer-wise"), or one a row or group.  Only 2-bit tables have
the three levels; tables of other widths are trained as BP trains them, so a plan may mix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from greenasr.compress import attach
from greenasr.roles import BitMap, Quantized

SHARE = 0.05  # t of eq. 9


@dataclass
class TrainedTernary:
    """TTQ on the 2-bit tables of a bit map, BP on the others.

    ``share`` is t of eq. 9.  The steps of the other tables stay as they are when the share ``freeze`` of
    training is done, as BP's.
    """

    bit_map: BitMap
    share: float = SHARE
    freeze: float = 0.5
    _sites: dict[str, TwoLevels] = field(default_factory=dict, init=False, repr=False)
    _weights: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse thresholds that leave no weight or no zero."""
        if not 0 <= self.share < 1:
            raise ValueError(
                f"the threshold is a share of the largest weight, in [0, 1), got {self.share:g}."
            )

    def prepare_(self, model: nn.Module) -> None:
        """Attach the tables to every site of every weight; adds the levels to the model's parameters."""
        weights = dict(model.named_parameters())
        grids = attach.make_grids(model, self.bit_map)
        self._weights = {name: weights[name] for name in grids}
        self._sites = {name: TwoLevels(weights[name], grid, self.share) for name, grid in grids.items()}
        attach.attach_(model, self._sites)

    def penalty(self, model: nn.Module) -> float:
        """Nothing to add."""
        return 0.0

    def after_step_(self, model: nn.Module, progress: float) -> dict[str, float]:
        """Keep levels positive, and move the steps of other tables after their weights."""
        for name, site in self._sites.items():
            site.keep_positive_()
            if progress < self.freeze and len(site.levels) < 2 * len(site.spans):
                site.grid.refit_(self._weights[name])
        return {}

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Put every weight on the point that the forward pass used."""
        attach.detach_(model)
        return attach.settle_(model, self._sites)


class TwoLevels(nn.Module):
    """The tables of one parameter: pairs of learned levels for 2-bit spans, ``grid`` for the rest."""

    def __init__(self, weight: Tensor, grid: attach.Grid, share: float):
        super().__init__()
        self.grid, self.spans, self.share = grid, grid.spans, share
        self.levels = nn.ParameterDict()
        for i, (start, stop, quantizer) in enumerate(self.spans):
            if quantizer.bits == 2:
                step = grid.get_buffer(f"step_{i}")
                rows = _tables(weight.detach().flatten(1)[start:stop].float(), step)
                codes = ternary_codes(rows, share)
                for name, held in (("positive", codes > 0), ("negative", codes < 0)):
                    mean = (rows.abs() * held).sum(-1) / held.sum(-1)  # of no weight at all: not a number
                    fitted = step.flatten().view_as(mean)
                    self.levels[f"{name}_{i}"] = nn.Parameter(mean.where(mean > 0, fitted).flatten())
        self.keep_positive_()

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on its tables, (O, …), with the derivatives of eq. 7 and 8."""
        flat = weight.flatten(1)
        parts = []
        for i, (start, stop, quantizer) in enumerate(self.spans):
            rows = flat[start:stop]
            step = self.grid.get_buffer(f"step_{i}")
            if quantizer.bits == 2:
                pair = (self.levels[f"{name}_{i}"].view(step.shape) for name in ("positive", "negative"))
                out: Tensor = _Ternarize.apply(_tables(rows, step), *pair, self.share)
                parts.append(out.view(rows.shape))
            else:
                nearest = quantizer.on(rows.detach(), step).dequantize()
                parts.append(rows + (nearest - rows).detach())
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(weight.shape)

    def quantized(self, weight: Tensor) -> list[Quantized]:
        """Codes and steps of every span."""
        found = []
        for i, other in enumerate(self.grid.quantized(weight)):
            start, stop, quantizer = self.spans[i]
            if quantizer.bits == 2:
                rows = weight.detach().flatten(1)[start:stop]
                codes = ternary_codes(_tables(rows, other.step), self.share).view(rows.shape)
                pair = (
                    self.levels[f"{name}_{i}"].detach().view(other.step.shape)
                    for name in ("positive", "negative")
                )
                other = Quantized(codes, *pair)
            found.append(other)
        return found

    def project(self, weight: Tensor) -> Tensor:
        """The values of `forward`, without derivatives."""
        parts = [quantized.dequantize() for quantized in self.quantized(weight)]
        return torch.cat(parts).view(weight.shape)

    @torch.no_grad()
    def keep_positive_(self) -> None:
        """A level that training has pushed through zero stays just above it."""
        for level in self.levels.values():
            level.clamp_(min=torch.finfo(level.dtype).tiny)


def ternary_codes(tables: Tensor, share: float) -> Tensor:
    """-1, 0 or 1 by eq. 6 and 9; a table is a row (…, n), int8.

    >>> ternary_codes(torch.tensor([2.0, 0.1, -0.05, -0.2]), 0.05).tolist()
    [1, 0, 0, -1]
    """
    delta = share * tables.abs().amax(-1, keepdim=True)
    return (tables > delta).to(torch.int8) - (tables < -delta).to(torch.int8)


def _tables(rows: Tensor, step: Tensor) -> Tensor:
    """Rows (O, I) cut into the tables that share a step: (n,), (O, n) or (O, G, n)."""
    return rows.reshape(-1) if step.dim() == 0 else rows.reshape(*step.shape[:-1], -1)


class _Ternarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, positive: Tensor, negative: Tensor, share: float) -> Tensor:
        codes = ternary_codes(weight, share)
        ctx.save_for_backward(codes, positive, negative)
        return torch.where(codes > 0, positive, torch.where(codes < 0, -negative, torch.zeros_like(positive)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        codes, positive, negative = ctx.saved_tensors
        slope = torch.where(codes > 0, positive, torch.where(codes < 0, negative, torch.ones_like(positive)))
        above = (grad * (codes > 0)).sum(-1).view(positive.shape)
        below = -(grad * (codes < 0)).sum(-1).view(negative.shape)
        return grad * slope, above, below, None
