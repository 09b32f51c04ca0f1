"""Ternary matrices from a seed: every weight is a function of its coordinates, so none is stored.

    word_k(o, j) = hash(o 2¹² + j; key(seed, layer, k))    32 bits: row o, inputs 32 j … 32 j + 31, plane k
    sign     plane 0: a set bit is -1
    mask     nonzero with probability p = 1 - t, t in 256ths: from the lowest set bit of 256 p upwards
             m ← m | word_{1+i} where bit i of 256 p is set, m & word_{1+i} where it is not
    2 : 4    instead, exactly two of every four inputs: pattern ⌊6 u / 2¹⁶⌋ of 16 bits u of planes 1 … 4

Integers of 32 bits, no state: any rows in any order, the same numbers in NumPy, torch and C++.  The words
are the bits of a uniform number, compared with p bit by bit: thresholding |uniform[-1, 1]| at t as Mordido et
al. 2021 (§3.1) do, up to the rounding of t; a larger t of the same seed only takes weights away.  The hash is
a multiply-xorshift finalizer of two rounds (C. Wellons' lowbias32) with a key before each.  docs/ternary.md
specifies it bit by bit.  This file knows NumPy alone; `ops.signs_torch` runs the same lines on tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 256  # t is a multiple of 1 / LEVELS
ROWS, COLS = 1 << 20, 1 << 17  # the largest matrix that 32 bits count
PATTERNS = 0xCA6953  # 2:4: the six nibbles with two set bits: 3, 5, 9, 6, 10, 12
_GOLDEN, _SILVER = 0x9E3779B9, 0x85EBCA6B
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Signs:
    """A generated matrix (rows, cols): ``zeros`` is t in 256ths, ``structured`` the 2:4 variant.

    >>> Signs(seed=7, layer=0, rows=2, cols=8).rows_of().tolist()
    [[1, 1, -1, 1, 1, 1, -1, 1], [1, 1, -1, -1, 1, 1, 1, -1]]
    """

    seed: int
    layer: int
    rows: int
    cols: int
    zeros: int = 0
    structured: bool = False

    def __post_init__(self) -> None:
        """Refuse what the counter cannot count and matrices of zeros."""
        if not (0 <= self.seed <= _MASK and 0 <= self.layer <= _MASK):
            raise ValueError(f"seed and layer have 32 bits, got {self.seed} and {self.layer}.")
        if not (1 <= self.rows <= ROWS and 1 <= self.cols <= COLS):
            raise ValueError(
                f"a generated matrix has 1 … {ROWS} rows and 1 … {COLS} columns, "
                f"got {self.rows} x {self.cols}."
            )
        if not 0 <= self.zeros < LEVELS:
            raise ValueError(
                f"{self.zeros} of {LEVELS} weights are to be zero: choose 0 … {LEVELS - 1}; with all of them "
                "nothing flows."
            )
        if self.structured and (self.cols % 4 or self.zeros != LEVELS // 2):
            raise ValueError(
                f"2:4 keeps two of every four inputs: {self.cols} columns and {self.zeros} of {LEVELS} zeros "
                f"do not fit; give a multiple of 4 and {LEVELS // 2}."
            )

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> Signs:
        """Read what `to_numbers` gave; ValueError for anything else."""
        if len(numbers) != 6 or numbers[5] not in (0, 1):
            raise ValueError(
                "a generated matrix is named by seed, layer, rows, columns, zeros and 1 for 2:4 or 0, "
                f"got {numbers}."
            )
        seed, layer, rows, cols, zeros = (int(n) for n in numbers[:5])
        return cls(seed, layer, rows, cols, zeros, bool(numbers[5]))

    def to_numbers(self) -> list[int]:
        """Seed, layer, rows, columns, zeros of 256, and 1 for 2:4 or 0: what files hold."""
        return [self.seed, self.layer, self.rows, self.cols, self.zeros, int(self.structured)]

    def __str__(self) -> str:
        """As people read it."""
        kind = "2:4" if self.structured else f"t = {self.zeros}/{LEVELS}"
        return f"{self.rows} x {self.cols}, seed {self.seed}, layer {self.layer}, {kind}"

    @property
    def nonzeros(self) -> float:
        """Expected share of weights that are not zero, 1 - t as rounded."""
        return 1 - self.zeros / LEVELS

    def rows_of(self, start: int = 0, stop: int | None = None) -> NDArray[np.int8]:
        """Rows ``start:stop`` as -1, 0, 1, (stop - start, cols)."""
        stop = self.rows if stop is None else stop
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"rows {start}:{stop} of a matrix of {self.rows}.")
        columns = np.arange(-(-self.cols // 32), dtype=np.uint32)
        counter = (np.arange(start, stop, dtype=np.uint32)[:, None] << np.uint32(12)) + columns
        negative, mask = words(self, counter)
        bits = [
            np.unpackbits(w.astype("<u4").view(np.uint8), axis=1, bitorder="little")[:, : self.cols]
            for w in (mask, mask & negative)
        ]
        return bits[0].view(np.int8) - 2 * bits[1].view(np.int8)


def zeros_of(threshold: float) -> int:
    """The threshold t in 256ths, to the nearest, halves up; ValueError outside [0, 1) and where all were 0.

    >>> zeros_of(0.9), zeros_of(0.001)
    (230, 0)
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"the threshold t is the expected share of zeros, in [0, 1), got {threshold:g}.")
    zeros = int(threshold * LEVELS + 0.5)
    if zeros == LEVELS:
        raise ValueError(
            f"t = {threshold:g} makes every ternary weight zero and nothing flows: "
            f"choose at most {(LEVELS - 1) / LEVELS:.3f}."
        )
    return zeros


