"""Dimensions and widths under one budget, against every combination of both."""

from __future__ import annotations

from itertools import product

import pytest

from greenasr.compress.allocate import cluster_bytes
from greenasr.roles import Cluster, CostTable, Span
from greenasr.shrinking.joint import Joint, narrowed

FACTORS = {"one": ("one.a", "one.b", 8), "two": ("two.a", "two.b", 8)}
MOVED = {"one": {4: 0.4, 8: 0.0}, "two": {4: 0.01, 8: 0.0}}
CLUSTERS = (
    Cluster("one.a", (Span("one.a", 0, 8, 20),)),
    Cluster("one.b", (Span("one.b", 0, 20, 8),)),
    Cluster("two", (Span("two.a", 0, 16, 20), Span("two.b", 0, 20, 8))),
    Cluster("out", (Span("out", 0, 30, 20),)),
)
COSTS = {
    "one.a": {2: 0.3, 4: 0.05, 8: 0.001},
    "one.b": {2: 0.2, 4: 0.02, 8: 0.0},
    "two": {2: 0.3, 4: 0.1, 8: 0.002},
    "out": {2: 0.5, 4: 0.02, 8: 0.001},
}
TABLE = CostTable("divergence", CLUSTERS, COSTS)


def brute(budget: int) -> float:
    """The least cost of all combinations that fit."""
    best = float("inf")
    for one, two, *widths in product((4, 8), (4, 8), *([(2, 4, 8)] * 4)):
        dims, bits = {"one": one, "two": two}, dict(zip(COSTS, widths, strict=True))
        size = sum(cluster_bytes(narrowed(c, FACTORS, dims), bits[c.name], "row") for c in CLUSTERS)
        shares = {"one.a": one / 8, "one.b": one / 8, "two": two / 8, "out": 1.0}
        cost = MOVED["one"][one] + MOVED["two"][two] + sum(shares[n] * COSTS[n][bits[n]] for n in COSTS)
        best = min(best, cost) if size <= budget else best
    return best


def test_the_plan_is_the_cheapest_of_all_that_fit() -> None:
    joint = Joint(TABLE, MOVED, FACTORS, {}, "row")
    for budget in range(joint.smallest, 1900, 41):
        dims, bit_map = joint.solve(budget)
        full = {name: dims.get(name, 8) for name in MOVED}
        assert sum(cluster_bytes(c, bit_map.bits[c.name], "row") for c in bit_map.clusters) <= budget
        shares = {"one.a": full["one"] / 8, "one.b": full["one"] / 8, "two": full["two"] / 8, "out": 1.0}
        cost = sum(MOVED[n][d] for n, d in full.items())
        cost += sum(shares[n] * COSTS[n][b] for n, b in bit_map.bits.items())
        assert cost == pytest.approx(brute(budget))
    assert brute(joint.smallest - 1) == float("inf")


def test_a_layer_whose_weight_is_in_no_cluster_or_shared_keeps_its_dimensions() -> None:
    part = CostTable("divergence", CLUSTERS[1:], COSTS)
    dims, _ = Joint(part, MOVED, FACTORS, {}, "row").solve(2000)
    assert "one" not in {
        n for options in Joint(part, MOVED, FACTORS, {}, "row").options for n in options[0][0]
    }
    both = Cluster("both", CLUSTERS[0].spans + CLUSTERS[2].spans)
    table = CostTable("divergence", (both, CLUSTERS[1]), {**COSTS, "both": COSTS["two"]})
    dims, bit_map = Joint(table, MOVED, FACTORS, {"both": 4}, "row").solve(2000)
    assert dims == {} and bit_map.bits["both"] == 4
