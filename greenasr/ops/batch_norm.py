"""Batch norm over frames of which some are padding, and ReLU that keeps padding at 0.

    y = g (x - m) / √(v + ε) + b            m, v: mean and variance of each channel over the M true frames
    dx = g / √(v + ε) · (dy - mean(dy) - x̂ mean(dy x̂))          x̂ = (x - m) / √(v + ε)

Frames lie along the rows of (C, P) matrices, P ≥ M, and padding is 0 on the way in, so that sums over all P
are sums over the true frames.  Sums, products and norms of whole rows take a fifth of the time of torch's
`native_batch_norm` on a CPU (0.7 against 3.3 ms for 128 channels of 12,928 frames), and both directions are a
third of a separable network's training step otherwise.

Processes that train together (`ops.crew`) have the mean and variance of the frames of all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from greenasr.ops import crew


def batch_norm(
    x: Tensor, gain: Tensor, bias: Tensor, count: int, eps: float, of: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(C, P) of which ``count`` frames are true -> y, whose padding is anything, and mean and variance (C,).

    ``of`` is how many frames all processes have, `crew.count` of ``count``.  The variance is over M, not
    M - 1.  Gradients reach x (true frames; the padding is a constant), gain and bias, once: second
    derivatives are those of evaluation, `affine`.
    """
    y, mean, var = _BatchNorm.apply(x, gain, bias, count, eps, count if of is None else of)
    return y, mean, var


def affine(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Gain and bias of every channel, g x + b, (C, P) -> (C, P)."""
    return x * gain[:, None] + bias[:, None]


def masked_relu(x: Tensor, mask: Tensor | None) -> Tensor:
    """max(x, 0) where ``mask`` is 1, else 0; any shape that it broadcasts to."""
    if mask is None:
        return torch.relu(x)
    out: Tensor = _MaskedRelu.apply(x, mask)
    return out


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, count: int, eps: float, of: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = _total(x.sum(1)) / of
        centred = x - mean[:, None]
        square = torch.linalg.vector_norm(centred, dim=1).square()
        var = (_total(square - (x.shape[1] - count) * mean.square()) / of).clamp_(min=0)
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(centred, gain, scale)
        ctx.of, ctx.constant = of, not crew.counted()
        ctx.mark_non_differentiable(mean, var)
        return (centred * (gain * scale)[:, None]).add_(bias[:, None]), mean, var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        centred, gain, scale = ctx.saved_tensors
        db = dy.sum(1)
        dg = (dy * centred).sum(1) * scale
        if not ctx.needs_input_grad[0]:
            return None, dg, db, None, None, None
        every_db, every_dg = crew.total(torch.stack((db, dg)))
        if ctx.constant:
            return torch.zeros_like(dy), dg, db, None, None, None
        dx = dy - (every_db / ctx.of)[:, None]
        dx.sub_(centred * (every_dg * scale / ctx.of)[:, None]).mul_((gain * scale)[:, None])
        return dx, dg, db, None, None, None


def _total(sums: Tensor) -> Tensor:
    """Over all processes that count."""
    return crew.total(sums if crew.counted() else torch.zeros_like(sums))


class _MaskedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        y = torch.relu(x).mul_(mask)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(dy, y, 0), None
