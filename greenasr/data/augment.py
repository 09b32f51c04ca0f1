"""More training data out of what there is: other speeds, and holes in the features.

    speed f       y(t) = x(f·t)      length n/f, every frequency times f, hence pitch and formants too
    SpecAugment   a few bands of f < F_mask bins and stretches of t < T_mask frames take the mean

Speed: Ko et al. 2015, "Audio augmentation for speech recognition" (0.9, 1.0, 1.1).  SpecAugment: Park et al.
2019, arXiv 1904.08779, without time warping, which they find to matter least; time masks are limited to a
share of the utterance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from greenasr.data.resample import resample

SPEEDS = (0.9, 1.0, 1.1)


def change_speed(samples: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """The samples spoken ``factor`` times as fast, (n,) -> (ceil(n/factor),); a tone of f Hz gets f·factor.

    >>> change_speed(np.zeros(900, np.float32), 0.9).shape
    (1000,)
    """
    if not 0.25 <= factor <= 4:
        raise ValueError(f"speed {factor}: expected a factor from 0.25 to 4, as 0.9 or 1.1.")
    ratio = Fraction(factor).limit_denominator(1000)
    return resample(samples, ratio.numerator, ratio.denominator)


@dataclass(frozen=True)
class SpecAugment:
    """How many masks, and how wide at most; widths and places are uniform.

    Bands of ``freq_width`` bins only make sense for filterbanks: neighbouring cepstra have nothing in
    common, so give MFCCs ``freq_masks=0``.  All time masks of an utterance together take at most
    ``time_share`` of its frames.

    >>> masked = SpecAugment(time_masks=0)(torch.randn(50, 40), torch.Generator().manual_seed(1))
    >>> masked.shape
    torch.Size([50, 40])
    """

    freq_masks: int = 2
    freq_width: int = 8
    time_masks: int = 2
    time_width: int = 30
    time_share: float = 0.2

    def __post_init__(self) -> None:
        """Refuse counts and widths that mean nothing."""
        if min(self.freq_masks, self.freq_width, self.time_masks, self.time_width) < 0:
            raise ValueError(f"{self}: counts and widths of masks are zero or more.")
        if not 0 <= self.time_share <= 1:
            raise ValueError(f"time_share {self.time_share}: expected a share from 0 to 1.")

    def to_json(self) -> dict[str, Any]:
        """A JSON value; ``SpecAugment(**value)`` reads it."""
        return asdict(self)

    def __call__(self, feats: Tensor, generator: torch.Generator) -> Tensor:
        """A masked copy of one utterance, (T, F) -> (T, F); masked values take their bin's mean over time.

        The mean is zero behind CMVN by utterance, which is the paper's mask.
        """
        return self.of_batch(feats[None], generator)[0]

    def of_batch(self, feats: Tensor, generator: torch.Generator) -> Tensor:
        """The same of utterances of one length, each with masks of its own, (N, T, F) -> (N, T, F)."""
        n, frames, bins = feats.shape
        share = int(self.time_share * frames)
        widest = min(self.time_width, share // max(1, self.time_masks))
        hidden_bins = _hidden(n, self.freq_masks, min(self.freq_width, bins), bins, generator)
        hidden_frames = _hidden(n, self.time_masks, widest, frames, generator)
        hidden = (hidden_bins[:, None] | hidden_frames[:, :, None]).to(feats.device)
        return torch.where(hidden, feats.mean(1, keepdim=True), feats)


def _hidden(n: int, masks: int, widest: int, length: int, generator: torch.Generator) -> Tensor:
    """What ``masks`` spans of 0 to ``widest`` places each hide of ``length``, (n, length)."""
    draws = torch.rand(n, masks, 2, generator=generator, dtype=torch.float64)
    widths = (draws[..., 0] * (widest + 1)).long()
    starts = (draws[..., 1] * (length - widths + 1)).long()
    places = torch.arange(length)
    spans = (places >= starts[..., None]) & (places < (starts + widths)[..., None])
    return spans.any(1)
