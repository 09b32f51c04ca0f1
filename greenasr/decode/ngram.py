"""A back-off n-gram language model as sorted integer tables.

    log p(w | h) = log p_n(w | h)                      if the n-gram h·w is listed
                   log b(h) + log p(w | h')            otherwise, h' = h without its oldest word

Every listed n-gram is one row of its order's table and has the number of that row.  A row is found by
its key ``row of its first n-1 words * V + last word``; keys are sorted, so looking up every position of
many sentences is one `numpy.searchsorted` per order.  Katz 1987; the tables are a sorted-array trie, as in
Heafield 2011, "KenLM: faster and smaller language model queries", §3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from greenasr.score import perplexity as score

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BOS, EOS, UNK = "<s>", "</s>", "<unk>"
LN10 = math.log(10.0)
NO_UNK = -100.0  # log10 probability of an unknown word in a model without <unk>, as KenLM has it


@dataclass(frozen=True, eq=False)
class NGram:
    """Tables of a back-off model, all logarithms to base 10 as in an ARPA file.

    ``words``     V words; a word's id is its place here and its row in the table of unigrams.
    ``keys``      one sorted (U_n,) array an order, ``keys[0]`` being 0 … V-1.
    ``logprobs``  one (U_n,) array an order.
    ``backoffs``  one (U_n,) array for every order but the highest.

    >>> from greenasr.decode.kneser_ney import kneser_ney
    >>> lm = kneser_ney([["a", "b"], ["a", "c"]], order=2).lm
    >>> [len(p) for p in lm.score([["a", "b"], []])]
    [3, 1]
    """

    words: tuple[str, ...]
    keys: tuple[Ints, ...]
    logprobs: tuple[Floats, ...]
    backoffs: tuple[Floats, ...]

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.keys)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of n-grams of every order, unigrams first."""
        return tuple(len(keys) for keys in self.keys)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word -> id."""
        return {word: i for i, word in enumerate(self.words)}

    def rows(self, order: int, context: Ints, word: Ints) -> Ints:
        """Row of the n-gram (row of its context in order - 1, last word), -1 where it is not listed."""
        keys = self.keys[order - 1]
        if not len(keys):
            return np.full(len(context), -1, np.int64)
        wanted = np.where((context >= 0) & (word >= 0), context * len(self.words) + word, -1)
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[found] == wanted, found, -1)

    def grams(self, order: int) -> Ints:
        """Word ids of every n-gram of this order, (U_n, n)."""
        columns, context = [], np.arange(len(self.keys[order - 1]))
        for n in range(order, 0, -1):
            context, word = np.divmod(self.keys[n - 1][context], len(self.words))
            columns.append(word)
        return np.stack(columns[::-1], axis=1)

    def log10(self, ids: Ints, position: Ints) -> Floats:
        """log10 p of every word of a stream of sentences, (L,) -> (L,).

        ``ids`` -1 is an unknown word of a model without <unk>; ``position`` counts from 0 at every
        sentence's first word, so a word sees at most that many words before it.
        """
        at = np.where(ids >= 0, ids, -1)
        logprob = _values(self.logprobs[0], at, np.full(len(ids), NO_UNK))
        for n in range(2, self.order + 1):
            context = np.concatenate([[-1], at[:-1]])  # row of the n-1 words before this one
            context[position < n - 1] = -1
            at = self.rows(n, context, ids)
            backoff = _values(self.backoffs[n - 2], context, np.zeros(len(ids)))
            logprob = _values(self.logprobs[n - 1], at, logprob + backoff)
        return logprob

    def score(self, sentences: Iterable[Sequence[str]]) -> list[Floats]:
        """Natural-log probabilities of every word and then of </s>, one (words + 1,) array a sentence."""
        known, unk = self.ids, self.ids.get(UNK, -1)
        bos, eos = known[BOS], known[EOS]
        stream: list[int] = []
        lengths: list[int] = []
        for sentence in sentences:
            stream.append(bos)
            stream.extend([known.get(word, unk) for word in sentence])
            stream.append(eos)
            lengths.append(len(sentence) + 2)
        if not lengths:
            return []
        starts = np.cumsum([0, *lengths[:-1]])
        position = np.arange(len(stream)) - np.repeat(starts, lengths)
        logprobs = LN10 * self.log10(np.array(stream, np.int64), position)
        return [logprobs[start + 1 : start + n] for start, n in zip(starts, lengths, strict=True)]


def _values(table: Floats, rows: Ints, otherwise: Floats) -> Floats:
    """``table[rows]``, and ``otherwise`` where the row is -1."""
    return np.where(rows >= 0, table[np.maximum(rows, 0)], otherwise) if len(table) else otherwise


def perplexity(logprobs: Iterable[Floats]) -> float:
    """Exponential of the mean negative natural-log probability over words and sentence ends."""
    total, count = 0.0, 0
    for sentence in logprobs:
        total, count = total + float(sentence.sum()), count + len(sentence)
    if not count:
        raise ValueError(
            "no sentence to take the perplexity of: the text is empty. Give a text with at least one line."
        )
    return score.perplexity(total, count)
