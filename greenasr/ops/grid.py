"""The quantization table of a cluster and its nearest points (MPLM eq. 7–9).

    levels(n) = step * {0, ±1, … ±(2^(n-1) - 1)}   n >= 2 bits;   step * {-1, +1}   n = 1
    codes     = argmin_q |w - step q|              eq. 7 and 8
    step      = <w, codes> / <codes, codes>        least squares, the two in turn

Weights come as rows that share a step: (R, C) with steps (R, 1).  A row of zeros has step 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from greenasr.ops.bits import largest_code

WIDEST, SCAN, REFINE, TURNS = 1.1, 40, 10, 4  # widest step scanned, in |w|max / q; scans; last alternations


def codes(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """Nearest integers of weights (R, C) on steps (R, 1), eq. 7; as floats.

    >>> codes(torch.tensor([[0.4, -0.2, 9.0]]), torch.tensor([[0.5]]), 3)
    tensor([[1., -0., 3.]])
    """
    if bits == 1:
        return torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
    q = largest_code(bits)
    return (weight / step.clamp(min=torch.finfo(step.dtype).tiny)).round_().clamp_(-q, q)


def best_step(weight: Tensor, codes: Tensor, otherwise: Tensor | None = None) -> Tensor:
    """argmin_s ||w - s q||² = <w, q> / <q, q> row by row, (R, C) -> (R, 1); ``otherwise`` where q = 0."""
    square = (codes * codes).sum(1, keepdim=True)
    step = (weight * codes).sum(1, keepdim=True) / square.clamp(min=1)
    return step if otherwise is None else torch.where(square > 0, step, otherwise)


def binary_step(weight: Tensor) -> Tensor:
    """The exact step of 1 bit: mean |w| of each row, (R, C) -> (R, 1).  Rastegari et al. 2016, eq. 6."""
    return weight.abs().mean(1, keepdim=True)


def ternary_step(weight: Tensor) -> Tensor:
    """The exact step of 2 bits, (R, C) -> (R, 1).

    With the k largest |w| kept, the best step is their mean and the error falls by (sum of them)² / k:
    take the k that makes this largest.  The nearest codes on that step keep exactly those k.
    """
    top = weight.abs().sort(1, descending=True).values
    total = top.double().cumsum(1)
    k = torch.arange(1, top.shape[1] + 1, device=weight.device, dtype=torch.float64)
    best = (total * total / k).argmax(1, keepdim=True)
    return (total.gather(1, best) / (best + 1)).to(weight.dtype)


def uniform_step(weight: Tensor, bits: int) -> Tensor:
    """A step for n >= 3 bits, (R, C) -> (R, 1): the best of a coarse and a fine scan, then alternations.

    The error has many local minima in the step, in which alternation alone gets stuck: for 3 million
    normal weights at 4 bits it ends 7 % above the scan, at the same cost.  Steps |w|max / k are tried
    too, so that a weight that lies on a table already is found exactly.
    """
    q = largest_code(bits)
    peak = weight.abs().amax(1, keepdim=True)
    if bits > 8:
        return peak / q
    best, best_error = peak / q, torch.full_like(peak, torch.inf)

    def keep_better(step: Tensor) -> None:
        nonlocal best, best_error
        error = (weight - step * codes(weight, step, bits)).square_().sum(1, keepdim=True)
        best = torch.where(error < best_error, step, best)
        best_error = torch.minimum(error, best_error)

    for k in range(1 if q <= 7 else round(q / WIDEST), q + 1):
        keep_better(peak / k)
    coarse = peak * (WIDEST / q / SCAN)
    for i in range(1, SCAN + 1):
        keep_better(coarse * i)
    centre = best
    for i in range(-REFINE, REFINE + 1):
        keep_better((centre + coarse * (i / REFINE)).clamp_(min=0))
    for _ in range(TURNS):
        keep_better(best_step(weight, codes(weight, best, bits), best))
    return best


def fit_step(weight: Tensor, bits: int) -> Tensor:
    """The step of least squared error for every row, (R, C) -> (R, 1); exact for 1 and 2 bits."""
    if bits == 1:
        return binary_step(weight)
    return ternary_step(weight) if bits == 2 else uniform_step(weight, bits)


def refit_step(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """One alternation from a given step, which follows weights that move little; (R, C) -> (R, 1)."""
    if bits == 1:
        return binary_step(weight)
    return best_step(weight, codes(weight, step, bits), step)
