"""Allocation beside HiGHS: seconds and total cost of the best plan, 500 clusters x 6 widths.

python benchmarks/allocation.py
"""

from __future__ import annotations

import sys
import time

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from greenasr.ops import knapsack

WIDTHS = np.array([1, 2, 4, 6, 8, 16])
ERROR = np.array([0.36, 0.19, 1.2e-2, 6e-4, 4e-5, 1e-9])  # of a Gaussian weight on each table


def problem(clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and costs (clusters, widths): sensitivities over four magnitudes, 10 % noise."""
    rng = np.random.default_rng(seed)
    numel = rng.integers(1_000, 3_000_000, clusters)
    sensitivity = np.exp(rng.normal(0, 2, clusters)) * numel
    costs = sensitivity[:, None] * ERROR * np.exp(rng.normal(0, 0.1, (clusters, len(WIDTHS))))
    return numel[:, None] * WIDTHS, costs


def with_highs(sizes: np.ndarray, costs: np.ndarray, budget: int) -> float:
    """The same problem as a mixed-integer program."""
    n, k = sizes.shape
    one_each = csr_array((np.ones(n * k), (np.repeat(np.arange(n), k), np.arange(n * k))), shape=(n, n * k))
    scale = 1e6 / costs.max()
    solution = milp(
        costs.ravel() * scale,
        integrality=np.ones(n * k),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(sizes.reshape(1, -1) / budget, -np.inf, 1),
        ],
        options={"mip_rel_gap": 0},
    )
    return float(solution.fun) / scale


def main(clusters: int = 500) -> None:
    """Print one row a budget."""
    print(f"{clusters} clusters x {len(WIDTHS)} widths", file=sys.stderr)
    for seed, average in enumerate((1.3, 1.5, 2.0, 3.0, 5.3)):
        sizes, costs = problem(clusters, seed)
        budget = int(average * sizes[:, 0].sum())
        start = time.perf_counter()
        picks = knapsack.cheapest(list(sizes), list(costs), budget)
        ours = time.perf_counter() - start
        cost = float(costs[np.arange(clusters), picks].sum())
        start = time.perf_counter()
        theirs = with_highs(sizes, costs, budget)
        highs = time.perf_counter() - start
        ratio = cost / theirs - 1
        print(f"{average} bits: ours {ours:.3f} s, HiGHS {highs:.3f} s, cost ratio - 1 = {ratio:+.1e}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
