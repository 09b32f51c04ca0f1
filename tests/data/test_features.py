"""Features are what their equations say, and lhotse's own."""

import numpy as np
import pytest

from greenasr.data.features import Features, MeanSoFar, cmvn, n_frames

NOISE = (0.1 * np.random.default_rng(0).normal(size=8000)).astype(np.float32)


def slow_fbank(samples: np.ndarray, bins: int = 40) -> np.ndarray:
    """The docstring's equations, frame by frame in float64; reflected half windows at both ends."""

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 1127 * np.log(1 + hertz / 700)

    frames = n_frames(len(samples))
    behind = frames * 160 + 240 - 120 - len(samples)
    padded = np.concatenate([samples[:120][::-1], samples, samples[-behind:][::-1]]).astype(np.float64)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    edges = np.linspace(mel(np.array(20.0)), mel(np.array(7600.0)), bins + 2)
    where = mel(np.arange(257) * 16_000 / 512)
    rise = (where - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - where) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rise, fall))
    rows = []
    for t in range(frames):
        x = padded[160 * t : 160 * t + 400]
        x = x - x.mean()
        x = window * (x - 0.97 * np.concatenate([x[:1], x[:-1]]))
        rows.append(np.log(np.maximum(2.0**-23, triangles @ np.abs(np.fft.rfft(x, 512)) ** 2)))
    return np.array(rows)


@pytest.mark.parametrize("n", [400, 8000, 7921, 7999])
def test_fbank_equals_its_equation(n: int) -> None:
    found = Features("fbank", cmvn="none")(NOISE[:n])
    assert found.dtype == np.float32 and found.shape == (n_frames(n), 40)
    np.testing.assert_allclose(found, slow_fbank(NOISE[:n]), atol=2e-3)


def test_mfcc_is_the_liftered_cosine_transform_of_fbank() -> None:
    fbank = Features("fbank", cmvn="none")(NOISE).astype(np.float64)
    i, b = np.arange(40)[:, None], np.arange(40)
    transform = np.sqrt(2 / 40) * np.cos(np.pi * i * (b + 0.5) / 40)
    transform[0] *= np.sqrt(0.5)
    np.testing.assert_allclose(transform @ transform.T, np.eye(40), atol=1e-12)
    expected = fbank @ transform.T * (1 + 11 * np.sin(np.pi * np.arange(40) / 22))
    np.testing.assert_allclose(Features("mfcc", cmvn="none")(NOISE), expected, atol=2e-3)


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize("n", [400, 479, 7921, 8000])
def test_features_are_those_of_lhotse_with_kaldis_high_resolution_settings(n: int) -> None:
    from lhotse.features.kaldi.extractors import Fbank, FbankConfig, Mfcc, MfccConfig

    high = {"num_filters": 40, "low_freq": 20, "high_freq": -400, "use_energy": False}
    mfcc, fbank = Mfcc(MfccConfig(**high, num_ceps=40)), Fbank(FbankConfig(**high))
    np.testing.assert_allclose(
        Features("fbank", cmvn="none")(NOISE[:n]), fbank.extract(NOISE[:n], 16_000), atol=1e-4
    )
    np.testing.assert_allclose(
        Features("mfcc", cmvn="none")(NOISE[:n]), mfcc.extract(NOISE[:n], 16_000), atol=1e-3
    )


def test_loudness_goes_into_the_mean_alone() -> None:
    for kind in ("fbank", "mfcc"):
        features = Features(kind)  # type: ignore[arg-type]
        np.testing.assert_allclose(features(NOISE), features(0.5 * NOISE), atol=2e-3)
        np.testing.assert_allclose(features(NOISE).mean(0), 0, atol=1e-4)


def test_cmvn_of_a_speaker_takes_the_speakers_mean_and_else_the_utterances() -> None:
    features, mean = Features(cmvn="speaker"), np.full(40, -3.0, np.float32)
    np.testing.assert_allclose(features(NOISE, mean), features.raw(NOISE) + 3)
    np.testing.assert_array_equal(features(NOISE), Features(cmvn="utterance")(NOISE, mean))
    np.testing.assert_array_equal(Features(cmvn="none")(NOISE, mean), features.raw(NOISE))


def test_a_running_mean_is_that_of_the_frames_so_far_however_a_stream_is_cut() -> None:
    raw = Features().raw(NOISE)
    found = Features(cmvn="running")(NOISE)
    slow = np.stack([raw[t] - raw[: t + 1].mean(0, dtype=np.float64) for t in range(len(raw))])
    np.testing.assert_allclose(found, slow, atol=1e-5)
    mean = MeanSoFar()
    parts = [mean(part) for part in np.split(raw, [0, 1, 7, 30])]
    np.testing.assert_allclose(np.concatenate(parts), found, atol=1e-5)


def test_cmvn_with_a_deviation_gives_unit_variance_and_a_constant_bin_stays_finite() -> None:
    feats = np.random.default_rng(1).normal(3, 5, (200, 2)).astype(np.float32)
    feats[:, 1] = 7
    found = cmvn(feats, std=feats.std(0))
    assert found[:, 0].std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(found[:, 1], 0)


def test_silence_is_finite() -> None:
    assert np.isfinite(Features()(np.zeros(4000, np.float32))).all()


def test_settings_survive_json_and_strangers_are_refused() -> None:
    features = Features("mfcc", 32, "speaker")
    assert Features.from_json(features.to_json()) == features and features.dim == 32
    with pytest.raises(ValueError, match="'format' should be 'greenasr features 1'"):
        Features.from_json({"kind": "mfcc"})


def test_bad_samples_and_bad_settings_are_refused_with_what_was_found() -> None:
    features = Features()
    with pytest.raises(ValueError, match="399 samples are less than the 400 of one window"):
        features(NOISE[:399])
    with pytest.raises(ValueError, match=r"one channel, \(n,\), found \(2, 4000\)"):
        features(NOISE.reshape(2, 4000))
    broken = NOISE.copy()
    broken[17] = np.nan
    with pytest.raises(ValueError, match="sample 17 of 8000 is nan"):
        features(broken)
    for settings in ({"kind": "plp"}, {"bins": 2}, {"cmvn": "both"}):
        with pytest.raises(ValueError, match="expected"):
            Features(**settings)  # type: ignore[arg-type]
