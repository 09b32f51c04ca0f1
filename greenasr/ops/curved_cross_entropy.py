"""Softmax cross-entropy with its second derivative written out, for Hessian products.

    L = -1/n Σ_i ln p_i[y_i],   ∂L/∂z_i = (p_i - 1_y) / n,   ∂²L/∂z_i² v = (p_i ⊙ v - p_i (p_iᵀ v)) / n

with p_i = softmax(z_i) over the targets y_i >= 0.  Differentiating `F.cross_entropy` twice takes eight passes
over the (n, V) logits a product, two of them exponentials; this takes three.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Slope(torch.autograd.Function):
    """(p - 1_y) g / n as a function of the logits behind p, and of g."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, grad: Tensor, p: Tensor, targets: Tensor) -> Tensor:
        kept = (targets >= 0).to(p.dtype)[:, None]
        n = kept.sum().clamp(min=1)
        ctx.save_for_backward(grad, p, targets, kept / n)
        slope = p.scatter_add(1, targets.clamp(min=0)[:, None], torch.full_like(kept, -1.0))
        return slope.mul_(kept * (grad / n))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = grads
        grad, p, targets, share = ctx.saved_tensors
        pv = p * v
        along = pv.sum(1, keepdim=True)
        by_grad = None
        if ctx.needs_input_grad[1]:
            by_grad = ((along - v.gather(1, targets.clamp(min=0)[:, None])) * share).sum()
        return pv.addcmul_(p, along, value=-1).mul_(share * grad), by_grad, None, None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        rows = logits.logsumexp(1) - logits.gather(1, targets.clamp(min=0)[:, None]).squeeze(1)
        ctx.save_for_backward(logits, targets)
        kept = targets >= 0
        return (rows * kept).sum() / kept.sum().clamp(min=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        p = logits.detach().softmax(1)
        slope = _Slope.apply(logits, grads[0], p, targets)
        assert isinstance(slope, Tensor)
        return slope, None


def curved_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean loss in nats of (n, V) logits against (n,) targets, negative ones ignored -> ().

    Differentiable twice, not three times.  Without any target the loss is 0.

    >>> z, y = torch.randn(3, 5), torch.tensor([1, -100, 4])
    >>> torch.allclose(curved_cross_entropy(z, y), torch.nn.functional.cross_entropy(z, y))
    True
    """
    loss = _CrossEntropy.apply(logits, targets)
    assert isinstance(loss, Tensor)
    return loss
