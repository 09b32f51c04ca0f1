"""Features as Gaussian mixtures like them: few cepstra, which hardly correlate, and their slopes in time.

    c_i   = √(2/F) Σ_b feats_b cos(π i (b + ½) / F),   c_0 by √½          from log-mel energies only
    Δ_t   = Σ_{k=-w}^{w} k x_{t+k} / Σ_k k²            ends repeated;   ΔΔ = Δ of Δ

Davis and Mermelstein 1980; Furui 1986; Kaldi's add-deltas with its window w = 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Feats = npt.NDArray[np.float32]


def add_deltas(feats: Feats, order: int = 2, window: int = 2) -> Feats:
    """Features and their first ``order`` slopes side by side, (T, F) -> (T, (order + 1) F).

    >>> add_deltas(np.arange(6, dtype=np.float32)[:, None], order=1)[2:4].tolist()
    [[2.0, 1.0], [3.0, 1.0]]
    """
    parts = [feats]
    norm = 2 * sum(k * k for k in range(1, window + 1))
    n = len(feats)
    for _ in range(order):
        x = np.pad(parts[-1], [(window, window), (0, 0)], mode="edge")
        slope = sum(
            k * (x[window + k : window + k + n] - x[window - k : window - k + n])
            for k in range(1, window + 1)
        )
        parts.append(np.asarray(slope, np.float32) / np.float32(norm))
    return np.hstack(parts)


def cepstra(fbank: Feats, count: int) -> Feats:
    """The first ``count`` cepstra of log-mel energies, (T, F) -> (T, count), a rotation if all are kept.

    >>> x = np.array([[1.0, 2.0, 4.0]], np.float32)
    >>> round(float((cepstra(x, 3) ** 2).sum()), 4)
    21.0
    """
    bins = fbank.shape[1]
    turn = np.cos(np.pi * np.outer(np.arange(bins) + 0.5, np.arange(count)) / bins) * np.sqrt(2 / bins)
    turn[:, 0] *= np.sqrt(0.5)
    found: Feats = fbank @ turn.astype(np.float32)
    return found


@dataclass(frozen=True)
class Frontend:
    """Stored features (T, F) to those of the mixtures, (T, (deltas + 1) · cepstra).

    ``kind`` says what comes in; 0 ``cepstra`` leaves it as it is.  Means should be taken away before, a
    speaker's rather than an utterance's (`data.features.Features`).

    >>> Frontend("fbank")(np.zeros((50, 40), np.float32)).shape
    (50, 39)
    """

    kind: Literal["mfcc", "fbank"] = "mfcc"
    cepstra: int = 13
    deltas: int = 2

    def __call__(self, feats: Feats) -> Feats:
        """The mixtures' features of one utterance."""
        if feats.ndim != 2 or feats.shape[1] < self.cepstra:
            raise ValueError(
                f"features are {feats.shape}, (T, {self.cepstra}) and more are needed for {self.cepstra} "
                "cepstra. Ask for fewer, or for 0 to take the features as they are."
            )
        if self.cepstra:
            feats = cepstra(feats, self.cepstra) if self.kind == "fbank" else feats[:, : self.cepstra]
        return add_deltas(feats, self.deltas)
