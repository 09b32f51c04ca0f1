"""Features of a stream: samples in pieces of any size, the frames of the whole as soon as they are certain.

    frame t sees the samples 160 t - 120 … 160 t + 279: it is certain 12.5 ms behind its middle

(NeMo's see 160 t - 200 … 160 t + 199, or with pre-emphasis 160 t - 161 … 160 t + 159: 12.5 and 10 ms)

and at other rates than 16 kHz what the resampling's filter reaches later, 3 ms at 8 kHz.  The first frame
waits for a whole window, 20 ms: less than that is no utterance.  Interior frames do not know how much was
heard; at both ends windows are reflected, as `features` has it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from greenasr.data.features import RATE, SHIFT, WINDOW, Feats, Features, MeanSoFar
from greenasr.data.resample import Resampling

STREAMED = ("running", "none")  # CMVN that a stream can have


class FeatureStream:
    """The features of one utterance while it is being said, behind CMVN.

    Raises ValueError for features whose CMVN needs the whole utterance.
    """

    def __init__(self, features: Features, rate: int = RATE):
        if features.cmvn not in STREAMED:
            raise ValueError(
                f"features with cmvn '{features.cmvn}' need the whole utterance: a model that streams is "
                f"trained with cmvn {' or '.join(map(repr, STREAMED))}."
            )
        self.features, self.resampling = features, Resampling(rate, RATE)
        self.mean = MeanSoFar()
        self.kept = np.zeros(0, np.float32)
        self.at, self.frames = 0, 0  # the frame that ``kept`` begins with, frames given

    def __call__(self, samples: NDArray[np.float32]) -> Feats:
        """The next samples -> the frames that they make certain, (T, F)."""
        return self._next(self.resampling(samples), last=False)

    def rest(self) -> Feats:
        """The last frames, (T, F); none of an utterance that is shorter than a window."""
        return self._next(self.resampling.rest(), last=True)

    def _next(self, samples: NDArray[np.float32], last: bool) -> Feats:
        self.kept = np.concatenate([self.kept, samples])
        heard = self.at * SHIFT + len(self.kept)
        features = self.features
        certain = features.frames(heard) if last else max(0, (heard - features.ahead) // SHIFT + 1)
        if certain <= self.frames or len(self.kept) < WINDOW:
            return np.zeros((0, self.features.dim), np.float32)
        raw = self.features.raw(self.kept)[self.frames - self.at : certain - self.at]
        self.frames = certain
        unneeded = max(0, self.frames - 3 - self.at)  # the next frame sees samples before it
        self.kept, self.at = self.kept[unneeded * SHIFT :], self.at + unneeded
        return self.mean(raw) if self.features.cmvn == "running" else raw
