"""The compiled kernels: low-bit matrices prepared once, and what is computed with them.

    y = relu(x Wᵀ + bias) * scale + shift + residual_weight * residual          (M, I), (O, I) -> (M, O)

W lies in memory at 1, 2, 4 or 8 bits a weight (3 bits in 4, 6 in 8; ternary in 2).  Each row of x becomes
int8 on the fly, a = round(127 x / max|x|), or by a step that the matrix has for all rows; sums of digits
times activations are integers, so that every instruction set and every number of threads gives the same bits.
`reference` says the same in NumPy.

The extension is built by ``pip install .``.  Without it this module imports all the same; `require` says so.
GREENASR_ISA names an instruction set (``isas()`` lists those of this machine, best first) for tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from greenasr.ops.signs import Signs
from greenasr.runtime.format import PackedSpan

if TYPE_CHECKING:
    from greenasr.runtime.kernels import _native
    from greenasr.runtime.kernels._native import Matrix, Tdnnf, TransformerBlock

Array = NDArray[Any]
Floats = NDArray[np.float32]
Map = tuple["Matrix", Floats | None, Floats | None, Floats | None]  # a map's bias, scale, shift

_RELU = {"none": 0, "first": 1, "last": 2, "gelu": 3}


def _found() -> ModuleType | None:
    """The extension, or None where it was not built."""
    try:
        return importlib.import_module("greenasr.runtime.kernels._native")
    except ModuleNotFoundError as error:
        if error.name != "greenasr.runtime.kernels._native":
            raise
        return None


if not TYPE_CHECKING:
    _native = _found()


def available() -> bool:
    """Whether the extension was built for this Python."""
    return _native is not None


def require() -> None:
    """Raise ImportError in one line where the extension is missing."""
    if not available():
        raise ImportError(
            "greenasr's compiled kernels are not built for this Python: install the package with "
            "`pip install .` (it needs a C++ compiler), or build them in place as CONTRIBUTING.md says"
        )


def matrix(*parts: tuple[Array, int, Array]) -> Matrix:
    """Prepare a matrix from its runs of rows: (codes (O, I) integer, bits, steps) each, top to bottom.

    ``steps`` is (), (O, 1) or (O, I / group, 1) float32, as in `roles.Quantized`; all parts share I and the
    group.  Parts may differ in bits: several products of one input are one matrix.  Raises ValueError for
    shapes that do not fit and for codes that are not of their width.
    """
    require()
    if not parts:
        raise ValueError("a matrix needs at least one run of rows")
    cols, grouped = parts[0][0].shape[-1], sorted(_groups(parts))
    if len(grouped) > 1:
        raise ValueError(f"runs of rows with {grouped[0]} and {grouped[1]} groups of steps are no one matrix")
    if grouped and cols % grouped[0]:
        raise ValueError(f"{grouped[0]} groups of steps do not divide the {cols} columns of the matrix")
    made = _native.Matrix(cols, cols // grouped[0] if grouped else 0)
    for codes, bits, steps in parts:
        narrow = np.ascontiguousarray(codes, np.int8)
        if codes.dtype != np.int8 and not np.array_equal(narrow, codes):
            raise ValueError(
                f"codes of {bits} bits reach {np.abs(codes).max()}: the kernels take 127 at most"
            )
        made.add(narrow, bits, np.ascontiguousarray(steps, np.float32).reshape(-1))
    return made


def fit(*parts: tuple[Array, int, Array]) -> bool:
    """Whether `matrix` takes these runs of rows: 8 bits at most, and groups of one size."""
    return all(bits <= 8 for _, bits, _ in parts) and len(_groups(parts)) <= 1


def _groups(parts: Sequence[tuple[Array, int, Array]]) -> set[int]:
    """Numbers of steps a row, of the runs of rows that have several."""
    return {steps.shape[1] for _, _, steps in parts if steps.ndim == 3 and steps.shape[1] > 1}


def from_spans(*spans: PackedSpan) -> Matrix:
    """The matrix whose rows are these spans of a packed file, one below the other.

    ValueError for trained ternary weights, which have two steps a table: the kernels know one.
    """
    if pairs := [span.key for span in spans if span.negative is not None]:
        raise ValueError(f"{pairs[0]} has two steps a table, the kernels one: run it dequantized.")
    return matrix(*((span.codes(), span.bits, span.step) for span in spans))


def generated(signs: Signs, step: float = 1.0) -> Matrix:
    """A ternary matrix that is generated from its seed at every product and never stored, times ``step``."""
    require()
    made = _native.Matrix(signs.cols)
    made.add_generated(signs.seed, signs.layer, signs.rows, signs.zeros, signs.structured, step)
    return made


def linear(
    x: Floats,
    weight: Matrix,
    bias: Floats | None = None,
    *,
    relu: Literal["none", "first", "last", "gelu"] = "none",
    scale: Floats | None = None,
    shift: Floats | None = None,
    residual: Floats | None = None,
    residual_weight: float = 1.0,
    index: NDArray[np.int32] | None = None,
    out: Floats | None = None,
    float_activations: bool = False,
) -> Floats:
    """relu(x Wᵀ + bias) * scale + shift + residual_weight * residual, (M, I) -> (M, O) float32.

    ``index`` (M', taps) gathers: row m is x[index[m, 0]], x[index[m, 1]], … end to end, -1 for zeros, without
    copying (a splice, a convolution over time, an im2col).  ``relu`` comes "first" (before scale, shift and
    residual) or "last"; "gelu" is a GELU in its first place.  ``out`` (M, O) may be any view with a
    contiguous last axis, also ``residual``.  ``float_activations`` leaves x in float: slow, for checking.
    Rows with NaN or infinity give NaN.  A ``weight.step`` above 0 rounds every row by that step, with larger
    numbers as ±127, in every call that multiplies with it.  The interpreter's lock is released.  Raises
    ValueError for shapes that do not fit.
    """
    if out is None:
        out = np.empty((len(x) if index is None else len(index), weight.rows), np.float32)
    how = _RELU[relu]
    _native.linear(
        weight, x, out, bias, how, scale, shift, residual, residual_weight, index, float_activations
    )
    return out


def gather(weight: Matrix, rows: NDArray[np.int32], out: Floats | None = None) -> Floats:
    """Rows of a matrix as float32, (n,) -> (n, I): the lookup of an embedding."""
    if out is None:
        out = np.empty((len(rows), weight.cols), np.float32)
    weight.gather(rows, out)
    return out


def vocabulary(
    x: Floats,
    weight: Matrix,
    chosen: NDArray[np.int32],
    bias: Floats | None = None,
    float_activations: bool = False,
) -> tuple[Floats, Floats]:
    """Log-probabilities of chosen words under softmax(x Wᵀ + bias), and each row's log-sum-exp.

    (M, I), (V, I), ``chosen`` (M, n) columns -> (M, n) and (M,).  The M x V logits are never written.
    """
    scores, normalizer = np.empty(chosen.shape, np.float32), np.empty(len(x), np.float32)
    _native.vocabulary(weight, x, chosen, bias, scores, normalizer, float_activations)
    return scores, normalizer


def lstm(
    x: Floats,
    weight: Matrix,
    recurrent: Matrix,
    bias: Floats | None,
    h: Floats,
    c: Floats,
    out: Floats | None = None,
    float_activations: bool = False,
) -> Floats:
    """An LSTM over a sequence in one call, (T, N, I) -> (T, N, D); the state h, c (N, D) changes in place.

    Gates lie as i, f, g, o in ``weight`` (4D, I), ``recurrent`` (4D, D) and ``bias`` (4D,), the sum of both
    biases; equations in `models.lstm`.  The inputs' product is taken over the whole sequence at once.
    """
    if out is None:
        out = np.empty((*x.shape[:2], recurrent.cols), np.float32)
    _native.lstm([(weight, recurrent, bias)], x, h[None], c[None], out, float_activations)
    return out


def lstm_layers(
    x: Floats, layers: Sequence[tuple[Matrix, Matrix, Floats | None]], h: Floats, c: Floats
) -> Floats:
    """LSTMs of one width, one above the other, in one call: (T, N, I) -> (T, N, D); h, c (L, N, D) change.

    ``layers`` are (weight, recurrent, bias), as `lstm` takes them.
    """
    out = np.empty((*x.shape[:2], h.shape[2]), np.float32)
    _native.lstm(list(layers), x, h, c, out)
    return out


def depthwise(
    x: Floats,
    taps: Floats,
    bias: Floats | None = None,
    *,
    stride: int = 1,
    dilation: int = 1,
    pad: int = 0,
    relu: bool = False,
) -> Floats:
    """Convolve every channel with a filter of its own: (T, C), (K, C) -> (T', C).

    y[t] = sum_k taps[k] * x[t stride + k dilation - pad], x zero outside; then bias (C,) and ReLU.
    """
    reach = len(x) + 2 * pad - dilation * (len(taps) - 1)
    out = np.empty((0 if reach < 1 else (reach - 1) // stride + 1, x.shape[1]), np.float32)
    _native.depthwise(x, taps, out, bias, stride, dilation, pad, int(relu))
    return out


def layer_norm(x: Floats, gain: Floats, bias: Floats, eps: float = 1e-5) -> Floats:
    """(x - mean) / sqrt(variance + eps) * gain + bias of every row, (M, D) -> (M, D)."""
    out = np.empty_like(x)
    _native.layer_norm(x, gain, bias, eps, out)
    return out


def transformer_block(
    qkv: tuple[Matrix, Floats | None],
    attended: tuple[Matrix, Floats | None],
    w1: tuple[Matrix, Floats | None],
    w2: tuple[Matrix, Floats | None],
    norms: tuple[Floats, Floats, Floats, Floats],
    heads: int,
    float_activations: bool = False,
) -> TransformerBlock:
    """A post-norm block for `transformer`, from maps (matrix, bias).

    z = norm(W softmax(q Kᵀ / √d) V + x), y = norm(W₂ gelu(W₁ z) + z); ``norms`` are gain, bias, gain, bias.
    """
    maps = (qkv, attended, w1, w2)
    vectors = [*(bias for _, bias in maps), *norms]
    return _native.TransformerBlock([weight for weight, _ in maps], vectors, heads, float_activations)


def transformer(
    blocks: list[TransformerBlock], rows: Floats, n: int, keys: Floats, values: Floats, past: int
) -> None:
    """Go through all blocks in one call: ``rows`` (n t, D) change from the first's x to the last's y.

    The t new tokens of n hypotheses are written behind the ``past`` ones of ``keys`` (L, n, heads, D / heads,
    room) and ``values`` (L, n, heads, room, D / heads) of the L blocks.
    """
    _native.transformer(blocks, rows, n, keys, values, past)


def tdnnf_network(
    front: Map | None, entry: Map, layers: Sequence[tuple[Map, Map]], heads: Sequence[Map], **settings: Any
) -> Tdnnf:
    """A network for `tdnnf`: its input layers, both factors of every layer, and the four maps behind them."""
    return _native.Tdnnf(front, entry, [part for pair in layers for part in pair], list(heads), **settings)


def tdnnf(
    network: Tdnnf,
    feats: Floats,
    outputs: tuple[int, int],
    ivectors: Floats | None = None,
    norms: Sequence[Floats] | None = None,
) -> Floats:
    """All of a factored time delay network in one call (`runtime.tdnnf`), (T, F), (T, I) -> logits (T', C).

    ``norms`` are scale and shift of the input layer and of every layer instead of the network's own.  Frames
    go through the layers by the hundred, so that these are still in the cache when they are read; the bits
    are those of product after product.  Raises ValueError for shapes that do not fit.
    """
    out = np.empty(outputs, np.float32)
    _native.tdnnf(network, feats, ivectors, None if norms is None else list(norms), out)
    return out


def read_rate(nbytes: int, seconds: float = 0.2) -> float:
    """Bytes a second that all threads together read from ``nbytes`` of memory: the best slice."""
    return _native.read_rate(nbytes, seconds)


def peak_rate(seconds: float = 0.2) -> float:
    """Integer multiplications and additions a second of the instruction set in use: the best slice."""
    return _native.peak_rate(seconds)


def isa() -> str:
    """The instruction set in use."""
    return _native.isa()


def isas() -> Sequence[str]:
    """The instruction sets that this machine can run, best first."""
    return _native.isas()


def use_isa(name: str) -> None:
    """Use this instruction set from now on.  Raises ValueError for one that cannot run here."""
    _native.use_isa(name)


def threads() -> int:
    """Threads that one call may use, the caller's own included; at first every core of this process."""
    return _native.threads()


def cores() -> int:
    """Cores that this process may use: the most threads that there may be."""
    return _native.cores()


def set_threads(n: int) -> None:
    """Use ``n`` threads from now on.  Raises ValueError for more than this process has cores."""
    _native.set_threads(n)
