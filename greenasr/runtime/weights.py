"""The weights of a packed model as a network asks for them: linear maps, rows of an embedding, plain arrays.

    y = W x + b          W of quantized spans: integer codes times steps; or generated from a seed

A weight that shares its name with several spans (bands of a vocabulary) is one map.  Activations are those
of `activations`: "int8" and "static" as the kernels compute, or "float32", for which weights are dequantized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime.activations import ACTIVATIONS, JOINED, Activations
from greenasr.runtime.format import Packed, PackedSpan, from_bfloat16
from greenasr.runtime.kernels import native
from greenasr.runtime.linear import Dense, Linear, Narrow
from greenasr.runtime.pointwise import Floats

if TYPE_CHECKING:
    from greenasr.runtime.kernels._native import Matrix

Watch = Callable[[str, Floats], None]  # the name of a map, what it multiplies


class Rows:
    """An embedding: ids (…) -> rows (…, D), each dequantized when it is asked for."""

    def __init__(self, parts: Sequence[tuple[int, NDArray[np.integer], Floats]] | Floats | Matrix):
        self.parts = parts  # (first row, codes, step) of every span, all rows as they are, or the kernels'

    def __call__(self, ids: NDArray[np.integer]) -> Floats:
        """The rows of ids."""
        if isinstance(self.parts, np.ndarray):
            return self.parts[ids]
        flat = ids.reshape(-1)
        if not isinstance(self.parts, Sequence):
            found = native.gather(self.parts, flat.astype(np.int32))
            return found.reshape(*ids.shape, found.shape[1])
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
    """A packed model's parameters by name, under any of their names.

    ``watch`` is called with the name and the input of every map of few bits, for float32 alone.
    """

    def __init__(self, packed: Packed, activations: Activations, watch: Watch | None = None):
        if activations not in ACTIVATIONS:
            raise ValueError(f"activations '{activations}': choose {', '.join(ACTIVATIONS)}.")
        self.steps = packed.rounding.steps if activations == "static" else {}
        if activations == "static" and not self.steps:
            raise ValueError("static activations need steps, which the file has not: choose int8 or float32.")
        self.packed, self.activations, self.watch = packed, activations, watch
        self.watched: set[str] = set()  # maps of few bits with float32 activations
        self.style = "nbits"  # how an ONNX graph writes low-bit maps
        self.maps: dict[str, Linear] = {}  # every map that was asked for, by its names
        self.matrices: dict[
            tuple[str, ...], list[Matrix]
        ] = {}  # those of the kernels, by what they are made of

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
        found = self.maps[JOINED.join(names)] = self._linear(*names)
        return found

    def _linear(self, *names: str) -> Linear:
        bias, name = self.bias(*names), JOINED.join(names)
        if not all(self._is_quantized(f"{each}.weight") for each in names):
            return Dense(self.matrix(*names), bias, False)
        if self.activations == "float32":
            watch = None if self.watch is None else partial(self.watch, name)
            self.watched.add(name)
            return Dense(self.matrix(*names), bias, False, watch=watch)
        step = self._step(name)
        parts = self.parts(*names)
        if parts is not None and native.available() and native.fit(*parts):
            return Narrow(self._matrix(parts, *names, step=step), bias)
        return Dense(self.matrix(*names), bias, True, step)

    def _step(self, name: str) -> float:
        """The step of a map's activations, 0 where each row has its own; ValueError where one is missing."""
        if self.activations == "static" and name not in self.steps:
            raise ValueError(f"the file has no step of activations for '{name}': pack the model again.")
        return float(np.float32(self.steps.get(name, 0.0)))

    def check_steps(self) -> None:
        """ValueError where the file has steps for what is no map of this network."""
        if odd := sorted(self.steps.keys() - self.maps.keys()):
            raise ValueError(f"the file has a step of activations for '{odd[0]}', which is no map.")

    def matrix(self, *names: str) -> Floats:
        """The weights of maps in float32, one above the other, (O, I); a convolution's as (O, I K)."""
        weights = [self.array(f"{name}.weight") for name in names]
        return np.concatenate([weight.reshape(len(weight), -1) for weight in weights])

    def shape(self, name: str) -> tuple[int, int]:
        """(O, I) of a map's weight, a convolution's I K; ValueError where the file has none of this name."""
        first = self.packed.ties.get(f"{name}.weight", f"{name}.weight")
        if first in self.packed.seeds:
            return self.packed.seeds[first].rows, self.packed.seeds[first].cols
        found = self.packed.shapes.get(first) or np.shape(self.packed.rest.get(first, ()))
        if len(found) < 2:
            raise ValueError(
                f"the file lacks '{name}.weight', which its network needs: pack the model again."
            )
        return found[0], math.prod(found[1:])

    def check(self, name: str, outputs: int | None, inputs: int) -> None:
        """Refuse a map of another shape than the settings say; ``outputs`` None: of any number."""
        found = self.shape(name)
        if found != (found[0] if outputs is None else outputs, inputs):
            raise ValueError(
                f"'{name}.weight' is {found}, the settings say ({outputs or 'any'}, {inputs}): pack it again."
            )

    def bias(self, *names: str) -> Floats | None:
        """The biases of maps, one behind the other, (O,); None where they have none."""
        found = [self.array(f"{name}.bias") for name in names if self.has(f"{name}.bias")]
        return np.concatenate(found) if found else None

    def parts(self, *names: str) -> list[tuple[NDArray[Any], int, Floats]] | None:
        """(codes (O, I), bits, steps) of the runs of rows of quantized maps, top to bottom.

        None where one of them is not quantized, or has other steps below zero than above.
        """
        found: list[tuple[NDArray[Any], int, Floats]] = []
        for name in names:
            first = self.packed.ties.get(f"{name}.weight", f"{name}.weight")
            if first in self.packed.seeds:
                found.append((self.packed.seeds[first].rows_of(), 2, np.ones((), np.float32)))
                continue
            spans = self._spans(first)
            if not spans or any(span.negative is not None for span in spans):
                return None
            found += [(span.codes(), span.bits, span.step) for span in spans]
        return found

    def rows(self, name: str) -> Rows:
        """An embedding's rows."""
        first = self.packed.ties.get(name, name)
        if first not in self.packed.shapes or any(s.negative is not None for s in self._spans(first)):
            return Rows(self.array(name))
        parts = self.parts(first.removesuffix(".weight"))
        if parts is not None and native.available() and native.fit(*parts):
            return Rows(self._matrix(parts, first.removesuffix(".weight")))
        return Rows([(span.start, span.codes(), span.step) for span in self._spans(first)])

    def _matrix(
        self, parts: Sequence[tuple[NDArray[Any], int, Floats]], *names: str, step: float = 0.0
    ) -> Matrix:
        """The kernels' matrix of some maps, one for all that share it and its ``step`` of activations.

        Rows of an embedding, which have no step, are those of any.
        """
        key = tuple(self.packed.ties.get(f"{name}.weight", f"{name}.weight") for name in names)
        known = self.matrices.setdefault(key, [])
        made = next((each for each in known if not step or each.step in (0.0, step)), None)
        if made is None:
            known.append(made := native.matrix(*parts))
        if step:
            made.step = step
        return made

    def _is_quantized(self, name: str) -> bool:
        first = self.packed.ties.get(name, name)
        return first in self.packed.shapes or first in self.packed.seeds

    def _spans(self, name: str) -> list[PackedSpan]:
        found = [span for span in self.packed.spans.values() if span.name == name]
        return sorted(found, key=lambda span: span.start)
