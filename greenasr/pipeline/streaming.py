"""A transducer hears: whole utterances, or a stream, whose words come while they are being said.

    blocks ─▶ pieces (`segmenting`) ─▶ features (`feature_stream`) ─▶ encoder, search ─▶ partial words
                                                        at an utterance's end ─▶ words with times

A word is there 0.2 s after the end of the encoder frame that says it, or sooner: 0.15 s are `CHUNK` frames,
rounded up to levels of `segmenting`, the rest is a block of samples and what `feature_stream` waits for.  How
long after its sound the network says it is the network's affair.  An utterance's words are those of the same
samples given whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from greenasr.data.audio import too_short
from greenasr.data.feature_stream import STREAMED, FeatureStream
from greenasr.data.features import RATE, SHIFT, Feats, Features
from greenasr.data.segmenting import Pauses, Samples, pieces
from greenasr.decode import transducer
from greenasr.decode.nbest import NBest
from greenasr.decode.transducer import StreamingDecoder, decode_transducer
from greenasr.decode.transducer_beam import BeamSearch
from greenasr.decode.wfst import Hypothesis, to_nbest
from greenasr.pipeline import engines
from greenasr.pipeline.ctc_recogniser import load_ctc_recogniser
from greenasr.pipeline.engines import Engine, StreamingTransducer
from greenasr.pipeline.transcribe import Recognising, Transcript, load_recogniser, worded
from greenasr.pipeline.units import Labels, reward_of

CHUNK = 12  # frames that are heard at once
BEAM, GRAPH_BEAM = 8, 15.0  # hypotheses of a transducer's search, cost of a graph's


@dataclass(frozen=True)
class Partial:
    """What the utterance that began at ``start`` seems to say up to the second ``time`` of its source."""

    source: str
    start: float
    time: float
    words: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; "partial" tells it from an utterance."""
        times = {"start": round(self.start, 3), "time": round(self.time, 3)}
        return {"partial": " ".join(self.words), "source": self.source, **times}

    def ctm(self) -> str:
        """A comment of a ctm: what is scored are the words of whole utterances."""
        return " ".join((";;", f"{self.time:.2f}", *self.words)) + "\n"


@dataclass(frozen=True, eq=False)
class TransducerRecogniser:
    """Everything between samples and words, in one network and a search."""

    model: StreamingTransducer
    units: Labels
    search: BeamSearch

    @property
    def features(self) -> Features:
        """Those of the model."""
        return self.units.features

    @property
    def streams(self) -> bool:
        """Whether its features can be had of a stream."""
        return self.features.cmvn in STREAMED

    def hear(self, feats: Feats) -> tuple[tuple[Hypothesis, ...], tuple[float, float]]:
        """Network and search are one: all seconds are the network's."""
        began = time.process_time()
        (hyps,) = decode_transducer(self.model, feats[None], search=self.search)
        return self.worded(hyps), (time.process_time() - began, 0.0)

    def worded(self, hyps: list[transducer.Hypothesis]) -> tuple[Hypothesis, ...]:
        """Hypotheses of different words, best first, see `transcribe.worded`."""
        return worded(self.units.tokenizer, hyps, self.model.frames_joined * SHIFT / RATE)

    def nbest(self, found: Transcript) -> NBest:
        """The list that `greenasr rescore` reads; no reference is known."""
        return to_nbest(found.id, found.hyps)


def stream(
    recogniser: TransducerRecogniser,
    blocks: Iterable[Samples],
    rate: int,
    source: str,
    pauses: Pauses | None = None,
) -> Iterator[Partial | Transcript]:
    """Words of a sound while it comes: a `Partial` whenever they change, a `Transcript` at utterances' ends.

    ValueError names the source and the second where the network's outputs are not finite.
    """
    FeatureStream(recogniser.features, rate)(
        np.zeros(rate, np.float32)
    )  # loads libraries, while nobody waits
    hearing: _Hearing | None = None
    for piece in pieces(blocks, rate, pauses):
        hearing = hearing or _Hearing(recogniser, piece.start, rate, source)
        try:
            news = hearing.end(piece.samples) if piece.last else hearing.push(piece.samples)
        except ValueError as error:
            raise ValueError(f"{source}, utterance at {piece.start / rate:.2f} s: {error}") from None
        if news is not None:
            yield news
        if piece.last:
            hearing = None


