"""A linear map with what usually follows it: y = relu(x Wᵀ + b) · scale + shift + residual_weight · residual.

`Dense` is NumPy: weights in float32, for models in full precision, for checking, and where the kernels were
not built.  `Narrow` is our kernels: weights at 1 to 8 bits in memory, activations rounded to int8 on the way.
Both read frames through ``index``: row m of the product is x[index[m, 0]], x[index[m, 1]], … end to end, with
zeros for -1, so that splices and convolutions are linear maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime.activations import rounded
from greenasr.runtime.kernels import native
from greenasr.runtime.pointwise import Floats

if TYPE_CHECKING:
    from greenasr.runtime.kernels._native import Matrix

Relu = Literal["none", "first", "last"]
Index = NDArray[np.int32]


class Dense:
    """W in float32; activations are rounded as the kernels round them, or left alone; ``watch`` sees them."""

    kernel = "float32"

    def __init__(
        self,
        weight: Floats,
        bias: Floats | None,
        rounded: bool,
        step: float = 0.0,
        watch: Callable[[Floats], None] | None = None,
    ):
        self.weight, self.bias, self.rounded, self.step, self.watch = weight, bias, rounded, step, watch
        if rounded:
            self.kernel = "float32 of int8 activations"

    @property
    def inputs(self) -> int:
        """I."""
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        """O."""
        return int(self.weight.shape[0])

    def __call__(
        self,
        x: Floats,
        relu: Relu = "none",
        scale: Floats | None = None,
        shift: Floats | None = None,
        residual: Floats | None = None,
        residual_weight: float = 1.0,
        index: Index | None = None,
    ) -> Floats:
        """(…, I) -> (…, O); (M, D) with an index (M', taps) -> (M', O)."""
        if index is not None:
            x = np.concatenate((x, np.zeros((1, x.shape[1]), np.float32)))[index].reshape(len(index), -1)
        if self.watch is not None:
            self.watch(x)
        y: Floats = (rounded(x, self.step) if self.rounded else x) @ self.weight.T
        if self.bias is not None:
            y += self.bias
        if relu == "first":
            np.maximum(y, 0, out=y)
        if scale is not None:
            y *= scale
        if shift is not None:
            y += shift
        if residual is not None:
            y += np.float32(residual_weight) * residual
        return np.maximum(y, 0, out=y) if relu == "last" else y


class Narrow:
    """W as the kernels hold it."""

    def __init__(self, weight: Matrix, bias: Floats | None):
        self.weight, self.bias = weight, bias
        self.kernel = native.isa()

    @property
    def inputs(self) -> int:
        """I."""
        return int(self.weight.cols)

    @property
    def outputs(self) -> int:
        """O."""
        return int(self.weight.rows)

    def __call__(
        self,
        x: Floats,
        relu: Relu = "none",
        scale: Floats | None = None,
        shift: Floats | None = None,
        residual: Floats | None = None,
        residual_weight: float = 1.0,
        index: Index | None = None,
    ) -> Floats:
        """(…, I) -> (…, O); (M, D) with an index (M', taps) -> (M', O)."""
        flat = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
        y = native.linear(
            np.ascontiguousarray(flat, np.float32), self.weight, self.bias, relu=relu, scale=scale,
            shift=shift, residual=residual, residual_weight=residual_weight, index=index,
        )  # fmt: skip
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], y.shape[1])


Linear = Dense | Narrow


def in_kernels(*maps: Linear) -> list[tuple[Matrix, Floats | None]] | None:
    """(Matrix, bias) of every map; None where one is not the kernels'."""
    narrow = [m for m in maps if isinstance(m, Narrow)]
    if len(narrow) < len(maps):
        return None
    return [(m.weight, m.bias) for m in narrow]
