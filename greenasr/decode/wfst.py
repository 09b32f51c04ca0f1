"""Search: the word sequences that the network's outputs and the decoding graph like best together.

    cost(words, alignment) = graph + acoustic_scale · acoustic + word_penalty · |words|
    acoustic = - Σ_t logits[t, pdf(alignment[t])]           no prior: LF-MMI outputs take none

Viterbi beam search over the graph by kaldi-decoder (one best path, or a raw lattice of everything within
``lattice_beam`` of it), K-best by `lattice.kbest`.  Costs are reported unscaled and apart, so that other
scales and penalties can be tried on the same lists (`tune_scale`).  kaldi-decoder takes NaN in silence:
logits that are not finite are refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from multiprocessing import get_context
from typing import Any

import kaldi_decoder
import numpy as np
import numpy.typing as npt

from greenasr.decode.fst import Lattice, lattice_from_kaldi, to_kaldi
from greenasr.decode.graph import DecodingGraph
from greenasr.decode.lattice import Path, kbest
from greenasr.decode.lexicon_fst import BLANK, FIRST, SILENCE
from greenasr.decode.nbest import NBest

FRAME_SHIFT = 0.03  # seconds an output frame: 100 frames a second, every third
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hypothesis:
    """What may have been said: unscaled costs (-ln), and (start, end) in seconds of every word.

    ``complete`` is False where the search had to stop in the middle of a sentence or had no frame at all.
    """

    words: tuple[str, ...]
    acoustic_cost: float
    graph_cost: float
    word_times: tuple[tuple[float, float], ...]
    complete: bool = True

    def cost(self, acoustic_scale: float = 1.0, word_penalty: float = 0.0) -> float:
        """The total that the search minimises."""
        return self.graph_cost + acoustic_scale * self.acoustic_cost + word_penalty * len(self.words)


NOTHING = Hypothesis((), 0.0, 0.0, (), complete=False)
_NONE = np.zeros(0, np.int64)
EMPTY = Lattice(0, np.zeros((0, 2)), _NONE, _NONE, _NONE, _NONE, np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Decoder:
    """A graph and the search's settings; every method takes logits (T', C) at the output frame rate.

    ``beam`` and ``lattice_beam`` are in scaled cost, ``max_active`` bounds the states alive a frame in `best`
    alone.  A positive ``word_penalty`` makes words fewer.
    """

    graph: DecodingGraph
    acoustic_scale: float = 1.0
    word_penalty: float = 0.0
    beam: float = 15.0
    lattice_beam: float = 8.0
    max_active: int = 7000
    frame_shift: float = FRAME_SHIFT

    def __post_init__(self) -> None:
        """Refuse settings that no search can work with."""
        for name in ("acoustic_scale", "beam", "lattice_beam", "frame_shift"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, it should be a number above 0.")
        if not np.isfinite(self.word_penalty):
            raise ValueError(f"word_penalty is {self.word_penalty}, it should be a finite number.")
        if self.max_active < 2:
            raise ValueError(f"max_active is {self.max_active}, it should be at least 2.")

    @cached_property
    def _fst(self) -> Any:
        """The graph as kaldi-decoder takes it, with the penalty on every word."""
        fst = self.graph.fst
        return to_kaldi(replace(fst, weight=fst.weight + self.word_penalty * (fst.olabel > 0)))

    def __getstate__(self) -> dict[str, Any]:
        """Without kaldi-decoder's copy of the graph, which other processes make anew."""
        return {name: value for name, value in self.__dict__.items() if name != "_fst"}

    def best(self, logits: Any) -> Hypothesis:
        """The best path found."""
        scores = self._scores(logits)
        if not len(scores):
            return NOTHING
        options = kaldi_decoder.FasterDecoderOptions(beam=self.beam, max_active=self.max_active)
        search = kaldi_decoder.FasterDecoder(self._fst, options)
        search.decode(kaldi_decoder.DecodableCtc(scores))
        complete = search.reached_final()
        found, path = search.get_best_path(use_final_probs=complete)
        if not found:
            return NOTHING
        return self._hypothesis(kbest(self._unpriced(path), 1)[0], complete)

    def lattice(self, logits: Any) -> tuple[Lattice, bool]:
        """Everything within ``lattice_beam`` of the best path, unscaled; whether a sentence ended there."""
        scores = self._scores(logits)
        if not len(scores):
            return EMPTY, False
        config = kaldi_decoder.LatticeSimpleDecoderConfig(beam=self.beam, lattice_beam=self.lattice_beam)
        search = kaldi_decoder.LatticeSimpleDecoder(self._fst, config)
        if not search.decode(kaldi_decoder.DecodableCtc(scores)):
            return EMPTY, False
        complete = bool(np.isfinite(search.final_relative_cost()))
        found, raw = search.get_raw_lattice(use_final_probs=complete)
        return (self._unpriced(raw), complete) if found else (EMPTY, False)

    def nbest(self, logits: Any, n: int = 20) -> list[Hypothesis]:
        """Up to ``n`` different word sequences, best first; at least one, of no words if need be."""
        return self.nbest_at(logits, [(self.acoustic_scale, self.word_penalty)], n)

    def nbest_at(self, logits: Any, settings: Sequence[tuple[float, float]], n: int = 20) -> list[Hypothesis]:
        """`nbest` at several (acoustic scale, word penalty), one list after the other, from one search."""
        found, complete = self.lattice(logits)
        paths = [path for setting in settings for path in kbest(found, n, *setting)]
        return [self._hypothesis(path, complete) for path in paths] or [NOTHING]

    def decode_many(self, logits: Sequence[Any], jobs: int = 1) -> list[Hypothesis]:
        """`best` of every utterance, by ``jobs`` processes."""
        return _spread(self, "best", (), logits, jobs)

    def nbest_many(self, logits: Sequence[Any], n: int = 20, jobs: int = 1) -> list[list[Hypothesis]]:
        """`nbest` of every utterance, by ``jobs`` processes."""
        return _spread(self, "nbest", (n,), logits, jobs)

    def _scores(self, logits: Any) -> Logits:
        """Scaled logits in the order of the graph's input labels, (T', C) -> (T', L)."""
        values = np.asarray(logits, np.float32)
        if values.ndim != 2 or values.shape[1] != self.graph.n_pdfs:
            raise ValueError(
                f"logits are {values.shape}, expected (frames, {self.graph.n_pdfs}) as the graph has "
                f"{self.graph.n_pdfs} pdfs. Decode with the graph of the network's own pdf map."
            )
        bad = ~np.isfinite(values)
        if bad.any():
            frame, pdf = (int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{int(bad.sum())} of {values.size} logits are not finite, the first is "
                f"{values[frame, pdf]} at frame {frame}, pdf {pdf}. Mend the network (a step of 0, an "
                "overflow), no search can use them."
            )
        return np.ascontiguousarray(values[:, self.graph.pdf] * np.float32(self.acoustic_scale))

    def _unpriced(self, raw: Any) -> Lattice:
        """A lattice of kaldi-decoder with the scale and the penalty taken out of its costs."""
        found = lattice_from_kaldi(raw)
        return replace(
            found,
            graph=found.graph - self.word_penalty * (found.olabel > 0),
            acoustic=found.acoustic / self.acoustic_scale,
            final=found.final / np.array([1.0, self.acoustic_scale]),
        )

    def _hypothesis(self, path: Path, complete: bool) -> Hypothesis:
        kind = self.graph.kind[path.ilabels - 1]
        edges = np.append(np.flatnonzero((kind == FIRST) | (kind == SILENCE)), len(kind))
        starts = np.flatnonzero(kind == FIRST)[: len(path.words)]
        spoken = np.maximum.accumulate(np.where(kind == BLANK, 0, np.arange(1, len(kind) + 1)))
        ends = spoken[edges[np.searchsorted(edges, starts, side="right")] - 1]
        seconds = (np.column_stack([starts, ends]) * self.frame_shift).round(3).tolist()
        words = tuple(self.graph.words[label] for label in path.words)
        times = tuple((start, end) for start, end in seconds)
        return Hypothesis(words, path.acoustic, path.graph, times, complete)


