"""Beam search of a transducer, frame by frame, in which paths of the same labels are one hypothesis.

    C_0 = the hypotheses;  for v = 0, 1, … max_symbols labels in this frame:
        done(y)    += C_v(y) p(blank | t, y)                  leave the frame: paths of the same y add up
        C_{v+1}(yk) = C_v(y) p(k | t, y)                      stay and emit, the best ``beam`` of them
    hypotheses = the best ``beam`` of done

Time-synchronous decoding: Saon, Tüske and Audhkhasi 2020, "Alignment-length synchronous decoding for RNN
transducer".  With a beam that holds everything it is exact: the sum over all paths of at most max_symbols
labels a frame.  Two cuts are ours: no path is followed in a frame below the ``beam``-th of done, since it
loses by going on (or gains no more than λ or β pay), nor more than ``prune`` nats below the best.

``ilm_scale`` λ takes the internal language model off and ``label_reward`` β pays for every label: hypotheses
are ranked by

    ln p(y | x) + Σ_u (β - λ ln p_ilm(y_u | y_1 … y_{u-1})),   p_ilm = softmax of joint(0, pred) without blank

the zero-encoder estimate of Meng et al. 2021 (arXiv 2011.01991); Zhou et al. 2021 (arXiv 2110.06841)
compare it with others.  A transducer whose blanks are too sure deletes words, which β > 0 brings back.

A prefix has one prediction network state however many paths, frames and utterances meet in it; it is kept
as long as something near it is alive, so an hour of silence needs no more memory than a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from greenasr.decode.transducer import (
    BLANK,
    Floats,
    Hypothesis,
    Ints,
    PredictorState,
    Transducer,
    label_logprobs,
    log_add,
    log_softmax,
)


@dataclass(frozen=True)
class BeamSearch:
    """How wide to search; ``nbest`` is how many hypotheses are returned, None for all of the beam."""

    beam: int = 8
    nbest: int | None = None
    max_symbols: int = 5
    prune: float = 10.0
    ilm_scale: float = 0.0
    label_reward: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a search that finds nothing."""
        if self.beam < 1:
            raise ValueError(f"beam is {self.beam} hypotheses, it should be at least 1.")
        if self.max_symbols < 1:
            raise ValueError(f"max_symbols is {self.max_symbols} labels a frame, it should be at least 1.")
        if self.nbest is not None and not 1 <= self.nbest <= self.beam:
            raise ValueError(f"nbest is {self.nbest}, it should be 1 to {self.beam}, the beam.")
        if not self.prune > 0:
            raise ValueError(f"prune is {self.prune:g} nats below the best, it should be positive.")
        if not 0 <= self.ilm_scale < float("inf"):
            raise ValueError(f"ilm_scale is {self.ilm_scale:g}, it should be 0 or more.")
        if not abs(self.label_reward) < float("inf"):
            raise ValueError(f"label_reward is {self.label_reward:g}, it should be a finite number of nats.")

    def begin(self, model: Transducer, n: int) -> BeamSearching:
        """A search in ``n`` utterances."""
        return BeamSearching(model, self, n)


class Prefix:
    """A sequence of labels as its last one and the prefix before it; ``bonus`` is Σ_u (β - λ ln p_ilm)."""

    __slots__ = ("__weakref__", "bonus", "children", "label", "parent")

    def __init__(self, parent: Prefix | None, label: int, bonus: float):
        self.parent, self.label, self.bonus = parent, label, bonus
        self.children: WeakValueDictionary[int, Prefix] = WeakValueDictionary()

    def labels(self) -> tuple[int, ...]:
        """The labels, first to last."""
        found, at = [], self
        while at.parent is not None:
            found.append(at.label)
            at = at.parent
        return tuple(found[::-1])


Frames = tuple["Frames", int] | None  # the frames of a path's labels, last first


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """Paths of one prefix: ln of their summed probability, that of the likeliest, and its frames."""

    prefix: Prefix
    logprob: float
    likeliest: float
    frames: Frames

    def times(self, logprob: float) -> Entry:
        """The same paths one step further."""
        return Entry(self.prefix, self.logprob + logprob, self.likeliest + logprob, self.frames)

    def plus(self, other: Entry) -> Entry:
        """Both, with the frames of the likelier."""
        best = max(self, other, key=lambda entry: entry.likeliest)
        return Entry(self.prefix, log_add(self.logprob, other.logprob), best.likeliest, best.frames)


class Known(NamedTuple):
    """What follows a prefix: the prediction network's output (J,) and state.

    ``bonus`` is β - λ ln p_ilm of every label (V - 1,), or (1,) where all have the same.
    """

    pred: Floats
    state: tuple[tuple[Floats, Floats], ...]
    bonus: Floats


