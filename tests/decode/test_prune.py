"""Entropy pruning against the relative entropy it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.ngram import NGram, perplexity
from greenasr.decode.prune import perplexity_growth, prune_entropy, with_backoffs


def text(seed: int, sentences: int = 80) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    return [[f"w{i}" for i in draw.zipf(1.4, draw.integers(1, 7)) % 8] for _ in range(sentences)]


def distribution(lm: NGram, history: list[str]) -> np.ndarray:
    """p(w | history) of every word but <s>; ``history`` may begin with <s>."""
    words = [w for w in lm.words if w != "<s>"]
    ids = [[lm.ids[w] for w in [*history, word]] for word in words]
    stream = np.array(ids).ravel()
    position = np.tile(np.arange(len(history) + 1), len(words))
    return 10 ** lm.log10(stream, position).reshape(len(words), -1)[:, -1]


def without(lm: NGram, row: int) -> NGram:
    """The model without one n-gram of its highest order."""
    keys = (*lm.keys[:-1], np.delete(lm.keys[-1], row))
    return with_backoffs(
        NGram(lm.words, keys, (*lm.logprobs[:-1], np.delete(lm.logprobs[-1], row)), lm.backoffs)
    )


@pytest.mark.parametrize("order", [2, 3])
def test_growth_is_the_relative_entropy_of_dropping_one_ngram(order: int) -> None:
    estimate = kneser_ney(text(order), order)
    lm = estimate.lm
    counts = estimate.text_counts
    growth = perplexity_growth(lm, order, counts[order - 2] / counts[0].sum())
    for row in range(0, lm.counts[-1], 7):
        gram = lm.grams(order)[row]
        history = [lm.words[i] for i in gram[:-1]]
        context = int(lm.keys[-1][row] // len(lm.words))
        p, q = distribution(lm, history), distribution(without(lm, row), history)
        entropy = counts[order - 2][context] / counts[0].sum() * float((p * np.log(p / q)).sum())
        assert growth[row] == pytest.approx(np.expm1(entropy), rel=1e-6, abs=1e-12)


def test_backoffs_of_a_kneser_ney_model_are_those_that_sum_to_one() -> None:
    lm = kneser_ney(text(0), 4).lm
    for found, given in zip(with_backoffs(lm).backoffs, lm.backoffs, strict=True):
        np.testing.assert_allclose(10**found, 10**given, atol=1e-9)


@pytest.mark.parametrize("threshold", [1e-4, 1e-3, 1e-1])
def test_a_pruned_model_sums_to_one_and_keeps_contexts(threshold: float) -> None:
    estimate = kneser_ney(text(1), 3)
    pruned = prune_entropy(estimate.lm, estimate.text_counts, threshold)
    assert pruned.counts[0] == estimate.lm.counts[0]
    for history in (["w1"], ["<s>", "w1"], ["w1", "w2"], ["w3", "w1"]):
        assert distribution(pruned, history).sum() == pytest.approx(1)
    for n in (2, 3):
        assert (np.diff(pruned.keys[n - 1]) > 0).all()
        assert (pruned.keys[n - 1] // len(pruned.words) < pruned.counts[n - 2]).all()


def test_pruning_more_costs_more_and_nothing_at_zero() -> None:
    train, held = text(2, 300), text(3)
    estimate = kneser_ney(train, 3)
    sizes, ppls = [], []
    for threshold in (0.0, 1e-4, 1e-3, 1e-2):
        lm = prune_entropy(estimate.lm, estimate.text_counts, threshold)
        sizes.append(sum(lm.counts))
        ppls.append(perplexity(lm.score(train)))
    assert sizes[0] == sum(estimate.lm.counts)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    assert ppls == sorted(ppls)
    assert perplexity(estimate.lm.score(held)) > 1


def test_an_impossible_threshold_is_named() -> None:
    estimate = kneser_ney(text(2), 2)
    with pytest.raises(ValueError, match="entropy threshold is 2"):
        prune_entropy(estimate.lm, estimate.text_counts, 2.0)
