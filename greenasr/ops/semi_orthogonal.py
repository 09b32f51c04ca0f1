"""Semi-orthogonal matrices: one step towards M Mᵀ = s² I, the scale s left free.

    P  = M Mᵀ,   s² = tr(P Pᵀ) / tr(P)
    M <- M - 4 ν / s² (P - s² I) M,      ν = 1/8, less when far away

A gradient step on ‖P - s² I‖².  This s² makes the step orthogonal to M, so that it turns the rows and
leaves their size to training; ν = 1/8 converges quadratically near the goal.  Povey et al. 2018,
"Semi-orthogonal low-rank matrix factorization for deep neural networks", §2.1 to 2.3; as in Kaldi, ν is
halved when tr(P Pᵀ) R / tr(P)², 1 for semi-orthogonal M and else larger, is above 1.02, and again above 1.1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def semi_orthogonal_step(matrix: Tensor) -> Tensor:
    """The matrix, one step closer to semi-orthogonal, (R, C) -> (R, C); rows, or columns if fewer.

    >>> m = torch.tensor([[1.0, 0.0, 0.0], [0.1, 1.0, 0.0]])
    >>> deviation(semi_orthogonal_step(m)) < deviation(m) / 5
    True
    """
    if matrix.shape[0] > matrix.shape[1]:
        return semi_orthogonal_step(matrix.T).T
    product = matrix @ matrix.T
    trace, square = product.trace(), product.square().sum()
    scale2 = square / trace
    ratio = square * len(product) / trace**2
    speed = 0.125 * 0.5 ** ((ratio > 1.02).to(ratio) + (ratio > 1.1).to(ratio))  # no `if`: stays on a device
    gap = product - scale2 * torch.eye(len(product), dtype=matrix.dtype, device=matrix.device)
    return matrix - (4 * speed / scale2) * (gap @ matrix)


@torch.no_grad()
def deviation(matrix: Tensor) -> float:
    """‖P / s² - I‖ / sqrt(R) of an (R, C) matrix with R <= C: 0 when the rows are orthogonal and equal.

    About sqrt(R / C) for a random matrix.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return deviation(matrix.T)
    product = matrix @ matrix.T
    scale2 = product.square().sum() / product.trace()
    gap = product / scale2 - torch.eye(len(product), dtype=matrix.dtype, device=matrix.device)
    return float(gap.norm() / len(product) ** 0.5)
