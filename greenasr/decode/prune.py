"""Entropy pruning: drop the n-grams that the model hardly misses.

Without the n-gram hw its probability is b'(h) p(w | h'), and the relative entropy to the model with it is

    D = - P(h) { p(w|h) [log p(w|h') + log b'(h) - log p(w|h)] + [log b'(h) - log b(h)] · rest(h) }
    b'(h) = (rest(h) + p(w|h)) / (rest'(h) + p(w|h'))
    rest(h) = 1 - Σ p(w|h),   rest'(h) = 1 - Σ p(w|h')      both over the w listed after h

and hw goes if exp(D) - 1, the relative growth of the perplexity, is below the threshold.  Stolcke 1998,
"Entropy-based pruning of backoff language models", §3.  P(h) is by default h's share of the text's tokens
and not the model's own, since lower orders of Kneser-Ney are no marginals: Chelba et al. 2010, "Study on
interaction between entropy pruning and Kneser-Ney smoothing".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from greenasr.decode.ngram import Bools, Floats, Ints, NGram


def prune_entropy(lm: NGram, text_counts: Sequence[Ints], threshold: float) -> NGram:
    """Drop n-grams of order 2 and above that are worth less than ``threshold``; 1e-8 is usual.

    ``text_counts`` are those of `kneser_ney.Estimate`, one (U_n,) array an order.  An n-gram stays while it
    is the context of one that stays.
    """
    if not 0 <= threshold < 1:
        raise ValueError(
            f"entropy threshold is {threshold:g}, it should be at least 0 and under 1, e.g. 1e-8."
        )
    if threshold == 0:
        return lm
    tokens = float(text_counts[0].sum())
    keep: list[Bools] = [np.ones(count, bool) for count in lm.counts]
    for n in range(lm.order, 1, -1):
        growth = perplexity_growth(lm, n, text_counts[n - 2] / tokens)
        keep[n - 1] = growth >= threshold
        if n < lm.order:
            keep[n - 1][np.divmod(lm.keys[n], len(lm.words))[0][keep[n]]] = True
    return with_backoffs(_keep(lm, keep))


def perplexity_growth(lm: NGram, n: int, history: Floats) -> Floats:
    """exp(D) - 1 of dropping each n-gram of order n alone, (U_n,); ``history`` is P(h), (U_{n-1},)."""
    context = lm.keys[n - 1] // len(lm.words)
    p, lower = 10.0 ** lm.logprobs[n - 1], 10.0 ** lower_logprobs(lm, n)
    rest, lower_rest = _rests(lm, n, p, lower)
    backoff = _backoff(rest, lower_rest)[context]
    without = (rest[context] + p) / np.maximum(lower_rest[context] + lower, 1e-300)
    d = (
        p * (np.log(lower) + np.log(without) - np.log(p))
        + (np.log(without) - np.log(backoff)) * rest[context]
    )
    growth: Floats = np.expm1(-history[context] * d)
    return growth


def lower_logprobs(lm: NGram, n: int) -> Floats:
    """log10 p(w | h') of every n-gram hw of order n, (U_n,)."""
    grams = lm.grams(n)[:, 1:]
    lower = NGram(lm.words, lm.keys[: n - 1], lm.logprobs[: n - 1], lm.backoffs[: n - 2])
    scores: Floats = lower.log10(grams.ravel(), np.tile(np.arange(n - 1), len(grams)))
    return scores.reshape(len(grams), n - 1)[:, -1]


def with_backoffs(lm: NGram) -> NGram:
    """The model with b(h) = rest(h) / rest'(h) everywhere, so that every history sums to one."""
    backoffs: list[Floats] = []
    for n in range(2, lm.order + 1):
        partial = NGram(lm.words, lm.keys[:n], lm.logprobs[:n], tuple(backoffs))
        rest, lower_rest = _rests(partial, n, 10.0 ** lm.logprobs[n - 1], 10.0 ** lower_logprobs(partial, n))
        backoffs.append(np.log10(_backoff(rest, lower_rest)))
    return NGram(lm.words, lm.keys, lm.logprobs, tuple(backoffs))


def _rests(lm: NGram, n: int, p: Floats, lower: Floats) -> tuple[Floats, Floats]:
    context, size = lm.keys[n - 1] // len(lm.words), len(lm.keys[n - 2])
    rest, lower_rest = np.ones(size), np.ones(size)
    np.subtract.at(rest, context, p)
    np.subtract.at(lower_rest, context, lower)
    return rest, lower_rest


def _backoff(rest: Floats, lower_rest: Floats) -> Floats:
    backoff: Floats = np.maximum(rest, 1e-12) / np.maximum(lower_rest, 1e-12)
    return backoff


def _keep(lm: NGram, keep: Sequence[Bools]) -> NGram:
    keys = [lm.keys[0]]
    for n in range(1, lm.order):
        context, word = np.divmod(lm.keys[n][keep[n]], len(lm.words))
        keys.append((np.cumsum(keep[n - 1]) - 1)[context] * len(lm.words) + word)
    logprobs = tuple(p[k] for p, k in zip(lm.logprobs, keep, strict=True))
    return NGram(
        lm.words, tuple(keys), logprobs, tuple(b[k] for b, k in zip(lm.backoffs, keep, strict=False))
    )
