"""Softmax cross-entropy of a linear layer without ever holding all logits.

    L = -1/n sum_i log softmax(h_i Wᵀ + b)[y_i]      over targets y_i >= 0

The gradient is formed chunk by chunk in the forward pass: dL/dlogits = (softmax - onehot) / n.
Saves the (n, V) tensor and its two further passes; no double backward (use `F.cross_entropy`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 512  # rows of logits at a time: 512 x 10,000 in bf16 stays near the cache


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        rows = (targets >= 0).nonzero().squeeze(1)
        n = max(len(rows), 1)
        w, b = weight.to(hidden.dtype), bias.to(hidden.dtype)
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = torch.zeros_like(bias, dtype=torch.float32)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for part in rows.split(CHUNK):
            h, y = hidden[part], targets[part, None]
            logits = torch.addmm(b, h, w.t()).float()
            logits -= logits.amax(1, keepdim=True)
            right = logits.gather(1, y)
            grad = logits.exp_()
            z = grad.sum(1, keepdim=True)
            loss += (z.log() - right).sum()
            grad.div_(z * n).scatter_add_(1, y, torch.full_like(z, -1 / n))
            grad_bias += grad.sum(0)
            grad = grad.to(hidden.dtype)
            grad_hidden[part] = grad @ w
            grad_weight += (grad.t() @ h).float()
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype))
        return loss / n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        return hidden * grads[0].to(hidden.dtype), weight * grads[0], bias * grads[0], None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean loss in nats of (n, D) x (V, D) + (V,) against (n,) targets, -100 ignored -> ().

    >>> h, w, b = torch.randn(3, 4), torch.randn(5, 4), torch.zeros(5)
    >>> y = torch.tensor([1, -100, 4])
    >>> torch.allclose(linear_cross_entropy(h, w, b, y), torch.nn.functional.cross_entropy(h @ w.t(), y))
    True
    """
    loss = _LinearCrossEntropy.apply(hidden, weight, bias, targets)
    assert isinstance(loss, Tensor)
    return loss
