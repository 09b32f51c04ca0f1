"""CTC decoding without a graph: the likeliest frame by frame, and the likeliest labellings.

    greedy:  B(argmax_k p(k | t), t = 1 … T)                         B joins equal neighbours, drops blanks

Prefix beam search keeps, for every labelling y of the frames so far, the probability of its alignments that
end in a blank and of those that end in its last label, so that alignments of one labelling add up:

    b_t(y) = p(blank | t) (b_{t-1}(y) + l_{t-1}(y))
    l_t(y) = p(y_U | t) (l_{t-1}(y) + [y_U ≠ y_{U-1}] l_{t-1}(y_{<U}) + b_{t-1}(y_{<U}))

and after each frame the ``beam`` best labellings of b + l, with what an n-gram says of their words where one
is given (`ctc_words`); when labels came, `align` tells afterwards.  Graves 2012 (PhD thesis, §7.5); Hannun et
al. 2014, arXiv 1408.2873.  A lexicon is the decoding graph's (`ctc_graph`).  Shapes: T frames, C classes, U
labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greenasr.decode.ctc_words import Said, WordNGram
from greenasr.decode.transducer import BLANK, Floats, Hypothesis, log_add


@dataclass(frozen=True)
class PrefixBeam:
    """How wide the search is, and how many labellings come out.

    Of a frame only classes within ``prune`` nats of its likeliest are tried; a ``beam`` of 1 is greedy, which
    takes no ``words``: the n-gram that ranks labellings with the network.
    """

    beam: int = 16
    nbest: int = 8
    prune: float = 8.0
    words: WordNGram | None = None

    def __post_init__(self) -> None:
        """Refuse a search that cannot move."""
        if self.beam < 1 or not 1 <= self.nbest <= self.beam or not self.prune > 0:
            raise ValueError(
                f"a beam of {self.beam}, {self.nbest} hypotheses, prune {self.prune:g}: the beam must be 1 "
                "or more, hypotheses 1 to the beam, prune above 0."
            )
        if self.beam == 1 and self.words is not None:
            raise ValueError("a beam of 1 is greedy and cannot ask an n-gram: give a beam of 2 or more.")

    def __call__(self, logprobs: Floats) -> list[Hypothesis]:
        """Log probabilities (T, C) of one utterance -> its hypotheses, best first, at least one."""
        if self.beam == 1:
            return [greedy(logprobs)]
        found = prefix_beam(logprobs, self.beam, self.prune, self.words)[: self.nbest]
        said = self.words.total if self.words is not None else lambda labels: 0.0
        return [Hypothesis(y, logp, align(logprobs, y)[1], logp + said(y)) for y, logp in found]


def collapse(path: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """B of an alignment: its labels, and the frame where each begins.

    >>> collapse([0, 3, 3, 0, 3, 5])
    ((3, 3, 5), (1, 4, 5))
    """
    begins = [t for t, k in enumerate(path) if k != BLANK and (t == 0 or path[t - 1] != k)]
    return tuple(path[t] for t in begins), tuple(begins)


def greedy(logprobs: Floats) -> Hypothesis:
    """The labelling of the likeliest alignment, (T, C) -> one hypothesis; its logprob is that alignment's.

    Raises ValueError where the outputs are not numbers.
    """
    check_numbers(logprobs)
    path = logprobs.argmax(1)
    labels, frames = collapse(path.tolist())
    score = float(logprobs[np.arange(len(path)), path].sum(dtype=np.float64))
    return Hypothesis(labels, score, frames, score)


def check_numbers(logprobs: Floats) -> None:
    """Refuse NaN, which no search notices."""
    if np.isnan(logprobs).any():
        raise ValueError("the network's outputs are not numbers: its weights are broken, train it again.")


@dataclass
class _Prefix:
    """A labelling's ln b and ln l."""

    blank: float = -math.inf
    label: float = -math.inf

    @property
    def total(self) -> float:
        """The natural log of b + l."""
        return log_add(self.blank, self.label)


