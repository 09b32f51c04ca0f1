"""Band-limited resampling: the same sound on another grid of times.

    y[n] = Σ_m x[m] · 2f · sinc(2f (t_n - m)) · w(t_n - m),     t_n = n·p/q,   f = ½ · min(1, q/p) · rolloff

w is a Hann window of `ZEROS` zero crossings a side.  The fraction n·p/q repeats after q outputs, so q
short filters serve all of them, each applied every p input samples as one strided convolution.
J. O. Smith, "Digital Audio Resampling" (ccrma.stanford.edu/~jos/resample); the polyphase arrangement is
that of Kaldi's feat/resample.cc.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

ZEROS = 24  # zero crossings of the sinc a side: the transition takes about 1/24 of the band
ROLLOFF = 0.97  # where the pass band ends, as a share of the lower of both Nyquist frequencies
AT_ONCE = 1 << 18  # numbers of overlapping windows that are copied at a time
LARGEST = 50_000  # of p and q after reduction; beyond it the two rates are hardly related


@lru_cache(maxsize=32)
def _filters(p: int, q: int) -> tuple[NDArray[np.float32], int]:
    """The q filters of ratio p/q, (K, q), and how many samples they reach back."""
    band = ROLLOFF * min(1.0, q / p)
    reach = ceil(ZEROS / band)
    taps = np.arange(-reach, reach + p)
    away = np.arange(q)[:, None] * p / q - taps  # t_n - m, (q, K)
    window = np.where(np.abs(away) < reach, np.cos(np.pi * away / (2 * reach)) ** 2, 0.0)
    filters = band * np.sinc(band * away) * window
    return np.ascontiguousarray(filters.T, np.float32), reach


def resample(samples: NDArray[np.float32], source: int, target: int) -> NDArray[np.float32]:
    """Samples at rate ``source`` as samples at rate ``target``, (n,) -> (ceil(n·target/source),).

    Beyond both ends is silence.  Equal rates return the samples as they are.

    >>> resample(np.ones(480, np.float32), 48_000, 16_000).shape
    (160,)
    """
    if samples.ndim != 1:
        raise ValueError(
            f"resampling wants one channel, (n,), found {samples.shape}: choose or mix channels."
        )
    p, q = _ratio(source, target)
    if p == q or not len(samples):
        return samples
    filters, reach = _filters(p, q)
    wanted = -(-len(samples) * q // p)
    blocks = -(-wanted // q)
    behind = max(0, (blocks - 1) * p + len(filters) - reach - len(samples))
    padded = np.pad(samples.astype(np.float32, copy=False), (reach, behind))
    windows = sliding_window_view(padded, len(filters))[::p]
    found = np.empty((blocks, q), np.float32)
    at_once = max(1, AT_ONCE // len(filters))  # a product wants its windows copied out of their overlap
    for at in range(0, blocks, at_once):
        piece = np.ascontiguousarray(windows[at : min(at + at_once, blocks)])
        np.matmul(piece, filters, out=found[at : at + len(piece)])
    return found.reshape(-1)[:wanted]


class Resampling:
    """`resample` of a stream: what its pieces give is what the whole gives, piece by piece.

    A sample is given once those that its filter reaches have come: 24.7 of the slower rate's, at 8 kHz 3 ms.

    >>> stream = Resampling(48_000, 16_000)
    >>> parts = [stream(part) for part in np.split(np.ones(4_800, np.float32), [7, 2_000])] + [stream.rest()]
    >>> np.allclose(np.concatenate(parts), resample(np.ones(4_800, np.float32), 48_000, 16_000), atol=1e-6)
    True
    """

    def __init__(self, source: int, target: int):
        self.source, self.target = source, target
        self.p, self.q = _ratio(source, target)
        self.kept = np.zeros(0, np.float32)
        self.at, self.done, self.heard = 0, 0, 0  # where ``kept`` begins, samples given, samples taken

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next samples -> those at the other rate that they make certain."""
        return self._next(samples, last=False)

    def rest(self) -> NDArray[np.float32]:
        """What is left at the stream's end."""
        return self._next(self.kept[:0], last=True)

    def _next(self, samples: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        p, q = self.p, self.q
        if p == q:
            return samples
        reach = _filters(p, q)[1]
        self.kept, self.heard = np.concatenate([self.kept, samples]), self.heard + len(samples)
        certain = -(-self.heard * q // p) if last else max(0, (self.heard - reach) * q // p)
        if certain <= self.done:
            return samples[:0]
        found = resample(self.kept, self.source, self.target)
        first = self.at // p * q
        given, self.done = found[self.done - first : certain - first], certain
        unneeded = max(0, (self.done * p // q - reach - self.at) // p * p)  # by whole periods of the filters
        self.kept, self.at = self.kept[unneeded:], self.at + unneeded
        return given


def _ratio(source: int, target: int) -> tuple[int, int]:
    """Both rates without their common factor; ValueError for those that filters cannot be made of."""
    if source < 1 or target < 1:
        raise ValueError(f"cannot resample from {source} to {target} a second: rates are positive integers.")
    p, q = source // gcd(source, target), target // gcd(source, target)
    if max(p, q) > LARGEST:
        raise ValueError(
            f"cannot resample from {source} to {target} a second: reduced, the ratio is {p}/{q}, "
            f"beyond {LARGEST}; convert the audio to a usual rate first."
        )
    return p, q
