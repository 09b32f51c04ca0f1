"""Transducer decoding: what every search needs, the greedy one, and searches on whole utterances and streams.

A path through an utterance says for every encoder frame which labels come before the blank that leaves
it.  Its probability is the product of p(label or blank | frame, labels so far); that of a sequence of
labels is the sum over its paths (Graves 2012, arXiv 1211.3711, eq. 1 and 2).

    greedy:  the most probable label or blank at every step, at most ``max_symbols`` labels a frame

`decode_transducer` reads whole utterances, `StreamingDecoder` chunks as they come; both run one search,
`Greedy` or `transducer_beam.BeamSearch`, and give the same hypotheses.  Shapes: N batch, T frames,
F features, T' encoder frames, J joint width, V vocabulary with the blank, which is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from greenasr.decode.nbest import NBest

BLANK = 0
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
PredictorState = tuple[tuple[Floats, Floats], ...]  # h and c of every layer, (hypotheses, D) each


class Transducer(Protocol):
    """What a search needs of a network: `runtime.rnnt.Rnnt` has it, of torch's `models.on_arrays`."""

    def encode(self, feats: Floats, feat_lens: Ints | None = None) -> tuple[Floats, Ints]:
        """Whole utterances (N, T, F), (N,) -> (N, T', J), (N,)."""
        ...

    def step_encoder(self, chunk: Floats, state: Any = None, last: bool = False) -> tuple[Floats, Any]:
        """The next frames of streams (N, T, F) -> the encoder frames that they complete, (N, T', J)."""
        ...

    def step_predictor(
        self, labels: Ints, state: PredictorState | None = None
    ) -> tuple[Floats, PredictorState]:
        """The last label of hypotheses (N,) and the state before it -> (N, J) and the state after it."""
        ...

    def joint(self, enc: Floats, pred: Floats) -> Floats:
        """Logits (…, V) of (…, J) and (…, J), which broadcast."""
        ...


@dataclass(frozen=True)
class Hypothesis:
    """Labels, the natural logarithm of their probability, and the encoder frame each came in.

    ``logprob`` sums the paths that the search has kept, ``frames`` are those of the likeliest.  ``score``
    ranks: the logprob, less the internal language model's share where the search takes one off.
    """

    labels: tuple[int, ...]
    logprob: float
    frames: tuple[int, ...]
    score: float


class Searching(Protocol):
    """A search under way in N utterances."""

    def advance_(self, enc: Floats, lens: Ints) -> None:
        """Go through the next encoder frames (N, T', J), of which (N,) are true."""
        ...

    def hyps(self) -> list[list[Hypothesis]]:
        """The hypotheses of every utterance so far, best first."""
        ...


class Search(Protocol):
    """Settings of a search, which know how to begin it."""

    def begin(self, model: Transducer, n: int) -> Searching:
        """A search in ``n`` utterances, before their first frame."""
        ...


@dataclass(frozen=True)
class Greedy:
    """One hypothesis: the most probable step each time.

    After ``max_symbols`` labels in a frame the blank is taken, whatever its probability.
    """

    max_symbols: int = 10

    def __post_init__(self) -> None:
        """Refuse a search that cannot move."""
        if self.max_symbols < 1:
            raise ValueError(f"max_symbols is {self.max_symbols} labels a frame, it should be at least 1.")

    def begin(self, model: Transducer, n: int) -> GreedySearching:
        """A search in ``n`` utterances."""
        return GreedySearching(model, self.max_symbols, n)


class GreedySearching:
    """Greedy search under way: one predictor and one joint call a step for all utterances that still move."""

    def __init__(self, model: Transducer, max_symbols: int, n: int):
        self.model, self.max_symbols = model, max_symbols
        self.pred, self.state = model.step_predictor(np.full(n, BLANK, np.int64))
        self.labels: list[list[int]] = [[] for _ in range(n)]
        self.frames: list[list[int]] = [[] for _ in range(n)]
        self.logprobs = np.zeros(n)
        self.passed = [0] * n

    def advance_(self, enc: Floats, lens: Ints) -> None:
        """Go through the next encoder frames (N, T', J), of which (N,) are true."""
        for t in range(int(lens.max()) if len(lens) else 0):
            rows = np.flatnonzero(lens > t)
            for symbol in range(self.max_symbols + 1):
                logp = label_logprobs(self.model, enc[rows, t], self.pred[rows])
                best = logp.argmax(1) if symbol < self.max_symbols else np.full_like(rows, BLANK)
                self.logprobs[rows] += logp[np.arange(len(rows)), best]
                rows, best = rows[best != BLANK], best[best != BLANK]
                if not len(rows):
                    break
                for utt, label in zip(rows.tolist(), best.tolist(), strict=True):
                    self.labels[utt].append(label)
                    self.frames[utt].append(self.passed[utt] + t)
                pred, state = self.model.step_predictor(best, rows_of(self.state, rows))
                self.pred = with_rows(self.pred, rows, pred)
                self.state = tuple(
                    (with_rows(h, rows, new_h), with_rows(c, rows, new_c))
                    for (h, c), (new_h, new_c) in zip(self.state, state, strict=True)
                )
        self.passed = [passed + n for passed, n in zip(self.passed, lens.tolist(), strict=True)]

    def hyps(self) -> list[list[Hypothesis]]:
        """The one hypothesis of every utterance so far."""
        rows = zip(self.labels, self.logprobs.tolist(), self.frames, strict=True)
        return [[Hypothesis(tuple(y), logprob, tuple(t), logprob)] for y, logprob, t in rows]


