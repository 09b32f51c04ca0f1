"""In which numbers the inputs of a linear map are multiplied, as a packed file says it.

    int8       a = round(127 x / max|x|)                        a row by its own largest number
    static     a = min(127, max(-127, round(x / s)))            by a step s of the map, measured beforehand
    float32    x as it is

A static step spares the look through each row; numbers beyond 127 s are clipped.  A map has the name under
which its network asks for it: `layers.0.linear`, or `a + b` where two products of one input are one map.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Activations = Literal["int8", "static", "float32"]
ACTIVATIONS: tuple[Activations, ...] = get_args(Activations)
MOST = 127  # the largest level
SMALLEST, LARGEST = 1e-30, 1e30  # steps of which the kernels take the inverse
JOINED = " + "
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rounding:
    """The kind of activations of a model, and where it is static the step of every map of few bits."""

    kind: Activations = "int8"
    steps: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data; nothing for int8 row by row."""
        if self.kind == "int8":
            return {}
        return {"kind": self.kind} | ({"steps": dict(self.steps)} if self.steps else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rounding:
        """Read what `to_json` wrote; ValueError for anything else."""
        if not isinstance(value, dict) or not isinstance(value.get("steps", {}), dict):
            raise ValueError(f"activations are {value!r:.40}, expected a kind and steps")
        return cls(value.get("kind", "int8"), value.get("steps", {}))

    def check(self, weights: Collection[str]) -> None:
        """ValueError for kinds, steps or names that there are not; ``weights`` are those of few bits."""
        if self.kind not in ACTIVATIONS or bool(self.steps) != (self.kind == "static"):
            raise ValueError(
                f"activations '{self.kind!s:.40}' with {len(self.steps)} steps: expected "
                f"{', '.join(ACTIVATIONS)}, and steps for static ones alone"
            )
        for name, step in self.steps.items():
            if not isinstance(step, int | float) or isinstance(step, bool) or not SMALLEST <= step <= LARGEST:
                raise ValueError(
                    f"the activations' step of '{name}' is {step!r:.40}, expected a size above 0"
                )
            if odd := [part for part in name.split(JOINED) if f"{part}.weight" not in weights]:
                raise ValueError(f"a step of activations is for '{odd[0]}', which is no map of few bits")


def rounded(x: Floats, step: float = 0.0) -> Floats:
    """The nearest of 255 even levels, whose largest is the row's largest |x| or 127 steps; (…, I) -> (…, I).

    >>> rounded(np.array([[127.0, -63.6, 0.4]], np.float32)).tolist()
    [[127.0, -64.0, 0.0]]
    >>> rounded(np.array([[127.0, -63.6, 0.4]], np.float32), 0.5).tolist()
    [[63.5, -63.5, 0.5]]
    """
    if step:
        one = np.float32(step)
        with np.errstate(over="ignore", invalid="ignore"):
            levels = np.clip(np.rint(x * (np.float32(1) / one)), np.float32(-MOST), np.float32(MOST))
        fixed: Floats = np.where(np.isfinite(x), levels * one, np.float32("nan"))
        return fixed
    steps = np.abs(x).max(-1, keepdims=True, initial=0) / np.float32(MOST)
    steps = np.where(steps > 0, steps, np.float32(1))
    found: Floats = np.rint(x / steps) * steps
    return found
