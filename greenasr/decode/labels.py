"""Words to an end-to-end network's labels and back: ids of the tokenizer, moved past the blank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from greenasr.data.text import Tokenizer
from greenasr.decode.transducer import BLANK, Hypothesis


def labels_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The labels of a text: every id of its words, moved past the blank."""
    return [BLANK + 1 + i for word in tokenizer.word_ids(text.split()) for i in word]


def words_of(tokenizer: Tokenizer, labels: Sequence[int]) -> str:
    """What labels spell."""
    return " ".join(tokenizer.words_of([label - BLANK - 1 for label in labels]))


def spellings(tokenizer: Tokenizer, words: Iterable[str]) -> dict[str, list[int]]:
    """The labels of each word that the tokenizer can spell; others are left out.

    >>> from greenasr.data.text import Letters
    >>> spellings(Letters((" ", "a", "b")), ["ab", "abc"])
    {'ab': [1, 2, 3]}
    """
    found = {}
    for word in words:
        try:
            labels = labels_of(tokenizer, word)
        except ValueError:  # a letter that there is not
            continue
        if labels and words_of(tokenizer, labels) == word:
            found[word] = labels
    return found


def timed_words(tokenizer: Tokenizer, hyp: Hypothesis, shift: float) -> list[tuple[str, float, float]]:
    """(word, start, end) of a hypothesis in seconds, where an encoder frame is ``shift`` long.

    A word goes from the frame of its first label to the end of the last one's.  Labels come when the network
    is sure of them, which may be a little after they were said.
    """
    ids = [label - BLANK - 1 for label in hyp.labels]
    cuts = [k for k, i in enumerate(ids) if k and tokenizer.begins_word(i)]
    found = []
    for first, stop in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        start, end = (hyp.frames[first], hyp.frames[stop - 1] + 1) if stop > first else (0, 0)
        found += [(word, shift * start, shift * end) for word in tokenizer.words_of(ids[first:stop])]
    return found
