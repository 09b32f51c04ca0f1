"""N-best lists for generated text: they look like real ones."""

from __future__ import annotations

from itertools import product

import pytest

from greenasr.data.confusions import alike, cheapest, distances, generate_nbest, vocabulary
from greenasr.data.grammar import generate


def edits(ref: list[str], hyp: list[str]) -> int:
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref):
        last, row[0] = row[0], i + 1
        for j, h in enumerate(hyp):
            last, row[j + 1] = row[j + 1], min(row[j] + 1, row[j + 1] + 1, last + (r != h))
    return row[-1]


def test_cheapest_equals_trying_everything() -> None:
    slots = [[("a", 0.3), ("b", 0.1), ("", 0.7)], [("a", 0.0), ("", 0.45)], [("c", 0.2), ("d", 0.21)]]
    costs: dict[str, float] = {}
    for pick in product(*slots):
        hyp = " ".join(word for word, _ in pick if word)
        costs[hyp] = min(costs.get(hyp, 9.0), sum(cost for _, cost in pick))
    found = cheapest(slots, 8)
    assert [cost for _, cost in found] == pytest.approx(sorted(costs.values())[:8])
    assert all(costs[hyp] == pytest.approx(cost) for hyp, cost in found)


def test_homophones_are_at_no_distance_and_distance_has_two_equal_sides() -> None:
    words = ("two", "to", "boston", "austin", "b", "p")
    table = [distances(word, words) for word in words]
    assert table[0][1] == 0
    assert [[table[i][j] == pytest.approx(table[j][i]) for j in range(6)] for i in range(6)] == [
        [True] * 6
    ] * 6
    assert table[2][3] < table[2][0]


def test_confusions_stay_in_the_vocabulary_of_the_grammar() -> None:
    words = set(vocabulary())
    assert {word for line in generate("test", 2000) for word in line.split()} <= words
    assert {word for word, _ in alike("timer")} <= words


def test_first_best_is_wrong_often_and_the_list_knows_better() -> None:
    lists = list(generate_nbest(150, seed=0))
    words = sum(len(item["ref"].split()) for item in lists)
    first = sum(edits(item["ref"].split(), item["hyps"][0].split()) for item in lists)
    oracle = sum(min(edits(item["ref"].split(), hyp.split()) for hyp in item["hyps"]) for item in lists)
    assert 0.12 <= first / words <= 0.22
    assert oracle / first < 0.6


def test_lists_are_sorted_distinct_and_repeatable() -> None:
    lists = list(generate_nbest(20, seed=4, n=10, speakers=3))
    assert lists == list(generate_nbest(20, seed=4, n=10, speakers=3))
    assert len({item["id"] for item in lists}) == 20
    assert len({item["speaker"] for item in lists}) == 3
    for item in lists:
        assert item["scores"] == sorted(item["scores"], reverse=True)
        assert len(set(item["hyps"])) == len(item["hyps"]) == len(item["scores"]) <= 10


def test_an_impossible_request_is_refused() -> None:
    with pytest.raises(ValueError, match="n = 0, .* each must be above zero"):
        next(generate_nbest(1, n=0))
