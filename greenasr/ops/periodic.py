"""The absolute cosine: highest on equally spaced levels, lowest half way between them.

    ACos(x)       = |cos(π θ x)|                       ACosR eq. 6 without α; levels m / θ, m an integer
    -dACos(x)/dx  = π θ sin(π θ x)    m even           eq. 7 without α: x nearest to the level m / θ
                  = -π θ sin(π θ x)   m odd

Nguyen et al. 2020.  Both have period 1 / θ, so with r = θ x - round(θ x) they are cos(π r) and
π θ sin(π r): the same figures without the branches, and exact however large θ x is.
"""

from __future__ import annotations

import math

from torch import Tensor


def absolute_cosine(x: Tensor, theta: Tensor | float) -> Tensor:
    """|cos(π θ x)|, any shape; 1 on the levels m / θ, 0 half way between (eq. 6).

    >>> import torch
    >>> absolute_cosine(torch.tensor([0.0, 0.25, 0.3125, 0.5]), 4.0)
    tensor([1.0000, 1.0000, 0.7071, 1.0000])
    """
    return (math.pi * offset(x, theta)).cos()


def absolute_cosine_slope(x: Tensor, theta: Tensor | float) -> Tensor:
    """Derivative of -|cos(π θ x)|, π θ sin(π r): positive above the nearest level, negative below (eq. 7)."""
    return math.pi * theta * (math.pi * offset(x, theta)).sin()


def offset(x: Tensor, theta: Tensor | float) -> Tensor:
    """How far from the nearest level, in level spacings: θ x - round(θ x), in [-1/2, 1/2]."""
    phase = x * theta
    return phase - phase.detach().round()
