"""The n-gram of words that a prefix beam asks, whatever words it meets: shallow fusion, without a lexicon.

    rank(y) = ln p(y | x)  +  weight · Σ_i ln p(w_i | w_1 … w_{i-1})  -  word_penalty · |w|

A word counts when the next one begins, the last one and the end of the sentence when the sound ends; until
then its labels are free.  Words that the n-gram lacks have the probability of its <unk>.  Hannun et al. 2014,
arXiv 1408.2873, eq. 2, whose β is the penalty with its sign turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from greenasr.data.text import Tokenizer
from greenasr.decode.labels import words_of
from greenasr.decode.ngram import BOS, EOS, LN10, UNK, NGram


class Said(NamedTuple):
    """Words so far: ids that the next one depends on, labels of the one that is not over, what all rank."""

    history: tuple[int, ...]
    unfinished: tuple[int, ...]
    score: float


@dataclass(frozen=True, eq=False)
class WordNGram:
    """An n-gram of the words that a network's labels spell; ``weight`` above 0, ``word_penalty`` a word."""

    lm: NGram
    tokenizer: Tokenizer
    weight: float = 0.5
    word_penalty: float = 0.0
    _known: dict[tuple[int, ...], float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse weights that rank nothing."""
        if not 0 < self.weight < np.inf or not np.isfinite(self.word_penalty):
            raise ValueError(
                f"the n-gram's weight is {self.weight:g} and the word penalty {self.word_penalty:g}: give a "
                "weight above 0 and a finite penalty."
            )

    def begin(self) -> Said:
        """Before any label."""
        return Said((self.lm.ids[BOS],), (), 0.0)

    def extend(self, said: Said, label: int) -> Said:
        """One label more, 1 … C - 1."""
        if said.unfinished and self.tokenizer.begins_word(label - 1):
            said = self._closed(said)
        return Said(said.history, (*said.unfinished, label), said.score)

    def end(self, said: Said) -> float:
        """The rank of all words when the sound ends there, and of the sentence's end."""
        closed = self._closed(said)
        return closed.score + self.weight * self._logprob(closed.history, self.lm.ids[EOS])

    def total(self, labels: Sequence[int]) -> float:
        """What the n-gram and the penalty add to the rank of a whole labelling."""
        said = self.begin()
        for label in labels:
            said = self.extend(said, label)
        return self.end(said)

    def _closed(self, said: Said) -> Said:
        """The unfinished word is over; labels may spell none, or with spaces only nothing."""
        history, score = said.history, said.score
        for word in words_of(self.tokenizer, said.unfinished).split():
            one = self.lm.ids.get(word, self.lm.ids.get(UNK, -1))
            score += self.weight * self._logprob(history, one) - self.word_penalty
            history = (*history, one)[-max(1, self.lm.order - 1) :]
        return Said(history, (), score)

    def _logprob(self, history: tuple[int, ...], word: int) -> float:
        """Natural log of p(word | history)."""
        key = (*history, word)
        if key not in self._known:
            self._known[key] = LN10 * float(self.lm.log10(np.array(key), np.arange(len(key)))[-1])
        return self._known[key]
