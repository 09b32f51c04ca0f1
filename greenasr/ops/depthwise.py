"""Depthwise convolution over time as one matrix product a channel: where separable networks spend their time.

    y_t = Σ_k w_k x_{t + k - K//2}            for every channel, zeros outside, K odd

Blocks of B = 32 outputs read L = B + K - 1 inputs and are one row of a product with the channel's
(L, B) band matrix  M_ij = w_{i-j}.  That does (B + K - 1) / K times the necessary multiplications, at
the speed of a matrix product: forward and backward on one CPU core it takes a third to a quarter of the
time of `torch.nn.functional.conv1d` for K from 29 to 87, and no more than it for K = 13; adding shifted
copies is slower than either.  `benchmarks/ternary.py` measures them.  B = 32 was the fastest of 16 to 150 at
every size.  All derivatives, of any order, are the same two products.

Shapes: C channels, N batch, T frames, K taps; channels come first, as a 1x1 convolution then is W @ x.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 32


def depthwise(x: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """(C, N, T) with taps (C, K) -> (C, N, T), as long as the input; K is odd.

    >>> depthwise(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[1.0, 0.0, 10.0]]))
    tensor([[[20., 31.,  2.]]])
    """
    if weight.shape[1] % 2 == 0:
        raise ValueError(f"a kernel of {weight.shape[1]} taps has no middle: give an odd number.")
    if dilation == 1:
        out: Tensor = _Correlate.apply(x, weight)
        return out
    c, n, t = x.shape
    frames = -(-t // dilation)  # every dilation-th frame is a sequence of its own
    phases = F.pad(x, (0, frames * dilation - t)).reshape(c, n, frames, dilation).transpose(2, 3)
    y: Tensor = _Correlate.apply(phases.reshape(c, n * dilation, frames), weight)
    return y.view(c, n, dilation, frames).transpose(2, 3).reshape(c, n, -1)[:, :, :t]


def _windows(x: Tensor, taps: int) -> Tensor:
    """(C, N, T) -> (C, N blocks, L): what every block of outputs reads."""
    blocks, half = -(-x.shape[2] // BLOCK), taps // 2
    padded = F.pad(x, (half, blocks * BLOCK - x.shape[2] + half))
    return padded.unfold(2, BLOCK + taps - 1, BLOCK).flatten(1, 2)


def _correlate(x: Tensor, weight: Tensor) -> Tensor:
    (c, n, t), taps = x.shape, weight.shape[1]
    length = BLOCK + taps - 1
    # rows of a matrix of width L, cut from taps and BLOCK zeros said again and again: each moves on by one
    band = F.pad(weight, (0, BLOCK)).repeat(1, BLOCK)[:, : BLOCK * length].view(c, BLOCK, length)
    out = torch.bmm(_windows(x, taps), band.transpose(1, 2))
    return out.view(c, n, -1)[:, :, :t]


def _correlate_weight(x: Tensor, grad: Tensor, taps: int) -> Tensor:
    """Σ_nt grad_nt x_{n, t + k - K//2} of every channel and tap, (C, K)."""
    c, n, t = grad.shape
    outputs = F.pad(grad, (0, -t % BLOCK)).reshape(c, -1, BLOCK)
    band = torch.bmm(_windows(x, taps).transpose(1, 2), outputs)  # (C, L, B): its diagonals belong to one tap
    diagonals = band.as_strided((c, taps, BLOCK), (band.stride(0), BLOCK, BLOCK + 1))
    return diagonals.sum(2)


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _correlate(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dx = _Correlate.apply(grad, weight.flip(1)) if ctx.needs_input_grad[0] else None
        dw = _CorrelateWeight.apply(x, grad, weight.shape[1]) if ctx.needs_input_grad[1] else None
        return dx, dw


class _CorrelateWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, taps: int) -> Tensor:
        ctx.save_for_backward(x, grad)
        return _correlate_weight(x, grad, taps)

    @staticmethod
    def backward(ctx: Any, dw: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, grad = ctx.saved_tensors
        dx = _Correlate.apply(grad, dw.flip(1)) if ctx.needs_input_grad[0] else None
        dg = _Correlate.apply(x, dw) if ctx.needs_input_grad[1] else None
        return dx, dg, None
