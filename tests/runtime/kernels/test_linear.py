from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from greenasr.ops import bits as bitpack
from greenasr.runtime.format import PackedSpan
from greenasr.runtime.kernels import native, reference

Floats = NDArray[np.float32]
WIDTHS = (1, 2, 3, 4, 6, 8)
SHAPES = ((5, 3, 0), (70, 130, 0), (33, 96, 3), (48, 40, 8), (200, 260, 0))  # outputs, inputs, groups
COUNTS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 50)
ISAS = native.isas() if native.available() else ["none"]


def drawn(bits: int, n_out: int, inputs: int, groups: int = 0, seed: int = 0) -> tuple[Any, int, Floats]:
    """Codes of every level, and steps: one a row, or one a row and group."""
    draw = np.random.default_rng(seed)
    most = bitpack.largest_code(bits)
    codes = draw.integers(-most, most + 1, (n_out, inputs)).astype(np.int8)
    if bits == 1:
        codes[codes == 0] = 1
    return codes, bits, draw.random((n_out, groups, 1) if groups else (n_out, 1), dtype=np.float32)


def normal(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_kernel_equals_the_slow_obvious_product_bit_for_bit(isa: str, bits: int) -> None:
    native.use_isa(isa)
    for n_out, inputs, groups in SHAPES:
        codes, _, steps = drawn(bits, n_out, inputs, groups)
        weight = native.matrix((codes, bits, steps))
        vectors = dict(bias=normal(n_out), scale=normal(n_out, seed=2), shift=normal(n_out, seed=3))
        for count in COUNTS:
            x, residual = normal(count, inputs), normal(count, n_out, seed=4)
            plain = native.linear(x, weight)
            assert np.array_equal(plain, reference.linear(x, codes, steps)), (n_out, inputs, groups, count)
            for relu in ("first", "last"):
                more: Any = dict(vectors, relu=relu, residual=residual, residual_weight=0.66)
                found, expected = native.linear(x, weight, **more), reference.linear(x, codes, steps, **more)
                assert np.array_equal(found, expected), (n_out, inputs, groups, count, relu)


@pytest.mark.parametrize("isa", ISAS)
def test_runs_of_rows_of_different_bits_are_one_product(isa: str) -> None:
    native.use_isa(isa)
    parts = [drawn(bits, n_out, 100, seed=n_out) for bits, n_out in ((4, 19), (1, 40), (8, 7), (2, 33))]
    weight = native.matrix(*parts)
    for count in (1, 6, 40):
        x = normal(count, 100)
        expected = np.concatenate([reference.linear(x, codes, steps) for codes, _, steps in parts], 1)
        assert np.array_equal(native.linear(x, weight), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_runs_of_rows_with_a_step_a_group_a_row_and_in_all_are_one_product(isa: str) -> None:
    native.use_isa(isa)
    one = (drawn(1, 40, 96)[0], 1, np.full((), 0.3, np.float32))
    parts = [drawn(4, 19, 96, 6), drawn(2, 33, 96), drawn(8, 7, 96, 6), one]
    weight = native.matrix(*parts)
    for count in (1, 6, 40):
        x, expected = normal(count, 96), []
        for codes, _, steps in parts:
            grouped = np.broadcast_to(steps if steps.ndim == 3 else steps[..., None], (len(codes), 6, 1))
            expected.append(reference.linear(x, codes, grouped))
        assert np.array_equal(native.linear(x, weight), np.concatenate(expected, 1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("groups", (0, 4))
def test_gathering_rows_equals_multiplying_the_spliced_ones(isa: str, groups: int) -> None:
    native.use_isa(isa)
    codes, bits, steps = drawn(2, 50, 3 * 20, groups)
    weight, x = native.matrix((codes, bits, steps)), normal(30, 20)
    index = (np.arange(30)[:, None] + np.array([-3, 0, 3])).astype(np.int32)
    index[(index < 0) | (index >= 30)] = -1
    for rows in (index, index[::3].copy(), index[4:5]):
        spliced = reference.gathered(x, rows)
        assert np.array_equal(native.linear(x, weight, index=rows), native.linear(spliced, weight))
        assert np.array_equal(
            native.linear(x, weight, index=rows), reference.linear(x, codes, steps, index=rows)
        )


def test_float_activations_give_the_product_of_the_dequantized_weight() -> None:
    for bits, groups in itertools.product(WIDTHS, (0, 5)):
        codes, _, steps = drawn(bits, 30, 50, groups)
        dense = (codes.reshape(30, max(groups, 1), -1) * steps.reshape(30, -1, 1)).reshape(30, 50)
        x, weight, bias = normal(7, 50), native.matrix((codes, bits, steps)), normal(30)
        exact = (x.astype(np.float64) @ dense.T.astype(np.float64)).astype(np.float32) + bias
        assert np.array_equal(native.linear(x, weight, bias, float_activations=True), exact)
        error = np.abs(native.linear(x, weight, bias) - exact)
        assert (error <= np.abs(x).max(1, keepdims=True) / 254 * np.abs(dense).sum(1) + 1e-4).all()


def test_one_step_for_all_rows_is_a_step_a_row() -> None:
    codes, bits, _ = drawn(4, 20, 30)
    x = normal(3, 30)
    one = native.matrix((codes, bits, np.array(0.25, np.float32)))
    assert np.array_equal(
        native.linear(x, one),
        native.linear(x, native.matrix((codes, bits, np.full((20, 1), 0.25, np.float32)))),
    )


def test_spans_of_a_packed_file_become_a_matrix_and_its_rows_come_back() -> None:
    spans, dense = [], []
    for start, (bits, rows) in zip((0, 10, 25), ((2, 10), (16, 0), (4, 6)), strict=True):
        if rows:
            codes, _, steps = drawn(bits, rows, 24)
            spans.append(PackedSpan("w", start, start + rows, 24, bits, bitpack.pack(codes, bits), steps))
            dense.append(spans[-1].dequantize())
    weight = native.from_spans(*spans)
    rows = np.array([15, 0, 9, 10, 3], np.int32)
    assert np.array_equal(native.gather(weight, rows), np.concatenate(dense)[rows])
    with pytest.raises(ValueError, match="row 16, the matrix has 16"):
        native.gather(weight, np.array([16], np.int32))


def test_output_may_be_columns_of_a_wider_array_and_the_residual_may_be_the_output() -> None:
    codes, bits, steps = drawn(2, 20, 40)
    weight, x = native.matrix((codes, bits, steps)), normal(12, 40)
    wide = np.zeros((12, 64), np.float32)
    native.linear(x, weight, out=wide[:, 10:30])
    assert np.array_equal(wide[:, 10:30], native.linear(x, weight))
    assert not wide[:, :10].any() and not wide[:, 30:].any()
    y = normal(12, 20)
    expected = native.linear(x, weight, residual=y)
    native.linear(x, weight, residual=y, out=y)
    assert np.array_equal(y, expected)


def test_rows_that_are_not_finite_give_nan_and_leave_the_others_alone() -> None:
    for isa, count in itertools.product(native.isas(), (5, 40)):
        native.use_isa(isa)
        codes, bits, steps = drawn(2, 20, 40)
        weight, x = native.matrix((codes, bits, steps)), normal(count, 40)
        clean = native.linear(x, weight)
        x[1, 3], x[3, 39], x[4] = np.nan, -np.inf, 0.0
        found = native.linear(x, weight, relu="last")
        assert np.isnan(found[[1, 3]]).all() and not found[4].any()
        assert np.array_equal(found[[0, 2]], np.maximum(clean[[0, 2]], 0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("groups", (0, 5))
def test_a_fixed_step_of_activations_rounds_every_row_by_it_and_clips_what_is_larger(
    isa: str, groups: int
) -> None:
    native.use_isa(isa)
    for inputs, step in ((40, 0.02), (130, 0.004), (75, 1.0)):
        codes, bits, steps = drawn(4, 33, inputs, groups)
        weight = native.matrix((codes, bits, steps))
        weight.step = step
        for count in (1, 5, 8, 9, 40):
            x = normal(count, inputs)
            found = native.linear(x, weight)
            assert np.array_equal(found, reference.linear(x, codes, steps, step=np.float32(step)))
            far = x.copy()
            far[0, :4] = 3e38, -3e38, 1e9, -1e9  # beyond what int32 holds, and float32 after the division
            assert np.array_equal(
                native.linear(far, weight), reference.linear(far, codes, steps, step=np.float32(step))
            )
            if not groups:
                level = np.clip(np.rint(x / np.float32(step)), -127, 127)
                slow = (level @ codes.T.astype(float)) * steps[:, 0] * step
                assert np.allclose(found, slow, rtol=1e-4, atol=step)  # x / step may round to the next level
        index = np.array([[0, -1, 2], [2, 1, 0]], np.int32)
        spliced, x = native.matrix(drawn(2, 20, 3 * inputs)), normal(3, inputs)
        spliced.step = step
        whole = native.linear(reference.gathered(x, index), spliced)
        assert np.array_equal(native.linear(x, spliced, index=index), whole)
        weight.step = 0.0
        x = normal(3, inputs)
        assert np.array_equal(native.linear(x, weight), reference.linear(x, codes, steps))


def test_a_fixed_step_keeps_rows_that_are_not_finite_apart() -> None:
    for isa, count in itertools.product(native.isas(), (5, 40)):
        native.use_isa(isa)
        codes, bits, steps = drawn(2, 20, 40)
        weight, x = native.matrix((codes, bits, steps)), normal(count, 40)
        weight.step = 0.05
        clean = native.linear(x, weight)
        x[1, 3], x[3, 39] = np.nan, -np.inf
        found = native.linear(x, weight)
        assert np.isnan(found[[1, 3]]).all()
        assert np.array_equal(found[[0, 2, 4]], clean[[0, 2, 4]])


def test_steps_of_activations_that_are_no_sizes_are_refused() -> None:
    weight = native.matrix(drawn(2, 20, 40))
    for step in (-1.0, float("nan"), float("inf"), 1e-40):
        with pytest.raises(ValueError, match="a step of activations of"):
            weight.step = step


def test_the_number_of_threads_and_of_callers_changes_nothing() -> None:
    codes, bits, steps = drawn(2, 700, 512)
    weight, inputs = native.matrix((codes, bits, steps)), [normal(n, 512) for n in (1, 8, 300)]
    native.set_threads(1)
    expected = [native.linear(x, weight) for x in inputs]
    native.set_threads(native.cores())
    wrong: list[int] = []

    def stream() -> None:
        for _ in range(20):
            for x, y in zip(inputs, expected, strict=True):
                if not np.array_equal(native.linear(x, weight), y):
                    wrong.append(len(x))

    streams = [threading.Thread(target=stream) for _ in range(4)]
    for each in streams:
        each.start()
    for each in streams:
        each.join()
    assert not wrong


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(ValueError, match="asked for 100000 threads, this process may use 1 to"):
        native.set_threads(100_000)
    with pytest.raises(ValueError, match="asked for 0 threads"):
        native.set_threads(0)


def test_a_child_that_was_forked_after_the_pool_began_still_multiplies() -> None:
    code = """
import os, sys
import numpy as np
from greenasr.runtime.kernels import native
codes = np.ones((1000, 512), np.int8)
weight, x = native.matrix((codes, 2, np.ones((1000, 1), np.float32))), np.ones((64, 512), np.float32)
before = native.linear(x, weight)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(native.linear(x, weight), before) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_instruction_set_can_be_forced_and_an_unknown_one_is_refused() -> None:
    code = "from greenasr.runtime.kernels import native; print(native.isa())"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=os.environ | {"GREENASR_ISA": "portable"}, capture_output=True, text=True)
    assert done.stdout.strip() == "portable"
    done = subprocess.run(run, env=os.environ | {"GREENASR_ISA": "sse9"}, capture_output=True, text=True)
    assert "instruction set 'sse9' cannot run here: this machine has" in done.stderr
    with pytest.raises(ValueError, match="instruction set 'mmx' cannot run here"):
        native.use_isa("mmx")


def test_bad_input_is_one_line() -> None:
    codes, bits, steps = drawn(2, 20, 40)
    weight, x = native.matrix((codes, bits, steps)), normal(3, 40)
    for bad, message in (
        (
            lambda: native.linear(normal(3, 41), weight),
            r"x \(3, 41\) has 1 times its width as inputs, the matrix has 40",
        ),
        (lambda: native.linear(x.astype(np.float64), weight), "items of kind 'd', expected 'f'"),
        (lambda: native.linear(x, weight, bias=normal(19)), r"bias \(19,\) has a shape other than \(20\)"),
        (
            lambda: native.linear(x, weight, out=normal(3, 19)),
            r"out \(3, 19\) has a shape other than \(3, 20\)",
        ),
        (lambda: native.linear(x.T.copy().T, weight), "last axis that is not contiguous"),
        (lambda: native.linear(x, weight, index=np.array([[3]], np.int32)), "row 3, x has 3"),
        (lambda: native.matrix((codes * 2, 2, steps)), "code -?2 at row .* is not one of 2 bits"),
        (lambda: native.matrix((codes, 5, steps)), "codes of 5 bits have no kernel"),
        (lambda: native.matrix((codes, 2, steps[:7])), "7 steps for 20 rows"),
        (
            lambda: native.matrix(drawn(2, 20, 40, 4), drawn(2, 3, 40, 8)),
            "runs of rows with 4 and 8 groups of steps are no one matrix",
        ),
        (lambda: native.matrix((codes * 0, 1, steps)), "code 0 at row 0, column 0 is not one of 1 bits"),
        (lambda: native.matrix((codes.astype(np.int16) * 300, 8, steps)), "the kernels take 127 at most"),
    ):
        with pytest.raises(ValueError, match=message):
            bad()
