"""Files that can be read, files that cannot, and the samples of a cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from greenasr.data.audio import Header, header, samples
from greenasr.data.corpora import heard, read_corpus

Tone = Callable[..., Path]  # writes a file of tones
Pitch = Callable[..., float]


def cuts_of(path: Path, start: int = 0, count: int | str = "", **options: Any) -> Any:
    """The cuts of a manifest of one utterance."""
    manifest = path.with_suffix(".tsv")
    manifest.write_text(
        f"utt_id\taudio\tstart_sample\tnum_samples\ttext\nu1\t{path.name}\t{start}\t{count}\tGO ON\n"
    )
    return read_corpus(manifest, **options)[manifest.stem]


def test_a_cut_reads_exactly_its_samples(sound: Tone) -> None:
    path = sound("a.flac", 300, 700, 1100)
    whole, _ = soundfile.read(path, dtype="float32")
    (cut,) = cuts_of(path, 16_003, 15_001)
    found = samples(cut)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, whole[16_003 : 16_003 + 15_001])


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_other_rates_become_16_khz_and_the_tone_stays(sound: Tone, rate: int, pitch: Pitch) -> None:
    (cut,) = cuts_of(sound("a.wav", 440, rate=rate))
    found = samples(cut)
    assert len(found) == 16_000
    assert pitch(found) == pytest.approx(440, abs=1)
    assert np.abs(found[2_000:-2_000]).max() == pytest.approx(0.5, abs=0.01)


def test_stereo_is_refused_or_mixed_down_when_asked(sound: Tone) -> None:
    path = sound("a.wav", 300, 900, channels=2)
    with pytest.raises(ValueError, match=r"a.wav: 2 channels, expected one; .*--mix"):
        cuts_of(path)
    (cut,) = cuts_of(path, mix=True)
    both, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(samples(cut), both.mean(1), atol=1e-7)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(ValueError, match=r"a.wav: the file is empty \(0 bytes\)"):
        header(tmp_path / "a.wav")


def test_a_file_without_a_sample_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), 16_000)
    with pytest.raises(ValueError, match=r"a.wav: has no samples \(length 0\)"):
        header(tmp_path / "a.wav")


def test_text_in_a_sounds_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("hello" * 20)
    with pytest.raises(ValueError, match=r"a.wav: not a sound file that can be read \(it begins b'hell'\)"):
        header(tmp_path / "a.wav")


def test_a_wav_cut_short_is_refused_by_its_header(sound: Tone) -> None:
    path = sound("a.wav", 440)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"a.wav: cut short: 20,000 bytes, its header promises 32,044"):
        header(path)


def test_an_aiff_cut_short_is_refused_by_its_header(sound: Tone) -> None:
    path = sound("a.aiff", 440)
    assert header(path).frames == 16_000
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"a.aiff: cut short: 20,000 bytes, its header promises 32,0\d\d"):
        header(path)


def test_a_wav_from_a_pipe_whose_length_nobody_knew_is_read(sound: Tone) -> None:
    path = sound("a.wav", 440)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert header(path).frames == 16_000


def test_a_flac_cut_short_is_found_by_reading(sound: Tone) -> None:
    path = sound("a.flac", 440)
    path.write_bytes(path.read_bytes()[:5_000])
    cuts = cuts_of(path)  # its header is whole
    with pytest.raises(ValueError, match=r"a.flac: (cut 'u1' cannot be read|ends within cut 'u1')"):
        heard(cuts)


def test_a_file_that_shrank_after_preparing_is_found(sound: Tone) -> None:
    path = sound("a.wav", 440)
    (cut,) = cuts_of(path)
    sound("a.wav", 440, seconds=0.5)
    with pytest.raises(ValueError, match=r"a.wav: ends within cut 'u1': 8,000 samples of 16,000"):
        samples(cut)
    sound("a.wav", 440, rate=8_000)
    with pytest.raises(ValueError, match=r"a.wav: cut 'u1' cannot be read \(8000 Hz, but 16000"):
        samples(cut)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no such audio file"):
        samples(cut)


def test_samples_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    data = np.zeros(16_000, np.float32)
    data[100:140], data[200] = np.nan, np.inf
    soundfile.write(tmp_path / "a.wav", data, 16_000, subtype="FLOAT")
    cuts = cuts_of(tmp_path / "a.wav")
    with pytest.raises(
        ValueError, match=r"a.wav: cut 'u1' has 41 samples of 16,000 that are NaN or infinite"
    ):
        heard(cuts)
    bad: list[str] = []
    assert len(heard(cuts, lambda error: bad.append(str(error)))) == 0 and len(bad) == 1


def test_sphere_is_read_by_channel_and_shorten_is_named(sound: Tone) -> None:
    path = sound("a.sph", 300, 900, rate=8_000, channels=2, format="NIST", subtype="ULAW")
    assert header(path) == Header(8_000, 8_000, 2)
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(ValueError, match=r"a.sph: cut short: 5,000 bytes, its header promises 17,024"):
        header(path)
    path.write_bytes(path.read_bytes().replace(b"-s4 ulaw", b"-s26 ulaw,embedded-shorten-v2.00"))
    with pytest.raises(ValueError, match=r"shorten, .* sph2pipe -f wav \S+a.sph \S+a.wav"):
        header(path)


def test_a_perturbed_cut_is_left_to_lhotse(sound: Tone, pitch: Pitch) -> None:
    (cut,) = cuts_of(sound("a.wav", 440))
    found = samples(cut.perturb_speed(1.1))
    assert len(found) == pytest.approx(16_000 / 1.1, abs=2)
    assert pitch(found) == pytest.approx(484, abs=2)
