"""Eq. 6 and 7 of ACosR as printed, by autograd and by finite differences."""

import math

import pytest
import torch

from greenasr.ops.periodic import absolute_cosine, absolute_cosine_slope

THETAS = [0.5, 8.0, 32.0, 128.0]


def weights(theta: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(4000, dtype=torch.float64, generator=generator) - 0.5) * 20 / theta


@pytest.mark.parametrize("theta", THETAS)
def test_it_is_equation_6(theta: float) -> None:
    x = weights(theta)
    torch.testing.assert_close(absolute_cosine(x, theta), (math.pi * theta * x).cos().abs())


@pytest.mark.parametrize("theta", THETAS)
def test_the_slope_is_equation_7_branch_by_branch(theta: float) -> None:
    for x in weights(theta)[:300].tolist():
        m = math.floor((2 * theta * x + 1) / 4)
        inside = (4 * m - 1) / (2 * theta) <= x <= (4 * m + 1) / (2 * theta)
        expected = (1 if inside else -1) * math.pi * theta * math.sin(math.pi * theta * x)
        assert float(absolute_cosine_slope(torch.tensor(x, dtype=torch.float64), theta)) == pytest.approx(
            expected, abs=1e-8 * theta
        )


@pytest.mark.parametrize("theta", THETAS)
def test_the_slope_is_what_autograd_finds(theta: float) -> None:
    x = weights(theta).requires_grad_()
    (ours,) = torch.autograd.grad(-absolute_cosine(x, theta).sum(), x)
    (printed,) = torch.autograd.grad(-(math.pi * theta * x).cos().abs().sum(), x)
    torch.testing.assert_close(absolute_cosine_slope(x, theta), ours)
    torch.testing.assert_close(absolute_cosine_slope(x, theta), printed)


@pytest.mark.parametrize("theta", THETAS)
def test_the_slope_is_the_limit_of_differences(theta: float) -> None:
    x, h = weights(theta), 1e-6 / theta
    smooth = (((theta * x) % 1) - 0.5).abs() > 1e-3
    difference = (absolute_cosine(x - h, theta) - absolute_cosine(x + h, theta)) / (2 * h)
    torch.testing.assert_close(
        absolute_cosine_slope(x, theta)[smooth], difference[smooth], rtol=1e-5, atol=1e-5 * theta
    )


def test_levels_are_the_only_minima_and_are_exact_for_large_tables() -> None:
    levels = torch.arange(-(2**15), 2**15).float() / 2**15
    assert torch.equal(absolute_cosine(levels, 2.0**15), torch.ones_like(levels))
    assert torch.equal(absolute_cosine_slope(levels, 2.0**15), torch.zeros_like(levels))
    above, below = levels[:9] + 2**-18, levels[:9] - 2**-18
    assert (absolute_cosine_slope(above, 2.0**15) > 0).all() and (
        absolute_cosine_slope(below, 2.0**15) < 0
    ).all()
