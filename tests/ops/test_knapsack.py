"""The cheapest choice equals brute force, whatever the numbers look like."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from greenasr.ops import knapsack

Problem = tuple[list[knapsack.Sizes], list[knapsack.Costs], int]


def problem(seed: int) -> Problem:
    """Large and small sizes, costs with and without ties, negative ones too, over many magnitudes."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    sizes = [rng.integers(1, 20 if seed % 2 else 4000, 5) for _ in range(n)]
    costs = [
        (rng.normal(size=5) if seed % 3 else rng.integers(-3, 4, 5).astype(float))
        * 10.0 ** rng.integers(-3, 4)
        for _ in range(n)
    ]
    low, high = sum(int(s.min()) for s in sizes), sum(int(s.max()) for s in sizes)
    return sizes, costs, int(rng.integers(low, high + 2))


def total(values: list[np.ndarray], picks: tuple[int, ...] | list[int]) -> float:
    return float(sum(row[j] for row, j in zip(values, picks, strict=True)))


@pytest.mark.parametrize("seed", range(60))
def test_the_choice_equals_brute_force(seed: int) -> None:
    sizes, costs, budget = problem(seed)
    fitting = [p for p in product(range(5), repeat=len(sizes)) if total(sizes, p) <= budget]
    best = min(total(costs, p) for p in fitting)
    smallest = min(total(sizes, p) for p in fitting if total(costs, p) <= best + 1e-9)
    picks = knapsack.cheapest(sizes, costs, budget)
    assert total(costs, picks) == pytest.approx(best, abs=1e-9)
    assert total(sizes, picks) == smallest


def test_a_price_too_small_for_a_float_does_not_break_the_budget() -> None:
    sizes = [np.array([1, 10**9])] * 3
    costs = [np.array([5e-324, 0.0])] * 3
    assert total(sizes, knapsack.cheapest(sizes, costs, 2 * 10**9)) <= 2 * 10**9


def test_costs_linear_in_size_are_solved_within_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "LARGEST", 500)
    rng = np.random.default_rng(0)
    sizes = [rng.integers(1, 3_000_000) * np.array([1, 2, 4, 8, 16]) for _ in range(15)]
    costs = [float(s.max()) - s.astype(float) for s in sizes]
    budget = sum(int(s.max()) for s in sizes) // 3
    picks = knapsack.cheapest(sizes, costs, budget)
    assert budget * 0.9999 < total(sizes, picks) <= budget


def test_a_budget_below_the_smallest_options_is_refused() -> None:
    with pytest.raises(ValueError, match="smallest options take 4, the budget is 3"):
        knapsack.cheapest([np.array([2, 3])] * 2, [np.array([1.0, 0.0])] * 2, 3)
