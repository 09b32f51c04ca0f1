"""What a keyword network sees of a clip, made of what is kept of sound: log-mel energies, F a frame.

    seen(stored)   cepstra where the network wants them, nothing above its band, behind CMVN of the clip

Shapes: N clips, T frames, F features.
"""

from __future__ import annotations

import math

import numpy as np

from greenasr.data.features import Feats, Features
from greenasr.data.spectrum import cepstra

BACKGROUND = "_background_"  # the class of no word
EMPTY = -16.0  # the log-mel energy of a band without sound
EDGES = tuple(1127 * math.log1p(hz / 700) for hz in (20.0, 7600.0))  # mel, see `data.spectrum`


def stored(features: Features) -> Features:
    """What is kept of sound for a network with these features: `seen` makes them of any part of it.

    ValueError for CMVN that parts do not have.
    """
    if features.cmvn not in ("utterance", "none"):
        raise ValueError(
            f'features with cmvn \'{features.cmvn}\' are not for clips: train with "utterance" or "none".'
        )
    kind = "fbank" if features.kind == "mfcc" else features.kind
    return Features(kind, features.bins, "none")


def seen(feats: Feats, features: Features, band: float = 0.0) -> Feats:
    """The network's features of those `stored`, (…, T, F): cepstra of log-mel energies, behind CMVN.

    With a ``band`` in Hz nothing is above it, whatever the sound's own rate.
    """
    if band:
        kept = bins_below(band, features.bins)
        feats = np.concatenate([feats[..., :kept], np.full_like(feats[..., kept:], EMPTY)], -1)
    if features.kind == "mfcc":
        feats = feats @ cepstra(features.bins)
    return feats - feats.mean(-2, keepdims=True) if features.cmvn == "utterance" else feats


def bins_below(hz: float, bins: int) -> int:
    """How many of so many mel bins lie below a frequency with all that they hear.

    >>> bins_below(4000.0, 64), bins_below(8000.0, 64)
    (48, 64)
    """
    return max(0, min(bins, math.floor((1127 * math.log1p(hz / 700) - EDGES[0]) / bin_width(bins)) - 1))


def bin_width(bins: int) -> float:
    """Mel from one of so many bins to the next."""
    return (EDGES[1] - EDGES[0]) / (bins + 1)
