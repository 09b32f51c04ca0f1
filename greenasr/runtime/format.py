"""The packed file: one safetensors container that holds a whole model, read without torch.

    file = u64 header length | header JSON | steps | rest.* | codes | meta

``codes`` is every quantized span's codes end to end (`ops.bits`), ``steps`` their steps, ``rest.F32``
and ``rest.BF16`` whatever is not quantized, ``meta`` a JSON table, bz2-compressed, that says what lies
where and carries the model's config, bit map, tokenizer, recipe and the seeds of generated matrices.  Few
large tensors instead of many small ones, because a tensor costs 70 bytes of header, and a keyword model may
be 20 kB in all.
The SHA-256 of the file (taken with zeros in its own place) is in the header and is verified on read.
The layout is specified in docs/packed_format.md.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.data.files import write_atomic
from greenasr.ops import bits as bitpack
from greenasr.ops.signs import Signs
from greenasr.runtime.activations import Rounding

VERSION = 3  # what is read; a file is written as the lowest version that describes it
Array = NDArray[Any]

_DTYPES = {"I64": "<i8", "F32": "<f4", "I32": "<i4", "BF16": "<u2", "U8": "|u1", "BOOL": "|b1"}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_PREFIX = re.compile(rb'\{"__metadata__":\{"format":"greenasr packed (\d{1,9})","sha256":"([0-9a-f]{64})"')
# Guards against bombs: a table may be 256 kB of text, or four times the file, and a quarter of it brackets.
_SMALL_META, _META_RATIO, _LARGEST_HEADER = 1 << 18, 4, 1 << 16
_CURE = "copy it again from its source, or make it again with `greenasr compress`"


@dataclass(frozen=True, eq=False)
class PackedSpan:
    """Rows ``start:stop`` of a parameter seen as (O, cols): packed codes (bytes,) and float32 step.

    ``step`` is (), (O, 1) or (O, cols / group, 1), as in `roles.Quantized`, and so is ``negative``, the step
    of codes below zero where it is another one.
    """

    name: str
    start: int
    stop: int
    cols: int
    bits: int
    packed: NDArray[np.uint8]
    step: NDArray[np.float32]
    negative: NDArray[np.float32] | None = None

    @property
    def key(self) -> str:
        """The span's name in tables, ``name[start:stop]``."""
        return f"{self.name}[{self.start}:{self.stop}]"

    @property
    def numel(self) -> int:
        """Number of weights."""
        return (self.stop - self.start) * self.cols

    @property
    def nbytes(self) -> int:
        """Bytes of codes and steps on disk."""
        return self.packed.nbytes + sum(step.nbytes for step in self.steps)

    @property
    def steps(self) -> tuple[NDArray[np.float32], ...]:
        """The step, and that of codes below zero if it is another."""
        return (self.step,) if self.negative is None else (self.step, self.negative)

    def codes(self) -> Array:
        """Level indices, (stop - start, cols), int8 or int16."""
        flat = bitpack.unpack(self.packed, self.bits, self.numel)
        return flat.reshape(self.stop - self.start, self.cols)

    def dequantize(self) -> NDArray[np.float32]:
        """Codes * step in float32, (stop - start, cols): the trained weights, bit for bit."""
        codes = self.codes().astype(np.float32)
        shape = codes.shape
        if self.step.ndim == 3:
            codes = codes.reshape(*self.step.shape[:2], -1)
        weight = codes * self.step
        if self.negative is not None:
            weight = np.where(codes < 0, codes * self.negative, weight)
        return weight.reshape(shape)


