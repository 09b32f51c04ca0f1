"""A speaker learns from all that may have been said, each way by its total."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from greenasr.decode.nbest import NBest
from greenasr.ops.lfmmi import Graph
from greenasr.pipeline.adaptation import supervision


def spell(said: Sequence[str]) -> Graph:
    """One state, an arc a word; "unsaid" cannot be spelled."""
    n = len(said) if "unsaid" not in said else 0
    zero = torch.zeros(n, dtype=torch.int64)
    return Graph(zero, zero, torch.arange(n), torch.zeros(n), torch.zeros(1), torch.zeros(1))


def heard(utt_id: str, hyps: Sequence[str], scores: Sequence[float], totals: Sequence[float] = ()) -> NBest:
    return NBest(utt_id, None, tuple(hyps), tuple(scores), tuple(totals))


def test_ways_to_say_it_weigh_what_the_list_says_and_rescoring_has_the_last_word() -> None:
    hyps, scores = ("a b", "a", "unsaid", "", "c"), (1.0, 0.5, 2.0, 3.0, 9.0)
    found = supervision([heard("u", hyps, scores)], 4, spell)["u"]
    total = math.exp(1.0) + math.exp(0.5)
    assert found.initial.exp().tolist() == pytest.approx([math.exp(1.0) / total, math.exp(0.5) / total])
    assert found.n_arcs == 3
    again = supervision([heard("u", hyps, scores, (2.0, 2.0, 0.0, 0.0, 0.0))], 2, spell)["u"]
    assert again.initial.exp().tolist() == pytest.approx([0.5, 0.5])


def test_with_one_hypothesis_it_is_certain_and_silence_teaches_nothing() -> None:
    lists = [heard("u", ["a", "b"], [1, 1]), heard("silent", [""], [0]), heard("odd", ["unsaid"], [0])]
    found = supervision(lists, 1, spell)
    assert list(found) == ["u"]
    assert found["u"].initial.tolist() == [0.0]
