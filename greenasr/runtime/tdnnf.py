"""The factored time delay network without torch (`models.tdnnf`), one utterance at a time.

    y_t = A_1 x_{t-s} + A_2 x_t
    z_t = B_1 y_t + B_2 y_{t+s} + c
    x_t <- 0.66 x_t + norm(relu(z_t))                     norm: (x - mean) / √(var + ε), folded into x g + o

Povey et al. 2018.  LHUC multiplies g and o by a speaker's 2σ(r).  Outside the utterance is 0.
Shapes: T frames, F features, D width, b bottleneck, C pdfs, T' = ceil(T / 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from greenasr.runtime.linear import Index
from greenasr.runtime.pointwise import Floats, sigmoid
from greenasr.runtime.weights import Weights

EPS = 1e-3  # of the batch norms
LONGEST = 1 << 16  # frames of a stride
Lhuc = Mapping[str, Floats]  # layer, as `models.tdnnf.Tdnnf.hidden_units` names it, -> r (D,)


class Tdnnf:
    """Features of an utterance to the logits of pdfs at a third of the frame rate."""

    def __init__(self, config: Mapping[str, Any], weights: Weights):
        self.feat_dim, self.ivector_dim = int(config["feat_dim"]), int(config.get("ivector_dim", 0))
        self.n_pdfs = int(config["n_pdfs"])
        self.splice, self.third = int(config["splice"]), int(config["subsampling"])
        self.strides = [int(stride) for stride in config["strides"]]
        front = int(config.get("front", 0))
        spliced = (2 * self.splice + 1) * (front or self.feat_dim)
        weights.check("input.affine", None, spliced + self.ivector_dim)
        if front:
            weights.check("front.affine", front, (2 * self.splice + 1) * self.feat_dim)
        if min(self.splice, *self.strides) < 0 or max(self.strides) > LONGEST or self.third < 1:
            raise ValueError(f"strides of {self.strides}, a splice of {self.splice}: pack the model again.")
        self.bypass = float(config["bypass"])
        self.at = len(self.strides)  # layers before the rate drops; the last of them computes the drop
        while self.at and self.strides[self.at - 1] % self.third == 0:
            self.at -= 1
        self.front = _Relu(weights, "front") if int(config.get("front", 0)) else None
        self.input = _Relu(weights, "input")
        self.layers = [_Factored(weights, f"layers.{i}", self.bypass) for i in range(len(self.strides))]
        self.prefinal = weights.linear("prefinal")
        self.affine, self.norm = weights.linear("chain.affine"), batch_norm(weights, "chain.norm")
        self.linear, self.linear_norm = (
            weights.linear("chain.linear"),
            batch_norm(weights, "chain.linear_norm"),
        )
        self.output = weights.linear("output")

    def logits(self, feats: Floats, ivectors: Floats | None = None, lhuc: Lhuc | None = None) -> Floats:
        """(T, F), i-vector (I,) or one a frame (T, I), a speaker's LHUC vectors -> (T', C).

        Raises ValueError for shapes that do not fit the network.
        """
        x = self._checked(feats, ivectors)
        speaker = Speaker(lhuc)
        around = range(-self.splice, self.splice + 1)
        if self.front is not None:
            x = self.front(x, taps(len(x), around), None)
        first = self.third if self.at == 0 else 1
        index = taps(len(x), around, first)
        if ivectors is not None:
            extra = np.broadcast_to(ivectors, (len(feats), self.ivector_dim))[::first]
            x, index = np.concatenate((gathered(x, index), extra), 1), taps(len(index), (0,))
        x = self.input(x, index, speaker.amplitude("input.norm"))
        for i, (layer, stride) in enumerate(zip(self.layers, self.strides, strict=True)):
            stride = stride if i < self.at else stride // self.third
            every = self.third if i == self.at - 1 else 1
            x = layer(x, stride, every, speaker.amplitude(f"layers.{i}.norm"))
        speaker.check()
        x = self.affine(self.prefinal(x), "first", *self.norm)
        return self.output(self.linear(x, "none", *self.linear_norm))

    def _checked(self, feats: Floats, ivectors: Floats | None) -> Floats:
        if feats.ndim != 2 or feats.shape[1] != self.feat_dim or not len(feats):
            raise ValueError(f"features are {feats.shape}, the network reads (T, {self.feat_dim}), T > 0.")
        found = 0 if ivectors is None else ivectors.shape[-1]
        if found != self.ivector_dim or (ivectors is not None and ivectors.ndim == 2 != len(feats) > 0):
            raise ValueError(f"i-vectors are of {found} dimensions, the network reads {self.ivector_dim}.")
        return np.ascontiguousarray(feats, np.float32)


class Speaker:
    """A speaker's LHUC vectors, of which each must be asked for."""

    def __init__(self, lhuc: Lhuc | None):
        self.lhuc, self.asked = dict(lhuc or {}), set[str]()

    def amplitude(self, layer: str) -> Floats | None:
        """2σ(r) of a layer, None where it has none."""
        self.asked.add(layer)
        return np.float32(2) * sigmoid(self.lhuc[layer]) if layer in self.lhuc else None

    def check(self) -> None:
        """Refuse vectors of layers that the network does not have."""
        if odd := sorted(self.lhuc.keys() - self.asked):
            raise ValueError(f"the speaker has a vector for '{odd[0]}', which the network lacks.")