def label_logprobs(model: Transducer, enc: Floats, pred: Floats) -> Floats:
    """Natural log probabilities of blank and labels, (R, J) and (R, J) -> float32 (R, V).

    Raises ValueError when the network's outputs are not numbers.
    """
    logp = log_softmax(model.joint(enc, pred))
    if np.isnan(logp[:, BLANK]).any():  # one NaN makes all of its row NaN
        raise ValueError("the network's outputs are not numbers: its weights are broken, train it again.")
    return logp


def log_softmax(logits: Floats) -> Floats:
    """The logarithms of softmax over the last axis, in float32; NaN where a logit is NaN or +infinite.

    >>> [round(float(x), 4) for x in log_softmax(np.log(np.array([1.0, 3.0])))]
    [-1.3863, -0.2877]
    """
    values = logits.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        away = values - values.max(-1, keepdims=True)
        found: Floats = away - np.log(np.exp(away).sum(-1, keepdims=True))
    return found


def rows_of(state: PredictorState, rows: Ints) -> PredictorState:
    """The state of some hypotheses, by index."""
    return tuple((h[rows], c[rows]) for h, c in state)


def with_rows(values: Floats, rows: Ints, new: Floats) -> Floats:
    """A copy in which some rows are others."""
    out = values.copy()
    out[rows] = new
    return out


def decode_transducer(
    model: Transducer, feats: Floats, feat_lens: Ints | None = None, search: Search | None = None
) -> list[list[Hypothesis]]:
    """Hypotheses of whole utterances (N, T, F) with lengths (N,), best first; greedy by default.

    An utterance of no frames has one hypothesis, of no labels.  Raises ValueError for features that are
    not finite numbers.
    """
    check_finite(feats, feat_lens)
    enc, lens = model.encode(feats, feat_lens)
    searching = (search or Greedy()).begin(model, len(enc))
    searching.advance_(enc, lens)
    return searching.hyps()


class StreamingDecoder:
    """A search that hears one utterance piece by piece, and says what it has understood after each.

    Its end result is that of `decode_transducer` on the whole, wherever the pieces are cut.
    """

    def __init__(self, model: Transducer, search: Search | None = None):
        self.model, self.search = model, search or Greedy()
        self.searching: Searching | None = None
        self.state: Any = None
        self.nothing: Floats | None = None
        self.ended = False
        self.frames = 0

    def push(self, feats: Floats) -> Hypothesis:
        """Hear the next frames (T, F), any number -> the best hypothesis so far, which may yet change.

        Raises ValueError for features that are not finite numbers and after the end.
        """
        return self._hear(feats, last=False)[0]

    def final(self, feats: Floats | None = None) -> list[Hypothesis]:
        """The last frames (T, F), None if all were pushed -> the hypotheses, best first.

        What was not heard of the last encoder frame is taken as zeros.  Nothing heard gives one hypothesis,
        of no labels.
        """
        feats = self.nothing if feats is None else feats
        if feats is not None:
            return self._hear(feats, last=True)
        self.ended = True
        return [Hypothesis((), 0.0, (), 0.0)]

    def _hear(self, feats: Floats, last: bool) -> list[Hypothesis]:
        if self.ended:
            raise ValueError("the stream has ended: make a new decoder for the next utterance.")
        if feats.ndim != 2:
            raise ValueError(f"features are {feats.shape}, a stream hears (T, F).")
        check_finite(feats[None], None, self.frames)
        enc, self.state = self.model.step_encoder(feats[None], self.state, last)
        if self.searching is None:
            self.searching = self.search.begin(self.model, 1)
        self.searching.advance_(enc, np.array([enc.shape[1]]))
        self.frames, self.ended, self.nothing = self.frames + len(feats), last, feats[:0]
        return self.searching.hyps()[0]


def check_finite(feats: Floats, feat_lens: Ints | None, heard: int = 0) -> None:
    """Refuse features that are NaN or infinite, padding left out; ``heard`` frames came before."""
    bad = ~np.isfinite(feats).all(-1)
    if feat_lens is not None:
        bad &= np.arange(feats.shape[1]) < np.asarray(feat_lens)[:, None]
    if bad.any():
        utt, frame = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"features of utterance {utt} are not finite numbers at frame {heard + frame}, "
            f"{int(bad.sum())} frames in all: look at the audio and the feature settings."
        )


def transducer_nbest(
    utt_id: str, ref: str | None, hyps: Sequence[Hypothesis], text: Callable[[Sequence[int]], str]
) -> NBest:
    """The hypotheses as an N-best list of different texts, best first; ``text`` turns labels into words.

    Word pieces can spell a text in several ways: their probabilities add up.
    """
    scores: dict[str, float] = {}
    for hyp in hyps:
        words = text(hyp.labels)
        scores[words] = log_add(scores.get(words, -math.inf), hyp.score)
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    return NBest(utt_id, ref, tuple(words for words, _ in ranked), tuple(score for _, score in ranked))


def log_add(a: float, b: float) -> float:
    """The logarithm of e^a + e^b.

    >>> round(log_add(math.log(0.2), math.log(0.3)), 6) == round(math.log(0.5), 6)
    True
    """
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
