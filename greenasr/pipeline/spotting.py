"""Keywords in a stream: a window slides over it, and where one word is likely all along, it was said.

    p_k(t) = mean over the last ``smooth`` seconds of softmax(network(window that ends at t))_k
    a word k: windows one after another in which p_k is the largest and at least ``threshold``
              confidence = their largest p_k,    time = Σ t p_k(t) / Σ p_k(t)

Posteriors are smoothed as in Chen, Parada and Heigold 2014 ("Small-footprint keyword spotting using deep
neural networks", §2.3).  A word is told when its windows end, at the latest after `LONGEST` seconds; the next
one may begin ``rest`` seconds later.
Windows are as long as training clips, whose words lie about their middle, so a word's time is the middle of
its windows.  Before and behind the sound its background is thought to go on, as in training clips, so
words at its ends are found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from greenasr.data.clip_features import BACKGROUND, seen, stored
from greenasr.data.clips import quiet
from greenasr.data.feature_stream import FeatureStream
from greenasr.data.features import RATE, SHIFT, Feats
from greenasr.data.streams import Samples
from greenasr.decode.transducer import log_softmax
from greenasr.pipeline.engines import Classifier
from greenasr.pipeline.units import KeywordUnits

FRAME = SHIFT / RATE  # seconds
LONGEST = 1.0  # seconds of one word
AT_ONCE = 128  # windows whose features are held


@dataclass(frozen=True)
class Spotting:
    """What is a word: its least confidence, seconds between windows, of smoothing, and of rest."""

    threshold: float = 0.8
    hop: float = 0.05
    smooth: float = 0.2
    rest: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what would find everything or nothing."""
        if not 0 < self.threshold < 1:
            raise ValueError(f"a confidence is above 0 and below 1, the threshold is {self.threshold:g}.")
        if not FRAME <= self.hop <= 1 or not 0 <= self.smooth <= 2 or not 0 <= self.rest <= 10:
            raise ValueError(
                f"windows every {self.hop:g} s, smoothed over {self.smooth:g} s, rest {self.rest:g} s: "
                f"expected {FRAME:g} to 1, 0 to 2, and 0 to 10 seconds."
            )


@dataclass(frozen=True)
class Spotted:
    """A word of a source, the second at which it is said, and the network's confidence, 0 to 1."""

    source: str
    word: str
    time: float
    confidence: float

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        found = {"time": round(self.time, 2), "confidence": round(self.confidence, 4)}
        return {"source": self.source, "word": self.word, **found}

    def line(self) -> str:
        """For people: source, time, word, confidence."""
        return f"{self.source} {self.time:.2f} {self.word} {self.confidence:.2f}\n"


def keywords_in(
    network: Classifier,
    units: KeywordUnits,
    blocks: Iterable[Samples],
    rate: int,
    source: str,
    settings: Spotting | None = None,
) -> Iterator[Spotted]:
    """Words of a sound of any length, as soon as they are certain."""
    spotter = Spotter(network, units, rate, source, settings or Spotting())
    for block in blocks:
        yield from spotter.push(block)
    yield from spotter.end()


class Spotter:
    """One source: samples in pieces of any size in, words out."""

    def __init__(self, network: Classifier, units: KeywordUnits, rate: int, source: str, settings: Spotting):
        self.network, self.units, self.source, self.settings = network, units, source, settings
        self.stored = stored(units.features)
        self.stream = FeatureStream(self.stored, rate)
        self.hop = max(1, round(settings.hop / FRAME))
        self.before = units.frames // 2  # frames thought before the sound, and behind it
        self.kept = np.zeros((0, units.features.bins), np.float32)
        self.begun = False
        self.at = 0  # the frame of the padded sound that ``kept`` begins with, where the next window begins
        self.last: deque[np.ndarray] = deque(maxlen=max(1, round(settings.smooth / settings.hop)))
        self.runs = Runs(settings)

    def push(self, samples: Samples) -> list[Spotted]:
        """The next samples; words that have become certain."""
        return self._next(self.stream(samples), last=False)

    def end(self) -> list[Spotted]:
        """The words that were still uncertain."""
        found = self._next(self.stream.rest(), last=True)
        return found + self._named(self.runs.end())

    def _next(self, feats: Feats, last: bool) -> list[Spotted]:
        self.kept = np.concatenate([self.kept, feats])
        frames, found = self.units.frames, []
        if not len(self.kept) or not (self.begun or last or len(self.kept) >= self.before):
            return []
        if not self.begun:
            self.begun, self.kept = True, np.concatenate([self._around(self.before), self.kept])
        if last:
            self.kept = np.concatenate([self.kept, self._around(self.before + self.hop)])
        while (count := min(AT_ONCE, (len(self.kept) - frames) // self.hop + 1)) > 0:
            starts = self.hop * np.arange(count)
            windows = self.kept[starts[:, None] + np.arange(0, frames, self.units.every)]
            for start, posterior in zip(starts, self._posteriors(windows), strict=True):
                self.last.append(posterior)
                middle = float(self.at + start - self.before + frames / 2) * FRAME
                time = middle - (len(self.last) - 1) / 2 * self.hop * FRAME
                found += self._named(self.runs.push(time, np.mean(self.last, axis=0)))
            self.kept, self.at = self.kept[count * self.hop :], self.at + count * self.hop
        return found

    def _around(self, frames: int) -> Feats:
        """What is thought to lie beyond the sound, (frames, F): its background, or as NeMo pads zeros."""
        if self.stored.kind == "fbank":
            return quiet(self.kept, frames)
        return np.zeros((frames, self.stored.dim), np.float32)

    def _posteriors(self, windows: Feats) -> np.ndarray:
        """Of every word, without that of no word, (windows, C)."""
        units = self.units
        logits = np.stack([self.network.logits(each) for each in seen(windows, units.features, units.band)])
        if not np.isfinite(logits).all():
            raise ValueError(f"{self.source}: the network's outputs are not finite: train it again.")
        words = [word != BACKGROUND for word in units.words]
        found: np.ndarray = np.exp(log_softmax(logits)[:, words]).astype(np.float64)
        return found

    def _named(self, runs: list[tuple[float, int, float]]) -> list[Spotted]:
        words = [word for word in self.units.words if word != BACKGROUND]
        return [Spotted(self.source, words[k], max(0.0, time), p) for time, k, p in runs]


class Runs:
    """Windows one after another that hold one word, of posteriors that arrive one after another."""

    def __init__(self, settings: Spotting):
        self.settings = settings
        self.word = -1
        self.times: list[float] = []
        self.confidences: list[float] = []
        self.rested = -np.inf  # when the next word may be said

    def push(self, time: float, posterior: np.ndarray) -> list[tuple[float, int, float]]:
        """The posteriors (C,) at a time -> (time, word, confidence) of a word that has ended."""
        word = int(posterior.argmax())
        confidence, found = float(posterior[word]), []
        sure = confidence >= self.settings.threshold
        if self.times and (not sure or word != self.word or time - self.times[0] > LONGEST):
            found = self.end()
        if sure and time >= self.rested:
            self.word = word
            self.times.append(time)
            self.confidences.append(confidence)
        return found

    def end(self) -> list[tuple[float, int, float]]:
        """The word that there is."""
        if not self.times:
            return []
        time = float(np.average(self.times, weights=self.confidences))
        found = [(time, self.word, max(self.confidences))]
        self.rested = time + self.settings.rest
        self.times, self.confidences = [], []
        return found
