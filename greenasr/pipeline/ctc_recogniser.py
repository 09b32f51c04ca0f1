"""A CTC network hears whole utterances: by itself, or in a graph of words.

features ─▶ logits ─▶ log probabilities ─┬▶ prefix beam, alignment ─▶ words with times
└▶ graph of an n-gram's words ─▶ words with times
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from greenasr.data.features import RATE, SHIFT, Feats, Features
from greenasr.decode.arpa import read_arpa
from greenasr.decode.ctc import PrefixBeam
from greenasr.decode.ctc_graph import build_ctc_graph, cached_ctc_graph, ctc_graph_key
from greenasr.decode.ctc_words import WordNGram
from greenasr.decode.graph import DecodingGraph
from greenasr.decode.labels import spellings
from greenasr.decode.nbest import NBest
from greenasr.decode.ngram import BOS, EOS, UNK
from greenasr.decode.transducer import log_softmax
from greenasr.decode.wfst import Decoder, Hypothesis, Logits, to_nbest
from greenasr.pipeline import engines
from greenasr.pipeline.engines import Ctc, Engine
from greenasr.pipeline.transcribe import Transcript, graph_folder, read_graph, worded
from greenasr.pipeline.units import Labels
from greenasr.runtime.format import Packed

BEAM, GRAPH_BEAM = 16, 16.0  # labellings of a prefix beam, cost of a graph's


@dataclass(frozen=True, eq=False)
class CtcRecogniser:
    """Everything between samples and words; ``n`` hypotheses of a graph, 0 for the best path alone."""

    model: Ctc
    units: Labels
    search: PrefixBeam | Decoder
    n: int = 0

    def __post_init__(self) -> None:
        """Refuse a graph of other labels."""
        classes = self.units.tokenizer.size + 1
        if isinstance(self.search, Decoder) and self.search.graph.n_pdfs != classes:
            raise ValueError(
                f"the decoding graph is of {self.search.graph.n_pdfs} outputs, the model has {classes}: give "
                "the model's own graph, or build it with --arpa."
            )

    @property
    def features(self) -> Features:
        """Those of the model."""
        return self.units.features

    def hear(self, feats: Feats) -> tuple[tuple[Hypothesis, ...], tuple[float, float]]:
        """Network, then search."""
        began = time.process_time()
        logprobs = log_softmax(self.model.logits(feats))
        there = time.process_time()
        hyps = self.found(logprobs)
        return hyps, (there - began, time.process_time() - there)

    def found(self, logprobs: Logits) -> tuple[Hypothesis, ...]:
        """Log probabilities (T', C) -> hypotheses of different words, best first, at least one."""
        if isinstance(self.search, Decoder):
            return tuple(self.search.nbest(logprobs, self.n)) if self.n else (self.search.best(logprobs),)
        return worded(self.units.tokenizer, self.search(logprobs), self.model.stride * SHIFT / RATE)

    def nbest(self, found: Transcript) -> NBest:
        """The list that `greenasr rescore` reads; no reference is known."""
        if isinstance(self.search, Decoder):
            return to_nbest(found.id, found.hyps, None, self.search.acoustic_scale, self.search.word_penalty)
        return to_nbest(found.id, found.hyps)


def load_ctc_recogniser(
    model: Path,
    packed: Packed,
    graph: Path | None = None,
    arpa: Path | None = None,
    *,
    acoustic_scale: float = 1.0,
    word_penalty: float = 0.0,
    beam: float | None = None,
    lm_weight: float | None = None,
    n: int = 0,
    engine: Engine = "runtime",
) -> CtcRecogniser:
    """A packed CTC network alone, or with the graph in ``graph``, or one of the n-gram ``arpa``'s words.

    With an ``lm_weight`` there is no graph: the n-gram ranks the labellings of a prefix beam, which may spell
    other words than it has.  ``beam`` counts labellings, at least ``n``, or is a graph's width in cost.
    """
    if graph is not None and arpa is not None:
        raise ValueError("give --graph FOLDER or --arpa FILE, not both.")
    if n < 0:
        raise ValueError(f"{n} hypotheses an utterance: expected 1 or more.")
    if lm_weight is not None and (arpa is None or acoustic_scale != 1.0):
        raise ValueError("--lm-weight is of --arpa inside the beam: give --arpa, and no --acoustic-scale.")
    network, units = engines.ctc(model, packed, engine)
    if lm_weight is not None or (graph is None and arpa is None):
        words = None
        if lm_weight is not None and arpa is not None:
            words = WordNGram(read_arpa(arpa), units.tokenizer, lm_weight, word_penalty)
        elif acoustic_scale != 1.0 or word_penalty:
            raise ValueError(
                "--acoustic-scale and --word-penalty are a graph's: give --arpa or --graph too, or neither."
            )
        if beam is not None and not (beam >= 1 and float(beam).is_integer()):
            raise ValueError(
                f"--beam {beam:g}: without a graph it is a number of labellings, 1 or more; {BEAM} is usual."
            )
        wide = max(BEAM, n) if beam is None else int(beam)
        return CtcRecogniser(network, units, PrefixBeam(wide, max(n, 1), words=words))
    found = graph_of_words(model, units, arpa) if arpa is not None else read_graph(graph or Path())
    decoder = Decoder(
        found, acoustic_scale, word_penalty, GRAPH_BEAM if beam is None else beam,
        frame_shift=network.stride * SHIFT / RATE,
    )  # fmt: skip
    return CtcRecogniser(network, units, decoder, n)


def graph_of_words(model: Path, units: Labels, arpa: Path) -> DecodingGraph:
    """The graph of an n-gram model's words in the network's labels, kept in `MODEL.graph-<key>` beside it.

    Words that the tokenizer cannot spell are left out; ValueError where it can spell none.  Where nothing can
    be written beside the model the graph is built anew every time.
    """
    tokenizer = units.tokenizer
    listed = [word for word in read_arpa(arpa).words if word not in (BOS, EOS, UNK)]
    spelled = spellings(tokenizer, listed)
    if not spelled:
        raise ValueError(
            f"{arpa}: the model's labels can spell none of its {len(listed)} words, e.g. "
            f"'{next(iter(listed), '')}'. Give an n-gram of the spelling and case that it was trained on."
        )
    classes = tokenizer.size + 1
    if not os.access(model.parent, os.W_OK):
        return build_ctc_graph(spelled, classes, arpa)
    folder = graph_folder(model, ctc_graph_key(spelled, classes, arpa))
    return cached_ctc_graph(folder, spelled, classes, arpa)
