"""The generator against docs/ternary.md done one weight at a time, and against chance."""

import hashlib
import random

import numpy as np
import pytest

from greenasr.ops.signs import Signs, finalize, keyed_hash, keys, zeros_of
from greenasr.ops.signs_torch import signs

KINDS = [
    Signs(7, 0, 4, 40),
    Signs(4294967295, 12345, 1000, 512, 230),
    Signs(1, 2, 64, 64, 26),
    Signs(3, 5, 8, 64, 128, True),
    Signs(0, 0, 3, 7, 1),
    Signs(9, 4294967295, 5, 33, 255),
]


def slow_hash(x, a, b):
    x = (x ^ a) % 2**32
    x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32 ^ b
    x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
    return x ^ (x >> 16)


def slow_weight(spec, o, i):
    """One weight, as docs/ternary.md says it in words."""
    mix = lambda x: slow_hash(x % 2**32, 0, 0)  # noqa: E731
    a = mix(mix(spec.seed ^ 0x243F6A88) + spec.layer * 0x9E3779B9)
    b = mix(mix(spec.seed ^ 0x85A308D3) + spec.layer * 0x85EBCA6B)

    def word(k):
        return slow_hash(o * 4096 + i // 32, mix(a + k * 0x9E3779B9), mix(b + k * 0x85EBCA6B))

    sign = -1 if word(0) >> (i % 32) & 1 else 1
    if spec.structured:
        group = i % 32 // 4
        u = word(1 + group // 2) >> 16 * (group % 2) & 0xFFFF
        return sign if (3, 5, 9, 6, 10, 12)[6 * u >> 16] >> i % 4 & 1 else 0
    keep = 256 - spec.zeros
    number = sum((1 - (word(1 + bit) >> (i % 32) & 1)) << bit for bit in range(8))  # uniform in 0 … 255
    return sign if number < keep else 0


@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_every_weight_is_the_documents(spec):
    matrix, draw = spec.rows_of(), random.Random(0)
    places = [(draw.randrange(spec.rows), draw.randrange(spec.cols)) for _ in range(300)]
    for o, i in [(0, 0), (spec.rows - 1, spec.cols - 1), *places]:
        assert matrix[o, i] == slow_weight(spec, o, i)


@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_torch_gives_the_same_matrix_and_rows_come_in_any_order(spec):
    whole = spec.rows_of()
    assert whole.shape == (spec.rows, spec.cols) and whole.dtype == np.int8
    assert np.array_equal(signs(spec).numpy(), whole)
    for o in random.Random(1).sample(range(spec.rows), 3):
        assert np.array_equal(spec.rows_of(o, o + 1)[0], whole[o])
        assert np.array_equal(signs(spec, o, o + 1)[0].numpy(), whole[o])
    assert spec.rows_of(2, 2).shape == (0, spec.cols)


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        (KINDS[0], "90f9a8e545ed8d7d"),
        (KINDS[1], "fb5c1b6d2b94684e"),
        (KINDS[2], "ec1b15c616a38d55"),
        (KINDS[3], "ca2e6325150add4a"),
    ],
    ids=str,
)
def test_matrices_never_change(spec, digest):
    """SHA-256 of the rows as int8, first 16 digits: trained networks hang on these very matrices."""
    assert hashlib.sha256(spec.rows_of().tobytes()).hexdigest()[:16] == digest


def test_the_documents_vectors():
    assert [finalize(0), finalize(1)] == [0, 0x688990C0]
    assert keys(7, 0, 0) == (0xAC616C7C, 0x47600C7B)
    assert [keyed_hash(o * 4096, *keys(7, 0, 0)) for o in (0, 1)] == [0x0A73B544, 0x5BC93A8C]


