"""Noise and rooms: what lies between a mouth and a microphone, as pure functions of a seeded generator.

    y = h * s + g n,      g chosen so that 10 log10(Σ (h * s)² / Σ (g n)²) is the SNR asked for, exactly

h is the response of a shoebox room.  Up to `EARLY` it has every image of the source (Allen & Berkley 1979,
"Image method for efficiently simulating small-room acoustics"), each wall passing on the share β of the
amplitude that gives the reverberation time (Eyring: ln β = -12 ln 10 · V / (c S T60)); behind it images are
so many that it is Gaussian noise with their mean energy,

    E[h(t)²] = c / (4π V fs) · 10^(-6 t / T60)     since images come at 4π c³ t² / V, each with 1 / (4π c t)².

β is taken negative, which leaves every energy as it is and the response without a bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greenasr.data.features import RATE

SPEED_OF_SOUND = 343.0  # m/s
EARLY = 0.05  # seconds with single images
COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # power ∝ 1 / f^exponent
LOWEST = 30.0  # Hz, where coloured noise stops to rise
Samples = NDArray[np.float32]
Point = tuple[float, float, float]


def _fft_size(n: int) -> int:
    """The next size 2^a or 3·2^a, at least n."""
    power = 1 << max(0, n - 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= n else power


def coloured_noise(n: int, exponent: float, rng: np.random.Generator) -> Samples:
    """Gaussian noise of power ∝ 1 / f^exponent from `LOWEST` Hz up, (n,), of mean square about 1."""
    size = _fft_size(n)
    freqs = np.maximum(np.fft.rfftfreq(size, 1 / RATE), LOWEST)
    gain = freqs ** (-exponent / 2)
    gain[0] = 0.0
    spectrum = np.fft.rfft(rng.standard_normal(size)) * gain
    noise = np.fft.irfft(spectrum / np.sqrt(np.mean(gain**2)), size)[:n]
    return noise.astype(np.float32)


def babble(talkers: Sequence[Samples], n: int) -> Samples:
    """Several talkers at once, equally loud, each repeated or cut to n samples, (n,)."""
    if not talkers:
        raise ValueError("babble wants talkers, found none: give one signal or more.")
    return np.sum([np.resize(talker / rms(talker), n) for talker in talkers], axis=0, dtype=np.float32)


def mix(speech: Samples, noise: Samples, snr: float) -> Samples:
    """Speech and noise, scaled to ``snr`` dB below it: 10 log10(Σ s² / Σ n²) over the signals, both (n,)."""
    if speech.shape != noise.shape:
        raise ValueError(f"speech is {speech.shape}, noise {noise.shape}: make both of one length.")
    if not (rms(speech) > 0 and rms(noise) > 0):
        raise ValueError("an SNR needs speech and noise that are not silent all through.")
    gain = rms(speech) / rms(noise) * 10 ** (-snr / 20)
    return speech + np.float32(gain) * noise


def rms(samples: Samples) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


@dataclass(frozen=True)
class Room:
    """A shoebox of ``size`` metres with a mouth and a microphone in it; ``rt60`` seconds to fall by 60 dB.

    >>> room = Room((5.0, 4.0, 3.0), (1.0, 1.0, 1.5), (4.0, 3.0, 1.2), 0.4)
    >>> round(room.reflection, 2)
    0.88
    """

    size: Point
    mouth: Point
    microphone: Point
    rt60: float

    def __post_init__(self) -> None:
        """Refuse places outside of the room."""
        for name, place in (("mouth", self.mouth), ("microphone", self.microphone)):
            if not all(0 < x < wide for x, wide in zip(place, self.size, strict=True)):
                raise ValueError(f"the {name} at {place} is not in a room of {self.size} metres.")
        if self.rt60 <= 0 or self.mouth == self.microphone:
            raise ValueError(f"{self}: expected a positive rt60 and a mouth apart from the microphone.")

    @classmethod
    def draw(cls, rt60: tuple[float, float], rng: np.random.Generator) -> Room:
        """A living room or office, mouth and microphone at least a metre apart and 0.5 m from the walls."""
        x, y, z = rng.uniform((3.0, 3.0, 2.4), (8.0, 6.0, 3.2)).tolist()

        def place() -> Point:
            east, north, up = rng.uniform(0.5, (x - 0.5, y - 0.5, min(1.9, z - 0.5))).tolist()
            return east, north, up

        mouth, microphone = place(), place()
        while np.linalg.norm(np.subtract(mouth, microphone)) < 1.0:
            microphone = place()
        return cls((x, y, z), mouth, microphone, float(rng.uniform(*rt60)))

    @property
    def volume(self) -> float:
        """m³."""
        return float(np.prod(self.size))

    @property
    def reflection(self) -> float:
        """Amplitude that a wall passes on, 0 … 1, from the reverberation time (Eyring)."""
        x, y, z = self.size
        walls = 2 * (x * y + y * z + z * x)
        return float(np.exp(-12 * np.log(10) * self.volume / (SPEED_OF_SOUND * walls * self.rt60)))


def images(room: Room, seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Arrival times in s and amplitudes of all images of the mouth heard within ``seconds``, both (images,).

    Along an axis of length L images lie at 2 m L + x, having met 2 |m| walls, and at 2 m L - x, having met
    |m| + |m - 1|.
    """
    away, walls = [], []
    for x, ear, wide in zip(room.mouth, room.microphone, room.size, strict=True):
        m = np.arange(-(reach := int(SPEED_OF_SOUND * seconds / (2 * wide)) + 1), reach + 1)
        away.append(np.concatenate([2 * m * wide + x, 2 * m * wide - x]) - ear)
        walls.append(np.concatenate([2 * np.abs(m), np.abs(m) + np.abs(m - 1)]))
    squares = (away[0] ** 2)[:, None, None] + (away[1] ** 2)[:, None] + away[2] ** 2
    bounces = walls[0][:, None, None] + walls[1][:, None] + walls[2]
    metres = np.sqrt(squares)
    near = metres < SPEED_OF_SOUND * seconds
    amplitudes = (-room.reflection) ** bounces[near] / (4 * np.pi * metres[near])
    return metres[near] / SPEED_OF_SOUND, amplitudes


