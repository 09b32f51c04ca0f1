"""Interpolated modified Kneser-Ney: discount what was seen, and let the shorter history share it out.

    p(w | h) = (a(hw) - D_n(a(hw))) / Σ_v a(hv)  +  γ(h) p(w | h'),      p(w) ends in 1 / V
    D_n(k)   = k - (k+1) Y n_{k+1} / n_k,  Y = n_1 / (n_1 + 2 n_2),      k = 1, 2, 3 and more
    γ(h)     = (Σ_w D_n(a(hw)) over kept hw  +  Σ_w a(hw) over pruned hw) / Σ_v a(hv)

a is the count of the highest order and of n-grams that begin with <s>, elsewhere the number of
different words seen before the n-gram.  Chen and Goodman 1998, eq. 26; Heafield et al. 2013,
"Scalable modified Kneser-Ney language model estimation", §3, whose program lmplz sets the conventions
followed here: <unk> is a word never seen, counted in V; <s> is not; discounts come from the counts
before pruning; p(<s>) is written as 1; where discounts cannot be had they are 0.5, 1 and 1.5 (its
``--discount_fallback``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from greenasr.decode.ngram import BOS, EOS, UNK, Bools, Floats, Ints, NGram

MAX_ORDER = 5
FALLBACK = (0.0, 0.5, 1.0, 1.5)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A model, how often the text has each n-gram, and the discounts (0, D1, D2, D3+) of each order."""

    lm: NGram
    text_counts: tuple[Ints, ...]
    discounts: tuple[tuple[float, ...], ...]


def discounts(adjusted: Ints) -> tuple[float, ...]:
    """D of a count of 0, 1, 2, and 3 or more; Chen and Goodman 1998, eq. 26, or lmplz's fallback.

    >>> discounts(np.array([1] * 8 + [2] * 4 + [3] * 2 + [4]))
    (0.0, 0.5, 1.25, 2.0)
    >>> discounts(np.array([7, 7]))
    (0.0, 0.5, 1.0, 1.5)
    """
    n = np.bincount(np.minimum(adjusted, 5), minlength=6).astype(float)
    if not n[1:4].all():
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    found = (0.0, *(float(k - (k + 1) * y * n[k + 1] / n[k]) for k in (1, 2, 3)))
    return found if all(0 <= d <= k for k, d in enumerate(found)) else FALLBACK


def kneser_ney(
    sentences: Iterable[Sequence[str]],
    order: int = 4,
    prune: Sequence[int] = (),
    vocab: Iterable[str] | None = None,
) -> Estimate:
    """Estimate a model of ``order`` from tokenized sentences.

    ``prune`` drops n-grams whose count in the text is at most the threshold of their order; the last one
    given holds for the orders above, as in lmplz.  With ``vocab`` every other word counts as <unk>;
    without it the vocabulary is the text's, and <unk> is a word never seen unless the text writes it.
    """
    thresholds = _thresholds(order, prune)
    words, stream, position = _stream(sentences, vocab)
    v, bos = len(words), 1

    keys: list[Ints] = [np.arange(v)]  # tables of every n-gram of the text
    raw: list[Ints] = [np.bincount(stream, minlength=v)]  # how often the text has it
    suffix: list[Ints] = [np.zeros(v, np.int64)]  # row of the n-gram without its first word
    first_bos: list[Bools] = [np.arange(v) == bos]  # does it begin with <s>
    row = stream.copy()  # row of the n-gram that ends at each position
    for n in range(2, order + 1):
        here = np.flatnonzero(position >= n - 1)
        found, first, inverse, count = np.unique(
            row[here - 1] * v + stream[here], return_index=True, return_inverse=True, return_counts=True
        )
        keys.append(found)
        raw.append(count)
        suffix.append(row[here[first]])
        first_bos.append(position[here[first]] == n - 1)
        row = np.full(len(stream), -1, np.int64)
        row[here] = inverse

    probs: list[Floats] = []
    gammas: list[Floats] = []
    keep: list[Bools] = []
    found_discounts = []
    for n in range(1, order + 1):
        adjusted = raw[n - 1]
        if n < order:
            seen_before = np.bincount(suffix[n], minlength=len(adjusted))
            adjusted = np.where(first_bos[n - 1], adjusted, seen_before)
        if n == 1:
            adjusted = np.where(np.arange(v) == bos, 0, adjusted)
        discount = np.array(discounts(adjusted))
        kept = raw[n - 1] > thresholds[n - 1] if thresholds[n - 1] else np.ones(len(adjusted), bool)
        taken = np.where(kept, discount[np.minimum(adjusted, 3)], adjusted)
        context = keys[n - 1] // v if n > 1 else np.zeros(v, np.int64)
        size = len(keys[n - 2]) if n > 1 else 1
        total = np.bincount(context, adjusted, size)
        gamma = np.bincount(context, taken, size) / np.where(total > 0, total, 1)
        gamma[total == 0] = 1.0  # never a context: nothing to back off from
        lower = probs[-1][suffix[n - 1]] if n > 1 else np.full(v, 1.0 / (v - 1))
        probs.append((adjusted - taken) / total[context] + gamma[context] * lower)
        gammas.append(gamma)
        keep.append(kept)
        found_discounts.append(tuple(float(d) for d in discount))
    probs[0][bos] = 1.0
    return Estimate(*_pruned(words, keys, probs, gammas[1:], raw, keep), tuple(found_discounts))


