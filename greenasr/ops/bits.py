"""Integer codes as bytes: the one place that knows how many bytes n codes of b bits take.

A code of b bits is a level index in ±(2^(b-1) - 1), MPLM eq. 7-9 (Xu et al. 2021, arXiv 2112.11438);
1 bit is ±1 and 2 bits are ternary.  Codes become digits d >= 0, and digits become bytes:

    1 bit        d = (code + 1) / 2      byte = sum_i d_i 2^i                eight a byte
    2 (ternary)  d = code + 1            byte = sum_i d_i 3^i   (<= 242)     five a byte, 1.6 bits
    3, 4, 6      d = code + 2^(b-1) - 1  little-endian stream of b-bit digits
    8, 16        two's complement, little endian

The last byte is filled up with zero digits.  Whatever cannot have been written so is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTHS = (1, 2, 3, 4, 6, 8, 16)

Bytes = NDArray[np.uint8]
Codes = NDArray[np.integer[Any]]

_POWERS_OF_3 = 3 ** np.arange(5)
_TERNARY = (np.arange(243)[:, None] // _POWERS_OF_3 % 3 - 1).astype(np.int8)  # byte -> five codes
_STREAM = {3: (8, 3), 4: (2, 1), 6: (4, 3)}  # bits -> codes and bytes a group


def largest_code(bits: int) -> int:
    """The largest level index of a width, 2^(b-1) - 1, and 1 for binary.

    >>> [largest_code(bits) for bits in WIDTHS]
    [1, 1, 3, 7, 31, 127, 32767]
    """
    if bits not in WIDTHS:
        raise ValueError(f"cannot pack codes of {bits} bits: choose a width of {', '.join(map(str, WIDTHS))}")
    return max(1, (1 << (bits - 1)) - 1)


def packed_bytes(n: int, bits: int) -> int:
    """Bytes that n codes take: ceil(n/5) for ternary, ceil(n b / 8) otherwise.

    >>> packed_bytes(10, 2), packed_bytes(10, 3), packed_bytes(11, 4)
    (2, 4, 6)
    """
    largest_code(bits)
    return -(-n // 5) if bits == 2 else -(-n * bits // 8)


def pack(codes: Codes, bits: int) -> Bytes:
    """Integer codes of any shape, read in C order, -> bytes (`packed_bytes`,).

    >>> pack(np.array([-1, 0, 1, 1, 1, 0]), bits=2).tolist()
    [237, 1]

    Raises ValueError for a width that is not in `WIDTHS`, for codes that are not integers, and for
    codes beyond ±(2^(b-1) - 1) (or a 0 among binary codes).
    """
    flat = np.ascontiguousarray(codes).reshape(-1)
    _check(flat, bits)
    if bits == 1:
        return np.packbits(flat > 0, bitorder="little")
    if bits == 2:
        return _pack_ternary(flat)
    if bits in _STREAM:
        return _pack_stream(flat, bits)
    return flat.astype("<i1" if bits == 8 else "<i2").view(np.uint8)


def unpack(packed: Bytes, bits: int, n: int) -> Codes:
    """Bytes -> the n codes that `pack` was given, (n,), int8 (int16 for 16 bits).

    Raises ValueError for a wrong number of bytes and for bytes that `pack` cannot have written.
    """
    expected = packed_bytes(n, bits)
    if packed.dtype != np.uint8 or packed.shape != (expected,):
        raise ValueError(
            f"{n} codes of {bits} bits are {expected} bytes, found {packed.dtype} {packed.shape}: "
            "the packed weight was cut or belongs to another shape"
        )
    codes: Codes
    padding: NDArray[Any]
    if bits == 1:
        digits = np.unpackbits(packed, bitorder="little")
        codes, padding = _minus(digits[:n] * np.uint8(2), 1), digits[n:]
    elif bits == 2:
        if packed.max(initial=0) >= len(_TERNARY):
            raise ValueError(
                f"byte {packed.max()} is not five ternary codes (at most 242): pack the model again"
            )
        table = _TERNARY.take(packed, axis=0).reshape(-1)
        codes, padding = table[:n], table[n:] + 1
    elif bits in _STREAM:
        digits = _unpack_stream(packed, bits, n)
        codes, padding = _minus(digits[:n], largest_code(bits)), digits[n:]
    else:
        codes = packed.view("<i1" if bits == 8 else "<i2").astype(np.int8 if bits == 8 else np.int16)
        padding = packed[:0]
    if padding.any():
        raise ValueError(f"bits are set beyond the last of {n} codes: pack the model again")
    _check(codes, bits)
    return codes


def _check(codes: Codes, bits: int) -> None:
    """Refuse codes that are not levels of the width."""
    largest = largest_code(bits)
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes are {codes.dtype}, expected integers: pack level indices, not weights")
    low, high = int(codes.min(initial=largest)), int(codes.max(initial=-largest))
    if codes.size and (low < -largest or high > largest):
        raise ValueError(
            f"codes of {bits} bits lie in ±{largest}, found {low if low < -largest else high}: "
            "project the weight on the grid of this width first"
        )
    if bits == 1 and not codes.all():
        raise ValueError("codes of 1 bit are -1 or +1, found 0: use 2 bits (ternary) for weights with zeros")


def _minus(digits: Bytes, offset: int) -> NDArray[np.int8]:
    """Digits -> codes around zero, modulo 256: exact, since both fit a byte."""
    return (digits - np.uint8(offset)).view(np.int8)


def _pack_ternary(flat: Codes) -> Bytes:
    """Five codes a byte in base 3, the first code is the lowest digit."""
    digits = np.zeros((-(-flat.size // 5), 5), np.uint8)
    digits.reshape(-1)[: flat.size] = flat.astype(np.int8) + np.int8(1)
    packed = digits[:, 4].copy()
    for column in (3, 2, 1, 0):
        packed *= np.uint8(3)
        packed += digits[:, column]
    return packed


def _pack_stream(flat: Codes, bits: int) -> Bytes:
    """Digits of ``bits`` bits one after the other, the first in the lowest bits."""
    per_group, group_bytes = _STREAM[bits]
    digits = np.zeros((-(-flat.size // per_group), per_group), np.uint8)
    digits.reshape(-1)[: flat.size] = flat.astype(np.int8) + np.int8(largest_code(bits))
    words = np.zeros(len(digits), "<u4")
    for column in range(per_group):
        words |= digits[:, column].astype("<u4") << np.uint32(bits * column)
    packed = words.view(np.uint8).reshape(-1, 4)[:, :group_bytes].reshape(-1)
    return packed[: packed_bytes(flat.size, bits)].copy()


def _unpack_stream(packed: Bytes, bits: int, n: int) -> Bytes:
    """All digits of the stream, those after the n-th being what filled up the last byte."""
    per_group, group_bytes = _STREAM[bits]
    groups = -(-n // per_group)
    padded = np.zeros(groups * group_bytes, np.uint8)
    padded[: packed.size] = packed
    words = np.zeros((groups, 4), np.uint8)
    words[:, :group_bytes] = padded.reshape(-1, group_bytes)
    word = words.reshape(-1).view("<u4")
    digits = np.empty((groups, per_group), np.uint8)
    for column in range(per_group):
        digits[:, column] = (word >> np.uint32(bits * column)) & np.uint32(2**bits - 1)
    return digits.reshape(-1)
