"""Tables of eq. 7–9: closed forms against brute force, fitted steps against a dense search."""

import itertools

import pytest
import torch
from torch import Tensor

from greenasr.ops import grid
from greenasr.ops.bits import WIDTHS, largest_code


def rows(n: int = 5, cols: int = 40, seed: int = 0) -> Tensor:
    """Rows of several shapes: normal, heavy-tailed, uniform, one-sided, few-valued."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, cols, generator=g, dtype=torch.float64)
    kinds = [normal[0], normal[1] ** 3, torch.rand(cols, generator=g).double() - 0.5, normal[3].abs()]
    return torch.stack([*kinds, normal[4].sign() * 0.3][:n])


def error(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    return (weight - step * grid.codes(weight, step, bits)).square().sum(1, keepdim=True)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_levels_are_those_of_equations_7_to_9(bits: int) -> None:
    q = 2 ** (bits - 1) - 1
    levels = [-1, 1] if bits == 1 else list(range(-q, q + 1))
    assert len(levels) == 2 if bits == 1 else len(levels) == 2**bits - 1
    assert largest_code(bits) == max(levels)
    if bits <= 8:
        spread = torch.linspace(-2.0 * max(levels), 2.0 * max(levels), 4001, dtype=torch.float64)[None]
        assert grid.codes(spread, torch.ones(1, 1).double(), bits).unique().tolist() == levels


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_a_code_is_the_nearest_level(bits: int) -> None:
    weight, step = rows(), torch.full((5, 1), 0.17, dtype=torch.float64)
    q = largest_code(bits)
    levels = torch.tensor([c for c in range(-q, q + 1) if bits > 1 or c], dtype=torch.float64)
    nearest = (weight[..., None] - 0.17 * levels).abs().min(-1).values
    torch.testing.assert_close((weight - step * grid.codes(weight, step, bits)).abs(), nearest)


def test_the_step_of_given_codes_is_that_of_least_squares() -> None:
    weight = rows()
    codes = grid.codes(weight, torch.full((5, 1), 0.3, dtype=torch.float64), 3)
    for w, c, s in zip(weight, codes, grid.best_step(weight, codes), strict=True):
        expected = torch.linalg.lstsq(c[:, None], w[:, None]).solution
        torch.testing.assert_close(s, expected[0])
    kept = grid.best_step(weight, torch.zeros_like(weight), torch.full((5, 1), 9.0, dtype=torch.float64))
    assert (kept == 9).all()


def test_the_binary_step_beats_every_other_sign_pattern_and_step() -> None:
    weight = rows(cols=8)
    step = grid.binary_step(weight)
    best = torch.full_like(step, torch.inf)
    for signs in itertools.product([-1.0, 1.0], repeat=8):
        q = torch.tensor([signs], dtype=torch.float64).expand_as(weight)
        s = grid.best_step(weight, q)
        best = torch.minimum(best, (weight - s * q).square().sum(1, keepdim=True))
    torch.testing.assert_close(error(weight, step, 1), best)


def test_the_ternary_step_beats_every_threshold() -> None:
    weight = rows()
    best = torch.full((5, 1), torch.inf, dtype=torch.float64)
    for i in range(weight.shape[1]):
        threshold = weight.abs()[:, i : i + 1]
        q = weight.sign() * (weight.abs() >= threshold)
        best = torch.minimum(best, (weight - grid.best_step(weight, q) * q).square().sum(1, keepdim=True))
    torch.testing.assert_close(error(weight, grid.ternary_step(weight), 2), best)


def test_the_ternary_step_beats_every_pattern_of_codes() -> None:
    weight = rows(cols=6)
    best = torch.full((5, 1), torch.inf, dtype=torch.float64)
    for pattern in itertools.product([-1.0, 0.0, 1.0], repeat=6):
        q = torch.tensor([pattern], dtype=torch.float64).expand_as(weight)
        s = grid.best_step(weight, q, torch.zeros(5, 1, dtype=torch.float64)).clamp(min=0)
        best = torch.minimum(best, (weight - s * q).square().sum(1, keepdim=True))
    torch.testing.assert_close(error(weight, grid.ternary_step(weight), 2), best)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_fitted_steps_come_within_a_hundredth_of_a_dense_search(bits: int) -> None:
    weight = rows(cols=300)
    peak = weight.abs().amax(1, keepdim=True)
    dense = torch.full_like(peak, torch.inf)
    for share in torch.linspace(0.05, 2.0, 3000):
        dense = torch.minimum(dense, error(weight, peak * share / largest_code(bits), bits))
    fitted = error(weight, grid.fit_step(weight, bits), bits)
    assert (fitted <= 1.01 * dense + 1e-12).all()


@pytest.mark.parametrize("bits", WIDTHS)
def test_weights_on_a_table_stay_where_they_are(bits: int) -> None:
    weight = rows()
    step = grid.fit_step(weight, bits)
    once = step * grid.codes(weight, step, bits)
    again = grid.fit_step(once, bits)
    torch.testing.assert_close(again * grid.codes(once, again, bits), once, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_an_alternation_never_increases_the_error(bits: int) -> None:
    weight = rows()
    step = weight.abs().amax(1, keepdim=True)
    for _ in range(8):
        moved = grid.refit_step(weight, step, bits)
        assert (error(weight, moved, bits) <= error(weight, step, bits) + 1e-12).all()
        step = moved


@pytest.mark.parametrize("bits", WIDTHS)
def test_zeros_have_step_zero_and_nothing_is_ever_nan(bits: int) -> None:
    weight = torch.cat([torch.zeros(1, 40, dtype=torch.float64), rows()])
    step = grid.fit_step(weight, bits)
    assert step[0] == 0 and (step[1:] > 0).all()
    for s in (step, grid.refit_step(weight, step, bits)):
        point = s * grid.codes(weight, s, bits)
        assert point.isfinite().all() and (point[0] == 0).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("scale", [1e-6, 0.5, 1e6])
def test_scaling_the_weights_scales_the_step(bits: int, scale: float) -> None:
    weight = rows()
    torch.testing.assert_close(grid.fit_step(scale * weight, bits), scale * grid.fit_step(weight, bits))


def test_more_bits_never_fit_worse() -> None:
    weight = rows(cols=200)
    errors = [error(weight, grid.fit_step(weight, bits), bits) for bits in (2, 3, 4, 6, 8, 16)]
    for coarse, fine in itertools.pairwise(errors):
        assert (fine <= coarse + 1e-12).all()
