"""Sound in blocks: the samples of a file or a raw stream, or one line that says what is wrong with it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greenasr.data.streams import check_sound, file_blocks, raw_blocks

Sound = Callable[..., Path]


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_blocks_of_a_file_are_its_samples(sound: Sound, name: str) -> None:
    path = sound(name, 440, 880, seconds=6.5, rate=8_000)
    told: list[tuple[int, int]] = []
    blocks = list(file_blocks(path, progress=lambda done, of: told.append((done, of))))
    assert [len(block) for block in blocks] == [80_000, 24_000]
    np.testing.assert_array_equal(np.concatenate(blocks), soundfile.read(path, dtype="float32")[0])
    assert told == [(10, 13), (13, 13)]
    assert check_sound(path).rate == 8_000


def test_channels_are_mixed_down_when_asked_and_refused_when_not(sound: Sound) -> None:
    path = sound("a.wav", 440, 880, channels=2)
    with pytest.raises(ValueError, match=r"a.wav: 2 channels, expected one; .*--mix"):
        list(file_blocks(path))
    (mixed,) = file_blocks(path, mix=True)
    np.testing.assert_allclose(mixed, soundfile.read(path, dtype="float32")[0].mean(1), atol=1e-7)


def test_files_that_cannot_be_used_are_named(sound: Sound, tmp_path: Path) -> None:
    path = sound("a.flac", 440, seconds=30)
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(ValueError, match=r"a.flac: (cannot be read behind|ends after) .* again"):
        check_sound(path)
    path = sound("a.mp3", 440, seconds=3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"a.mp3: ends after [\d,]+ samples, its header promises 48,000; "):
        check_sound(path)
    samples = np.zeros(32_000, np.float32)
    samples[20_000] = np.inf
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan.wav: .* NaN or infinite, the first at 1.250 s"):
        check_sound(tmp_path / "nan.wav")
    with pytest.raises(ValueError, match=r"short.wav: 10 ms long, expected 25 or more"):
        check_sound(sound("short.wav", 440, seconds=0.01))
    with pytest.raises(FileNotFoundError):
        check_sound(tmp_path / "nowhere.wav")


class Dribble(io.RawIOBase):
    """A pipe that gives so many bytes at a time."""

    def __init__(self, data: bytes, size: int):
        self.data, self.size = data, size

    def read(self, size: int = -1) -> bytes:
        n = min(self.size, size)
        part, self.data = self.data[:n], self.data[n:]
        return part


@pytest.mark.parametrize("size", [1, 3, 1_000, 3_200, 10_000])
def test_a_raw_stream_is_its_samples_however_it_dribbles(size: int) -> None:
    pcm = np.random.default_rng(0).integers(-32_768, 32_767, 5_000, endpoint=True).astype("<i2")
    blocks = list(raw_blocks(Dribble(pcm.tobytes(), size), 16_000))  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.concatenate(blocks), pcm / np.float32(32_768))
    assert max(map(len, blocks)) <= 3_200


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input: no samples in it"),
        (b"\1", "standard input: no samples in it"),
        (b"\1\2\3", "ends in the middle of a sample, behind 1"),
        (b"RIFF" + bytes(5_000), "standard input: a wav file"),
        (b"fLaC" + bytes(50), "a flac file"),
    ],
)
def test_a_stream_that_is_no_raw_sound_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(raw_blocks(io.BytesIO(data)))
