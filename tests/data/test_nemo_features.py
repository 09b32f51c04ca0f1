"""NeMo's front ends against torch.stft and the formulas of their filters."""

import math

import numpy as np
import pytest
import torch

from greenasr.data.features import Features
from greenasr.data.nemo_features import hz_to_mel, mel_to_hz, triangles


def sound(n=8_037):
    gen = np.random.default_rng(0)
    return (0.1 * gen.standard_normal(n)).astype(np.float32)


def spectrum(x, width, periodic, mode):
    window = torch.hann_window(width, periodic=periodic)
    y = torch.stft(x, 512, 160, width, window=window, center=True, pad_mode=mode, return_complex=True)
    return y.abs().square().double()


def slow_triangles(bins, scale):
    """One weight after another; edges by bisection of the scale."""
    top = float(hz_to_mel(np.array(8000.0), scale))
    edges = []
    for mel in [top * i / (bins + 1) for i in range(bins + 2)]:
        low, high = 0.0, 8001.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if float(hz_to_mel(np.array(middle), scale)) < mel else (low, middle)
        edges.append(low)
    found = torch.zeros(bins, 257, dtype=torch.float64)
    for b in range(bins):
        left, top_, right = edges[b : b + 3]
        for k in range(257):
            f = k * 16_000 / 512
            weight = (f - left) / (top_ - left) if f <= top_ else (right - f) / (right - top_)
            found[b, k] = max(0.0, weight) * (2 / (right - left) if scale == "slaney" else 1)
    return found


def test_mel_scales_have_their_published_points():
    assert float(hz_to_mel(np.array(1000.0), "slaney")) == 15.0
    assert float(hz_to_mel(np.array(6400.0), "slaney")) == pytest.approx(15 + 27)
    assert float(hz_to_mel(np.array(700.0), "htk")) == pytest.approx(2595 * math.log10(2))
    for scale in ("slaney", "htk"):
        hertz = np.array([0.0, 10, 999, 1000, 1001, 8000])
        assert mel_to_hz(hz_to_mel(hertz, scale), scale) == pytest.approx(hertz)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_triangles_are_those_of_the_formula(scale):
    np.testing.assert_allclose(triangles(20, scale).T, slow_triangles(20, scale), atol=1e-6)


def test_the_mel_front_end_is_nemos_written_in_torch():
    x = torch.from_numpy(sound())
    y = torch.cat((x[:1], x[1:] - 0.97 * x[:-1]))
    power = spectrum(y, 320, False, "constant")
    logs = torch.log(slow_triangles(64, "slaney") @ power + 2**-24).t()[: len(x) // 160]
    want = (logs - logs.mean(0)) / (logs.std(0) + 1e-5)
    got = Features("nemo_mel", 64, "deviation")(x.numpy())
    assert got.dtype == np.float32 and got.shape == (50, 64)
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_the_mfcc_front_end_is_nemos_written_in_torch():
    x = torch.from_numpy(sound())
    logs = torch.log(slow_triangles(64, "htk") @ spectrum(x, 400, True, "reflect") + 1e-6)
    k, n = torch.arange(64)[:, None], torch.arange(64)
    dct = torch.cos(math.pi / 64 * (n + 0.5) * k).double() * (2 / 64) ** 0.5
    dct[0] /= 2**0.5
    got = Features("nemo_mfcc", 64, "none")(x.numpy())
    assert got.shape == (51, 64)
    np.testing.assert_allclose(got, (dct @ logs).t(), atol=5e-3)


def test_settings_of_imported_features_are_kept():
    for features in (Features("nemo_mel", 64, "deviation"), Features("nemo_mfcc", 64, "none")):
        assert Features.from_json(features.to_json()) == features
    with pytest.raises(ValueError, match="utterance, speaker, running, deviation or none"):
        Features("fbank", 40, "std")