@pytest.mark.parametrize("threshold", [0.0, 0.001, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_the_share_of_zeros_is_t(threshold):
    spec = Signs(11, 3, 512, 512, zeros_of(threshold))
    matrix = spec.rows_of()
    n, p = matrix.size, spec.nonzeros
    assert abs(1 - p - threshold) <= 0.5 / 256
    assert abs(np.count_nonzero(matrix) - n * p) <= 4 * (n * p * (1 - p)) ** 0.5
    assert abs(int(matrix.sum(dtype=np.int64))) <= 4 * (n * p) ** 0.5


def test_a_larger_threshold_only_takes_weights_away():
    last = Signs(5, 1, 64, 64, 0).rows_of()
    for zeros in (1, 77, 128, 200, 255):
        now = Signs(5, 1, 64, 64, zeros).rows_of()
        assert np.array_equal(now[now != 0], last[now != 0])
        last = now


def test_two_of_every_four_are_left_and_all_six_pairs_are_as_frequent():
    matrix = Signs(5, 1, 1024, 256, 128, structured=True).rows_of()
    kept = (matrix != 0).reshape(-1, 4)
    assert (kept.sum(1) == 2).all()
    counts = np.bincount(kept @ [1, 2, 4, 8], minlength=16)[[3, 5, 6, 9, 10, 12]]
    n = len(kept)
    assert np.square(counts - n / 6).sum() / (n / 6) < 20.5  # χ², 5 degrees of freedom, 0.1 %


def correlations(pairs):
    """Correlation of every bit of one word with every bit of the other, in standard deviations, (32, 32)."""
    products, n = np.zeros((32, 32)), 0
    for one, other in pairs:
        bits = [2.0 * np.unpackbits(w.view(np.uint8)).reshape(-1, 32) - 1 for w in (one, other)]
        products, n = products + bits[0].T @ bits[1], n + len(bits[0])
    return products / n**0.5


GRID = (np.arange(64, dtype=np.uint32)[:, None] * 4096 + np.arange(4, dtype=np.uint32)).ravel()


@pytest.mark.parametrize(
    "other",
    [
        lambda seed: (GRID + np.uint32(4096), keys(seed, 0, 0)),
        lambda seed: (GRID + np.uint32(1), keys(seed, 0, 0)),
        lambda seed: (GRID, keys(seed + 1, 0, 0)),
        lambda seed: (GRID, keys(seed, 1, 0)),
        lambda seed: (GRID, keys(seed, 0, 1)),
    ],
    ids=["next row", "next word", "next seed", "next layer", "next plane"],
)
def test_neighbours_are_independent(other):
    """1024 correlations over 77k words each: chance alone exceeds 4.9 deviations once in a thousand."""
    pairs = []
    for seed in range(0, 600, 2):
        counter, key = other(seed)
        pairs.append((keyed_hash(GRID, *keys(seed, 0, 0)), keyed_hash(counter, *key)))
    z = correlations(pairs)
    assert np.abs(z).max() < 4.9
    assert 0.9 < z.std() < 1.1


def test_one_flipped_bit_of_a_counter_flips_half_of_the_word():
    counters = np.random.default_rng(0).integers(0, 2**32, 1 << 14, dtype=np.uint32)
    for bit in range(32):
        changed = keyed_hash(counters, 1, 2) ^ keyed_hash(counters ^ np.uint32(1 << bit), 1, 2)
        share = np.unpackbits(changed.view(np.uint8)).reshape(-1, 32).mean(0)
        assert np.abs(share - 0.5).max() < 0.02  # five deviations


def test_large_matrices_stretch_vectors_as_independent_signs_do():
    """The largest singular value of n x n independent signs is close to 2 √n (Bai and Yin 1993)."""
    norms = [np.linalg.norm(Signs(s, 0, 256, 256).rows_of().astype(np.float32), 2) / 16 for s in range(5)]
    assert 1.9 < np.mean(norms) < 2.05


@pytest.mark.gpu
@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_a_gpu_gives_the_same_matrix(spec):
    assert np.array_equal(signs(spec, device="cuda").cpu().numpy(), spec.rows_of())


def test_numbers_name_the_matrix():
    for spec in KINDS:
        assert Signs.from_numbers(spec.to_numbers()) == spec
    with pytest.raises(ValueError, match="named by seed"):
        Signs.from_numbers([1, 2, 3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zeros_of(1.0), "t = 1 makes every ternary weight zero"),
        (lambda: zeros_of(0.999), "makes every ternary weight zero"),
        (lambda: zeros_of(-0.1), r"in \[0, 1\), got -0.1"),
        (lambda: zeros_of(float("nan")), r"in \[0, 1\), got nan"),
        (lambda: Signs(1, 0, 4, 4, 256), "nothing flows"),
        (lambda: Signs(2**32, 0, 4, 4), "32 bits"),
        (lambda: Signs(1, 0, 0, 4), "1 … 1048576 rows"),
        (lambda: Signs(1, 0, 4, 6, 128, True), "2:4 keeps two"),
        (lambda: Signs(1, 0, 4, 8, 0, True), "2:4 keeps two"),
        (lambda: Signs(1, 0, 4, 8).rows_of(2, 5), "rows 2:5 of a matrix of 4"),
        (lambda: signs(Signs(1, 0, 4, 8), 2, 5), "rows 2:5 of a matrix of 4"),
    ],
)
def test_matrices_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
