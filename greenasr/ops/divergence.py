"""Divergences: how far the outputs move when the weights do.

    KL(p ‖ q)     = Σ_c p_c ln(p_c / q_c)                               over classes
    KL_σ(a ‖ b)   = p ln(p/q) + (1-p) ln((1-p)/(1-q))                   p = σ(a), q = σ(b), one unit

The second is eq. 7 of GREEN (Xu et al., "Towards Green ASR", lossless 4-bit TDNN): a layer's outputs
pass a sigmoid gate and are compared as probabilities.  The paper writes p ln(p/q) alone, which is
no divergence (it can be negative and is not smallest at q = p); both outcomes of the gate make it one.
"""

from __future__ import annotations

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

    With d = b - a and K the cumulants of a Bernoulli variable of mean p this is

        ln(1 + p (e^d - 1)) - p d  =  p (1-p) [d²/2 + (1-2p) d³/6 + (1 - 6p(1-p)) d⁴/24 + …]

    The series is used for |d| < 0.1 (relative error < 1e-5), where the closed form
    p (a - b) + softplus(b) - softplus(a) would lose all its digits: 8-bit weights move the outputs by 1e-3.

    >>> gated_kl(torch.zeros(1), torch.tensor([0.0])).item()
    0.0
    """
    d = b - a
    p = torch.sigmoid(a)
    v = p * torch.sigmoid(-a)
    series = v * d * d * (0.5 + d * ((1 - 2 * p) / 6 + d * (1 - 6 * v) / 24))
    exact = functional.softplus(b) - functional.softplus(a) - p * d
    return torch.where(d.abs() < 0.1, series, exact.clamp(min=0))
