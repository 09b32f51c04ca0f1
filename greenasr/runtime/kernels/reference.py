"""The kernels' arithmetic in NumPy: slow, obvious, and equal to them bit for bit.

s = max|x| / 127,  a = round(x * 127 / max|x|)                     a row of activations, to nearest even
s = step,          a = min(127, max(-127, round(x * 1 / step)))    with a step of the matrix's own
y = s * sum_g step_g (a_g · codes_g)                               integers inside, float32 outside, in order
y = relu(y + bias) * scale + shift + residual_weight * residual
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]

SILENT = np.float32(1e-30)  # a row whose largest magnitude is below counts as zeros


def quantize(x: Floats, step: float = 0.0) -> tuple[NDArray[np.int64], Floats]:
    """(M, I) -> int8 values as int64 (M, I), and each row's scale (M, 1): NaN where a row is not finite.

    With a ``step`` that is every row's scale.

    >>> values, scale = quantize(np.array([[1.0, -2.0, 0.5]], np.float32))
    >>> values.tolist(), bool(scale[0, 0] == np.float32(2) / np.float32(127))
    ([[64, -127, 32]], True)
    """
    peak = np.abs(x).max(axis=1, keepdims=True)
    if step:
        finite, inverse = np.isfinite(peak), np.float32(1) / np.float32(step)
        with np.errstate(over="ignore"):
            scaled = np.where(finite, x, np.float32(0)) * inverse
        values = np.rint(np.clip(scaled, np.float32(-127), np.float32(127))).astype(np.int64)
        return values, np.where(finite, np.float32(step), np.float32("nan"))
    usable = np.isfinite(peak) & (peak >= SILENT)
    safe = np.where(usable, peak, np.float32(1))
    values = np.rint(np.where(usable, x, np.float32(0)) * (np.float32(127) / safe)).astype(np.int64)
    scale = np.where(
        usable, safe / np.float32(127), np.where(np.isfinite(peak), np.float32(0), np.float32("nan"))
    )
    return values, scale


def product(x: Floats, codes: Array, steps: Floats, step: float = 0.0) -> Floats:
    """(M, I), codes (O, I), steps (), (O, 1) or (O, I / group, 1) -> x Wᵀ (M, O), W = codes * steps."""
    values, scale = quantize(x, step)
    n_out, inputs = codes.shape
    groups = steps.shape[1] if steps.ndim == 3 else 1
    by_group = np.broadcast_to(
        steps.reshape((n_out, groups) if steps.ndim == 3 else steps.shape), (n_out, groups)
    )
    width = inputs // groups
    total: Floats | None = None
    for g in range(groups):
        part = slice(g * width, (g + 1) * width)
        sums = values[:, part] @ codes[:, part].astype(np.int64).T
        term = sums.astype(np.float32) * by_group[:, g]
        total = term if total is None else total + term
    assert total is not None
    return total * scale


def linear(
    x: Floats,
    codes: Array,
    steps: Floats,
    bias: Floats | None = None,
    *,
    relu: Literal["none", "first", "last"] = "none",
    scale: Floats | None = None,
    shift: Floats | None = None,
    residual: Floats | None = None,
    residual_weight: float = 1.0,
    index: NDArray[np.int32] | None = None,
    step: float = 0.0,
) -> Floats:
    """As `native.linear`, from codes and steps, and the step of activations: (M, I) -> (M, O)."""
    if index is not None:
        x = gathered(x, index)
    y = product(x, codes, steps, step)
    y = y if bias is None else y + bias
    y = _relu(y) if relu == "first" else y
    y = y if scale is None else y * scale
    y = y if shift is None else y + shift
    y = y if residual is None else y + residual * np.float32(residual_weight)
    return _relu(y) if relu == "last" else y


def gathered(x: Floats, index: NDArray[np.int32]) -> Floats:
    """Rows x[index[m, 0]], x[index[m, 1]], … end to end, zeros for -1: (M', taps * I)."""
    rows = np.where(index[:, :, None] < 0, np.float32(0), x[np.maximum(index, 0)])
    return rows.reshape(len(index), -1)


def _relu(y: Floats) -> Floats:
    return np.where(np.isnan(y), y, np.maximum(y, np.float32(0)))
