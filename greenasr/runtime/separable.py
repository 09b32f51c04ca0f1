"""Separable convolutions without torch (`models.separable`): what QuartzNet and MatchboxNet are made of.

    sub-block   y = norm(P D x)                 D depthwise over time (K taps a channel), P 1x1 over channels
    block       x <- relu(sub(… relu(sub(x)) …) + skip(x))

Kriman et al. 2020 (arXiv 1910.10261), Majumdar and Ginsburg 2020 (arXiv 2004.08531).  One utterance at a
time, frames first: P is a linear map of frames, norm, sum and ReLU follow in the same pass.
Shapes: T frames, I or O channels, K taps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from greenasr.runtime.kernels import native
from greenasr.runtime.pointwise import Floats
from greenasr.runtime.weights import Weights

EPS = 1e-3  # of the batch norms
BLOCK = 32  # outputs of one row of `depthwise`'s products


class Separable:
    """One sub-block; ``stride`` and ``dilation`` are those of its depthwise convolution, if it has one."""

    def __init__(self, weights: Weights, name: str, stride: int = 1, dilation: int = 1):
        self.stride, self.dilation = stride, dilation
        self.taps = None
        if weights.has(f"{name}.depthwise.weight"):
            # in the order in which the kernels read them
            self.taps = np.asfortranarray(weights.array(f"{name}.depthwise.weight")[:, 0])
        rows, cols = weights.shape(f"{name}.pointwise")
        if (self.taps is not None and len(self.taps) != cols) or stride < 1:
            raise ValueError(f"'{name}' has {cols} channels and a stride of {stride}: pack the model again.")
        if weights.array(f"{name}.norm.running_var").shape != (rows,):
            raise ValueError(f"'{name}.norm' is not of {rows} channels: pack the model again.")
        self.pointwise = weights.linear(f"{name}.pointwise")
        self.gain, self.offset = folded_norm(weights, f"{name}.norm")

    def __call__(self, x: Floats, relu: bool, residual: Floats | None = None) -> Floats:
        """(T, I) -> (T', O), with ReLU behind the sum with ``residual`` (T', O)."""
        if self.taps is not None:
            x = depthwise(x, self.taps, self.stride, self.dilation)
        return self.pointwise(x, "last" if relu else "none", self.gain, self.offset, residual)


class Block:
    """``repeat`` sub-blocks and a skip around them."""

    def __init__(
        self,
        weights: Weights,
        name: str,
        repeat: int = 1,
        stride: int = 1,
        dilation: int = 1,
        skip: str = "none",
    ):
        self.subs = [
            Separable(weights, f"{name}.subs.{i}", stride if i == 0 else 1, dilation) for i in range(repeat)
        ]
        self.skip = Separable(weights, f"{name}.skip") if skip in ("trained", "ternary") else None
        self.identity = skip == "identity"

    def __call__(self, x: Floats) -> Floats:
        """(T, I) -> (ceil(T / stride), O)."""
        residual = None
        if self.skip is not None:
            residual = self.skip(x, relu=False)
        elif self.identity:
            residual = resized(x, self.subs[-1].pointwise.outputs)
        for sub in self.subs[:-1]:
            x = sub(x, relu=True)
        return self.subs[-1](x, relu=True, residual=residual)


def blocks_of(config: Mapping[str, Any], weights: Weights) -> list[Block]:
    """The residual part of a network."""
    repeat, skips = int(config["repeat"]), str(config["skips"])
    return [Block(weights, f"blocks.{i}", repeat, skip=skips) for i in range(int(config["blocks"]))]


def through(blocks: Sequence[Block], feats: Floats, feat_dim: int) -> Floats:
    """Features of one utterance (T, F) through all blocks; ValueError for features of another shape."""
    if feats.ndim != 2 or feats.shape[1] != feat_dim or not len(feats):
        raise ValueError(f"features are {feats.shape}, the network reads (T, {feat_dim}), T > 0.")
    x = np.ascontiguousarray(feats, np.float32)
    for block in blocks:
        x = block(x)
    return x


def folded_norm(weights: Weights, name: str) -> tuple[Floats, Floats]:
    """Gain and offset of a batch norm with weight and bias, (O,) each."""
    var, mean = (weights.array(f"{name}.running_{part}") for part in ("var", "mean"))
    gain = (weights.array(f"{name}.weight") / np.sqrt(var + np.float32(EPS))).astype(np.float32)
    return gain, weights.array(f"{name}.bias") - mean * gain


def resized(x: Floats, channels: int) -> Floats:
    """The first channels of (T, I), with zeros behind where there are fewer."""
    missing = channels - x.shape[1]
    return np.ascontiguousarray(x[:, :channels]) if missing <= 0 else np.pad(x, ((0, 0), (0, missing)))


def depthwise(x: Floats, weight: Floats, stride: int = 1, dilation: int = 1) -> Floats:
    """y_t = Σ_k w_k x_{st + d(k - K//2)} of every channel, zeros outside: (T, C), (C, K) -> (ceil(T/s), C).

    By the kernels, or where they were not built as `ops.depthwise` does it.

    >>> depthwise(np.array([[1.0], [2.0], [3.0]], np.float32), np.array([[1, 0, 10]], np.float32)).tolist()
    [[20.0], [31.0], [2.0]]
    """
    if native.available():
        pad = dilation * (weight.shape[1] // 2)
        found = native.depthwise(x, np.ascontiguousarray(weight.T), stride=stride, dilation=dilation, pad=pad)
        return found[: -(-len(x) // stride)]
    return banded(x, weight, stride, dilation)


def banded(x: Floats, weight: Floats, stride: int = 1, dilation: int = 1) -> Floats:
    """As `depthwise`, in NumPy: blocks of outputs are one product with the channel's band matrix.

    >>> banded(np.array([[1.0], [2.0], [3.0]], np.float32), np.array([[1, 0, 10]], np.float32)).tolist()
    [[20.0], [31.0], [2.0]]
    """
    if dilation > 1:  # every dilation-th frame is a sequence of its own
        phases = [banded(x[at::dilation], weight) for at in range(min(dilation, len(x)))]
        out = np.empty_like(x)
        for at, phase in enumerate(phases):
            out[at::dilation] = phase
        return out[::stride]
    (frames, channels), n_taps = x.shape, weight.shape[1]
    blocks = -(-frames // BLOCK)
    padded = np.zeros((channels, blocks * BLOCK + n_taps - 1), np.float32)
    padded[:, n_taps // 2 : n_taps // 2 + frames] = x.T
    windows = sliding_window_view(padded, BLOCK + n_taps - 1, axis=1)[:, ::BLOCK]
    band = np.zeros((channels, BLOCK + n_taps - 1, BLOCK), np.float32)
    for b in range(BLOCK):
        band[:, b : b + n_taps, b] = weight
    found = (np.ascontiguousarray(windows) @ band).reshape(channels, blocks * BLOCK)[:, :frames:stride]
    return np.ascontiguousarray(found.T)
