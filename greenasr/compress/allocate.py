"""From costs to a bit map: the plan of least total cost under a budget, exactly.

    minimise  sum_c cost[c, bits_c]
    subject to  sum_c numel_c bits_c <= average_bits * sum_c numel_c      or
                sum_c packed size of c at bits_c <= bytes

MPLM eq. 10 under its average bit-width (Xu et al. 2021, arXiv 2112.11438); GREEN's KL plan is the same
sum with other costs.  Bytes are those of the packed file: a ternary weight takes 1.6 bits, a step four
bytes; what is not quantized and the metadata come on top.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

from greenasr.ops import knapsack
from greenasr.ops.bits import packed_bytes
from greenasr.roles import BitMap, Cluster, CostTable, Span

Measure = Literal["bits", "bytes"]


class Plan(NamedTuple):
    """One point of the front: what it takes, what it costs, and the plan itself."""

    average_bits: float
    bytes: int
    cost: float
    bit_map: BitMap


def allocate(
    costs: CostTable,
    *,
    average_bits: float | None = None,
    bytes: int | None = None,
    pinned: Mapping[str, int] | None = None,
    step: str = "cluster",
) -> BitMap:
    """The cheapest plan within one budget; of equally cheap plans, one of fewest bits.

    ``average_bits`` counts nominal widths (`BitMap.average_bits`), ``bytes`` codes and steps as packed
    (`cluster_bytes`).  ``pinned`` clusters keep the given width; ``step`` is kept in the map.

    Raises ValueError for an impossible budget (it names the smallest and the largest possible), a
    pinned cluster or width that the table lacks, and costs that are not finite.
    """
    if (average_bits is None) == (bytes is None):
        raise ValueError("give one budget: average_bits or bytes")
    by: Measure = "bits" if average_bits is not None else "bytes"
    problem = _Problem(costs, dict(pinned or {}), step, by)
    if average_bits is not None:
        budget = average_bits * problem.numel * (1 + 1e-12)  # 2.2 is not exactly 2.2
        unit, wanted = problem.numel, average_bits
    else:
        budget = wanted = float(bytes or 0)
        unit = 1
    if not budget >= problem.smallest:
        what = "bits on average" if by == "bits" else "bytes"
        least, most = (f"{size / unit:,.10g}" for size in (problem.smallest, problem.largest))
        raise ValueError(
            f"a budget of {wanted:,.10g} {what} is impossible: the smallest plan"
            f"{' with these pins' if pinned else ''} takes {least}, the largest {most}; "
            "ask for more, or estimate costs of narrower widths"
        )
    return problem.solve(math.floor(min(budget, problem.largest)))


def front(
    costs: CostTable,
    *,
    by: Measure = "bytes",
    pinned: Mapping[str, int] | None = None,
    step: str = "cluster",
    points: int | None = 200,
    on_plan: Callable[[int, int], None] | None = None,
) -> list[Plan]:
    """Plans that no other beats in both size and cost, from the smallest to the cheapest.

    The front is walked down: the best plan of a budget, then of one unit less than that plan took,
    and so on.  Every plan is exact for its budget.  A front may hold exponentially many plans, so
    budgets are also at least 1/``points`` of the range apart; ``points=None`` gives every plan.
    ``on_plan(done, of)`` is told how much of the range of sizes is walked.
    """
    problem = _Problem(costs, dict(pinned or {}), step, by)
    stride = 1 if points is None else max(1, (problem.largest - problem.smallest) // points)
    plans: list[Plan] = []
    budget = problem.largest
    while budget >= problem.smallest:
        bit_map = problem.solve(budget)
        plans.append(plan(costs, bit_map))
        budget = min(budget - stride, problem.size(bit_map) - 1)
        if on_plan is not None:
            on_plan(problem.largest - max(budget, problem.smallest), problem.largest - problem.smallest)
    return plans[::-1]


def plan(costs: CostTable, bit_map: BitMap) -> Plan:
    """What a bit map takes and costs by this table."""
    size = sum(
        cluster_bytes(cluster, bit_map.bits[cluster.name], bit_map.step) for cluster in bit_map.clusters
    )
    cost = math.fsum(costs.costs[name][bits] for name, bits in bit_map.bits.items())
    return Plan(bit_map.average_bits, size, cost, bit_map)


def cluster_bytes(cluster: Cluster, bits: int, step: str = "cluster") -> int:
    """Bytes of a cluster's codes and float32 steps in the packed file."""
    return sum(packed_bytes(span.numel, bits) + 4 * _n_steps(span, step) for span in cluster.spans)


