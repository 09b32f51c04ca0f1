"""Clips of one word each: a second of features, whatever the clip's length, and what is odd about them.

    second_of(feats)   (T, F) -> (100, F)     shorter: its background goes on; longer: its loudest second
    census(cuts)       how many are shorter, longer, silent, clipped

Speech Commands' clips are a second long or a little less, and some hold nothing: all of them are kept, since
the official test set has them, and counted.  A clip beyond `LONGEST` is no clip of a word and is refused.
Features are log-mel energies before CMVN.  A shorter clip is continued by its own background, not by zeros:
how far a word rises out of nothing tells of the microphone.  The background of a clip that is cut where the
word begins and ends is what every band has when it has least, as in minimum statistics (Martin 2001).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from greenasr.data import audio
from greenasr.data.features import RATE, SHIFT, Feats

if TYPE_CHECKING:
    from lhotse.cut import Cut

FRAMES = RATE // SHIFT  # of a second
LEAST = 0.05  # share of a band's frames that are its background
LONGEST = 10.0  # seconds
SILENT = 1e-4  # root of the mean square, 80 dB below full scale
FULL, CLIPPED = 0.999, 1e-3  # samples at full scale; the share of them that is heard


def second_of(feats: Feats, frames: int = FRAMES) -> Feats:
    """``frames`` of a clip's log-mel energies, (T, F) -> (frames, F).

    >>> second_of(np.arange(6, dtype=np.float32)[:, None], 9)[:, 0].tolist()
    [0.25, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.25, 0.25]
    >>> second_of(np.array([[1], [2], [9], [8]], np.float32), 2)[:, 0].tolist()
    [9.0, 8.0]
    """
    found = len(feats)
    if found <= frames:
        before = (frames - found) // 2
        return np.concatenate([quiet(feats, before), feats, quiet(feats, frames - found - before)])
    energy = np.concatenate([[0.0], np.cumsum(np.exp(feats.astype(np.float64)).sum(1))])
    start = int(np.argmax(energy[frames:] - energy[:-frames]))
    return feats[start : start + frames].astype(np.float32)


def quiet(feats: Feats, frames: int) -> Feats:
    """The background of a sound: below it lie `LEAST` of each band's energies, (T, F) -> (frames, F)."""
    return np.tile(np.quantile(feats, LEAST, axis=0).astype(np.float32), (frames, 1))


def samples(cut: Cut) -> NDArray[np.float32]:
    """A clip's samples at 16 kHz, (n,); ValueError for one of more than `LONGEST` seconds."""
    if cut.duration > LONGEST:
        raise ValueError(
            f"clip '{cut.id}' is {cut.duration:.1f} s long, a word has at most {LONGEST:g}: cut it, or take "
            "it out of the folder of its word."
        )
    return audio.samples(cut)


def census(
    cuts: Iterable[Any], progress: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, int]:
    """How many clips there are, and how many are shorter or longer than a second, silent, or clipped."""
    found = {"clips": 0, "shorter": 0, "longer": 0, "silent": 0, "clipped": 0}
    clips = list(cuts)
    for cut in clips:
        heard = samples(cut)
        found["clips"] += 1
        found["shorter"] += len(heard) < RATE
        found["longer"] += len(heard) > RATE
        found["silent"] += float(np.sqrt(np.mean(np.square(heard, dtype=np.float64)))) < SILENT
        found["clipped"] += float(np.mean(np.abs(heard) >= FULL)) > CLIPPED
        progress(found["clips"], len(clips))
    return found
