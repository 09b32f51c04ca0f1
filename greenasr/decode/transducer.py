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

import torch
from torch import Tensor

from greenasr.decode.nbest import NBest

BLANK = 0
PredictorState = tuple[tuple[Tensor, Tensor], ...]  # h and c of every layer, (hypotheses, D) each


class Transducer(Protocol):
    """What a search needs of a network; `models.rnnt.Rnnt` has it.  In evaluation mode: no dropout."""

    def encode(self, feats: Tensor, feat_lens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Whole utterances (N, T, F), (N,) -> (N, T', J), (N,)."""
        ...

    def step_encoder(self, chunk: Tensor, state: Any = None, last: bool = False) -> tuple[Tensor, Any]:
        """The next frames of streams (N, T, F) -> the encoder frames that they complete, (N, T', J)."""
        ...

    def step_predictor(
        self, labels: Tensor, state: PredictorState | None = None
    ) -> tuple[Tensor, PredictorState]:
        """The last label of hypotheses (N,) and the state before it -> (N, J) and the state after it."""
        ...

    def joint(self, enc: Tensor, pred: Tensor) -> Tensor:
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

    def advance_(self, enc: Tensor, lens: Tensor) -> None:
        """Go through the next encoder frames (N, T', J), of which (N,) are true."""
        ...

    def hyps(self) -> list[list[Hypothesis]]:
        """The hypotheses of every utterance so far, best first."""
        ...


class Search(Protocol):
    """Settings of a search, which know how to begin it."""

    def begin(self, model: Transducer, n: int, like: Tensor) -> Searching:
        """A search in ``n`` utterances, before their first frame; tensors are made ``like`` this one."""
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

    def begin(self, model: Transducer, n: int, like: Tensor) -> GreedySearching:
        """A search in ``n`` utterances."""
        return GreedySearching(model, self.max_symbols, n, like)


class GreedySearching:
    """Greedy search under way: one predictor and one joint call a step for all utterances that still move."""

    def __init__(self, model: Transducer, max_symbols: int, n: int, like: Tensor):
        self.model, self.max_symbols = model, max_symbols
        start = torch.full((n,), BLANK, dtype=torch.int64, device=like.device)
        self.pred, self.state = model.step_predictor(start)
        self.labels: list[list[int]] = [[] for _ in range(n)]
        self.frames: list[list[int]] = [[] for _ in range(n)]
        self.logprobs = torch.zeros(n, dtype=torch.float64, device=like.device)
        self.passed = [0] * n

    def advance_(self, enc: Tensor, lens: Tensor) -> None:
        """Go through the next encoder frames (N, T', J), of which (N,) are true."""
        for t in range(int(lens.max()) if len(lens) else 0):
            rows = (lens > t).nonzero().flatten()
            for symbol in range(self.max_symbols + 1):
                logp = label_logprobs(self.model, enc[rows, t], self.pred[rows])
                best = logp.argmax(1) if symbol < self.max_symbols else torch.full_like(rows, BLANK)
                self.logprobs[rows] += logp.gather(1, best[:, None]).flatten()
                rows, best = rows[best != BLANK], best[best != BLANK]
                if not len(rows):
                    break
                for utt, label in zip(rows.tolist(), best.tolist(), strict=True):
                    self.labels[utt].append(label)
                    self.frames[utt].append(self.passed[utt] + t)
                pred, state = self.model.step_predictor(best, rows_of(self.state, rows))
                self.pred = self.pred.index_copy(0, rows, pred)
                self.state = tuple(
                    (h.index_copy(0, rows, new_h), c.index_copy(0, rows, new_c))
                    for (h, c), (new_h, new_c) in zip(self.state, state, strict=True)
                )
        self.passed = [passed + n for passed, n in zip(self.passed, lens.tolist(), strict=True)]

    def hyps(self) -> list[list[Hypothesis]]:
        """The one hypothesis of every utterance so far."""
        rows = zip(self.labels, self.logprobs.tolist(), self.frames, strict=True)
        return [[Hypothesis(tuple(y), logprob, tuple(t), logprob)] for y, logprob, t in rows]


def label_logprobs(model: Transducer, enc: Tensor, pred: Tensor) -> Tensor:
    """Natural log probabilities of blank and labels, (R, J) and (R, J) -> float32 (R, V).

    Raises ValueError when the network's outputs are not numbers.
    """
    logp = model.joint(enc, pred).float().log_softmax(-1)
    if logp[:, BLANK].isnan().any():  # one NaN makes all of its row NaN
        raise ValueError("the network's outputs are not numbers: its weights are broken, train it again.")
    return logp


def rows_of(state: PredictorState, rows: Tensor) -> PredictorState:
    """The state of some hypotheses, by index."""
    return tuple((h[rows], c[rows]) for h, c in state)


@torch.no_grad()
def decode_transducer(
    model: Transducer, feats: Tensor, feat_lens: Tensor | None = None, search: Search | None = None
) -> list[list[Hypothesis]]:
    """Hypotheses of whole utterances (N, T, F) with lengths (N,), best first; greedy by default.

    An utterance of no frames has one hypothesis, of no labels.  Raises ValueError for features that are
    not finite numbers.
    """
    check_finite(feats, feat_lens)
    enc, lens = model.encode(feats, feat_lens)
    searching = (search or Greedy()).begin(model, len(enc), enc)
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
        self.nothing: Tensor | None = None
        self.ended = False
        self.frames = 0

    def push(self, feats: Tensor) -> Hypothesis:
        """Hear the next frames (T, F), any number -> the best hypothesis so far, which may yet change.

        Raises ValueError for features that are not finite numbers and after the end.
        """
        return self._hear(feats, last=False)[0]

    def final(self, feats: Tensor | None = None) -> list[Hypothesis]:
        """The last frames (T, F), None if all were pushed -> the hypotheses, best first.

        What was not heard of the last encoder frame is taken as zeros.  Nothing heard gives one hypothesis,
        of no labels.
        """
        feats = self.nothing if feats is None else feats
        if feats is not None:
            return self._hear(feats, last=True)
        self.ended = True
        return [Hypothesis((), 0.0, (), 0.0)]

    @torch.no_grad()
    def _hear(self, feats: Tensor, last: bool) -> list[Hypothesis]:
        if self.ended:
            raise ValueError("the stream has ended: make a new decoder for the next utterance.")
        if feats.dim() != 2:
            raise ValueError(f"features are {tuple(feats.shape)}, a stream hears (T, F).")
        check_finite(feats[None], None, self.frames)
        enc, self.state = self.model.step_encoder(feats[None], self.state, last)
        if self.searching is None:
            self.searching = self.search.begin(self.model, 1, enc)
        self.searching.advance_(enc, torch.tensor([enc.shape[1]], device=enc.device))
        self.frames, self.ended, self.nothing = self.frames + len(feats), last, feats[:0]
        return self.searching.hyps()[0]


def check_finite(feats: Tensor, feat_lens: Tensor | None, heard: int = 0) -> None:
    """Refuse features that are NaN or infinite, padding left out; ``heard`` frames came before."""
    bad = ~torch.isfinite(feats).all(-1)
    if feat_lens is not None:
        bad &= torch.arange(feats.shape[1], device=feats.device) < feat_lens.to(feats.device)[:, None]
    if bad.any():
        utt, frame = bad.nonzero()[0].tolist()
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
