"""Divergences: how far the outputs move when the weights do.

    KL(p ‖ q)     = Σ_c p_c ln(p_c / q_c)                               over classes
    KL_σ(a ‖ b)   = p ln(p/q) + (1-p) ln((1-p)/(1-q))                   p = σ(a), q = σ(b), one unit

The second is eq. 7 of GREEN (Xu et al., "Towards Green ASR", lossless 4-bit TDNN): a layer's outputs
pass a sigmoid gate and are compared as probabilities.  The paper writes p ln(p/q) alone, which is
no divergence (it can be negative and is not smallest at q = p); both outcomes of the gate make it one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional


def kl(logp: Tensor, logq: Tensor) -> Tensor:
    """KL(p ‖ q) averaged over frames, (..., C) x (..., C) -> (); classes with p = 0 add nothing.

    >>> p = torch.tensor([[0.5, 0.5]]).log()
    >>> round(float(kl(p, torch.tensor([[0.25, 0.75]]).log())), 4)
    0.1438
    """
    p = logp.exp()
    return torch.where(p > 0, p * (logp - logq), 0.0).sum(-1).mean()


def gated_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL_σ(a ‖ b) of every unit, any shape; ``a`` and ``b`` are the values before the gate.

    >>> gated_kl(torch.zeros(2), torch.tensor([0.0, 1.0]))
    tensor([0.0000, 0.1201])
    """
    return next(gated_kls(a, [b]))


def gated_kls(a: Tensor, bs: Iterable[Tensor]) -> Iterator[Tensor]:
    """KL_σ(a ‖ b) of every unit for each of ``bs``; what depends on ``a`` alone is computed once.

    With d = b - a and p = σ(a) the divergence is a Bernoulli variable's cumulant function less its mean:

        softplus(b) - softplus(a) - p d  =  p(1-p) [d²/2 + (1-2p) d³/6 + (1 - 6p(1-p)) d⁴/24 + …]

    The left side loses its digits for small d, and 8-bit weights move outputs by thousandths; so the
    series serves |d| < 0.1, where it is off by less than 1e-5 of the value.
    """
    p = torch.sigmoid(a)
    v = p * torch.sigmoid(-a)
    second, third, fourth = v / 2, v * (1 - 2 * p) / 6, v * (1 - 6 * v) / 24
    level = functional.softplus(a)
    for b in bs:
        d = b - a
        series = torch.addcmul(second, d, torch.addcmul(third, d, fourth)).mul_(d).mul_(d)
        small = d.abs() < 0.1
        if small.all():
            yield series
        else:
            exact = functional.softplus(b).sub_(level).addcmul_(p, d, value=-1).clamp_(min=0)
            yield torch.where(small, series, exact)