def words(spec: Signs, counter: Any) -> tuple[Any, Any]:
    """Bits of 32 weights a counter: which are negative where they are not zero, and which are not zero.

    ``counter`` is o 2¹² + j, as uint32 in NumPy or int64 in torch; so are both results.
    """

    def plane(k: int) -> Any:
        return keyed_hash(counter, *keys(spec.seed, spec.layer, k))

    negative = plane(0)
    if spec.structured:
        mask = counter & 0
        for group in range(8):
            if group % 2 == 0:
                two = plane(1 + group // 2)
            u = (two >> (16 * (group % 2))) & 0xFFFF
            mask = mask | ((((u & 0) + PATTERNS) >> (4 * ((6 * u) >> 16)) & 0xF) << (4 * group))
        return negative, mask
    mask = (counter & 0) | _MASK
    keep = LEVELS - spec.zeros
    if keep < LEVELS:
        mask = counter & 0
        for i in range((keep & -keep).bit_length() - 1, 8):
            mask = mask | plane(1 + i) if keep >> i & 1 else mask & plane(1 + i)
    return negative, mask


def keys(seed: int, layer: int, plane: int) -> tuple[int, int]:
    """The two 32-bit keys of a plane of a layer."""
    a = finalize(finalize(seed ^ 0x243F6A88) + layer * _GOLDEN & _MASK)
    b = finalize(finalize(seed ^ 0x85A308D3) + layer * _SILVER & _MASK)
    return finalize(a + plane * _GOLDEN & _MASK), finalize(b + plane * _SILVER & _MASK)


def keyed_hash(x: Any, key: int, second: int) -> Any:
    """Two rounds of multiply and xorshift with a key before each, 32 bits -> 32 bits, modulo 2³²."""
    x = x ^ key
    x = ((x ^ x >> 16) * 0x7FEB352D & _MASK) ^ second
    x = (x ^ x >> 15) * 0x846CA68B & _MASK
    return x ^ x >> 16


def finalize(x: int) -> int:
    """The hash without keys."""
    hashed: int = keyed_hash(x, 0, 0)
    return hashed