def response(room: Room, rng: np.random.Generator) -> Samples:
    """Impulse response of a room at 16 kHz, from the direct sound (amplitude 1) to -60 dB, (n,).

    Images arrive at the nearest sample.  ``rng`` draws the tail.
    """
    n = round(RATE * max(room.rt60, 2 * EARLY))
    heard = np.zeros(n)
    times, amplitudes = images(room, EARLY)
    np.add.at(heard, np.rint(times * RATE).astype(int), amplitudes)
    late = np.arange(round(RATE * EARLY), n) / RATE
    power = SPEED_OF_SOUND / (4 * np.pi * room.volume * RATE) * 10 ** (-6 * late / room.rt60)
    heard[-len(late) :] += rng.standard_normal(len(late)) * np.sqrt(power)
    metres = float(np.linalg.norm(np.subtract(room.mouth, room.microphone)))
    direct = round(RATE * metres / SPEED_OF_SOUND)
    return (heard[direct:] * 4 * np.pi * metres).astype(np.float32)


def reverberate(speech: Samples, heard: Samples) -> Samples:
    """Speech in a room, (n,) * (m,) -> (n,): the direct sound stays where it was, what rings on is cut."""
    size = _fft_size(len(speech) + len(heard) - 1)
    found = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(heard, size), size)[: len(speech)]
    return found.astype(np.float32)


def decay_time(heard: Samples) -> float:
    """T60 in seconds of a response: a line through its backward-integrated energy from -5 to -25 dB.

    Schroeder 1965, "New method of measuring reverberation time"; its slope is continued to -60 dB.
    """
    left = np.cumsum(np.square(heard[::-1], dtype=np.float64))[::-1]
    level = 10 * np.log10(np.maximum(left / left[0], 1e-12))
    used = np.flatnonzero((level <= -5) & (level >= -25))
    slope = np.polyfit(used / RATE, level[used], 1)[0]
    return float(-60 / slope)
