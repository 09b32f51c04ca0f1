"""The factored time delay network without torch (`models.tdnnf`), one utterance at a time.

    y_t = A_1 x_{t-s} + A_2 x_t
    z_t = B_1 y_t + B_2 y_{t+s} + c
    x_t <- 0.66 x_t + norm(relu(z_t))                     norm: (x - mean) / √(var + ε), folded into x g + o

Povey et al. 2018.  LHUC multiplies g and o by a speaker's 2σ(r).  Outside the utterance is 0.
Shapes: T frames, F features, D width, b bottleneck, C pdfs, T' = ceil(T / 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from greenasr.runtime.kernels import native
from greenasr.runtime.linear import Index, in_kernels
from greenasr.runtime.pointwise import Floats, sigmoid
from greenasr.runtime.weights import Weights

if TYPE_CHECKING:
    from greenasr.runtime.kernels import _native

EPS = 1e-3  # of the batch norms
LONGEST = 1 << 16  # frames of a stride
Norm = tuple[Floats, Floats]  # gain and offset of a folded batch norm, (D,) each
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
        self.own_strides = [s if i < self.at else s // self.third for i, s in enumerate(self.strides)]
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
        self.kernels = self._in_kernels()

    def logits(self, feats: Floats, ivectors: Floats | None = None, lhuc: Lhuc | None = None) -> Floats:
        """(T, F), i-vector (I,) or one a frame (T, I), a speaker's LHUC vectors -> (T', C).

        Raises ValueError for shapes that do not fit the network.
        """
        x = self._checked(feats, ivectors)
        if ivectors is not None:
            ivectors = np.broadcast_to(np.asarray(ivectors, np.float32), (len(x), self.ivector_dim))
        if self.kernels is None:
            return self.step_by_step(x, ivectors, lhuc)
        norms = [vector for norm in self._norms(lhuc) for vector in norm] if lhuc else None
        outputs = -(-len(x) // self.third), self.output.outputs
        return native.tdnnf(self.kernels, x, outputs, ivectors, norms)

    def step_by_step(self, x: Floats, ivectors: Floats | None, lhuc: Lhuc | None) -> Floats:
        """As `logits`, layer by layer in NumPy: for maps that are not all the kernels'."""
        norms = self._norms(lhuc)
        around = range(-self.splice, self.splice + 1)
        if self.front is not None:
            x = self.front(x, taps(len(x), around), self.front.norm)
        first = self.third if self.at == 0 else 1
        index = taps(len(x), around, first)
        if ivectors is not None:
            x = np.concatenate((gathered(x, index), ivectors[::first]), 1)
            index = taps(len(index), (0,))
        x = self.input(x, index, norms[0])
        for i, (layer, stride) in enumerate(zip(self.layers, self.own_strides, strict=True)):
            x = layer(x, stride, self.third if i == self.at - 1 else 1, norms[i + 1])
        x = self.affine(self.prefinal(x), "first", *self.norm)
        return self.output(self.linear(x, "none", *self.linear_norm))

    def _norms(self, lhuc: Lhuc | None) -> list[Norm]:
        """Gain and offset of the input layer and of every other, times 2σ(r) of a speaker."""
        names = ["input.norm", *(f"layers.{i}.norm" for i in range(len(self.layers)))]
        found = [self.input.norm, *(layer.norm for layer in self.layers)]
        for name, r in (lhuc or {}).items():
            if name not in names:
                raise ValueError(f"the speaker has a vector for '{name}', which the network lacks.")
            gain, offset = found[at := names.index(name)]
            amplitude = np.float32(2) * sigmoid(r)
            found[at] = gain * amplitude, offset * amplitude
        return found

    def _in_kernels(self) -> _native.Tdnnf | None:
        """The whole network as the kernels run it, None where one of its maps is NumPy's."""
        hidden = [self.input] if self.front is None else [self.front, self.input]
        pairs = [(layer.linear, layer.affine) for layer in self.layers]
        heads = [self.prefinal, self.affine, self.linear, self.output]
        maps = in_kernels(*(layer.affine for layer in hidden), *(m for pair in pairs for m in pair), *heads)
        if maps is None:
            return None
        found = iter(maps)
        entries = [(*next(found), *layer.norm) for layer in hidden]
        layers = [((*next(found), None, None), (*next(found), *layer.norm)) for layer in self.layers]
        norms = ((None, None), self.norm, self.linear_norm, (None, None))
        return native.tdnnf_network(
            entries[0] if len(entries) > 1 else None,
            entries[-1],
            layers,
            [(*next(found), *norm) for norm in norms],
            strides=self.own_strides,
            feat_dim=self.feat_dim,
            ivector_dim=self.ivector_dim,
            splice=self.splice,
            third=self.third,
            at=self.at,
            bypass=self.bypass,
        )

    def _checked(self, feats: Floats, ivectors: Floats | None) -> Floats:
        if feats.ndim != 2 or feats.shape[1] != self.feat_dim or not len(feats):
            raise ValueError(f"features are {feats.shape}, the network reads (T, {self.feat_dim}), T > 0.")
        found = 0 if ivectors is None else ivectors.shape[-1]
        if found != self.ivector_dim:
            raise ValueError(f"i-vectors are of {found} dimensions, the network reads {self.ivector_dim}.")
        if ivectors is not None and ivectors.shape[:-1] not in ((), (len(feats),)):
            raise ValueError(
                f"i-vectors are {ivectors.shape}: give one, or one for each of {len(feats)} frames."
            )
        return np.ascontiguousarray(feats, np.float32)


class _Relu:
    """norm(relu(W x + c))."""

    def __init__(self, weights: Weights, name: str):
        self.affine, self.norm = weights.linear(f"{name}.affine"), batch_norm(weights, f"{name}.norm")

    def __call__(self, x: Floats, index: Index, norm: Norm) -> Floats:
        return self.affine(x, "first", *norm, index=index)


class _Factored:
    """One factored layer; ``linear`` holds its taps one above the other, ``affine`` side by side."""

    def __init__(self, weights: Weights, name: str, bypass: float):
        self.linear = weights.linear(f"{name}.linear")
        self.affine, self.norm = weights.linear(f"{name}.affine"), batch_norm(weights, f"{name}.norm")
        self.bypass = bypass

    def __call__(self, x: Floats, stride: int, every: int, norm: Norm) -> Floats:
        y = self.linear(x)
        if stride:
            b = y.shape[1] // 2
            both = y[:, b:].copy()
            both[stride:] += y[: max(0, len(y) - stride), :b]
            y = both
        index = taps(len(y), (0, stride) if stride else (0,), every)
        rest = np.ascontiguousarray(x[::every])
        return self.affine(y, "first", *norm, rest, self.bypass, index)


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


def batch_norm(weights: Weights, name: str) -> Norm:
    """Gain and offset of a batch norm, (D,) each."""
    gain = (1 / np.sqrt(weights.array(f"{name}.running_var") + np.float32(EPS))).astype(np.float32)
    return gain, -weights.array(f"{name}.running_mean") * gain