class _Hearing:
    """One utterance of a stream."""

    def __init__(self, recogniser: TransducerRecogniser, start: int, rate: int, source: str):
        self.recogniser, self.source, self.rate, self.start = recogniser, source, rate, start
        self.features = FeatureStream(recogniser.features, rate)
        self.decoder = StreamingDecoder(recogniser.model, recogniser.search)
        self.waiting: list[Feats] = []
        self.samples, self.work = 0, 0.0
        self.words: tuple[str, ...] = ()

    def push(self, samples: Samples) -> Partial | None:
        """The next samples; what is new.  No samples: it is quiet, so all that waits is heard."""
        began = time.process_time()
        self.samples += len(samples)
        self.waiting.append(self.features(samples))
        frames = sum(map(len, self.waiting))
        if frames < (CHUNK if len(samples) else 1):
            self.work += time.process_time() - began
            return None
        best = self.decoder.push(self._next())
        words = self.recogniser.worded([best])[0].words
        self.work += time.process_time() - began
        if words == self.words:
            return None
        self.words = words
        return Partial(self.source, self.start / self.rate, self._now(), words)

    def end(self, samples: Samples) -> Transcript | None:
        """The last samples; the utterance, None where it is shorter than a window."""
        began = time.process_time()
        self.samples += len(samples)
        if too_short(self.samples, self.rate):
            return None
        self.waiting += [self.features(samples), self.features.rest()]
        hyps = self.recogniser.worded(self.decoder.final(self._next()))
        work = (self.work + time.process_time() - began, 0.0)
        return Transcript(self.source, self.start / self.rate, self._now(), hyps, work)

    def _next(self) -> Feats:
        feats, self.waiting = np.concatenate(self.waiting), []
        return feats

    def _now(self) -> float:
        return (self.start + self.samples) / self.rate


def load_any(
    model: Path,
    graph: Path | None = None,
    arpa: Path | None = None,
    *,
    acoustic_scale: float = 1.0,
    word_penalty: float = 0.0,
    beam: float | None = None,
    lm_weight: float | None = None,
    label_reward: float | None = None,
    n: int = 0,
    engine: Engine = "runtime",
) -> Recognising:
    """The recogniser of a packed file: a transducer alone, an acoustic model with `load_recogniser`'s graph.

    A CTC network is either, or takes an n-gram by ``lm_weight``, see `ctc_recogniser`.  ``beam`` counts
    hypotheses of a search without a graph, at least ``n``, and is a graph's width in cost.  ``label_reward``
    is a transducer's, see `BeamSearch`, and without one that of the recipe behind the file.
    """
    engines.check_engine(engine)
    packed = engines.read(model)
    if label_reward is not None and packed.model != "rnnt":
        raise ValueError(f"{model}: --label-reward is of a transducer, this is {packed.model}: leave it out.")
    if packed.model == "quartznet":
        return load_ctc_recogniser(
            model, packed, graph, arpa, acoustic_scale=acoustic_scale, word_penalty=word_penalty, beam=beam,
            lm_weight=lm_weight, n=n, engine=engine,
        )  # fmt: skip
    if lm_weight is not None:
        raise ValueError(
            f"{model}: --lm-weight is of a CTC network's beam, this is {packed.model}: leave it out."
        )
    if packed.model != "rnnt":
        return load_recogniser(
            model, graph, arpa, acoustic_scale=acoustic_scale, word_penalty=word_penalty,
            beam=GRAPH_BEAM if beam is None else beam, n=n, engine=engine, packed=packed,
        )  # fmt: skip
    if graph or arpa or acoustic_scale != 1.0 or word_penalty:
        raise ValueError(
            f"{model}: a transducer has no graph, so no --graph, --arpa, --acoustic-scale, --word-penalty: "
            "leave them out, and rescore its lists with `greenasr rescore`."
        )
    if beam is not None and not (beam >= 1 and float(beam).is_integer()):
        raise ValueError(
            f"--beam {beam:g}: a transducer's is a number of hypotheses, 1 or more; {BEAM} is usual."
        )
    if n < 0:
        raise ValueError(f"{n} hypotheses an utterance: expected 1 or more.")
    width = max(BEAM, n) if beam is None else int(beam)
    search = BeamSearch(width, nbest=max(n, 1), label_reward=reward_of(packed.recipe, label_reward))
    network, units = engines.transducer(model, packed, engine)
    return TransducerRecogniser(network, units, search)