def _thresholds(order: int, prune: Sequence[int]) -> list[int]:
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"n-gram order is {order}, it should be 1 to {MAX_ORDER}. Choose --order 3 or 4.")
    given = list(prune) or [0]
    if len(given) > order or given[0] != 0 or sorted(given) != given:
        raise ValueError(
            f"pruning thresholds are {' '.join(map(str, given))}, they should be at most {order} counts that "
            "begin with 0 and never fall, e.g. 0 0 1. To drop rare words give a word list with --vocab."
        )
    return given + [given[-1]] * (order - len(given))


def _stream(
    sentences: Iterable[Sequence[str]], vocab: Iterable[str] | None
) -> tuple[tuple[str, ...], Ints, Ints]:
    """Words, the text as ids with <s> and </s>, and each one's place in its sentence."""
    ids = {UNK: 0, BOS: 1, EOS: 2}
    for word in vocab or ():
        ids.setdefault(word, len(ids))
    grow = vocab is None
    stream: list[int] = []
    lengths: list[int] = []
    for number, sentence in enumerate(sentences, 1):
        if BOS in sentence or EOS in sentence:
            raise ValueError(
                f"sentence {number} of the text holds {BOS if BOS in sentence else EOS}, which marks "
                "sentence bounds and should not be in a text of one sentence a line. Remove the marks."
            )
        stream.append(1)
        stream.extend(
            [ids.setdefault(w, len(ids)) for w in sentence] if grow else [ids.get(w, 0) for w in sentence]
        )
        stream.append(2)
        lengths.append(len(sentence) + 2)
    if not lengths:
        raise ValueError("the text to estimate n-grams from is empty. Give a text of one sentence a line.")
    starts = np.cumsum([0, *lengths[:-1]])
    position = np.arange(len(stream)) - np.repeat(starts, lengths)
    return tuple(ids), np.array(stream, np.int64), position


def _pruned(
    words: tuple[str, ...],
    keys: list[Ints],
    probs: list[Floats],
    gammas: list[Floats],
    raw: list[Ints],
    keep: list[Bools],
) -> tuple[NGram, tuple[Ints, ...]]:
    """Drop the rows that are not kept and number the rest anew."""
    v = len(words)
    new_keys = [keys[0]]
    for n in range(1, len(keys)):
        number = np.cumsum(keep[n - 1]) - 1
        context, word = np.divmod(keys[n][keep[n]], v)
        new_keys.append(number[context] * v + word)
    with np.errstate(divide="ignore"):
        lm = NGram(
            words,
            tuple(new_keys),
            tuple(np.log10(p[k]) for p, k in zip(probs, keep, strict=True)),
            tuple(np.log10(g[k]) for g, k in zip(gammas, keep, strict=False)),
        )
    return lm, tuple(c[k] for c, k in zip(raw, keep, strict=True))
