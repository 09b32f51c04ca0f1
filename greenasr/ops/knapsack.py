"""The cheapest choice of one option a class within a budget, exactly.

    minimise  sum_i cost[i, x_i]   subject to   sum_i size[i, x_i] <= budget

The multiple-choice knapsack.  With a price p >= 0 on size, every option has the reduced cost

    r[i, j] = cost[i, j] + p size[i, j] - min_j (cost[i, j] + p size[i, j])  >=  0

and a plan costs L + sum_i r[i, x_i] + p (budget - size of the plan), L being a bound below all plans.  A
greedy plan of cost U therefore rules out every partial plan whose reduced costs exceed U - L; the
few that are left are enumerated, keeping those that no other beats in both size and cost; U falls on
the way, as partial plans are completed with the options of reduced cost 0.  The price is the slope at
which the greedy plan meets the budget.  Sinha and Zoltners 1979 (bound and dominance), Pisinger
1995 (core).  Sizes are integers, so the budget is met without tolerance.

Exact while at most `LARGEST` partial plans are open.  A plan per cluster and width needs a few
thousand; only costs that are linear in size, with no preference among plans, need more, and then the
open plans are thinned evenly by size.

HiGHS (`scipy.optimize.milp`) solves the same problem to a gap of 1e-6 and writes debug lines to
stdout; benchmarks/allocation.py runs both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Sizes = NDArray[np.int64]
Costs = NDArray[np.float64]

LARGEST = 50_000


def cheapest(sizes: Sequence[Sizes], costs: Sequence[Costs], budget: int) -> list[int]:
    """The chosen option of every class; among plans equally cheap (to 1e-12) a smallest one.

    ``sizes`` and ``costs`` hold one (J_i,) array a class.

    >>> cheapest([np.array([1, 2]), np.array([1, 2])], [np.array([9.0, 1.0]), np.array([5.0, 4.0])], budget=3)
    [1, 0]

    Raises ValueError if even the smallest options exceed the budget.
    """
    if sum(int(size.min()) for size in sizes) > budget:
        raise ValueError(
            f"the smallest options take {sum(int(s.min()) for s in sizes)}, the budget is {budget}"
        )
    kept = [_nondominated(size, cost) for size, cost in zip(sizes, costs, strict=True)]
    size = [sizes[i][options] for i, options in enumerate(kept)]
    cost = [costs[i][options] for i, options in enumerate(kept)]
    greedy, price = _greedy(size, cost, budget)
    if price is None:  # everything fits
        return [int(options[-1]) for options in kept]
    picks = _enumerate(size, cost, budget, price, greedy)
    return [int(options[j]) for options, j in zip(kept, picks, strict=True)]


def _nondominated(size: Sizes, cost: Costs) -> NDArray[np.intp]:
    """Options by growing size, each strictly cheaper than all smaller ones."""
    order = np.lexsort((cost, size))
    best = np.concatenate([[np.inf], np.minimum.accumulate(cost[order])[:-1]])
    return order[cost[order] < best]


def _hull(size: Sizes, cost: Costs) -> list[int]:
    """Options on the lower convex hull of (size, cost), by growing size."""
    hull: list[int] = []
    for j in range(len(size)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (cost[b] - cost[a]) * (size[j] - size[a]) < (cost[j] - cost[a]) * (size[b] - size[a]):
                break
            hull.pop()
        hull.append(j)
    return hull


def _greedy(size: Sequence[Sizes], cost: Sequence[Costs], budget: int) -> tuple[list[int], float | None]:
    """A good plan and the price of size at the budget; no price if every cheapest option fits.

    From the smallest options up, the steps along all hulls are taken by what they save per size.
    """
    steps = []
    for i, (s, c) in enumerate(zip(size, cost, strict=True)):
        hull = _hull(s, c)
        for a, b in zip(hull, hull[1:], strict=False):
            steps.append((float(c[b] - c[a]) / int(s[b] - s[a]), i, a, b, int(s[b] - s[a])))
    picks = [0] * len(size)
    room = budget - sum(int(s[0]) for s in size)
    price: float | None = None
    for slope, i, a, b, more in sorted(steps):
        if more <= room and picks[i] == a:
            picks[i], room = b, room - more
        elif price is None:
            price = -slope
    return picks, price


def _enumerate(
    size: Sequence[Sizes], cost: Sequence[Costs], budget: int, price: float, greedy: list[int]
) -> list[int]:
    """The best plan among those whose reduced costs allow one as cheap as the ``greedy`` plan."""
    priced = [c + price * s for s, c in zip(size, cost, strict=True)]
    reduced = [p - p.min() for p in priced]
    bound = float(sum(p.min() for p in priced)) - price * budget
    upper = sum(float(c[j]) for c, j in zip(cost, greedy, strict=True))
    tolerance = 1e-12 * (abs(upper) + abs(bound) + 2 * price * budget)

    left = [np.flatnonzero(r <= upper - bound + tolerance) for r in reduced]
    order = sorted(range(len(left)), key=lambda i: len(left[i]))  # settled classes first
    free = [int(r.argmin()) for r in reduced]  # the smallest option of reduced cost 0
    least, most, fill_size, fill_cost = (
        sum(int(size[i][left[i]].min()) for i in order),
        sum(int(size[i][left[i]].max()) for i in order),
        sum(int(size[i][free[i]]) for i in order),
        sum(float(cost[i][free[i]]) for i in order),
    )
    plan_size, plan_cost, plan_reduced = np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
    back: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for i in order:
        options = left[i]
        least -= int(size[i][options].min())
        most -= int(size[i][options].max())
        fill_size -= int(size[i][free[i]])
        fill_cost -= float(cost[i][free[i]])
        plan_size = (plan_size[:, None] + size[i][options]).reshape(-1)
        plan_cost = (plan_cost[:, None] + cost[i][options]).reshape(-1)
        plan_reduced = (plan_reduced[:, None] + reduced[i][options]).reshape(-1)
        complete = plan_cost[plan_size + fill_size <= budget]
        upper = min(upper, float(complete.min(initial=np.inf)) + fill_cost + tolerance)
        unusable = np.maximum(budget - plan_size - most, 0) * price  # size that no completion can fill
        alive = np.flatnonzero(
            (plan_size + least <= budget) & (plan_reduced + unusable <= upper - bound + tolerance)
        )
        alive = alive[_nondominated(plan_size[alive], plan_cost[alive])]
        if len(alive) > LARGEST:
            alive = alive[np.linspace(0, len(alive) - 1, LARGEST).astype(np.intp)]
        if not len(alive):  # thinning lost them: the greedy plan stands
            return greedy
        back.append((alive // len(options), options[alive % len(options)]))
        plan_size, plan_cost, plan_reduced = plan_size[alive], plan_cost[alive], plan_reduced[alive]

    state = int(np.flatnonzero(plan_cost <= plan_cost[-1] + tolerance)[0])  # by size, the cheapest last
    picks = [0] * len(order)
    for i, (parent, option) in zip(reversed(order), reversed(back), strict=True):
        picks[i], state = int(option[state]), int(parent[state])
    return picks
