"""Codes survive packing, take the bytes that the formula says, and nothing else is accepted."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.ops import bits as B

LENGTHS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 39, 40, 41, 1000, 1001]


def random_codes(n: int, bits: int, seed: int = 0) -> np.ndarray:
    q = B.largest_code(bits)
    codes = np.random.default_rng(seed).integers(-q, q, n, endpoint=True)
    return np.where(codes == 0, 1, codes) if bits == 1 else codes


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("bits", B.WIDTHS)
def test_unpacking_gives_back_every_code(bits: int, n: int) -> None:
    codes = random_codes(n, bits, seed=n)
    packed = B.pack(codes, bits)
    assert packed.dtype == np.uint8 and packed.shape == (B.packed_bytes(n, bits),)
    assert np.array_equal(B.unpack(packed, bits, n), codes)


@pytest.mark.parametrize("bits", B.WIDTHS)
def test_every_level_survives_in_every_place(bits: int) -> None:
    q = B.largest_code(bits)
    levels = np.arange(-q, q + 1)
    levels = levels[levels != 0] if bits == 1 else levels
    for shift in range(min(9, len(levels))):
        codes = np.roll(levels, shift)
        assert np.array_equal(B.unpack(B.pack(codes, bits), bits, len(codes)), codes)


def slow_pack(codes: np.ndarray, bits: int) -> bytes:
    """The module's table, literally: one large number in the base of the width."""
    if bits == 2:
        groups = [codes[i : i + 5] for i in range(0, len(codes), 5)]
        return bytes(sum((int(c) + 1) * 3**i for i, c in enumerate(group)) for group in groups)
    if bits >= 8:
        return b"".join(int(c).to_bytes(bits // 8, "little", signed=True) for c in codes)
    digits = [(int(c) + 1) // 2 if bits == 1 else int(c) + 2 ** (bits - 1) - 1 for c in codes]
    number = sum(digit << (bits * i) for i, digit in enumerate(digits))
    return number.to_bytes(-(-len(codes) * bits // 8), "little")


@pytest.mark.parametrize("bits", B.WIDTHS)
def test_bytes_equal_the_slow_definition(bits: int) -> None:
    for n in (1, 7, 40, 101):
        codes = random_codes(n, bits, seed=n)
        assert B.pack(codes, bits).tobytes() == slow_pack(codes, bits)


def test_shapes_and_strides_are_read_in_c_order() -> None:
    codes = random_codes(60, 3).reshape(6, 10)
    assert np.array_equal(B.pack(codes.T, 3), B.pack(np.ascontiguousarray(codes.T).reshape(-1), 3))


@pytest.mark.parametrize("bits", B.WIDTHS)
def test_codes_out_of_range_are_refused(bits: int) -> None:
    q = B.largest_code(bits)
    for wrong in (q + 1, -q - 1):
        with pytest.raises(ValueError, match=f"codes of {bits} bits lie in ±{q}, found {wrong}"):
            B.pack(np.array([1, wrong, 1], dtype=np.int64), bits)


def test_zero_is_no_binary_code_and_floats_are_no_codes() -> None:
    with pytest.raises(ValueError, match=r"-1 or \+1, found 0"):
        B.pack(np.array([1, 0]), 1)
    with pytest.raises(ValueError, match="expected integers"):
        B.pack(np.array([0.5]), 4)
    with pytest.raises(ValueError, match="cannot pack codes of 5 bits"):
        B.pack(np.array([1]), 5)


@pytest.mark.parametrize(
    ("bits", "n", "raw"),
    [(2, 5, [243]), (4, 2, [0xFF]), (3, 8, [255, 255, 255]), (6, 4, [255] * 3), (8, 1, [128])],
)
def test_bytes_that_packing_cannot_have_written_are_refused(bits: int, n: int, raw: list[int]) -> None:
    with pytest.raises(ValueError):
        B.unpack(np.array(raw, np.uint8), bits, n)


@pytest.mark.parametrize(
    ("bits", "n", "raw"), [(1, 3, [8]), (2, 4, [81]), (4, 1, [0x10]), (3, 1, [8]), (6, 1, [64])]
)
def test_bits_beyond_the_last_code_are_refused(bits: int, n: int, raw: list[int]) -> None:
    with pytest.raises(ValueError, match="beyond the last"):
        B.unpack(np.array(raw, np.uint8), bits, n)


def test_a_cut_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="10 codes of 4 bits are 5 bytes"):
        B.unpack(np.zeros(4, np.uint8), 4, 10)
