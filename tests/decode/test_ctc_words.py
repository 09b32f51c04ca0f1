"""A prefix beam with an n-gram against the rank of every labelling, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from greenasr.data.text import Letters
from greenasr.decode.ctc import PrefixBeam, prefix_beam
from greenasr.decode.ctc_words import WordNGram
from greenasr.decode.kneser_ney import kneser_ney

LETTERS = Letters((" ", "a", "b"))
LM = kneser_ney([["a", "b"], ["a", "ab", "b"], ["b", "a"]], order=2).lm
WORDS = WordNGram(LM, LETTERS, weight=0.7, word_penalty=0.2)


def rank(text: str) -> float:
    words = text.split()
    return 0.7 * float(LM.score([words])[0].sum()) - 0.2 * len(words)


def labels(text: str) -> tuple[int, ...]:
    return tuple(" ab".index(letter) + 1 for letter in text)


@pytest.mark.parametrize("text", ["", " ", " a", "a", " a b", " ab  b ", "b a ab", " bb a bb"])
def test_the_rank_of_a_labelling_is_that_of_its_words_and_their_end(text: str) -> None:
    """Kneser-Ney without cut-offs knows every word of the text; \"bb\" is <unk>."""
    assert WORDS.total(labels(text)) == pytest.approx(rank(text))


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_that_holds_everything_ranks_every_labelling(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (5, 4))
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    alone = dict(prefix_beam(logp, 10_000))
    every = {y: p + rank("".join(" ab"[k - 1] for k in y)) for y, p in alone.items()}
    found = PrefixBeam(10_000, 10, math.inf, WORDS)(logp)
    best = sorted(every.values(), reverse=True)[:10]
    assert [hyp.score for hyp in found] == pytest.approx(best)
    assert all(hyp.logprob == pytest.approx(alone[hyp.labels]) for hyp in found)


def test_the_n_gram_decides_where_the_sound_does_not() -> None:
    """\"a\" and \"b\" sound alike; after \"a\" comes \"b\" more often than \"a\"."""
    logp = np.full((6, 4), -20.0)
    for t, each in enumerate([(1,), (2,), (0,), (1,), (2, 3), (0,)]):
        logp[t, list(each)] = -math.log(len(each))
    (best,) = PrefixBeam(8, 1, 30.0, WORDS)(logp)
    assert best.labels == labels(" a b")


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_weights_that_rank_nothing_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="give a weight above 0"):
        WordNGram(LM, LETTERS, weight)
    with pytest.raises(ValueError, match="a beam of 1 is greedy"):
        PrefixBeam(1, 1, words=WORDS)
