"""Clips: a second of each, whatever its length, and a count of the odd ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greenasr.data import clips
from greenasr.data.clips import LONGEST, census, quiet, second_of
from greenasr.data.corpora import read_corpus

Sound = Callable[..., Path]


def test_a_short_clip_lies_in_the_middle_of_its_own_background() -> None:
    feats = np.random.default_rng(0).normal(size=(37, 5)).astype(np.float32)
    second = second_of(feats)
    assert second.shape == (100, 5) and second.dtype == np.float32
    np.testing.assert_array_equal(second[31:68], feats)
    np.testing.assert_array_equal(second[:31], quiet(feats, 31))
    share = (feats < second[0]).mean(0)
    assert (share > 0).all() and (share < 0.12).all(), "little of a band lies below its background"


def test_of_a_long_clip_the_loudest_second_is_taken() -> None:
    rng = np.random.default_rng(1)
    for frames in (101, 130, 260):
        feats = rng.normal(size=(frames, 4)).astype(np.float32)
        sums = [np.exp(feats[k : k + 100].astype(np.float64)).sum() for k in range(frames - 99)]
        start = int(np.argmax(sums))
        np.testing.assert_array_equal(second_of(feats), feats[start : start + 100])


def test_odd_clips_are_counted_and_kept(sound: Sound, tmp_path: Path) -> None:
    sound("gsc/yes/a.wav", 440, seconds=1.0)
    sound("gsc/yes/b.wav", 440, seconds=0.6)
    sound("gsc/no/c.wav", 440, seconds=1.4)
    rate = 16_000
    soundfile.write(tmp_path / "gsc/no/d.wav", np.zeros(rate), rate)
    loud = np.clip(3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), -1, 1)
    soundfile.write(tmp_path / "gsc/no/e.wav", loud, rate)
    cuts = [cut for split in read_corpus(tmp_path / "gsc").values() for cut in split]
    assert census(cuts) == {"clips": 5, "shorter": 1, "longer": 1, "silent": 1, "clipped": 1}


def test_a_recording_in_the_folder_of_a_word_is_refused(sound: Sound, tmp_path: Path) -> None:
    sound("gsc/yes/a.wav", 440, seconds=0.5)
    sound("gsc/no/b.wav", 440, seconds=LONGEST + 1)
    cuts = [cut for split in read_corpus(tmp_path / "gsc").values() for cut in split]
    with pytest.raises(ValueError, match="clip 'no-b' is 11.0 s long, a word has at most 10: cut it"):
        census(cuts)
    with pytest.raises(ValueError, match="clip 'no-b'"):
        clips.samples(next(cut for cut in cuts if cut.id == "no-b"))
