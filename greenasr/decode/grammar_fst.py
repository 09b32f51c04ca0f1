"""G: a back-off n-gram as an acceptor of words, for composition with a lexicon.

    h --w:w / -ln p(w|h)--> h·w          every listed n-gram h·w, to its longest listed suffix
    h --#0:ε / -ln b(h)--> h'            back-off to h without its oldest word
    final cost of h = -ln p(</s>|h)      start in <s>

A sentence has one path of the model's own cost, and others that back off from a listed n-gram; now and then
one of those is cheaper.  Mohri, Pereira and Riley 2008, "Speech recognition with weighted finite-state
transducers", §4; states that nothing follows are folded into their back-off, as in Kaldi's arpa2fst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from greenasr.decode.fst import Costs, Fst, Ints
from greenasr.decode.ngram import BOS, EOS, LN10, Bools, NGram

NEVER = -98.9  # log10 probabilities at or below stand for zero


def grammar(lm: NGram, word_ids: Mapping[str, int], backoff: int, spread: Mapping[str, Sequence[int]]) -> Fst:
    """G over ``word_ids`` (word -> label above 0); ``backoff`` is the input label of back-off arcs.

    N-grams of other words are left out.  ``spread`` (LM word -> labels) lets words share one entry's
    probability evenly: with {"<unk>": labels}, words that the model does not list.
    """
    states, cost = _histories(lm)
    label = np.array([word_ids.get(word, 0) for word in lm.words], np.int64)
    shared = {lm.ids[word]: np.asarray(labels, np.int64) for word, labels in spread.items() if len(labels)}
    bos, eos = lm.ids[BOS], lm.ids[EOS]
    final = np.full(1 + max(int(s.max(initial=0)) for s in states), np.inf)
    columns: list[tuple[Ints, Ints, Ints, Ints, Costs]] = []
    for n in range(1, lm.order + 1):
        context, word = np.divmod(lm.keys[n - 1], len(lm.words))
        src = np.zeros(len(word), np.int64) if n == 1 else states[n - 2][context]
        dst, extra = states[n - 1], cost[n - 1]
        price = -LN10 * lm.logprobs[n - 1]
        possible = lm.logprobs[n - 1] > NEVER
        ends = possible & (word == eos)
        final[src[ends]] = price[ends]
        keep = possible & (label[word] > 0) & (word != bos) & (word != eos)
        columns.append((src[keep], dst[keep], label[word[keep]], label[word[keep]], (price + extra)[keep]))
        for entry, labels in shared.items():
            rows = np.flatnonzero(possible & (word == entry))
            each = np.repeat(rows, len(labels))
            out = np.tile(labels, len(rows))
            columns.append((src[each], dst[each], out, out, (price + extra)[each] + np.log(len(labels))))
    for n in range(1, lm.order):
        rows = np.flatnonzero(_kept(lm, n) & (lm.backoffs[n - 1] > NEVER))
        shorter, extra = _shorter(lm, states, cost, n)
        zero = np.zeros(len(rows), np.int64)
        price = -LN10 * lm.backoffs[n - 1][rows] + extra[rows]
        columns.append((states[n - 1][rows], shorter[rows], zero + backoff, zero, price))
    src, dst, ilabel, olabel, weight = (np.concatenate(column) for column in zip(*columns, strict=True))
    start = int(states[0][bos]) if lm.order > 1 else 0
    return Fst.of(start, final, src, dst, ilabel, olabel, weight)


def _kept(lm: NGram, n: int) -> Bools:
    """Whether an n-gram of order n is a state: something follows it, or it is <s>, (U_n,)."""
    kept = np.zeros(lm.counts[n - 1], bool)
    if n < lm.order:
        kept[lm.keys[n] // len(lm.words)] = True
        if n == 1:
            kept[lm.ids[BOS]] = True
    return kept


def _histories(lm: NGram) -> tuple[list[Ints], list[Costs]]:
    """State in which every n-gram leaves a sentence, and what falling back to it costs: (U_n,) an order each.

    State 0 is the empty history.
    """
    states: list[Ints] = []
    cost: list[Costs] = []
    count = 1
    for n in range(1, lm.order + 1):
        shorter, extra = _shorter(lm, states, cost, n)
        kept = _kept(lm, n)
        if n < lm.order:
            extra = extra - LN10 * lm.backoffs[n - 1]
        states.append(np.where(kept, count + np.cumsum(kept) - 1, shorter))
        cost.append(np.where(kept, 0.0, extra))
        count += int(kept.sum())
    return states, cost


def _shorter(lm: NGram, states: list[Ints], cost: list[Costs], n: int) -> tuple[Ints, Costs]:
    """State and cost of the longest listed proper suffix of every n-gram of order n; 0, 0 if none is."""
    rows = _suffix_rows(lm, n)
    state, extra = np.zeros(len(rows), np.int64), np.zeros(len(rows))
    for m in range(1, n):
        listed = rows[:, m - 1] >= 0
        state[listed] = states[m - 1][rows[listed, m - 1]]
        extra[listed] = cost[m - 1][rows[listed, m - 1]]
    return state, extra


def _suffix_rows(lm: NGram, n: int) -> Ints:
    """Row of the last 1, 2, … n words of every n-gram in their order's table, -1 if not listed, (U_n, n)."""
    grams = lm.grams(n)
    rows = np.empty(grams.shape, np.int64)
    for m in range(1, n + 1):
        at = grams[:, n - m]
        for k in range(2, m + 1):
            at = lm.rows(k, at, grams[:, n - m + k - 1])
        rows[:, m - 1] = at
    return rows
