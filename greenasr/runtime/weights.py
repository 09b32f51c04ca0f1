"""The weights of a packed model as a network asks for them: linear maps, rows of an embedding, plain arrays.

    y = W x + b          W of quantized spans: integer codes times steps; or generated from a seed

A weight that shares its name with several spans (bands of a vocabulary) is one map.  Activations are
"int8", rounded row by row to 255 levels as the kernels compute, or "float32", for checking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime.format import Packed, PackedSpan, from_bfloat16
from greenasr.runtime.pointwise import Floats

Activations = Literal["int8", "float32"]
ACTIVATIONS: tuple[Activations, ...] = ("int8", "float32")


class Linear:
    """x -> W x + b, (…, I) -> (…, O); ``relu`` cuts what is below zero."""

    def __init__(self, weight: Floats, bias: Floats | None, rounded: bool):
        self.weight, self.bias, self.rounded = weight, bias, rounded

    @property
    def inputs(self) -> int:
        """I."""
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        """O."""
        return int(self.weight.shape[0])

    def __call__(self, x: Floats, relu: bool = False) -> Floats:
        """Every row of x by the map."""
        y = (rounded(x) if self.rounded else x) @ self.weight.T
        if self.bias is not None:
            y += self.bias
        return np.maximum(y, 0, out=y) if relu else y


def rounded(x: Floats) -> Floats:
    """The nearest of 255 even levels, whose largest is the row's largest |x|; (…, I) -> (…, I).

    >>> rounded(np.array([[127.0, -63.6, 0.4]], np.float32)).tolist()
    [[127.0, -64.0, 0.0]]
    """
    step = np.abs(x).max(-1, keepdims=True, initial=0) / np.float32(127)
    step = np.where(step > 0, step, np.float32(1))
    found: Floats = np.rint(x / step) * step
    return found


class Rows:
    """An embedding: ids (…) -> rows (…, D), each dequantized when it is asked for."""

    def __init__(self, parts: Sequence[tuple[int, NDArray[np.integer], Floats]] | Floats):
        self.parts = parts  # (first row, codes, step) of every span, or all rows as they are

    def __call__(self, ids: NDArray[np.integer]) -> Floats:
        """The rows of ids."""
        if isinstance(self.parts, np.ndarray):
            return self.parts[ids]
        flat = ids.reshape(-1)
        out = np.empty((len(flat), self.parts[0][1].shape[1]), np.float32)
        for start, codes, step in self.parts:
            here = np.flatnonzero((flat >= start) & (flat < start + len(codes)))
            rows = flat[here] - start
            own = codes[rows].astype(np.float32)
            if step.ndim == 3:
                grouped = own.reshape(len(own), step.shape[1], -1) * step[rows]
                out[here] = grouped.reshape(own.shape)
            else:
                out[here] = own * (step if step.ndim == 0 else step[rows])
        return out.reshape(*ids.shape, out.shape[1])


class Weights:
    """A packed model's parameters by name, under any of their names."""

    def __init__(self, packed: Packed, activations: Activations):
        if activations not in ACTIVATIONS:
            raise ValueError(f"activations '{activations}': choose int8 or float32.")
        self.packed, self.activations = packed, activations

    def array(self, name: str) -> Floats:
        """A parameter in float32; ValueError where the file has none of this name."""
        first = self.packed.ties.get(name, name)
        if first in self.packed.seeds:
            return self.packed.seeds[first].rows_of().astype(np.float32)
        if first in self.packed.shapes:
            parts = [span.dequantize() for span in self._spans(first)]
            return np.concatenate(parts).reshape(self.packed.shapes[first])
        if first not in self.packed.rest:
            raise ValueError(f"the file lacks '{name}', which its network needs: pack the model again.")
        found = self.packed.rest[first]
        return from_bfloat16(found) if found.dtype == np.uint16 else found.astype(np.float32)

    def has(self, name: str) -> bool:
        """Whether there is such a parameter."""
        first = self.packed.ties.get(name, name)
        return first in self.packed.shapes or first in self.packed.rest or first in self.packed.seeds

    def linear(self, *names: str) -> Linear:
        """The map of ``name.weight`` and ``name.bias``, if there is one; several one above the other."""
        weights = [self.array(f"{name}.weight") for name in names]
        biases = [self.array(f"{name}.bias") for name in names if self.has(f"{name}.bias")]
        small = self.packed.shapes.keys() | self.packed.seeds.keys()
        quantized = all(self.packed.ties.get(f"{n}.weight", f"{n}.weight") in small for n in names)
        flat = [weight.reshape(len(weight), -1) for weight in weights]
        bias = np.concatenate(biases) if biases else None
        return Linear(np.concatenate(flat), bias, quantized and self.activations == "int8")

    def rows(self, name: str) -> Rows:
        """An embedding's rows."""
        first = self.packed.ties.get(name, name)
        if first not in self.packed.shapes or any(s.negative is not None for s in self._spans(first)):
            return Rows(self.array(name))
        return Rows([(span.start, span.codes(), span.step) for span in self._spans(first)])

    def _spans(self, name: str) -> list[PackedSpan]:
        found = [span for span in self.packed.spans.values() if span.name == name]
        return sorted(found, key=lambda span: span.start)
