"""A speaker learns from all that may have been said, each way by what the graph costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from greenasr.decode.wfst import NOTHING, Hypothesis
from greenasr.ops.lfmmi import Graph
from greenasr.pipeline.adaptation import supervision


@dataclass
class Heard:
    """A decoder that has decided already: ``lists`` by the value of the logits."""

    lists: dict[int, list[Hypothesis]]
    acoustic_scale: float = 2.0
    word_penalty: float = 0.5

    def nbest(self, logits: Any, n: int) -> list[Hypothesis]:
        return self.lists[logits][:n]

    def best(self, logits: Any) -> Hypothesis:
        return self.lists[logits][0]


def hyp(words: str, graph_cost: float) -> Hypothesis:
    return Hypothesis(tuple(words.split()), 0.0, graph_cost, ())


def spell(said: Sequence[str]) -> Graph:
    """One state, an arc a word; "unsaid" cannot be spelled."""
    n = len(said) if "unsaid" not in said else 0
    zero = torch.zeros(n, dtype=torch.int64)
    return Graph(zero, zero, torch.arange(n), torch.zeros(n), torch.zeros(1), torch.zeros(1))


def test_ways_to_say_it_weigh_what_their_graph_costs_in_units_of_the_scale() -> None:
    decoder: Any = Heard(
        {1: [hyp("a b", 1.0), hyp("a", 3.0), hyp("unsaid", 0.0), hyp("", 0.0), hyp("c", 9.0)]}
    )
    found = supervision(decoder, {"u": 1}, 4, spell)["u"]
    costs = [(1.0 + 0.5 * 2) / 2, (3.0 + 0.5) / 2]
    total = sum(math.exp(-cost) for cost in costs)
    assert found.initial.exp().tolist() == pytest.approx([math.exp(-cost) / total for cost in costs])
    assert found.n_arcs == 3


def test_with_one_hypothesis_it_is_certain_and_silence_teaches_nothing() -> None:
    decoder: Any = Heard({1: [hyp("a", 1.0), hyp("b", 1.0)], 2: [NOTHING], 3: [hyp("unsaid", 0.0)]})
    found = supervision(decoder, {"u": 1, "silent": 2, "odd": 3}, 1, spell)
    assert list(found) == ["u"]
    assert found["u"].initial.tolist() == [0.0]
