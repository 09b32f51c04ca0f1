"""Sounds for the miniature corpora: tones whose frequency tells which utterance they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray


def tone(hz: float, seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    """A sine of amplitude a half, (n,)."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def pitch() -> Callable[..., float]:
    """The strongest frequency of samples in Hz."""

    def measure(samples: NDArray[np.float32], rate: int = 16_000) -> float:
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        return float(np.argmax(spectrum) * rate / len(samples))

    return measure


@pytest.fixture
def sound(tmp_path: Path) -> Callable[..., Path]:
    """Write tones one after another: ``sound(name, 440, 880, seconds=1, rate=16000, channels=1)``."""

    def write(name: str, *hz: float, seconds: float = 1.0, rate: int = 16_000, **how: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = how.pop("channels", None)
        sounds = [tone(f, seconds, rate) for f in hz]
        data = np.stack(sounds, 1) if channels else np.concatenate(sounds)
        soundfile.write(path, data, rate, **how)
        return path

    return write
