"""Features of a stream are those of the whole utterance, and come as soon as they can."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from greenasr.data.feature_stream import FeatureStream
from greenasr.data.features import RATE, SHIFT, Features
from greenasr.data.resample import resample

RATES = [8_000, 16_000, 44_100, 48_000]
REACH = {8_000: 25 / 8_000, 16_000: 0.0, 44_100: 69 / 44_100, 48_000: 75 / 48_000}  # s, of the filter


def sound(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def cut(samples: NDArray[np.float32], size: int) -> list[NDArray[np.float32]]:
    return [samples[at : at + size] for at in range(0, len(samples), size)]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seconds", [0.01, 2.017])
def test_pieces_of_any_size_give_the_frames_of_the_whole_utterance(rate: int, seconds: float) -> None:
    features = Features(bins=20, cmvn="running")
    samples = sound(round(20 * rate * seconds) if seconds < 1 else round(rate * seconds))
    whole = features(resample(samples, rate, RATE))
    for size in (rate // 77, rate // 20, 10 * rate):
        stream = FeatureStream(features, rate)
        found = np.concatenate([*map(stream, cut(samples, size)), stream.rest()])
        assert found.shape == whole.shape
        np.testing.assert_allclose(found, whole, atol=2e-3)
    sizes = np.random.default_rng(1).integers(0, rate // 10, 60).cumsum()
    stream = FeatureStream(Features("mfcc", 20, cmvn="none"), rate)
    found = np.concatenate([*map(stream, np.split(samples, sizes)), stream.rest()])
    np.testing.assert_allclose(found, stream.features(resample(samples, rate, RATE)), atol=2e-2)


@pytest.mark.parametrize("rate", RATES)
def test_a_frame_is_given_no_later_than_13_ms_behind_its_middle(rate: int) -> None:
    stream, step, given = FeatureStream(Features(bins=20, cmvn="none"), rate), rate // 1000, 0
    for k, part in enumerate(cut(sound(rate), step)):
        now = given + len(stream(part))
        for frame in range(given, now):
            late = (k + 1) * step / rate - (frame + 0.5) * SHIFT / RATE
            assert late <= (0.0125 if frame else 0.02) + REACH[rate] + 0.0011
        given = now
    assert given >= 97


@pytest.mark.parametrize("kind", ["nemo_mel", "nemo_mfcc"])
@pytest.mark.parametrize("n", [8_000, 8_001, 8_159, 500])
def test_nemos_frames_come_in_pieces_too(kind: str, n: int) -> None:
    features, samples = Features(kind, 20, cmvn="none"), sound(n)  # type: ignore[arg-type]
    whole = features(samples)
    assert len(whole) == features.frames(n)
    for size in (1, 207, 3_000) if n < 8_001 else (207,):
        stream = FeatureStream(features)
        found = np.concatenate([*map(stream, cut(samples, size)), stream.rest()])
        np.testing.assert_allclose(found, whole, atol=2e-3)


def test_nothing_and_less_than_a_window_have_no_frames() -> None:
    for n in (0, 1, 399):
        stream = FeatureStream(Features(bins=20, cmvn="running"))
        assert stream(sound(n)).shape == stream.rest().shape == (0, 20)


def test_an_hour_is_held_no_more_than_a_second() -> None:
    stream = FeatureStream(Features(bins=20, cmvn="running"), 48_000)
    for part in cut(sound(30 * 48_000), 4_800):
        stream(part)
        assert len(stream.kept) < 2_000 and len(stream.resampling.kept) < 6_000
    assert stream.frames == 2_999


@pytest.mark.parametrize("cmvn", ["utterance", "speaker"])
def test_cmvn_of_the_whole_cannot_stream(cmvn: Literal["utterance", "speaker"]) -> None:
    with pytest.raises(ValueError, match=f"cmvn '{cmvn}' need the whole utterance: .*'running' or 'none'"):
        FeatureStream(Features(cmvn=cmvn))