class BeamSearching:
    """Beam search under way: one predictor and one joint call a step for all hypotheses of all utterances."""

    def __init__(self, model: Transducer, settings: BeamSearch, n: int):
        self.model, self.settings = model, settings
        root = Prefix(None, BLANK, 0.0)
        self.beams = [[Entry(root, 0.0, 0.0, None)] for _ in range(n)]
        self.known: dict[Prefix, Known] = {}
        self.passed = [0] * n

    def advance_(self, enc: Floats, lens: Ints) -> None:
        """Go through the next encoder frames (N, T', J), of which (N,) are true."""
        n_frames = lens.tolist()
        for t in range(max(n_frames, default=0)):
            self._frame_(enc[:, t], [utt for utt, frames in enumerate(n_frames) if t < frames], t)
        self.passed = [passed + frames for passed, frames in zip(self.passed, n_frames, strict=True)]

    def hyps(self) -> list[list[Hypothesis]]:
        """The hypotheses of every utterance so far, best first."""
        return [[self._hypothesis(entry) for entry in beam[: self.settings.nbest]] for beam in self.beams]

    def _frame_(self, enc: Floats, active: list[int], t: int) -> None:
        """All utterances of ``active`` through one frame, (N, J)."""
        level = [(utt, entry) for utt in active for entry in self.beams[utt]]
        done: dict[int, dict[Prefix, Entry]] = {utt: {} for utt in active}
        used: set[Prefix] = set()
        for symbol in range(self.settings.max_symbols + 1):
            self._learn_([entry.prefix for _, entry in level])
            used.update(entry.prefix for _, entry in level)
            known = [self.known[entry.prefix] for _, entry in level]
            rows = [utt for utt, _ in level]
            logp = label_logprobs(self.model, enc[rows], np.stack([one.pred for one in known]))
            for (utt, entry), blank in zip(level, logp[:, BLANK].tolist(), strict=True):
                left = entry.times(blank)
                before = done[utt].get(entry.prefix)
                done[utt][entry.prefix] = left if before is None else before.plus(left)
            if symbol == self.settings.max_symbols:
                break
            level = self._emit(level, logp, known, {utt: self._floor(done[utt]) for utt in active}, t)
            if not level:
                break
        for utt in active:
            self.beams[utt] = nlargest(self.settings.beam, done[utt].values(), key=self._score)
        used.update(entry.prefix for beam in self.beams for entry in beam if entry.prefix in self.known)
        self.known = {prefix: self.known[prefix] for prefix in used}

    def _emit(
        self,
        level: list[tuple[int, Entry]],
        logp: Floats,
        known: list[Known],
        floors: dict[int, float],
        t: int,
    ) -> list[tuple[int, Entry]]:
        """The best ``beam`` extensions by a label of every utterance's entries, above its floor."""
        beam = self.settings.beam
        steps = logp[:, BLANK + 1 :]
        bonus = np.broadcast_to(np.stack([one.bonus for one in known]), steps.shape)
        gain = steps + bonus
        wide = min(beam, gain.shape[1])
        label = np.argpartition(-gain, wide - 1, axis=1)[:, :wide]
        scores = np.array([self._score(entry) for _, entry in level])[:, None]
        total = np.take_along_axis(gain, label, 1) + scores
        above = total > np.array([floors[utt] for utt, _ in level])[:, None]
        found: dict[int, list[tuple[float, int, int]]] = {}
        rows, columns = above.nonzero()
        chosen = label[rows, columns].tolist()
        for row, k, score in zip(rows.tolist(), chosen, total[above].tolist(), strict=True):
            found.setdefault(level[row][0], []).append((score, row, k))
        kept = [(row, k) for utt in found for _, row, k in nlargest(beam, found[utt])]
        if not kept:
            return []
        at = tuple(np.array(kept).T)
        out = []
        for (row, k), step, paid in zip(kept, steps[at].tolist(), bonus[at].tolist(), strict=True):
            utt, entry = level[row]
            prefix = entry.prefix.children.get(BLANK + 1 + k)
            if prefix is None:
                prefix = Prefix(entry.prefix, BLANK + 1 + k, entry.prefix.bonus + paid)
                entry.prefix.children[BLANK + 1 + k] = prefix
            frames = (entry.frames, self.passed[utt] + t)
            out.append((utt, Entry(prefix, entry.logprob + step, entry.likeliest + step, frames)))
        return out

    def _learn_(self, prefixes: list[Prefix]) -> None:
        """Run the prediction network for the prefixes that it has not seen; parents have been seen."""
        new = [prefix for prefix in dict.fromkeys(prefixes) if prefix not in self.known]
        if not new:
            return
        labels = np.array([prefix.label for prefix in new])
        parents = [self.known[prefix.parent].state for prefix in new if prefix.parent is not None]
        pred, state = self.model.step_predictor(labels, stacked(parents) if parents else None)
        bonus = np.full((len(new), 1), self.settings.label_reward, np.float32)
        if self.settings.ilm_scale:
            ilm = log_softmax(self.model.joint(np.zeros_like(pred), pred)[:, BLANK + 1 :])
            bonus = bonus - np.float32(self.settings.ilm_scale) * ilm
        for i, prefix in enumerate(new):
            self.known[prefix] = Known(pred[i], tuple((h[i], c[i]) for h, c in state), bonus[i])

    def _floor(self, done: dict[Prefix, Entry]) -> float:
        """The score below which no path is followed in this frame."""
        best = nlargest(self.settings.beam, (self._score(entry) for entry in done.values()))
        last = best[-1] if len(best) == self.settings.beam else -np.inf
        return max(best[0] - self.settings.prune, last)

    def _score(self, entry: Entry) -> float:
        return entry.logprob + entry.prefix.bonus

    def _hypothesis(self, entry: Entry) -> Hypothesis:
        frames, at = [], entry.frames
        while at is not None:
            at, frame = at
            frames.append(frame)
        return Hypothesis(entry.prefix.labels(), entry.logprob, tuple(frames[::-1]), self._score(entry))


def stacked(states: list[PredictorState]) -> PredictorState:
    """States of single hypotheses, (D,) each, as one state (R, D)."""
    return tuple(
        (np.stack([h for h, _ in layer]), np.stack([c for _, c in layer]))
        for layer in zip(*states, strict=True)
    )