@dataclass(frozen=True, eq=False)
class Packed:
    """A packed model: ``rest`` holds float32, integers, or uint16 that are bfloat16 bit patterns.

    ``shapes`` gives the full shape of every quantized parameter; its spans are the rows of its view
    as (O, -1).  ``ties`` maps a second name of a parameter to its first.  ``seeds`` names the matrices that
    are generated (`ops.signs`) by the weights that they are.  ``self_test`` is that of `runtime.numerics`,
    ``rounding`` says in which numbers activations are multiplied.
    """

    model: str
    config: dict[str, Any]
    bit_map: dict[str, Any]
    spans: dict[str, PackedSpan]
    rest: dict[str, Array]
    tokenizer: dict[str, Any]
    recipe: dict[str, Any]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, Signs] = field(default_factory=dict)
    self_test: dict[str, Any] = field(default_factory=dict)
    rounding: Rounding = field(default_factory=Rounding)

    @property
    def version(self) -> int:
        """The lowest version of the format that holds this model."""
        if self.rounding.kind != "int8":
            return 3
        return 2 if self.seeds or any(s.negative is not None for s in self.spans.values()) else 1

    @property
    def unquantized_bytes(self) -> int:
        """Bytes of trained weights in float32 (integers as they are), every tied parameter once."""
        rest = sum(a.size * (4 if a.dtype.itemsize == 2 else a.dtype.itemsize) for a in self.rest.values())
        return rest + 4 * sum(math.prod(shape) for shape in self.shapes.values())

    def weights(self) -> dict[str, Array]:
        """Every parameter under every name: float32 arrays in their full shape (integers as they are)."""
        found = {name: from_bfloat16(a) if a.dtype == np.uint16 else a for name, a in self.rest.items()}
        for name, shape in self.shapes.items():
            rows = sorted((s for s in self.spans.values() if s.name == name), key=lambda s: s.start)
            found[name] = np.concatenate([span.dequantize() for span in rows]).reshape(shape)
        found.update({name: signs.rows_of().astype(np.float32) for name, signs in self.seeds.items()})
        return found | {alias: found[name] for alias, name in self.ties.items()}


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 -> bfloat16 bit patterns, rounded to nearest even; NaN stays NaN.

    >>> to_bfloat16(np.array([1.0, -2.5], np.float32)).tolist()
    [16256, 49184]
    """
    word = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (word + (np.uint32(0x7FFF) + ((word >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_bfloat16(patterns: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Bfloat16 bit patterns -> float32, exactly."""
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def write(path: str | Path, packed: Packed) -> int:
    """Write a model whole or not at all; the number of bytes on disk.

    Raises ValueError when the parts do not fit together, OSError naming ``path`` on a full disk.
    """
    data = to_bytes(packed, str(path))
    write_atomic(path, data)
    return len(data)


def read(path: str | Path) -> Packed:
    """Read and verify a model.

    Raises ValueError in one line for anything but a whole, unaltered packed file of a version we know.
    """
    return from_bytes(Path(path).read_bytes(), str(path))


def to_bytes(packed: Packed, where: str = "packed model") -> bytes:
    """The file as bytes; the same model gives the same bytes."""
    try:
        _check(packed)
        meta = bz2.compress(_meta(packed))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    steps = (step.astype("<f4") for s in packed.spans.values() for step in s.steps)
    blobs = {"steps": _join(steps, "<f4")}
    for dtype, kind in _DTYPES.items():
        arrays = [a.astype(kind) for a in packed.rest.values() if _NAMES[a.dtype] == dtype]
        if arrays:
            blobs[f"rest.{dtype}"] = _join(arrays, kind)
    blobs["codes"] = _join((s.packed for s in packed.spans.values()), "|u1")
    blobs["meta"] = np.frombuffer(meta, np.uint8)
    blobs = dict(sorted(blobs.items(), key=lambda item: -item[1].dtype.itemsize))  # keeps all aligned

    summary = {"format": f"greenasr packed {packed.version}", "sha256": "0" * 64, "model": packed.model}
    if packed.bit_map:
        summary["average_bits"] = f"{packed.bit_map['average_bits']:.3f}"
    header: dict[str, Any] = {"__metadata__": summary}
    end = 0
    for name, blob in blobs.items():
        dtype = _NAMES[blob.dtype]
        header[name] = {"dtype": dtype, "shape": [blob.size], "data_offsets": [end, end + blob.nbytes]}
        end += blob.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join([len(text).to_bytes(8, "little"), text, *(blob.tobytes() for blob in blobs.values())])
    place = data.index(b"0" * 64, 8)
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[:place] + digest + data[place + 64 :]


