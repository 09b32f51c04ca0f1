"""Allocation equals brute force under every kind of budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from greenasr.compress import allocate as A
from greenasr.roles import BitMap, Cluster, CostTable, Span

WIDTHS = (1, 2, 3, 4, 8, 16)


def table(seed: int = 0, n: int = 5, widths: tuple[int, ...] = WIDTHS) -> CostTable:
    """Costs that mostly fall with the width, of clusters of one or two spans."""
    rng = np.random.default_rng(seed)
    clusters, costs = [], {}
    for i in range(n):
        rows, cols = (int(k) for k in rng.integers(3, 40, 2))
        spans = (Span(f"w{i}", 0, rows, cols), Span(f"v{i}", 2, 2 + rows, cols))[: 1 + i % 2]
        clusters.append(Cluster(f"layer{i}.weight", spans))
        scale = float(np.exp(rng.normal(0, 2))) * clusters[-1].numel
        costs[clusters[-1].name] = {
            b: scale * 4.0**-b * float(np.exp(rng.normal(0, 0.5))) for b in reversed(widths)
        }
    return CostTable("hessian", tuple(clusters), costs)


def every_plan(costs: CostTable, pinned: dict[str, int], step: str) -> list[BitMap]:
    names = [c.name for c in costs.clusters]
    choices = [[pinned[n]] if n in pinned else list(costs.costs[n]) for n in names]
    return [BitMap(costs.clusters, dict(zip(names, pick, strict=True)), step) for pick in product(*choices)]


def file_bytes(bit_map: BitMap) -> int:
    """Bytes of codes and steps, from their definition."""
    rates = {1: (1, 8), 2: (1, 5), 3: (3, 8), 4: (1, 2), 8: (1, 1), 16: (2, 1)}
    total = 0
    for cluster in bit_map.clusters:
        for span in cluster.spans:
            above, below = rates[bit_map.bits[cluster.name]]
            total += math.ceil(span.numel * above / below)
            total += 4 * (1 if bit_map.step == "cluster" else span.stop - span.start)
    return total


def cost_of(costs: CostTable, bit_map: BitMap) -> float:
    return sum(costs.costs[name][bits] for name, bits in bit_map.bits.items())


MEASURES: dict[str, Callable[[BitMap], float]] = {
    "average_bits": lambda plan: plan.average_bits,
    "bytes": file_bytes,
}


@pytest.mark.parametrize("pinned", [{}, {"layer1.weight": 8, "layer4.weight": 1}], ids=["free", "pinned"])
@pytest.mark.parametrize("step", ["cluster", "row"])
@pytest.mark.parametrize("budget", MEASURES)
def test_allocation_equals_brute_force(budget: str, step: str, pinned: dict[str, int]) -> None:
    size = MEASURES[budget]
    costs = table(len(pinned))
    plans = sorted((size(plan), cost_of(costs, plan)) for plan in every_plan(costs, pinned, step))
    for share in (0.0, 0.1, 0.3, 0.6, 1.0):
        limit = plans[0][0] + share * (plans[-1][0] - plans[0][0])
        limit = math.ceil(limit) if budget == "bytes" else limit
        if budget == "bytes":
            found = A.allocate(costs, bytes=int(limit), pinned=pinned, step=step)
        else:
            found = A.allocate(costs, average_bits=limit, pinned=pinned, step=step)
        assert size(found) <= limit + 1e-9 and found.step == step
        assert all(found.bits[name] == bits for name, bits in pinned.items())
        assert cost_of(costs, found) == pytest.approx(min(cost for s, cost in plans if s <= limit))


@pytest.mark.parametrize("by", ["bytes", "bits"])
def test_the_whole_front_equals_brute_force(by: A.Measure) -> None:
    costs = table(3, n=4)
    size = MEASURES["bytes" if by == "bytes" else "average_bits"]
    expected: list[tuple[float, float]] = []
    for s, cost in sorted((size(plan), cost_of(costs, plan)) for plan in every_plan(costs, {}, "cluster")):
        if not expected or cost < expected[-1][1] - 1e-12:
            expected.append((s, cost))
    found = A.front(costs, by=by, points=None)
    assert [size(p.bit_map) for p in found] == pytest.approx([s for s, _ in expected])
    assert [p.cost for p in found] == pytest.approx([cost for _, cost in expected])
    assert all(p.bytes == file_bytes(p.bit_map) for p in found)
    assert all(p.average_bits == p.bit_map.average_bits for p in found)


def test_a_coarse_front_is_part_of_the_whole_one() -> None:
    costs = table(4)
    whole = {p.bytes: p.cost for p in A.front(costs, points=None)}
    coarse = A.front(costs, points=20)
    assert 5 < len(coarse) <= 22 < len(whole)
    assert all(whole[p.bytes] == pytest.approx(p.cost) for p in coarse)
    assert [p.bytes for p in coarse] == sorted(p.bytes for p in coarse)


def test_scaling_every_cost_changes_no_plan() -> None:
    costs = table(5)
    tiny = CostTable(
        "kl", costs.clusters, {n: {b: c * 1e-30 for b, c in t.items()} for n, t in costs.costs.items()}
    )
    for bits in (1.3, 2.0, 3.7, 7.0):
        assert A.allocate(costs, average_bits=bits).bits == A.allocate(tiny, average_bits=bits).bits


def test_ties_go_to_fewer_bits() -> None:
    costs = table()
    flat = CostTable("kl", costs.clusters, {name: dict.fromkeys(WIDTHS, 0.0) for name in costs.costs})
    assert set(A.allocate(flat, average_bits=9).bits.values()) == {1}


def test_a_uniform_budget_that_is_met_exactly_is_met() -> None:
    costs = table(6, n=30, widths=(2,))
    assert A.allocate(costs, average_bits=2.0).average_bits == 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average_bits": 0.9}, r"budget of 0.9 bits on average is impossible: .* takes 1, the largest 16"),
        ({"average_bits": float("nan")}, "impossible"),
        (
            {"bytes": 10},
            r"budget of 10 bytes is impossible: the smallest plan takes [\d,]+, the largest [\d,]+",
        ),
        ({}, "one budget"),
        ({"average_bits": 2.0, "bytes": 10}, "one budget"),
        (
            {"average_bits": 2.0, "pinned": {"layer3.wieght": 2}},
            r"layer3.wieght .* close names are layer3.weight",
        ),
        ({"average_bits": 2.0, "pinned": {"layer3.weight": 5}}, r"pinned to 5 bits, .* 1, 2, 3, 4, 8, 16"),
        ({"average_bits": 2.0, "step": "column"}, "unknown step 'column'"),
        ({"average_bits": 2.0, "step": "group:1000"}, "cannot be cut in groups of 1000"),
    ],
)
def test_what_cannot_be_done_is_said(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        A.allocate(table(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_cost_that_is_not_finite_is_named(bad: float) -> None:
    costs = table()
    broken = {**costs.costs, "layer2.weight": {**costs.costs["layer2.weight"], 4: bad}}
    with pytest.raises(ValueError, match="cost of layer2.weight at 4 bits is"):
        A.allocate(CostTable("kl", costs.clusters, broken), average_bits=2.0)


def test_a_table_without_costs_is_refused() -> None:
    with pytest.raises(ValueError, match="no clusters"):
        A.allocate(CostTable("kl", (), {}), average_bits=2.0)
    with pytest.raises(ValueError, match="layer0.weight has no costs"):
        A.allocate(CostTable("kl", table().clusters, {}), average_bits=2.0)


def test_a_group_of_columns_has_a_step_each() -> None:
    cluster = Cluster("c", (Span("w", 0, 10, 12),))
    assert A.cluster_bytes(cluster, 4, "group:4") == 60 + 4 * 30
