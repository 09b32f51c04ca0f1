"""Samples to features: 40 log-mel energies or 40 high-resolution cepstra, 100 frames a second.

    fbank_b = log max(ε, Σ_k H_b(k) |X(k)|²)             40 triangles from 20 to 7,600 Hz, even in mel
    mfcc_i  = (1 + 11 sin(π i / 22)) · √(2/40) Σ_b fbank_b cos(π i (b + ½) / 40)     i = 0 … 39, i = 0 by √½
    cmvn    : feats - mean over the utterance's, or the speaker's, frames, or those of the utterance so far

Windows of 25 ms every 10 ms ("povey"), without their mean, pre-emphasis 0.97, no dither: Kaldi's
mfcc_hires.conf (Davis & Mermelstein 1980), computed in `spectrum`.  All 40 cepstra are kept, so a MFCC is a
rotated and stretched fbank and loses nothing.  Samples lie in -1 … 1 as everywhere in lhotse; Kaldi's are
32,768 times larger, which adds 20.79 to a log-mel energy and is gone after CMVN.  The floor ε = 2^-23 is
near the noise of 16-bit samples, so digital silence looks like a silent microphone.  Imported networks have
NeMo's front ends instead, `nemo_features`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from greenasr.data import nemo_features, spectrum
from greenasr.data.spectrum import RATE as RATE
from greenasr.data.spectrum import SHIFT as SHIFT
from greenasr.data.spectrum import WINDOW as WINDOW  # also the least that an utterance must have

Feats = NDArray[np.float32]
NEMO = {"nemo_mel": nemo_features.nemo_mel, "nemo_mfcc": nemo_features.nemo_mfcc}
AHEAD = {"fbank": 280, "mfcc": 280, "nemo_mel": 160, "nemo_mfcc": 200}
KINDS = ("fbank", "mfcc", *NEMO)
CMVN = ("utterance", "speaker", "running", "deviation", "none")


def n_frames(n_samples: int) -> int:
    """Frames of an utterance: one every 10 ms, the last one where half a shift is left.

    >>> n_frames(16_000), n_frames(16_079), n_frames(16_080)
    (100, 100, 101)
    """
    return (n_samples + SHIFT // 2) // SHIFT


def cmvn(feats: Feats, mean: Feats | None = None, std: Feats | None = None) -> Feats:
    """(feats - mean) / std, (T, F) -> (T, F); the mean is the frames' own unless given, std 1 unless given.

    Means alone, as Kaldi's cmvn by default: deviations of a short utterance tell more of its words.

    >>> cmvn(np.array([[1.0], [3.0]], np.float32)).tolist()
    [[-1.0], [1.0]]
    """
    if mean is None:
        mean = feats.mean(0, dtype=np.float64).astype(np.float32)
    centred: Feats = feats - mean
    if std is not None:
        centred /= np.maximum(std, 1e-5)
    return centred


class MeanSoFar:
    """CMVN of a stream: feats_t - mean of all frames up to and with t, in pieces of any size.

    >>> mean = MeanSoFar()
    >>> [mean(np.array(part, np.float32)).tolist() for part in ([[1.0], [3.0]], [[5.0]])]
    [[[0.0], [1.0]], [[2.0]]]
    """

    def __init__(self) -> None:
        self.total: np.ndarray[Any, np.dtype[np.float64]] | float = 0.0
        self.frames = 0

    def __call__(self, feats: Feats) -> Feats:
        """The next frames (T, F) -> without their running mean (T, F)."""
        if not len(feats):
            return feats
        totals = self.total + np.cumsum(feats, 0, dtype=np.float64)
        count = self.frames + np.arange(1, len(feats) + 1)[:, None]
        self.total, self.frames = totals[-1], self.frames + len(feats)
        centred: Feats = (feats - totals / count).astype(np.float32)
        return centred


@dataclass(frozen=True)
class Features:
    """What the network sees of the samples; saved with every model, since it must not change.

    ``cmvn`` "speaker" takes away the mean over all that a speaker said, where it is known; "running" the mean
    of the utterance so far, which a stream has as well; "deviation" also divides by the deviation of the
    utterance, NeMo's "per_feature".

    >>> Features("mfcc")(np.zeros(16_000, np.float32)).shape
    (100, 40)
    """

    kind: Literal["fbank", "mfcc", "nemo_mel", "nemo_mfcc"] = "fbank"
    bins: int = 40
    cmvn: Literal["utterance", "speaker", "running", "deviation", "none"] = "utterance"

    def __post_init__(self) -> None:
        """Refuse what no extractor offers."""
        if self.kind not in KINDS:
            raise ValueError(
                f"features of kind '{self.kind}': expected 'fbank' or 'mfcc', or NeMo's "
                f"{', '.join(map(repr, NEMO))}."
            )
        if self.cmvn not in CMVN:
            raise ValueError(f"cmvn '{self.cmvn}': expected {', '.join(CMVN[:-1])} or {CMVN[-1]}.")
        if not 4 <= self.bins <= 128:
            raise ValueError(f"{self.bins} bins: expected 4 to 128, 40 is usual.")

    @property
    def dim(self) -> int:
        """F, values a frame."""
        return self.bins

    @property
    def ahead(self) -> int:
        """Samples from 160 t on that frame t sees."""
        return AHEAD[self.kind]

    def frames(self, n_samples: int) -> int:
        """T of so many samples."""
        if self.kind in NEMO:
            return n_samples // SHIFT + (self.kind != "nemo_mel")
        return n_frames(n_samples)

    def raw(self, samples: NDArray[np.float32]) -> Feats:
        """Features before CMVN, samples (n,) at 16 kHz -> (T, F), T = `n_frames` (n) or as NeMo counts.

        Raises ValueError for more than one channel, less than one window, and NaN or infinite samples.
        """
        if samples.ndim != 1:
            raise ValueError(
                f"features want one channel, (n,), found {samples.shape}: choose or mix channels."
            )
        if len(samples) < WINDOW:
            raise ValueError(
                f"{len(samples)} samples are less than the {WINDOW} of one window (25 ms): "
                "leave such audio out."
            )
        if not np.isfinite(samples).all():
            at = int(np.flatnonzero(~np.isfinite(samples))[0])
            raise ValueError(
                f"sample {at} of {len(samples)} is {samples[at]}: the audio is damaged, "
                "decode or record it again."
            )
        samples = samples.astype(np.float32, copy=False)
        if self.kind in NEMO:
            return NEMO[self.kind](samples, self.bins)
        extract = spectrum.fbank if self.kind == "fbank" else spectrum.mfcc
        return extract(samples, n_frames(len(samples)), self.bins)

    def normalised(self, feats: Feats, mean: Feats | None = None) -> Feats:
        """What CMVN makes of raw features, (T, F) -> (T, F); ``mean`` (F,) is the speaker's, if known.

        Without one, "speaker" takes the utterance's: it is then all that is known of the speaker.
        """
        if self.cmvn == "none":
            return feats
        if self.cmvn == "running":
            return MeanSoFar()(feats)
        if self.cmvn == "deviation":
            deviation = feats.std(0, ddof=1, dtype=np.float64) if len(feats) > 1 else np.zeros(self.dim)
            return cmvn(feats, std=(deviation + 1e-5).astype(np.float32))
        return cmvn(feats, mean if self.cmvn == "speaker" else None)

    def __call__(self, samples: NDArray[np.float32], mean: Feats | None = None) -> Feats:
        """Samples (n,) at 16 kHz in -1 … 1 -> features (T, F) behind CMVN; see `raw`, `normalised`."""
        return self.normalised(self.raw(samples), mean)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {"format": "greenasr features 1", **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Features:
        """Read what `to_json` wrote."""
        if value.get("format") != "greenasr features 1":
            raise ValueError(
                "not feature settings: 'format' should be 'greenasr features 1'. Take them from a model."
            )
        return cls(value["kind"], int(value["bins"]), value["cmvn"])
