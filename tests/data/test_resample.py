"""Resampling keeps what both rates can carry, and nothing else."""

import numpy as np
import pytest

from greenasr.data.resample import ROLLOFF, ZEROS, Resampling, resample


def tone(hertz: float, rate: int, n: int) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(n) / rate).astype(np.float32)


@pytest.mark.parametrize(("source", "target"), [(8_000, 16_000), (48_000, 16_000), (44_100, 16_000), (9, 10)])
def test_a_tone_below_both_nyquist_frequencies_is_the_same_tone_at_the_other_rate(
    source: int, target: int
) -> None:
    hertz = 0.2 * min(source, target)
    found = resample(tone(hertz, source, 4000), source, target)
    assert len(found) == -(-4000 * target // source)
    inner = slice(len(found) // 4, 3 * len(found) // 4)
    np.testing.assert_allclose(found[inner], tone(hertz, target, len(found))[inner], atol=2e-3)


def test_a_tone_above_the_new_nyquist_frequency_is_gone() -> None:
    found = resample(tone(11_000, 48_000, 9600), 48_000, 16_000)
    assert np.abs(found[400:-400]).max() < 2e-3


def test_polyphase_filters_equal_the_sum_of_windowed_sincs() -> None:
    samples = np.random.default_rng(0).normal(size=90).astype(np.float32)
    for p, q in [(9, 10), (11, 10), (3, 1), (2, 7)]:
        band = ROLLOFF * min(1, q / p)
        reach = np.ceil(ZEROS / band)
        away = np.arange(-(-90 * q // p))[:, None] * p / q - np.arange(90)
        window = np.where(np.abs(away) < reach, 0.5 + 0.5 * np.cos(np.pi * away / reach), 0)
        slow = (band * np.sinc(band * away) * window) @ samples
        np.testing.assert_allclose(resample(samples, p, q), slow, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_a_few_samples_give_as_many_as_their_duration(n: int) -> None:
    assert len(resample(np.ones(n, np.float32), 10, 9)) == -(-n * 9 // 10)


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 16000 a second: rates are positive"):
        resample(np.ones(5, np.float32), 0, 16_000)
    with pytest.raises(ValueError, match=r"wants one channel, \(n,\), found \(2, 5\)"):
        resample(np.ones((2, 5), np.float32), 8_000, 16_000)
    with pytest.raises(ValueError, match="reduced, the ratio is 1000003/16000"):
        resample(np.ones(5, np.float32), 1_000_003, 16_000)
    with pytest.raises(ValueError, match="from 16000 to 0 a second"):
        Resampling(16_000, 0)


@pytest.mark.parametrize("source", [4_000, 8_000, 11_025, 16_000, 44_100, 48_000])
def test_a_stream_in_pieces_of_any_size_gives_the_samples_of_the_whole(source: int) -> None:
    samples = np.random.default_rng(0).normal(size=source).astype(np.float32)
    whole = resample(samples, source, 16_000)
    for most in (1, 40, 1_000, 30_000):
        sizes = np.random.default_rng(most).integers(0, most, 2_000, endpoint=True).cumsum()
        stream = Resampling(source, 16_000)
        parts = np.split(samples, sizes[sizes < len(samples)])
        found = np.concatenate([*map(stream, parts), stream.rest()])
        np.testing.assert_allclose(found, whole, atol=1e-5)


def test_a_stream_gives_a_sample_as_soon_as_the_filter_has_heard_all_that_it_reaches() -> None:
    stream, heard, given = Resampling(44_100, 16_000), 0, 0
    for _ in range(900):
        heard, given = heard + 49, given + len(stream(np.ones(49, np.float32)))
        assert given >= (heard - ZEROS / ROLLOFF * 44.1 / 16 - 2) * 160 / 441 - 1
        assert len(stream.kept) < 49 + 3 * 441
