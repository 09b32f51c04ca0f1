"""Log-probabilities of sentences by a neural language model, whatever runs it.

    ln p(w_1 … w_n <eos>),  one number a token or a word

Sentences of like length are scored together; what is longer than the model's window is scored in windows
that overlap by half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from greenasr.data import token_rows
from greenasr.data.text import Tokenizer, Words
from greenasr.data.token_rows import IGNORE

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Score = Callable[[Ids, Ids], Floats]  # inputs, targets (N, T) -> ln p of the targets (N, T), 0 where IGNORE
Progress = Callable[[int, int], None]  # done, of
AT_ONCE = 2048  # tokens


def hypothesis_logprobs(
    score: Score,
    tokenizer: Tokenizer,
    sentences: Sequence[Words],
    length: int,
    progress: Progress | None = None,
) -> list[Floats]:
    """Natural log-probability of every word and of the end of each sentence, [(words + 1,)].

    ``length`` is the window in tokens.
    """
    pieces = [tokenizer.word_ids(words) for words in sentences]
    flat = [[i for word in row for i in word] for row in pieces]
    out = []
    for row, logprobs in zip(
        pieces, sentence_logprobs(score, flat, tokenizer.eos, length, progress), strict=True
    ):
        starts = np.cumsum([0, *(len(word) for word in row)])
        out.append(np.add.reduceat(logprobs, starts))
    return out


def sentence_logprobs(
    score: Score, ids: Sequence[Sequence[int]], eos: int, length: int, progress: Progress | None = None
) -> list[Floats]:
    """Log-probability of every token of each sentence and of its end, [(n + 1,)].

    ``progress`` is told (sentences done, sentences).
    """
    done = 0
    out: list[Floats] = [np.zeros(0, np.float32)] * len(ids)
    short = [i for i, row in enumerate(ids) if len(row) < length]
    for (inputs, targets), places in token_rows.sentences([ids[i] for i in short], eos, AT_ONCE):
        logprobs = score(inputs, targets)
        for row, place in enumerate(places):
            out[short[place]] = logprobs[row, : len(ids[short[place]]) + 1]
        done += len(places)
        if progress is not None:
            progress(done, len(ids))
    for i in set(range(len(ids))) - set(short):
        out[i] = stream_logprobs(score, np.array([*ids[i], eos], np.int32), eos, length, max(1, length // 2))
    return out


def stream_logprobs(
    score: Score,
    ids: NDArray[np.int32],
    eos: int,
    length: int,
    stride: int,
    progress: Progress | None = None,
) -> Floats:
    """Log-probabilities of a stream in overlapping windows, (n,); ``progress``: (tokens done, n)."""
    parts = []
    for inputs, targets in token_rows.overlapping(ids, length, stride, 32, eos):
        parts.append(score(inputs, targets)[targets != IGNORE])
        if progress is not None:
            progress(sum(map(len, parts)), len(ids))
    return np.concatenate(parts)