def from_bytes(data: bytes, where: str = "packed model") -> Packed:
    """Verify and read what `to_bytes` made; ``where`` names it in errors."""
    prefix = _PREFIX.match(data, 8)
    if prefix is None:
        raise ValueError(f"{where}: not a packed model of greenasr, or its first bytes were altered: {_CURE}")
    if not 1 <= int(prefix[1]) <= VERSION:
        raise ValueError(
            f"{where}: packed format {int(prefix[1])}, this greenasr reads formats 1 to {VERSION}: "
            "install a greenasr that reads it, or pack the model again with this one"
        )
    place = prefix.start(2)
    digest = _digest(data, place)
    if digest != prefix[2].decode():
        raise ValueError(
            f"{where}: checksum {digest[:12]}… of {len(data)} bytes, expected {prefix[2].decode()[:12]}…: "
            f"the file was cut short or altered; {_CURE}"
        )
    try:
        packed = _assemble(_blobs(data), len(data))
        _check(packed)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, OSError) as error:
        raise ValueError(f"{where}: its table does not describe its contents ({error}): {_CURE}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"{where}: its table does not describe its contents ({error}): {_CURE}") from error
    return packed


def _digest(data: bytes, place: int) -> str:
    """SHA-256 with zeros in the 64 places of its own digits; nothing is copied."""
    view, found = memoryview(data), hashlib.sha256()
    for part in (view[:place], b"0" * 64, view[place + 64 :]):
        found.update(part)
    return found.hexdigest()


def _meta(packed: Packed) -> bytes:
    """The table of contents and everything that is not a weight, as JSON."""
    table = {
        "model": packed.model,
        "config": packed.config,
        "unquantized_bytes": packed.unquantized_bytes,
        "spans": [
            [s.name, s.start, s.stop, s.cols, s.bits, s.step.shape, *([2] if len(s.steps) == 2 else [])]
            for s in packed.spans.values()
        ],
        "shapes": packed.shapes,
        "rest": [[name, _NAMES[a.dtype], a.shape] for name, a in packed.rest.items()],
        "ties": packed.ties,
        "bit_map": packed.bit_map,
        "recipe": packed.recipe,
        "tokenizer": packed.tokenizer,
    }
    if packed.self_test:
        table["self_test"] = packed.self_test
    if packed.rounding.kind != "int8":
        table["activations"] = packed.rounding.to_json()
    if packed.seeds:
        table["seeds"] = {name: signs.to_numbers() for name, signs in packed.seeds.items()}
    try:
        return json.dumps(table, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"config, bit map, tokenizer or recipe is not JSON ({error}): keep plain finite values in them"
        ) from error


def _blobs(data: bytes) -> dict[str, Array]:
    """The tensors of a safetensors container, each 1-D, as views of ``data``."""
    start = 8 + int.from_bytes(data[:8], "little")
    if start > min(len(data), _LARGEST_HEADER):
        raise ValueError(f"its header ends at byte {start} of {len(data)}")
    header, view = json.loads(data[8:start]), memoryview(data)
    blobs = {}
    for name, entry in header.items():
        if name != "__metadata__":
            low, high = entry["data_offsets"]
            kind = np.dtype(_DTYPES[entry["dtype"]])
            if not 0 <= low <= high <= len(data) - start:
                raise ValueError(f"{name} ends at byte {high} of {len(data) - start}")
            blobs[name] = np.frombuffer(view[start + low : start + high], kind)
    return blobs


def _assemble(blobs: Mapping[str, Array], size: int = 0) -> Packed:
    """Cut the blobs as the table says, each to its last byte."""
    unzip, largest = bz2.BZ2Decompressor(), max(_SMALL_META, _META_RATIO * size)
    text = unzip.decompress(blobs["meta"].tobytes(), largest)
    if not unzip.eof:
        raise ValueError(f"its metadata is cut, or larger than {largest} bytes in a file of {size}")
    if text.count(b"[") + text.count(b"{") > len(text) // 4:
        raise ValueError("its metadata is lists of nothing")
    table = json.loads(text)
    del text
    taken = dict.fromkeys(blobs, 0)

    def take(blob: str, size: int) -> Array:
        start, taken[blob] = taken[blob], taken[blob] + size
        if size < 0 or taken[blob] > blobs[blob].size:
            raise ValueError(f"{blob} holds {blobs[blob].size} values, the table wants {taken[blob]}")
        return blobs[blob][start : taken[blob]]

    spans = {}
    for name, start, stop, cols, bits, shape, *pair in table["spans"]:
        if pair not in ([], [2]):
            raise ValueError(f"{name} has steps of kind {pair}, expected 2 for a pair or nothing")
        steps = [take("steps", math.prod(shape)).reshape(shape) for _ in range(2 if pair else 1)]
        packed = take("codes", bitpack.packed_bytes((stop - start) * cols, bits))
        span = PackedSpan(name, start, stop, cols, bits, packed, *steps)
        spans[span.key] = span
    rest = {name: take(f"rest.{d}", math.prod(shape)).reshape(shape) for name, d, shape in table["rest"]}
    taken["meta"] = blobs["meta"].size
    if odd := [name for name, blob in blobs.items() if taken[name] != blob.size]:
        raise ValueError(f"{odd[0]} holds {blobs[odd[0]].size} values, the table names {taken[odd[0]]}")
    shapes = {name: tuple(shape) for name, shape in table["shapes"].items()}
    plain = {key: table[key] for key in ("model", "config", "bit_map", "tokenizer", "recipe", "ties")}
    seeds = {name: Signs.from_numbers(numbers) for name, numbers in table.get("seeds", {}).items()}
    test = table.get("self_test", {})
    rounding = Rounding.from_json(table.get("activations", {}))
    return Packed(
        spans=spans, rest=rest, shapes=shapes, seeds=seeds, self_test=test, rounding=rounding, **plain
    )


def _join(arrays: Iterable[Array], kind: str) -> Array:
    """All values end to end, (n,); an empty (0,) for none."""
    return np.concatenate([np.zeros(0, kind), *(a.reshape(-1) for a in arrays)])


def _check(packed: Packed) -> None:
    """Refuse parts that do not fit together: every quantized row once, every step a kind we know."""
    if not isinstance(packed.model, str) or not isinstance(packed.ties, dict):
        raise ValueError(f"model is {packed.model!r:.40}, ties {packed.ties!r:.40}: expected a name, a table")
    for name, shape in packed.shapes.items():
        spans = sorted((s for s in packed.spans.values() if s.name == name), key=lambda s: s.start)
        edges = [0, *(s.stop for s in spans)]
        rows = shape[0] if shape else 0
        cols = math.prod(shape[1:])
        if [s.start for s in spans] != edges[:-1] or edges[-1] != rows or any(s.cols != cols for s in spans):
            raise ValueError(
                f"{name} is {shape}, its spans {', '.join(s.key for s in spans) or '(none)'} do not cover "
                f"its {rows} rows of {cols} once: make the bit map from this model's clusters"
            )
    for key, span in packed.spans.items():
        rows, shape = span.stop - span.start, span.step.shape
        groups = shape[1] if len(shape) == 3 and shape[::2] == (rows, 1) else 0
        if span.name not in packed.shapes or key != span.key:
            raise ValueError(f"span {key} is of no parameter that is packed")
        if shape not in ((), (rows, 1)) and (groups == 0 or span.cols % groups):
            raise ValueError(
                f"{key} has steps of shape {shape}, expected (), ({rows}, 1) or ({rows}, I/group, 1), "
                f"I = {span.cols}: project it again on a step of this shape"
            )
        if span.negative is not None and span.negative.shape != shape:
            raise ValueError(
                f"{key} has two steps of shapes {shape} and {span.negative.shape}: give them one"
            )
        size = bitpack.packed_bytes(span.numel, span.bits)
        if span.packed.shape != (size,):
            raise ValueError(f"{key} has {span.packed.size} bytes of codes, expected {size}")
    for name, array in packed.rest.items():
        if array.dtype not in _NAMES or name in packed.shapes:
            kinds = "float32, bfloat16 (uint16), int64, int32, uint8 or bool"
            found = "in the rest and among the spans" if name in packed.shapes else str(array.dtype)
            raise ValueError(f"{name} is {found}, expected one array of {kinds}")
    if twice := sorted(packed.seeds.keys() & (packed.rest.keys() | packed.shapes.keys())):
        raise ValueError(f"{twice[0]} is generated from a seed and stored: it can be one of them")
    known = packed.rest.keys() | packed.shapes.keys()
    for alias, name in packed.ties.items():
        if alias in known or name not in known:
            raise ValueError(f"{alias} is tied to {name}, which must be the only one stored")
    narrow = packed.shapes.keys() | packed.seeds.keys()
    packed.rounding.check(narrow | {alias for alias, name in packed.ties.items() if name in narrow})
    for part in ("config", "bit_map", "tokenizer", "recipe", "self_test"):
        if not isinstance(getattr(packed, part), dict):
            raise ValueError(f"{part} is {type(getattr(packed, part)).__name__}, expected a dict")
