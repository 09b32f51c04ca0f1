"""More clips out of what there are, a whole batch at once and without touching a sample.

    log-mel of speech and noise at once  ≈  log(e^s + g e^n),     g so that Σ e^s / Σ g e^n is the SNR drawn

Power adds where signals are unrelated (the cross term has mean 0), so noise is mixed into log-mel energies,
which lie in memory, moved in time and masked there; cepstra are made last.

Shapes: N clips, T frames, F log-mel energies, M frames of noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from greenasr.data.augment import SpecAugment
from greenasr.data.clip_features import EDGES, bin_width
from greenasr.data.features import RATE, Features
from greenasr.data.rooms import COLOURS, coloured_noise

SECONDS = 20  # of every colour of generated noise


@dataclass(frozen=True)
class ClipAugment:
    """What happens to clips of training: moved by up to ``shift`` frames, louder or softer by ``gain`` dB.

    Frequencies are multiplied by up to 1 ± ``warp``.  The share ``noise`` of clips gets noise at an SNR in dB
    between the two of ``snr``; then ``masks``.
    """

    shift: int = 10
    noise: float = 0.8
    snr: tuple[float, float] = (0.0, 30.0)
    gain: float = 10.0
    warp: float = 0.0
    masks: SpecAugment = SpecAugment(time_masks=2, time_width=25, freq_masks=2, freq_width=15)

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.shift < 0 or self.gain < 0 or not 0 <= self.warp <= 0.5:
            raise ValueError(
                f"shift {self.shift} and gain {self.gain:g} must not be negative, warp {self.warp:g} is "
                "from 0 to 0.5."
            )
        if not 0 <= self.noise <= 1 or len(self.snr) != 2:
            raise ValueError(
                f"noise {self.noise:g} is a share from 0 to 1, snr {self.snr} two figures in dB."
            )

    def __call__(self, feats: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        """A changed copy of log-mel energies, (N, T, F), with ``noise`` powers (M, F) of M >= T frames."""
        n, frames, _ = feats.shape

        def draw(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(n, generator=generator)

        moved = moved_by(feats, draw(-self.shift, self.shift + 1).floor().long())
        if self.warp:
            moved = warped_by(moved, draw(1 - self.warp, 1 + self.warp))
        power = moved.exp() * 10 ** (draw(-self.gain, self.gain) / 10)[:, None, None]
        starts = torch.randint(len(noise) - frames + 1, (n,), generator=generator)
        heard = noise[starts[:, None] + torch.arange(frames)]
        mixed = mixed_at(power, heard, draw(*self.snr))
        chosen = (torch.rand(n, generator=generator) < self.noise)[:, None, None]
        power = torch.where(chosen, mixed, power)
        return self.masks.of_batch(power.clamp(min=2.0**-23).log(), generator)


def moved_by(feats: Tensor, frames: Tensor) -> Tensor:
    """Clips later by so many frames each (N,), earlier where negative, their ends repeated; (N, T, F).

    >>> moved_by(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([1]))[0, :, 0].tolist()
    [1.0, 1.0, 2.0]
    """
    length = feats.shape[1]
    places = (torch.arange(length) - frames[:, None]).clamp(0, length - 1)
    return feats[torch.arange(len(feats))[:, None], places]


def warped_by(feats: Tensor, factors: Tensor) -> Tensor:
    """Clips whose every frequency is multiplied by a factor each (N,), as by another vocal tract; (N, T, F).

    The energy at f comes from f / factor, between two mel bins by a straight line.
    Jaitly and Hinton 2013, "Vocal tract length perturbation (VTLP) improves speech recognition".

    >>> warped_by(torch.arange(40.0).repeat(1, 1, 1), torch.ones(1))[0, 0, :3].tolist()
    [0.0, 1.0, 2.0]
    """
    bins = feats.shape[2]
    hz = 700 * torch.expm1((EDGES[0] + bin_width(bins) * torch.arange(1, bins + 1)) / 1127)
    places = (1127 * torch.log1p(hz / factors[:, None] / 700) - EDGES[0]) / bin_width(bins) - 1  # (N, F)
    places = places.clamp(0, bins - 1)
    below = places.floor().clamp(max=bins - 2)
    share = (places - below)[:, None]
    index = below.long()[:, None].expand(-1, feats.shape[1], -1)
    return feats.gather(2, index) * (1 - share) + feats.gather(2, index + 1) * share


def mixed_at(power: Tensor, noise: Tensor, snr: Tensor) -> Tensor:
    """Powers of speech and noise (N, T, F) as heard together, the noise ``snr`` dB (N,) below the speech."""
    ratio = power.sum((1, 2)) / noise.sum((1, 2)).clamp(min=torch.finfo(noise.dtype).tiny)
    return power + (ratio * 10 ** (-snr / 10))[:, None, None] * noise


def noise_powers(recorded: Sequence[np.ndarray], bins: int, seed: int = 0) -> Tensor:
    """Mel powers of noise, (M, F): of recordings' log-mel energies (T, F), or of generated noise.

    Each source is scaled to a mean power of 1, since an SNR is asked of it.
    """
    if not recorded:
        rng, extractor = np.random.default_rng(seed), Features("fbank", bins, "none")
        sounds = [coloured_noise(SECONDS * RATE, exponent, rng) for exponent in COLOURS.values()]
        recorded = [extractor.raw(0.1 * sound) for sound in sounds]
    powers = [torch.from_numpy(np.asarray(each, np.float32)).exp() for each in recorded]
    return torch.cat([each / each.mean() for each in powers])