def to_nbest(
    utt_id: str,
    hyps: Sequence[Hypothesis],
    ref: str | None = None,
    acoustic_scale: float = 1.0,
    word_penalty: float = 0.0,
) -> NBest:
    """The list that `nbest.write_nbest` writes and rescoring reads: scores are negated totals, best first."""
    ranked = sorted(hyps, key=lambda hyp: hyp.cost(acoustic_scale, word_penalty))
    scores = tuple(0.0 - hyp.cost(acoustic_scale, word_penalty) for hyp in ranked)
    return NBest(utt_id, ref, tuple(" ".join(hyp.words) for hyp in ranked), scores)


_kept: list[Decoder] = []  # of a worker process, set once by `_keep`


def _spread(decoder: Decoder, method: str, more: tuple[int, ...], logits: Sequence[Any], jobs: int) -> Any:
    """``decoder.method(each, *more)`` for each; kaldi-decoder holds the GIL, so jobs are processes."""
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}, it should be at least 1.")
    if jobs == 1 or len(logits) < 2:
        return [getattr(decoder, method)(each, *more) for each in logits]
    arrays = [np.asarray(each, np.float32) for each in logits]
    size = max(1, min(32, len(arrays) // (4 * jobs)))
    with ProcessPoolExecutor(jobs, get_context("spawn"), _keep, (decoder,)) as pool:
        return list(pool.map(partial(_work, method, more), arrays, chunksize=size))


def _keep(decoder: Decoder) -> None:
    _kept[:] = [decoder]


def _work(method: str, more: tuple[int, ...], logits: Logits) -> Any:
    return getattr(_kept[0], method)(logits, *more)