def _n_steps(span: Span, step: str) -> int:
    """How many steps a span has: one, one a row, or one every N columns."""
    kind, _, size = step.partition(":")
    if step == "cluster":
        return 1
    if step == "row":
        return span.stop - span.start
    if kind == "group" and size.isdigit() and int(size) > 0:
        if span.cols % int(size):
            raise ValueError(
                f"{span.name}: rows of {span.cols} weights cannot be cut in groups of {size}: take a divisor"
            )
        return (span.stop - span.start) * (span.cols // int(size))
    raise ValueError(f"unknown step '{step}': choose cluster, row or group:N, for example group:64")


class _Problem:
    """The table as the knapsack's arrays: one class a cluster, one option a width."""

    def __init__(self, costs: CostTable, pinned: Mapping[str, int], step: str, by: Measure) -> None:
        _check(costs, pinned)
        self.clusters, self.step = costs.clusters, step
        self.numel = sum(cluster.numel for cluster in costs.clusters)
        self.widths = [
            [pinned[c.name]] if c.name in pinned else sorted(costs.costs[c.name]) for c in self.clusters
        ]
        packed = [
            [cluster_bytes(c, b, step) for b in widths]
            for c, widths in zip(self.clusters, self.widths, strict=True)
        ]
        nominal = [
            [c.numel * b for b in widths] for c, widths in zip(self.clusters, self.widths, strict=True)
        ]
        self.sizes = [np.array(row, np.int64) for row in (nominal if by == "bits" else packed)]
        self.costs = [
            np.array([costs.costs[c.name][b] for b in widths], np.float64)
            for c, widths in zip(self.clusters, self.widths, strict=True)
        ]
        self.smallest = sum(int(row.min()) for row in self.sizes)
        self.largest = sum(int(row.max()) for row in self.sizes)

    def solve(self, budget: int) -> BitMap:
        """The cheapest plan of at most ``budget``."""
        picks = knapsack.cheapest(self.sizes, self.costs, budget)
        bits = {c.name: widths[j] for c, widths, j in zip(self.clusters, self.widths, picks, strict=True)}
        return BitMap(self.clusters, bits, self.step)

    def size(self, bit_map: BitMap) -> int:
        """What a plan takes, in the unit of the budget."""
        rows = zip(self.clusters, self.widths, self.sizes, strict=True)
        return sum(int(sizes[widths.index(bit_map.bits[c.name])]) for c, widths, sizes in rows)


def _check(costs: CostTable, pinned: Mapping[str, int]) -> None:
    """Refuse tables without costs or with costs that are not finite, and pins that they do not know."""
    names = [cluster.name for cluster in costs.clusters]
    if not names:
        raise ValueError("the cost table has no clusters: write one with `greenasr costs`")
    for name in names:
        table = costs.costs.get(name, {})
        if not table:
            raise ValueError(f"{name} has no costs: estimate them again with `greenasr costs`")
        for bits, cost in table.items():
            packed_bytes(0, bits)
            if not math.isfinite(cost):
                raise ValueError(
                    f"the cost of {name} at {bits} bits is {cost}: estimate it again with `greenasr costs`, "
                    "a figure that is not finite means that the model or the estimate diverged"
                )
    for name, bits in pinned.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, 3, 0.5) or names[:3]
            raise ValueError(
                f"pinned cluster {name} is not among the {len(names)} of the cost table; "
                f"close names are {', '.join(close)}"
            )
        if bits not in costs.costs[name]:
            widths = ", ".join(map(str, sorted(costs.costs[name])))
            raise ValueError(f"{name} is pinned to {bits} bits, its costs are for {widths}: pin one of these")
