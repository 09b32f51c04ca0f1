"""The scale and the penalty of the fewest errors, against counting at every point by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from greenasr.decode.graph import build_graph
from greenasr.decode.tune_scale import ScaleSearch, search, smoothed, tune
from greenasr.decode.wfst import Decoder, Hypothesis
from greenasr.score.errors import count_errors


def random_lists(seed: int, n_lists: int = 12) -> tuple[list[list[Hypothesis]], list[list[str]]]:
    rng = np.random.default_rng(seed)
    lists, refs = [], []
    for _ in range(n_lists):
        texts = [tuple(rng.choice(list("abc"), rng.integers(0, 5)).tolist()) for _ in range(6)]
        lists.append([Hypothesis(t, *rng.normal(scale=3, size=2).tolist(), ()) for t in texts])
        refs.append(list(texts[0]))
    return lists, refs


@pytest.mark.parametrize("seed", range(3))
def test_errors_at_every_point_are_those_of_the_cheapest_hypotheses_there(seed: int) -> None:
    lists, refs = random_lists(seed)
    scales, penalties = (0.5, 1.0, 2.0), (-1.0, 0.0, 2.5)
    found = search(lists, refs, scales, penalties)
    for (i, scale), (j, penalty) in product(enumerate(scales), enumerate(penalties)):
        best = [hyps[int(np.argmin([hyp.cost(scale, penalty) for hyp in hyps]))] for hyps in lists]
        wrong = sum(count_errors("", ref, hyp.words).total for ref, hyp in zip(refs, best, strict=True))
        assert found.errors[i, j] == wrong
    assert found.n_ref == sum(map(len, refs))
    assert json.loads(json.dumps(found.to_json()))["acoustic_scale"] == found.acoustic_scale


def test_the_choice_is_the_middle_of_a_valley_and_not_a_lucky_point() -> None:
    errors = np.full((7, 5), 9.0)
    errors[1:4, 1:4] = 4.0
    errors[6, 4] = 3.0
    found = ScaleSearch(tuple(0.5 * 1.2**i for i in range(7)), (-2.0, -1.0, 0.0, 1.0, 2.0), errors, 50)
    assert found.at == (2, 2) and found.wer == pytest.approx(8.0)
    assert smoothed(errors)[2, 2] == 4.0


def test_equal_points_are_decided_by_nearness_to_scale_one_and_no_penalty() -> None:
    found = ScaleSearch((0.25, 0.5, 1.0, 2.0), (-1.0, 0.0, 1.0), np.full((4, 3), 7.0), 10)
    assert (found.acoustic_scale, found.word_penalty) == (1.0, 0.0)


def test_references_of_one_setting_are_found_without_error_there(biphones) -> None:
    """Searching anew at the choice and searching the lists agree, and no point beats the planted one."""
    rng = np.random.default_rng(0)
    graph = build_graph(biphones.lexicon, biphones.pdf_map, biphones.arpa)
    logits = [rng.normal(size=(6, biphones.pdf_map.n_pdfs)).astype(np.float32) for _ in range(8)]
    planted = Decoder(graph, 2.0, -1.0, beam=60, lattice_beam=60)
    refs = [list(planted.best(x).words) for x in logits]
    scales, penalties = (0.25, 0.5, 1.0, 2.0, 4.0), (-2.0, -1.0, 0.0, 1.0)
    start = Decoder(graph, beam=60, lattice_beam=60)
    found = tune(start, logits, refs, scales, penalties, n=10)
    assert found.errors[scales.index(2.0), penalties.index(-1.0)] == 0 < found.errors[0, 0]
    there = replace(start, acoustic_scale=found.acoustic_scale, word_penalty=found.word_penalty)
    wrong = sum(count_errors("", ref, there.best(x).words).total for ref, x in zip(refs, logits, strict=True))
    assert wrong == found.errors[found.at]


def test_lists_and_references_that_do_not_fit_are_named(biphones) -> None:
    lists, refs = random_lists(0, 2)
    with pytest.raises(ValueError, match=r"2 lists \(0 of them empty\) and 1 references"):
        search(lists, refs[:1])
    with pytest.raises(ValueError, match=r"2 lists \(1 of them empty\)"):
        search([lists[0], []], refs)
    with pytest.raises(ValueError, match="no reference word to tune on"):
        search(lists, [[], []])
    decoder = Decoder(build_graph(biphones.lexicon, biphones.pdf_map, biphones.arpa))
    with pytest.raises(ValueError, match="0 utterances of logits and 1 references"):
        tune(decoder, [], [["a"]])
    with pytest.raises(ValueError, match="rounds is 0"):
        tune(decoder, [], [], rounds=0)