class _Relu:
    """norm(relu(W x + c))."""

    def __init__(self, weights: Weights, name: str):
        self.affine, self.norm = weights.linear(f"{name}.affine"), batch_norm(weights, f"{name}.norm")

    def __call__(self, x: Floats, index: Index, amplitude: Floats | None) -> Floats:
        return self.affine(x, "first", *_scaled(self.norm, amplitude), index=index)


class _Factored:
    """One factored layer; ``linear`` holds its taps one above the other, ``affine`` side by side."""

    def __init__(self, weights: Weights, name: str, bypass: float):
        self.linear = weights.linear(f"{name}.linear")
        self.affine, self.norm = weights.linear(f"{name}.affine"), batch_norm(weights, f"{name}.norm")
        self.bypass = bypass

    def __call__(self, x: Floats, stride: int, every: int, amplitude: Floats | None) -> Floats:
        y = self.linear(x)
        if stride:
            b = y.shape[1] // 2
            both = y[:, b:].copy()
            both[stride:] += y[: max(0, len(y) - stride), :b]
            y = both
        index = taps(len(y), (0, stride) if stride else (0,), every)
        rest = np.ascontiguousarray(x[::every])
        return self.affine(y, "first", *_scaled(self.norm, amplitude), rest, self.bypass, index)


def taps(frames: int, shifts: Sequence[int], every: int = 1) -> Index:
    """Of frames 0, every, 2 every, … the frames shifted so far, -1 outside: (ceil(frames / every), taps).

    >>> taps(3, (-1, 0)).tolist()
    [[-1, 0], [0, 1], [1, 2]]
    """
    index = np.arange(0, frames, every, dtype=np.int32)[:, None] + np.array(shifts, np.int32)
    index[(index < 0) | (index >= frames)] = -1
    return index


def gathered(x: Floats, index: Index) -> Floats:
    """The frames of an index side by side, (T, D) -> (T', taps D)."""
    zero = np.zeros((1, x.shape[1]), np.float32)
    found: Floats = np.concatenate((x, zero))[index].reshape(len(index), -1)
    return found


def batch_norm(weights: Weights, name: str) -> tuple[Floats, Floats]:
    """Gain and offset of a batch norm, (D,) each."""
    gain = (1 / np.sqrt(weights.array(f"{name}.running_var") + np.float32(EPS))).astype(np.float32)
    return gain, -weights.array(f"{name}.running_mean") * gain


def _scaled(norm: tuple[Floats, Floats], amplitude: Floats | None) -> tuple[Floats, Floats]:
    return norm if amplitude is None else (norm[0] * amplitude, norm[1] * amplitude)
