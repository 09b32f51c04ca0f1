"""Queries of the back-off model against the recursion, one word at a time."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.ngram import LN10, NGram


@pytest.fixture(scope="module")
def lm() -> NGram:
    draw = np.random.default_rng(0)
    text = [[f"w{i}" for i in draw.zipf(1.4, draw.integers(0, 9)) % 20] for _ in range(200)]
    return kneser_ney(text, 4, prune=[0, 0, 1]).lm


def by_recursion(lm: NGram, history: list[str], word: str) -> float:
    """log10 p(word | history) from dictionaries of the listed n-grams."""
    grams = [{tuple(g): i for i, g in enumerate(lm.grams(n).tolist())} for n in range(1, lm.order + 1)]

    def p(ids: tuple[int, ...]) -> float:
        if ids in grams[len(ids) - 1]:
            return float(lm.logprobs[len(ids) - 1][grams[len(ids) - 1][ids]])
        context = grams[len(ids) - 2].get(ids[:-1])
        return p(ids[1:]) + (0.0 if context is None else float(lm.backoffs[len(ids) - 2][context]))

    return p(tuple(lm.ids.get(w, 0) for w in [*history, word][-lm.order :]))


def test_scores_equal_the_back_off_recursion(lm: NGram) -> None:
    draw = np.random.default_rng(1)
    for _ in range(5):
        words = [f"w{i}" for i in draw.integers(0, 22, 6)]
        line = ["<s>", *words, "</s>"]
        expected = [by_recursion(lm, line[:i], line[i]) for i in range(1, len(line))]
        np.testing.assert_allclose(lm.score([words])[0] / LN10, expected)


def test_sentences_of_a_batch_do_not_see_each_other(lm: NGram) -> None:
    sentences = [["w1", "w2"], [], ["w3"], ["w1", "w2", "w4", "w9"]]
    for alone, together in zip(sentences, lm.score(sentences), strict=True):
        np.testing.assert_array_equal(lm.score([alone])[0], together)
    assert lm.score([]) == []
