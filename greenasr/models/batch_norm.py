"""Batch norm over the frames of all processes that train together.

    μ = 1/n Σ_r Σ_i x_ri,    σ² = 1/n Σ_r Σ_i (x_ri - μ)²,    y = (x - μ) / √(σ² + ε)

n counts the frames of all processes r, so a batch shared among them is normalised as one process would.
Ioffe & Szegedy 2015 (arXiv 1502.03167).  In one process it is torch's own; names of buffers are torch's too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from greenasr.ops import crew


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` of frames (M, D), whose statistics in training are those of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) -> (M, D)."""
        if crew.size() == 1 or not self.training:
            return super().forward(x)
        mean, var, n = statistics(x)
        self._follow_(mean, var, n)
        y = (x - mean) * (var + self.eps).rsqrt()
        return y if self.weight is None else y * self.weight + self.bias

    @torch.no_grad()
    def _follow_(self, mean: Tensor, var: Tensor, n: Tensor) -> None:
        """Running statistics as torch keeps them: σ² with n - 1."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var * (n / (n - 1).clamp(min=1)), share)


def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), variance (D,) and number () of the frames (M, D) of all processes, with gradients.

    ValueError where they have one frame or none.
    """
    seen = x if crew.counted() else x[:0]
    sums = torch.cat((seen.sum(0), seen.new_tensor([len(seen)])))
    found = crew.Total.apply(sums)
    assert isinstance(found, Tensor)
    mean, n = found[:-1] / found[-1], found[-1].detach()
    if n < 2:
        raise ValueError("batch norm needs two frames or more: give larger batches.")
    squares = crew.Total.apply((seen - mean).square().sum(0))
    assert isinstance(squares, Tensor)
    return mean, squares / n, n
