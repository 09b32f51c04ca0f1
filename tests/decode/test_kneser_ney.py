"""Kneser-Ney against its definition, and against what lmplz wrote for the same text."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest

from greenasr.decode.kneser_ney import discounts, kneser_ney
from greenasr.decode.ngram import NGram

TEXT = [
    line.split()
    for line in (
        "turn the light on|turn the radio on|turn the light off|turn off the light|play the radio|"
        "play the next song|what is the time|what is the next song|what time is it|set the time to nine|"
        "set the light to nine|play it"
    ).split("|")
]

# `lmplz -o 3 --discount_fallback`, KenLM 4cb443e, on TEXT: n-gram -> log10 p, log10 b
LMPLZ = {
    "<unk>": (-1.6564176, 0.0),
    "<s>": (0.0, -0.19188553),
    "the": (-0.90309, -0.19280423),
    "on": (-1.2884408, -0.22156934),
    "<s> turn": (-0.75439644, -0.040428653),
    "turn the": (-0.57366467, -0.09640766),
    "the time": (-0.9142764, -0.19081451),
    "light </s>": (-0.6436944, 0.0),
    "turn off the": (-0.27773428, None),
    "<s> turn off": (-0.5369847, None),
    "the time to": (-0.5533414, None),
}
# the same with --prune 0 0 1: all trigrams that are left
LMPLZ_PRUNED = {
    "next song </s>": -0.24410531,
    "to nine </s>": -0.24410531,
    "<s> turn the": -0.57366467,
    "<s> play the": -0.48685193,
    "what is the": -0.44918996,
    "<s> set the": -0.28249207,
    "turn the light": -0.72835875,
    "the next song": -0.32460368,
    "<s> what is": -0.54680043,
}


def table(lm: NGram, n: int) -> dict[str, int]:
    return {" ".join(lm.words[i] for i in gram): row for row, gram in enumerate(lm.grams(n).tolist())}


def random_text(seed: int, sentences: int = 60, words: int = 6) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    return [[f"w{i}" for i in draw.zipf(1.5, draw.integers(0, 7)) % words] for _ in range(sentences)]


def by_definition(text: list[list[str]], order: int, prune: list[int]) -> dict[tuple[str, ...], float]:
    """p of every kept n-gram from the equations, one n-gram at a time."""
    raw: Counter[tuple[str, ...]] = Counter()
    before: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for words in text:
        line = ("<s>", *words, "</s>")
        for i in range(len(line)):
            for n in range(1, order + 1):
                if i + n <= len(line):
                    raw[line[i : i + n]] += 1
                    if i:
                        before[line[i : i + n]].add(line[i - 1])
    raw[("<unk>",)] = 0
    a = {g: c if len(g) == order or g[0] == "<s>" else len(before[g]) for g, c in raw.items()}
    a[("<s>",)] = 0
    kept = {g for g in raw if raw[g] > prune[len(g) - 1] or len(g) == 1}
    d = [discounts(np.array([c for g, c in a.items() if len(g) == n])) for n in range(1, order + 1)]
    vocabulary = sum(len(g) == 1 for g in raw) - 1

    def gamma(h: tuple[str, ...]) -> float:
        after = [g for g in raw if len(g) == len(h) + 1 and g[:-1] == h]
        free = sum(d[len(h)][min(a[g], 3)] if g in kept else a[g] for g in after)
        return free / sum(a[g] for g in after)

    def p(g: tuple[str, ...]) -> float:
        total = sum(a[other] for other in raw if len(other) == len(g) and other[:-1] == g[:-1])
        lower = p(g[1:]) if len(g) > 1 else 1 / vocabulary
        return (a[g] - d[len(g) - 1][min(a[g], 3)]) / total + gamma(g[:-1]) * lower

    return {g: p(g) for g in kept if g != ("<s>",)}


def test_probabilities_and_backoffs_are_those_of_lmplz() -> None:
    lm = kneser_ney(TEXT, order=3).lm
    assert lm.counts == (19, 34, 38)
    for gram, (logprob, backoff) in LMPLZ.items():
        n = len(gram.split())
        row = table(lm, n)[gram]
        assert lm.logprobs[n - 1][row] == pytest.approx(logprob, abs=2e-6)
        if backoff is not None:
            assert lm.backoffs[n - 1][row] == pytest.approx(backoff, abs=2e-6)


def test_pruning_by_count_keeps_the_trigrams_of_lmplz() -> None:
    lm = kneser_ney(TEXT, order=3, prune=[0, 0, 1]).lm
    found = {gram: lm.logprobs[2][row] for gram, row in table(lm, 3).items()}
    assert found == pytest.approx(LMPLZ_PRUNED, abs=2e-6)


@pytest.mark.parametrize(("order", "prune"), [(1, [0]), (2, [0, 0]), (3, [0, 0, 0]), (4, [0, 0, 1, 2])])
def test_estimates_equal_the_definition(order: int, prune: list[int]) -> None:
    text = random_text(order)
    lm = kneser_ney(text, order, prune).lm
    found = {
        tuple(gram.split()): 10 ** lm.logprobs[n - 1][row]
        for n in range(1, order + 1)
        for gram, row in table(lm, n).items()
        if gram != "<s>"
    }
    assert found == pytest.approx(by_definition(text, order, prune))


@pytest.mark.parametrize("prune", [[], [0, 1], [0, 0, 2]])
def test_every_history_sums_to_one(prune: list[int]) -> None:
    lm = kneser_ney(random_text(0), 3, prune).lm
    words = [w for w in lm.words if w not in ("<s>", "</s>")]
    for history in product(words, repeat=2):
        total = sum(np.exp(lm.score([[*history, word]])[0][2]) for word in words)
        total += np.exp(lm.score([list(history)])[0][2])
        assert total == pytest.approx(1)


def test_words_outside_a_given_vocabulary_count_as_unk() -> None:
    vocab = ["turn", "the", "light", "never"]
    lm = kneser_ney(TEXT, 2, vocab=vocab).lm
    assert lm.words == ("<unk>", "<s>", "</s>", *vocab)
    replaced = [[w if w in vocab else "<unk>" for w in s] for s in TEXT]
    same = kneser_ney(replaced, 2, vocab=vocab).lm
    assert all(np.array_equal(a, b) for a, b in zip(lm.logprobs, same.logprobs, strict=True))
    np.testing.assert_array_equal(lm.score([["radio"]])[0], lm.score([["song"]])[0])


def test_empty_sentences_and_one_word_texts_are_estimated() -> None:
    lm = kneser_ney([[], ["a"]], order=4).lm
    assert np.isfinite(np.concatenate(lm.score([[], ["a"], ["b", "a", "a", "a", "a"]]))).all()


@pytest.mark.parametrize(
    ("text", "order", "prune", "message"),
    [
        ([], 3, [], "text to estimate n-grams from is empty"),
        ([["a"]], 6, [], "order is 6, it should be 1 to 5"),
        ([["a"]], 3, [0, 2, 1], "thresholds are 0 2 1, .* never fall"),
        ([["a"]], 2, [1], "begin with 0 .* --vocab"),
        ([["a"], ["b", "</s>"]], 2, [], "sentence 2 of the text holds </s>"),
    ],
)
def test_what_cannot_be_estimated_is_named(
    text: list[list[str]], order: int, prune: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kneser_ney(text, order, prune)
