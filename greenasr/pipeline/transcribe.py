"""Sound in, words with times out, one utterance after another: by an acoustic model and a decoding graph.

    blocks ─▶ utterances (`segmenting`) ─▶ 16 kHz ─▶ features, CMVN ─▶ logits ─▶ search ─▶ words with times

Any `Recognising` will do; `streaming` has that of transducers.

CMVN is what the model's features say.  "utterance" takes away the mean of the utterance; "speaker" the mean
of all that the same source said up to the utterance's end, since one source is taken for one speaker and what
comes later may not be there yet; "running" that of the utterance so far; "none" takes nothing away.  No more
than one utterance is held at a time.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from greenasr.data.audio import too_short
from greenasr.data.features import RATE, Feats, Features
from greenasr.data.resample import resample
from greenasr.data.segmenting import Pauses, Samples, utterances
from greenasr.data.text import Tokenizer
from greenasr.decode import transducer
from greenasr.decode.arpa import read_arpa
from greenasr.decode.graph import DecodingGraph, build_graph, cached_graph, graph_key
from greenasr.decode.labels import timed_words
from greenasr.decode.nbest import NBest
from greenasr.decode.ngram import UNK
from greenasr.decode.transducer import log_add
from greenasr.decode.wfst import Decoder, Hypothesis, Logits, to_nbest
from greenasr.pipeline import engines
from greenasr.pipeline.engines import Acoustic, Engine
from greenasr.pipeline.units import Units
from greenasr.runtime.format import Packed


@dataclass(frozen=True)
class Transcript:
    """One utterance: where it lies in its source, in seconds, and what may have been said, best first.

    ``work`` is what it cost: seconds of one core for features with network, and for the search.
    """

    source: str
    start: float
    end: float
    hyps: tuple[Hypothesis, ...]
    work: tuple[float, float] = (0.0, 0.0)

    @property
    def id(self) -> str:
        """Source, start and end in hundredths of a second, as Kaldi names segments.

        >>> Transcript("talk", 1.5, 12.25, ()).id
        'talk-0000150-0001225'
        """
        return f"{self.source}-{round(100 * self.start):07d}-{round(100 * self.end):07d}"

    @property
    def words(self) -> list[tuple[str, float, float]]:
        """(word, start, end) of the best hypothesis, in seconds of the source."""
        best = self.hyps[0]
        return [
            (word, round(self.start + start, 3), round(min(self.start + end, self.end), 3))
            for word, (start, end) in zip(best.words, best.word_times, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data: the utterance with its words; costs are unscaled, see `decode.wfst.Hypothesis`."""
        best = self.hyps[0]
        return {
            "id": self.id,
            "source": self.source,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "text": " ".join(best.words),
            "words": [{"word": word, "start": start, "end": end} for word, start, end in self.words],
            "complete": best.complete,
            "acoustic_cost": best.acoustic_cost,
            "graph_cost": best.graph_cost,
        }

    def ctm(self) -> str:
        """A line `source channel start duration word` for every word, as NIST's scoring takes it."""
        source = "_".join(self.source.split())
        return "".join(
            f"{source} 1 {start:.3f} {end - start:.3f} {word}\n" for word, start, end in self.words
        )


class Recognising(Protocol):
    """What turns utterances into words."""

    @property
    def features(self) -> Features:
        """What it hears of the samples."""
        ...

    def hear(self, feats: Feats) -> tuple[tuple[Hypothesis, ...], tuple[float, float]]:
        """Features behind CMVN (T, F) -> hypotheses, best first, at least one; seconds as in `Transcript`."""
        ...

    def nbest(self, found: Transcript) -> NBest:
        """The list that `greenasr rescore` reads; no reference is known."""
        ...


@dataclass(frozen=True, eq=False)
class Recogniser:
    """Everything between samples and words; ``n`` hypotheses an utterance, 0 for the best path alone."""

    model: Acoustic
    units: Units
    decoder: Decoder
    n: int = 0

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        if self.model.ivector_dim:
            raise ValueError(
                f"the model reads i-vectors ({self.model.ivector_dim} dimensions), its file has no "
                "extractor: give a model trained without them."
            )
        if self.decoder.graph.n_pdfs != self.units.pdf_map.n_pdfs:
            raise ValueError(
                f"the decoding graph is of {self.decoder.graph.n_pdfs} pdfs, the model has "
                f"{self.units.pdf_map.n_pdfs}: give the model's own graph, or build it with --arpa."
            )
        if self.n < 0:
            raise ValueError(f"{self.n} hypotheses an utterance: expected 1 or more.")

    def search(self, logits: Logits) -> tuple[Hypothesis, ...]:
        """Logits (T', C) -> hypotheses, best first, at least one."""
        return tuple(self.decoder.nbest(logits, self.n)) if self.n else (self.decoder.best(logits),)

    @property
    def features(self) -> Features:
        """Those of the model."""
        return self.units.features

    def hear(self, feats: Feats) -> tuple[tuple[Hypothesis, ...], tuple[float, float]]:
        """Network, then search."""
        began = time.process_time()
        logits = self.model.logits(feats)
        there = time.process_time()
        hyps = self.search(logits)
        return hyps, (there - began, time.process_time() - there)

    def nbest(self, found: Transcript) -> NBest:
        """The list that `greenasr rescore` reads; no reference is known."""
        scale, penalty = self.decoder.acoustic_scale, self.decoder.word_penalty
        return to_nbest(found.id, found.hyps, None, scale, penalty)


