"""Softmax cross-entropy of a linear layer without ever holding all logits.

    L = -1/n sum_i <t_i, log softmax(h_i Wᵀ + b)>      t_i = onehot(y_i), over targets y_i >= 0

or, with a teacher's logits and its share a, t_i = (1 - a) onehot(y_i) + a softmax(teacher), the
distillation of Hinton et al. 2015 (arXiv 1503.02531) at temperature 1.

The gradient is formed chunk by chunk in the forward pass: dL/dlogits = (softmax - t) / n.
Saves the (n, V) tensor and its two further passes; no double backward (that is `curved_cross_entropy`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 512  # rows of logits at a time: 512 x 10,000 in bf16 stays near the cache


class Teacher(NamedTuple):
    """Another model's hidden vectors (n, D'), output layer (V, D'), (V,) and its share of the targets."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    share: float


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, teacher: Teacher | None
    ) -> Tensor:
        rows = (targets >= 0).nonzero().squeeze(1)
        n = max(len(rows), 1)
        w, b = weight.to(hidden.dtype), bias.to(hidden.dtype)
        hard = 1.0 if teacher is None else 1.0 - teacher.share
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = torch.zeros_like(bias, dtype=torch.float32)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for part in rows.split(CHUNK):
            h, y = hidden[part], targets[part, None]
            logits = torch.addmm(b, h, w.t()).float()
            logits -= logits.amax(1, keepdim=True)
            right = hard * logits.gather(1, y).sum()
            soft = None if teacher is None else _soft_targets(teacher, part, hidden.dtype)
            if soft is not None:
                right = right + torch.dot(soft.flatten(), logits.flatten())
            grad = logits.exp_()
            z = grad.sum(1, keepdim=True)
            loss += z.log().sum() - right
            grad.div_(z * n).scatter_add_(1, y, torch.full_like(z, -hard / n))
            if soft is not None:
                grad.sub_(soft, alpha=1 / n)
            grad_bias += grad.sum(0)
            grad = grad.to(hidden.dtype)
            grad_hidden[part] = grad @ w
            grad_weight += (grad.t() @ h).float()
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype))
        return loss / n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        return hidden * grads[0].to(hidden.dtype), weight * grads[0], bias * grads[0], None, None


def _soft_targets(teacher: Teacher, part: Tensor, dtype: torch.dtype) -> Tensor:
    """Share · softmax of the teacher's logits, (rows, V) in fp32."""
    logits = torch.addmm(teacher.bias.to(dtype), teacher.hidden[part].to(dtype), teacher.weight.to(dtype).t())
    return logits.float().softmax(1).mul_(teacher.share)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, teacher: Teacher | None = None
) -> Tensor:
    """Mean loss in nats of (n, D) x (V, D) + (V,) against (n,) targets, -100 ignored -> ().

    >>> h, w, b = torch.randn(3, 4), torch.randn(5, 4), torch.zeros(5)
    >>> y = torch.tensor([1, -100, 4])
    >>> torch.allclose(linear_cross_entropy(h, w, b, y), torch.nn.functional.cross_entropy(h @ w.t(), y))
    True
    """
    loss = _LinearCrossEntropy.apply(hidden, weight, bias, targets, teacher)
    assert isinstance(loss, Tensor)
    return loss
