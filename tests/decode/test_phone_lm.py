"""The phone n-gram counts what sampled transcripts would, and allows what it has seen."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest

from greenasr.decode.phone_lm import Prons, estimate, expected_counts, left_counts, phone_net

PHONES = ("SIL", "A", "B", "C")
TRANSCRIPTS: list[list[Prons]] = [
    [[("A", "B")], [("C",), ("B", "A")]],
    [[("A",), ("A", "B")], [("B", "C"), ("C",)], [("A",)]],
    [[("C", "C", "A")]],
    [[("A", "B")], [("C",), ("B", "A")]],
]


def spoken(words: list[Prons], silence: float, edge: float) -> Counter[tuple[str, ...]]:
    """Every choice of pronunciations and silences, with its chance."""
    out: Counter[tuple[str, ...]] = Counter()
    for prons in itertools.product(*words):
        for silences in itertools.product([False, True], repeat=len(words) + 1):
            chance = 1 / math.prod(map(len, words))
            phones: list[str] = []
            for n, quiet in enumerate(silences):
                p = edge if n in (0, len(words)) else silence
                chance *= p if quiet else 1 - p
                phones += (["SIL"] if quiet else []) + list(prons[n] if n < len(words) else ())
            out[tuple(phones)] += chance  # type: ignore[assignment]
    return out


def strings_of(words: list[Prons], silence: float, edge: float) -> Counter[tuple[str, ...]]:
    """What a net says, by walking it."""
    net = phone_net(words, PHONES, silence, edge)
    out: Counter[tuple[str, ...]] = Counter()
    todo: list[tuple[int, tuple[str, ...], float]] = [(0, (), 1.0)]
    while todo:
        node, said, chance = todo.pop()
        if node in net.final:
            out[said] += chance * net.final[node]  # type: ignore[assignment]
        todo += [(t, (*said, PHONES[s - 1]), chance * p) for s, t, p in net.arcs[node]]
    return out


def counted(words: list[Prons], order: int, silence: float, edge: float) -> dict[tuple[int, ...], float]:
    """N-grams of all that can be spoken, one string after another."""
    counts: dict[tuple[int, ...], float] = {}
    for said, chance in spoken(words, silence, edge).items():
        symbols = [0, *(PHONES.index(p) + 1 for p in said), 0]
        for end in range(2, len(symbols) + 1):
            ngram = tuple(symbols[max(0, end - order) : end])
            counts[ngram] = counts.get(ngram, 0.0) + chance
    return counts


@pytest.mark.parametrize("words", TRANSCRIPTS)
@pytest.mark.parametrize(("silence", "edge"), [(0.2, 0.8), (0.0, 0.5), (0.3, 0.0), (1.0, 1.0)])
def test_a_net_says_every_choice_of_pronunciations_and_silences(
    words: list[Prons], silence: float, edge: float
) -> None:
    expected = {said: p for said, p in spoken(words, silence, edge).items() if p}
    assert strings_of(words, silence, edge) == pytest.approx(expected)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("words", TRANSCRIPTS)
def test_expected_counts_equal_those_of_all_that_can_be_spoken(words: list[Prons], order: int) -> None:
    assert expected_counts([words], PHONES, order) == pytest.approx(counted(words, order, 0.2, 0.8))


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("extra_states", [0, 2, 5, 2000])
def test_every_history_is_followed_by_something_with_certainty(order: int, extra_states: int) -> None:
    lm = estimate(TRANSCRIPTS, PHONES, order, extra_states=extra_states)
    total = np.bincount(lm.src, np.exp(lm.logprob), len(lm.histories)) + np.exp(lm.final)
    np.testing.assert_allclose(total, 1)
    assert sum(len(h) > 2 for h in lm.histories) <= extra_states
    assert max(map(len, lm.histories)) <= max(order - 1, 2)
    for words in TRANSCRIPTS:
        assert all(lm.logprob_of(said) > -math.inf for said in strings_of(words, 0.2, 0.8))


def test_an_unpruned_ngram_multiplies_relative_frequencies() -> None:
    lm = estimate(TRANSCRIPTS, PHONES, 3)
    counts = expected_counts(TRANSCRIPTS, PHONES, 3)
    said = [0, 1, 2, 3, 4, 0]  # SIL A B C

    def share(ngram: tuple[int, ...]) -> float:
        return counts[ngram] / sum(c for other, c in counts.items() if other[:-1] == ngram[:-1])

    expected = math.prod(share(tuple(said[max(0, n - 2) : n + 1])) for n in range(1, len(said)))
    assert lm.logprob_of(("SIL", "A", "B", "C")) == pytest.approx(math.log(expected))


def test_without_extra_states_higher_orders_are_the_trigram() -> None:
    low, high = (estimate(TRANSCRIPTS, PHONES, order, extra_states=0) for order in (3, 5))
    assert low.histories == high.histories
    np.testing.assert_array_equal(low.dst, high.dst)
    np.testing.assert_allclose(low.logprob, high.logprob)


def test_what_was_never_seen_is_not_allowed() -> None:
    lm = estimate(TRANSCRIPTS, PHONES)
    assert lm.logprob_of(("B", "B")) == lm.logprob_of(("A", "B", "oops")) == lm.logprob_of(()) == -math.inf


def test_left_counts_add_up_to_the_phones_spoken() -> None:
    counts = left_counts(TRANSCRIPTS, PHONES)
    spoken_phones: Counter[str] = Counter()
    for words in TRANSCRIPTS:
        for said, chance in spoken(words, 0.2, 0.8).items():
            for phone in said:
                spoken_phones[phone] += chance  # type: ignore[assignment]
    for n, phone in enumerate(PHONES):
        assert sum(c for (_, p), c in counts.items() if p == n) == pytest.approx(spoken_phones[phone])


def test_json_gives_back_the_model() -> None:
    lm = estimate(TRANSCRIPTS, PHONES, 4, extra_states=3)
    again = type(lm).from_json(json.loads(json.dumps(lm.to_json())))
    assert (again.phones, again.histories) == (lm.phones, lm.histories)
    for name in ("src", "symbol", "dst", "logprob", "final"):
        np.testing.assert_array_equal(getattr(again, name), getattr(lm, name))


def test_refusals_name_the_cause() -> None:
    with pytest.raises(
        ValueError, match="word 2 of a transcript is pronounced A X, but 'X' is none of the 4"
    ):
        phone_net([[("A",)], [("A", "X")]], PHONES)
    with pytest.raises(ValueError, match="word 1 of a transcript has an empty pronunciation"):
        phone_net([[]], PHONES)
    with pytest.raises(ValueError, match="without words and without silence"):
        phone_net([], PHONES, edge_silence=0.0)
    with pytest.raises(ValueError, match="order is 1"):
        estimate(TRANSCRIPTS, PHONES, 1)
    with pytest.raises(ValueError, match="the training set is empty"):
        estimate([], PHONES)
    with pytest.raises(ValueError, match="'format' should be 'greenasr phone lm 1'"):
        estimate(TRANSCRIPTS, PHONES).from_json({})


def test_a_transcript_without_words_is_silence() -> None:
    assert strings_of([], 0.2, 0.8) == pytest.approx({("SIL",): 0.8})
