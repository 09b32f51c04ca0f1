"""The weights of a packed model as a network asks for them: linear maps, rows of an embedding, plain arrays.

    y = W x + b          W of quantized spans: integer codes times steps; or generated from a seed

A weight that shares its name with several spans (bands of a vocabulary) is one map.  Activations are
"int8", rounded row by row to 255 levels as the kernels compute, or "float32", for checking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime.format import Packed, PackedSpan, from_bfloat16
from greenasr.runtime.kernels import native
from greenasr.runtime.linear import Dense, Linear, Narrow
from greenasr.runtime.pointwise import Floats

Activations = Literal["int8", "float32"]
ACTIVATIONS: tuple[Activations, ...] = ("int8", "float32")


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
        biases = [self.array(f"{name}.bias") for name in names if self.has(f"{name}.bias")]
        bias = np.concatenate(biases) if biases else None
        parts = [part for name in names for part in self._narrow_parts(f"{name}.weight")]
        quantized = all(self._is_quantized(f"{name}.weight") for name in names)
        if quantized and native.available() and all(bits <= 8 and step.ndim < 3 for _, bits, step in parts):
            return Narrow(native.matrix(*parts), bias, self.activations == "float32")
        weights = [self.array(f"{name}.weight") for name in names]
        flat = np.concatenate([weight.reshape(len(weight), -1) for weight in weights])
        return Dense(flat, bias, quantized and self.activations == "int8")

    def rows(self, name: str) -> Rows:
        """An embedding's rows."""
        first = self.packed.ties.get(name, name)
        if first not in self.packed.shapes or any(s.negative is not None for s in self._spans(first)):
            return Rows(self.array(name))
        return Rows([(span.start, span.codes(), span.step) for span in self._spans(first)])

    def _is_quantized(self, name: str) -> bool:
        first = self.packed.ties.get(name, name)
        return first in self.packed.shapes or first in self.packed.seeds

    def _narrow_parts(self, name: str) -> list[tuple[NDArray[Any], int, Floats]]:
        """(codes (O, I), bits, steps) of the runs of rows of a quantized weight; none where it is not."""
        first = self.packed.ties.get(name, name)
        if first in self.packed.seeds:
            return [(self.packed.seeds[first].rows_of(), 2, np.ones((), np.float32))]
        spans = self._spans(first)
        if any(span.negative is not None for span in spans):
            return [(np.zeros((0, 0), np.int8), 16, np.ones((), np.float32))]
        return [(span.codes(), span.bits, span.step) for span in spans]

    def _spans(self, name: str) -> list[PackedSpan]:
        found = [span for span in self.packed.spans.values() if span.name == name]
        return sorted(found, key=lambda span: span.start)
