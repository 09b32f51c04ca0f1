"""Grids as values: how many bits, and how many weights share a step.

Names as they appear in bit_map.json: a width, and "cluster", "row" or "group:N" for the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from greenasr.ops import grid
from greenasr.ops.bits import WIDTHS
from greenasr.roles import Quantized


@dataclass(frozen=True)
class Uniform:
    """Symmetric n-bit table (MPLM eq. 7–9): binary, ternary, or 2^n - 1 levels.

    ``steps`` is how often a step is kept: one a "cluster", a "row" or a "group:N" of columns.

    >>> import torch
    >>> w = torch.tensor([[0.1, -0.9, 0.7]])
    >>> Uniform(bits=2).project(w).dequantize()
    tensor([[ 0.0000, -0.8000,  0.8000]])
    """

    bits: int = 4
    steps: str = "cluster"

    def __post_init__(self) -> None:
        """Refuse widths and step kinds that no table has."""
        if self.bits not in WIDTHS:
            raise ValueError(f"no table of {self.bits} bits: choose from {', '.join(map(str, WIDTHS))}.")
        kind, _, size = self.steps.partition(":")
        if not (self.steps in ("cluster", "row") or (kind == "group" and size.isdigit() and int(size) > 0)):
            raise ValueError(
                f"unknown step '{self.steps}': choose cluster, row or group:N, for example group:64."
            )

    def project(self, weight: Tensor, step: Tensor | None = None) -> Quantized:
        """Nearest point of the table to ``weight`` (O, I); one alternation from ``step`` if it is given."""
        rows = self._rows(weight)
        if step is None:
            fitted = grid.fit_step(rows, self.bits)
        else:
            fitted = grid.refit_step(rows, step.reshape(-1, 1), self.bits)
        return self.on(weight, fitted)

    def on(self, weight: Tensor, step: Tensor) -> Quantized:
        """Nearest codes on a table whose step is fixed."""
        rows, flat = self._rows(weight), step.reshape(-1, 1)
        codes = grid.codes(rows, flat, self.bits).view(weight.shape)
        return Quantized(codes, flat.view(self._step_shape(weight)))

    def even(self, weight: Tensor, step: float) -> Tensor:
        """One value for all steps, in the shape that `project` gives them.

        >>> import torch
        >>> Uniform(bits=4, steps="row").even(torch.zeros(2, 3), 0.5).tolist()
        [[0.5], [0.5]]
        """
        return weight.new_full(self._step_shape(weight), step)

    def _rows(self, weight: Tensor) -> Tensor:
        if self.steps == "cluster":
            return weight.reshape(1, -1)
        return weight.reshape(-1, self._group(weight))

    def _group(self, weight: Tensor) -> int:
        if self.steps == "row":
            return weight.shape[1]
        size = int(self.steps.partition(":")[2])
        if weight.shape[1] % size:
            raise ValueError(
                f"rows of {weight.shape[1]} weights cannot be cut into groups of {size}: choose a divisor."
            )
        return size

    def _step_shape(self, weight: Tensor) -> tuple[int, ...]:
        if self.steps == "cluster":
            return ()
        return (
            (weight.shape[0], 1)
            if self.steps == "row"
            else (weight.shape[0], weight.shape[1] // self._group(weight), 1)
        )


QUANTIZERS: dict[str, Callable[[], Uniform]] = {
    f"{bits} bits, step a {steps}": partial(Uniform, bits, steps)
    for bits in WIDTHS
    for steps in ("cluster", "row", "group:4")
}