def prefix_beam(
    logprobs: Floats, beam: int, prune: float = math.inf, words: WordNGram | None = None
) -> list[tuple[tuple[int, ...], float]]:
    """The ``beam`` best labellings found with the network's log probabilities, best first, of (T, C).

    Best is likeliest, or with ``words`` what ranks first with its n-gram.  With a beam that holds every
    labelling the probabilities are exact.  Raises ValueError for outputs that are no numbers.
    """
    check_numbers(logprobs)
    kept: dict[tuple[int, ...], _Prefix] = {(): _Prefix(blank=0.0)}
    said: dict[tuple[int, ...], Said] = {} if words is None else {(): words.begin()}
    for row in logprobs.astype(np.float64).tolist():
        low = max(row) - prune
        tried = [k for k, p in enumerate(row) if k != BLANK and p >= low]
        after: dict[tuple[int, ...], _Prefix] = {}
        for labels, prefix in kept.items():
            stay = after.setdefault(labels, _Prefix())
            total, last = prefix.total, labels[-1] if labels else BLANK
            stay.blank = log_add(stay.blank, total + row[BLANK])
            stay.label = log_add(stay.label, prefix.label + row[last])
            for k in tried:
                begins = (prefix.blank if k == last else total) + row[k]
                if begins > -math.inf:
                    longer = after.setdefault((*labels, k), _Prefix())
                    longer.label = log_add(longer.label, begins)
        if words is None:
            kept = dict(sorted(after.items(), key=lambda item: -item[1].total)[:beam])
            continue
        for labels in after.keys() - said.keys():
            said[labels] = words.extend(said[labels[:-1]], labels[-1])
        ranked = sorted(after.items(), key=lambda item: -item[1].total - said[item[0]].score)
        kept = dict(ranked[:beam])
        said = {labels: said[labels] for labels in kept}
    found = [(labels, prefix.total) for labels, prefix in kept.items()]
    return found if words is None else sorted(found, key=lambda each: -each[1] - words.end(said[each[0]]))


def align(logprobs: Floats, labels: Sequence[int]) -> tuple[float, tuple[int, ...]]:
    """The likeliest alignment of a labelling: its log probability, and the frame where each label begins.

    The recursion of `ops.ctc` with maxima for sums (Viterbi), (T, C), (U,) -> (U,).  Raises ValueError where
    the labels do not fit into the frames.
    """
    states = np.full(2 * len(labels) + 1, BLANK)
    states[1::2] = labels
    said = logprobs.astype(np.float64)[:, states]  # (T, 2U + 1)
    skips = np.zeros(len(states), bool)
    skips[2:] = (states[2:] != BLANK) & (states[2:] != states[:-2])
    best = np.where(np.arange(len(states)) < 2, 0.0, -np.inf)
    steps = np.zeros(said.shape, np.int64)  # how many states back each state's best way came from
    for t, row in enumerate(said):
        if t:
            ways = np.full((3, len(states)), -np.inf)
            ways[0], ways[1, 1:] = best, best[:-1]
            ways[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
            steps[t] = ways.argmax(0)
            best = ways.max(0)
        best = best + row
    ends = range(len(states))[-2:] if len(said) else range(1 - min(len(labels), 1))
    state = max(ends, key=lambda s: best[s], default=-1)
    if state < 0 or best[state] == -np.inf:
        raise ValueError(f"{len(labels)} labels do not fit into {len(said)} frames: no alignment.")
    score, path = float(best[state]), []
    for t in range(len(said) - 1, -1, -1):
        path.append(state)
        state -= int(steps[t, state])
    begins = [
        t for t, (s, before) in enumerate(zip(path[::-1], [-1, *path[::-1]], strict=False)) if s != before
    ]
    return score, tuple(t for t in begins if path[::-1][t] % 2)