def worded(
    tokenizer: Tokenizer, hyps: Sequence[transducer.Hypothesis], shift: float
) -> tuple[Hypothesis, ...]:
    """Labels as hypotheses of different words, best first; scores of the same words add up.

    A frame is ``shift`` seconds.  ValueError where no score is finite.
    """
    if not math.isfinite(hyps[0].score):
        raise ValueError(f"the network's outputs are not finite (ln p is {hyps[0].score:g}): train it again.")
    found: dict[tuple[str, ...], tuple[float, tuple[tuple[float, float], ...]]] = {}
    for hyp in hyps:
        timed = timed_words(tokenizer, hyp, shift)
        words = tuple(word for word, _, _ in timed)
        score, times = found.get(words, (-np.inf, tuple((start, end) for _, start, end in timed)))
        found[words] = log_add(score, hyp.score), times
    ranked = sorted(found.items(), key=lambda item: -item[1][0])
    return tuple(Hypothesis(words, -score, 0.0, times) for words, (score, times) in ranked)


class RunningMean:
    """CMVN of one source: with "speaker", the mean of all its frames so far."""

    def __init__(self, features: Features):
        self.features = features
        self.total, self.frames = np.zeros(features.dim), 0

    def __call__(self, raw: Feats) -> Feats:
        """Raw features of the next utterance (T, F) -> features behind CMVN (T, F)."""
        if self.features.cmvn != "speaker":
            return self.features.normalised(raw)
        self.total += raw.sum(0, dtype=np.float64)
        self.frames += len(raw)
        return self.features.normalised(raw, (self.total / self.frames).astype(np.float32))


def transcribe(
    recogniser: Recognising,
    blocks: Iterable[Samples],
    rate: int,
    source: str,
    pauses: Pauses | None = None,
) -> Iterator[Transcript]:
    """The utterances of a sound that comes in blocks, each as soon as its end is known.

    ValueError names the source and the second where the network's outputs are not finite.
    """
    cmvn = RunningMean(recogniser.features)
    for utterance in utterances(blocks, rate, pauses):
        if too_short(len(utterance.samples), rate):
            continue  # what is left of a cut's second half: less than a window, so no word
        start = utterance.start / rate
        began = time.process_time()
        feats = cmvn(recogniser.features.raw(resample(utterance.samples, rate, RATE)))
        before = time.process_time() - began
        try:
            hyps, (network, search) = recogniser.hear(feats)
        except ValueError as error:
            raise ValueError(f"{source}, utterance at {start:.2f} s: {error}") from None
        end = start + len(utterance.samples) / rate
        yield Transcript(source, start, end, hyps, (before + network, search))


def load_recogniser(
    model: Path,
    graph: Path | None = None,
    arpa: Path | None = None,
    *,
    acoustic_scale: float = 1.0,
    word_penalty: float = 0.0,
    beam: float = 15.0,
    n: int = 0,
    engine: Engine = "runtime",
    packed: Packed | None = None,
) -> Recogniser:
    """A packed acoustic model with the graph in ``graph``, or one built of the n-gram model ``arpa``.

    A graph that was built is kept beside the model, see `graph_of`.  ``packed`` is what ``model`` holds,
    where it has been read.
    """
    if (graph is None) == (arpa is None):
        raise ValueError(
            "a recogniser needs one decoding graph: give --graph FOLDER, or --arpa FILE to build it."
        )
    network, units = engines.acoustic(model, packed or engines.read(model), engine)
    found = graph_of(model, units, arpa) if arpa is not None else read_graph(graph or Path())
    return Recogniser(network, units, Decoder(found, acoustic_scale, word_penalty, beam), n)


def read_graph(folder: Path) -> DecodingGraph:
    """The graph in a folder; ValueError where there is none or it is not whole."""
    if not (folder / "meta.json").exists():
        raise ValueError(
            f"{folder}: no decoding graph there (no meta.json): give a folder that holds one, or an n-gram "
            "model with --arpa to build it from."
        )
    return DecodingGraph.load(folder)


def graph_of(model: Path, units: Units, arpa: Path) -> DecodingGraph:
    """HCLG of the model's lexicon and pdf map and an n-gram model, in `MODEL.graph-<key>` beside the model.

    Words that the n-gram model lacks share the mass of its <unk>, if it has one; ValueError where it lacks
    them all.  Where nothing can be written beside the model the graph is built anew every time.
    """
    lexicon, pdf_map = units.lexicon, units.pdf_map
    for unk in (UNK, None):
        folder = graph_folder(model, graph_key(lexicon, pdf_map, arpa, unk=unk))
        if folder.exists():
            return cached_graph(folder, lexicon, pdf_map, arpa, unk=unk)
    known = read_arpa(arpa).ids
    shared = any(word in known for word in lexicon.prons)  # else a model of other words, which is refused
    unk = UNK if UNK in known and shared else None
    if not os.access(model.parent, os.W_OK):
        return build_graph(lexicon, pdf_map, arpa, unk=unk)
    folder = graph_folder(model, graph_key(lexicon, pdf_map, arpa, unk=unk))
    return cached_graph(folder, lexicon, pdf_map, arpa, unk=unk)


def graph_folder(model: Path, key: str) -> Path:
    """Where a model's graph of that key is kept."""
    return model.with_name(f"{model.name}.graph-{key}")
