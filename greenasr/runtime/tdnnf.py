"""The factored time delay network without torch (`models.tdnnf`), one utterance at a time.

    y_t = A_1 x_{t-s} + A_2 x_t
    z_t = B_1 y_t + B_2 y_{t+s} + c
    x_t <- 0.66 x_t + norm(relu(z_t))                     norm: (x - mean) / √(var + ε), folded into x g + o

Povey et al. 2018.  LHUC multiplies g and o by a speaker's 2σ(r).  Outside the utterance is 0.
Shapes: T frames, F features, D width, b bottleneck, C pdfs, T' = ceil(T / 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from greenasr.runtime.pointwise import Floats, sigmoid
from greenasr.runtime.weights import Linear, Weights

EPS = 1e-3  # of the batch norms
Lhuc = Mapping[str, Floats]  # layer, as `models.tdnnf.Tdnnf.hidden_units` names it, -> r (D,)


class Tdnnf:
    """Features of an utterance to the logits of pdfs at a third of the frame rate."""

    def __init__(self, config: Mapping[str, Any], weights: Weights):
        self.feat_dim, self.ivector_dim = int(config["feat_dim"]), int(config.get("ivector_dim", 0))
        self.n_pdfs = int(config["n_pdfs"])
        self.splice, self.third = int(config["splice"]), int(config["subsampling"])
        self.bypass = np.float32(config["bypass"])
        self.strides = [int(stride) for stride in config["strides"]]
        self.at = len(self.strides)  # layers before the rate drops; the last of them computes the drop
        while self.at and self.strides[self.at - 1] % self.third == 0:
            self.at -= 1
        self.front = _Relu(weights, "front") if int(config.get("front", 0)) else None
        self.input = _Relu(weights, "input")
        self.layers = [_Factored(weights, f"layers.{i}", self.bypass) for i in range(len(self.strides))]
        self.prefinal = weights.linear("prefinal")
        self.affine, self.norm = weights.linear("chain.affine"), _norm(weights, "chain.norm")
        # The last norm is an affine map before an affine map, but both are stored apart: keep them apart.
        self.linear, self.linear_norm = weights.linear("chain.linear"), _norm(weights, "chain.linear_norm")
        self.output = weights.linear("output")

    def logits(self, feats: Floats, ivectors: Floats | None = None, lhuc: Lhuc | None = None) -> Floats:
        """(T, F), i-vector (I,) or one a frame (T, I), a speaker's LHUC vectors -> (T', C).

        Raises ValueError for shapes that do not fit the network.
        """
        x = self._checked(feats, ivectors)
        speaker = Speaker(lhuc)
        if self.front is not None:
            x = self.front(spliced(x, self.splice), None)
        first = self.third if self.at == 0 else 1
        x = spliced(x, self.splice)[::first]
        if ivectors is not None:
            extra = np.broadcast_to(ivectors, (len(feats), self.ivector_dim))
            x = np.concatenate((x, extra[::first]), 1)
        x = self.input(x, speaker.amplitude("input.norm"))
        for i, (layer, stride) in enumerate(zip(self.layers, self.strides, strict=True)):
            stride = stride if i < self.at else stride // self.third
            every = self.third if i == self.at - 1 else 1
            x = layer(x, stride, every, speaker.amplitude(f"layers.{i}.norm"))
        speaker.check()
        x = self.affine(self.prefinal(x), relu=True) * self.norm[0] + self.norm[1]
        return self.output(self.linear(x) * self.linear_norm[0] + self.linear_norm[1])

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
        self.affine, self.norm = weights.linear(f"{name}.affine"), _norm(weights, f"{name}.norm")

    def __call__(self, x: Floats, amplitude: Floats | None) -> Floats:
        return _normed(self.affine(x, relu=True), self.norm, amplitude)


class _Factored:
    """One factored layer; ``linear`` holds its taps one above the other, ``affine`` side by side."""

    def __init__(self, weights: Weights, name: str, bypass: np.float32):
        self.linear: Linear = weights.linear(f"{name}.linear")
        self.affine, self.norm = weights.linear(f"{name}.affine"), _norm(weights, f"{name}.norm")
        self.bypass = bypass

    def __call__(self, x: Floats, stride: int, every: int, amplitude: Floats | None) -> Floats:
        y = self.linear(x)
        if stride:
            past, now = np.split(y, 2, 1)
            y = shifted(past, -stride) + now
            y = np.concatenate((y, shifted(y, stride)), 1)
        out = _normed(self.affine(y[::every], relu=True), self.norm, amplitude)
        out += self.bypass * x[::every]
        return out


def shifted(x: Floats, by: int) -> Floats:
    """Row t -> row t + ``by``, or 0 outside, (T, D) -> (T, D).

    >>> shifted(np.array([[1.0], [2.0], [3.0]], np.float32), 1).tolist()
    [[2.0], [3.0], [0.0]]
    """
    out = np.zeros_like(x)
    if 0 <= by < len(x):
        out[: len(x) - by] = x[by:]
    elif -len(x) < by < 0:
        out[-by:] = x[:by]
    return out


def spliced(x: Floats, context: int) -> Floats:
    """Every frame with ``context`` neighbours on either side, earliest first, (T, D) -> (T, (2c + 1) D)."""
    return np.concatenate([shifted(x, by) for by in range(-context, context + 1)], 1) if context else x


def _norm(weights: Weights, name: str) -> tuple[Floats, Floats]:
    """Gain and offset of a batch norm, (D,) each."""
    gain = (1 / np.sqrt(weights.array(f"{name}.running_var") + np.float32(EPS))).astype(np.float32)
    return gain, -weights.array(f"{name}.running_mean") * gain


def _normed(x: Floats, norm: tuple[Floats, Floats], amplitude: Floats | None) -> Floats:
    gain, offset = norm if amplitude is None else (norm[0] * amplitude, norm[1] * amplitude)
    x *= gain
    x += offset
    return x
