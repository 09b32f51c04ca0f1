"""NeMo's two front ends in NumPy, so that networks trained on them hear what they know.

    mel    pre-emphasis 0.97, 20 ms Hann windows every 10 ms, |FFT₅₁₂|², triangles even in Slaney's mel from
           0 to 8 kHz and of equal area, log(x + 2^-24)                   AudioToMelSpectrogramPreprocessor
    mfcc   25 ms Hann windows every 10 ms, |FFT₅₁₂|², triangles even in HTK's mel from 0 to 8 kHz,
           log(x + 1e-6), orthonormal cosine transform                    AudioToMFCCPreprocessor

Frames are centred on every 160th sample, with zeros outside for mel and reflection for mfcc.  Dither is for
training and left out.  Defaults of NeMo 1 and 2 (`FilterbankFeatures`; torchaudio's `MFCC`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from greenasr.data.spectrum import FFT, PREEMPHASIS, RATE, SHIFT

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Scale = Literal["slaney", "htk"]
WINDOWS = {"slaney": 320, "htk": 400}
BREAK_HZ, BREAK_MEL = 1000.0, 15.0  # Slaney's mel: linear below, logarithmic above
LOG_STEP = np.log(6.4) / 27
AT_ONCE = 512  # frames whose spectra are held at a time


def nemo_mel(samples: Floats, bins: int) -> Floats:
    """(n,) at 16 kHz -> (n // 160, bins)."""
    flat = np.concatenate([samples[:1], samples[1:] - np.float32(PREEMPHASIS) * samples[:-1]])
    half = np.zeros(FFT // 2, np.float32)
    padded = np.concatenate([half, flat, half])
    power = _powers(padded, len(samples) // SHIFT, hann(WINDOWS["slaney"], periodic=False))
    return np.log(power @ triangles(bins, "slaney") + np.float32(2.0**-24))


def nemo_mfcc(samples: Floats, bins: int) -> Floats:
    """(n,) at 16 kHz -> (n // 160 + 1, bins), as many cepstra as triangles."""
    padded = np.pad(samples, FFT // 2, mode="reflect")
    power = _powers(padded, len(samples) // SHIFT + 1, hann(WINDOWS["htk"], periodic=True))
    energies: Floats = np.log(power @ triangles(bins, "htk") + np.float32(1e-6)) @ cosines(bins)
    return energies


@lru_cache(maxsize=8)
def triangles(bins: int, scale: Scale) -> Floats:
    """Weights of every line of the spectrum in every bin, (257, bins)."""
    lines = np.arange(FFT // 2 + 1) * RATE / FFT
    top = hz_to_mel(np.array(RATE / 2), scale)
    edges = mel_to_hz(np.linspace(0, float(top), bins + 2), scale)
    up = (lines[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    down = (edges[2:] - lines[:, None]) / np.diff(edges)[1:]
    found = np.minimum(up, down).clip(0)
    if scale == "slaney":
        found *= 2 / (edges[2:] - edges[:-2])
    return found.astype(np.float32)


def hz_to_mel(hertz: Doubles, scale: Scale) -> Doubles:
    """Slaney's mel (Auditory Toolbox 1998) or HTK's.

    >>> float(hz_to_mel(np.array(60.0), "slaney"))
    0.9
    """
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    above = BREAK_MEL + np.log(np.maximum(hertz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hertz < BREAK_HZ, hertz * BREAK_MEL / BREAK_HZ, above)


def mel_to_hz(mel: Doubles, scale: Scale) -> Doubles:
    """The inverse of `hz_to_mel`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = BREAK_HZ * np.exp(LOG_STEP * (np.maximum(mel, BREAK_MEL) - BREAK_MEL))
    return np.where(mel < BREAK_MEL, mel * BREAK_HZ / BREAK_MEL, above)


@lru_cache(maxsize=8)
def cosines(bins: int) -> Floats:
    """The orthonormal cosine transform, (bins, bins)."""
    i, b = np.arange(bins), np.arange(bins)[:, None]
    transform = np.sqrt(2 / bins) * np.cos(np.pi * i * (b + 0.5) / bins)
    transform[:, 0] *= np.sqrt(0.5)
    return transform.astype(np.float32)


def hann(width: int, periodic: bool) -> Floats:
    """A Hann window in the middle of 512 samples, as torch.stft places it, (512,)."""
    n = np.arange(width)
    window = np.zeros(FFT, np.float32)
    before = (FFT - width) // 2
    window[before : before + width] = 0.5 - 0.5 * np.cos(2 * np.pi * n / (width if periodic else width - 1))
    return window


def _powers(padded: Floats, frames: int, window: Floats) -> Floats:
    """|FFT|² of the windows that begin at 0, 160, …, (frames, 257)."""
    views: NDArray[Any] = sliding_window_view(padded, FFT)[::SHIFT][:frames]
    out = np.empty((frames, FFT // 2 + 1), np.float32)
    for at in range(0, frames, AT_ONCE):
        spectrum = np.fft.rfft(views[at : at + AT_ONCE] * window)
        out[at : at + AT_ONCE] = spectrum.real**2 + spectrum.imag**2
    return out
