"""ACosR §2, eq. 1: the best of two levels that rounding misses, training straight through never settles on,
and ACosR finds; by our compressors in our training loop, as `benchmarks/toy_problem.py` runs it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from greenasr.compress.levels import pull_
from greenasr.ops.periodic import absolute_cosine

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "toy_problem.py"


@pytest.fixture(scope="module")
def problem() -> ModuleType:
    spec = importlib.util.spec_from_file_location("toy_problem", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_best_level_is_1_and_the_free_minimum_rounds_to_0(problem: ModuleType) -> None:
    f0, f1 = problem.toy(torch.tensor([0.0, 1.0])).tolist()
    assert (f0, f1) == (pytest.approx(0.48), pytest.approx(0.36))
    w = torch.linspace(-1, 2, 3001)
    assert float(w[problem.toy(w).argmin()]) == pytest.approx(0.4)


def test_rounding_what_float_training_finds_is_wrong_from_every_start(problem: ModuleType) -> None:
    ends, path = problem.trained(problem.METHOD["post-training"], 400)
    torch.testing.assert_close(path[-1], torch.full((problem.STARTS,), 0.4), atol=0.02, rtol=0)
    assert not ends.any()


def test_straight_through_hangs_at_the_threshold_and_ends_wrong_by_chance(problem: ModuleType) -> None:
    """Eq. 1 pushes from level 0 with 2.4 and from 1 with -1.2: no place is at rest but where they meet."""
    ends, path = problem.trained(problem.METHOD["BP"], 400)
    assert (path[-100:] - 0.5).abs().max() < 0.05
    assert 0.1 < float((ends == 0).double().mean()) < 0.7
    sides = path[-100:] > 0.5
    assert (sides.any(0) & ~sides.all(0)).double().mean() > 0.9  # both levels, in turn


def test_acosr_ends_at_the_right_level_from_every_start(problem: ModuleType) -> None:
    ends, _ = problem.trained(problem.METHOD["ACosR"], 1000)
    assert ends.sum() >= problem.STARTS - 1  # one may be taken by the wrong level where rounding differs
    assert float(problem.toy(ends).mean()) == pytest.approx(0.36, abs=0.01)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 5.0, 50.0])
def test_the_loss_of_eq_5_is_smallest_beside_the_right_level(alpha: float, problem: ModuleType) -> None:
    """L = f - α |cos πw| on a fine grid: eq. 5 is right, for whoever finds its minimum."""
    w = torch.linspace(-0.5, 1.5, 20_001, dtype=torch.float64)
    best = float(w[(problem.toy(w) - alpha * absolute_cosine(w, 1.0)).argmin()])
    assert round(best) == 1 and abs(best - 1) < 0.3 / alpha


def test_eq_5_alone_leaves_every_weight_on_the_side_where_it_starts(problem: ModuleType) -> None:
    """|cos πw| has its crest at 1/2: descent does not cross it, so gradients of the loss must."""
    ends, path = problem.trained(problem.METHOD["ACosR, eq. 5 alone"], 400)
    starts = torch.linspace(0, 1, problem.STARTS)
    away = (starts - 0.5).abs() > 0.05
    assert torch.equal(ends[away], starts[away].round())


@pytest.mark.parametrize(("kappa", "ends"), [(0.03, None), (0.055, 1.0), (0.1, 0.0)])
def test_the_right_level_holds_a_weight_at_a_weaker_pull_than_the_wrong_one(
    kappa: float, ends: float | None, problem: ModuleType
) -> None:
    """A level holds when the crest of the pull, κ s / π, is above the loss's step, lr · 2.4 at 0, 1.2 at 1.

    So a pull that grows lets a weight go from 0 when 1 holds it already; one that begins strong does not.
    """
    w = torch.tensor([[0.0]], dtype=torch.float64)
    sides = []
    for _ in range(1000):
        level = w.round().clamp(0, 1).requires_grad_()
        (slope,) = torch.autograd.grad(problem.toy(level).sum(), level)
        v = 2 * (w - 0.01 * slope) - 1
        pull_(v, torch.tensor(1.0, dtype=torch.float64), 1, kappa)
        w = (1 + v) / 2
        sides.append(float(w.round()))
    assert set(sides[-500:]) == ({0.0, 1.0} if ends is None else {ends})
