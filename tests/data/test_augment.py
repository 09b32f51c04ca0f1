"""Speed moves frequencies and length by its factor; masks stay within their limits."""

import numpy as np
import pytest
import torch

from greenasr.data.augment import SPEEDS, SpecAugment, change_speed


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25])
def test_speed_multiplies_a_tones_frequency_and_divides_its_length(factor: float) -> None:
    n, hertz = 16_000, 1000.0
    found = change_speed(np.sin(2 * np.pi * hertz * np.arange(n) / 16_000).astype(np.float32), factor)
    assert len(found) == np.ceil(round(n / factor, 6))
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found)), 2**18))
    assert spectrum.argmax() * 16_000 / 2**18 == pytest.approx(hertz * factor, abs=0.1)


def test_speed_one_changes_nothing() -> None:
    samples = np.random.default_rng(0).normal(size=500).astype(np.float32)
    assert 1.0 in SPEEDS
    np.testing.assert_array_equal(change_speed(samples, 1.0), samples)


def test_a_speed_nobody_speaks_at_is_refused() -> None:
    for factor in (0.0, -1.0, 9.0, float("nan")):
        with pytest.raises(ValueError, match="expected a factor from 0.25 to 4"):
            change_speed(np.ones(500, np.float32), factor)


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_whole_bands_and_whole_frames_within_their_widths_and_share(seed: int) -> None:
    settings = SpecAugment(freq_masks=2, freq_width=5, time_masks=3, time_width=12, time_share=0.3)
    feats = torch.randn(60, 20)
    before = feats.clone()
    masked = settings(feats, torch.Generator().manual_seed(seed))
    assert torch.equal(feats, before)
    hidden = masked != feats
    frames, bins = hidden.all(1), hidden.all(0)
    assert torch.equal(hidden, frames[:, None] | bins[None])
    assert int(bins.sum()) <= 2 * 5
    assert int(frames.sum()) <= 0.3 * 60 and int(frames.sum()) <= 3 * 12
    torch.testing.assert_close(masked[hidden], feats.mean(0).expand_as(feats)[hidden])


def test_every_width_and_every_place_is_drawn() -> None:
    settings = SpecAugment(freq_masks=1, freq_width=3, time_masks=0)
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(4, 6)
    seen = [(settings(feats, generator) != feats).all(0) for _ in range(300)]
    assert {int(bins.sum()) for bins in seen} == {0, 1, 2, 3}
    assert torch.stack(seen).any(0).all()


def test_masks_repeat_with_their_seed_and_short_utterances_survive() -> None:
    settings = SpecAugment()
    assert torch.isfinite(settings(torch.randn(1, 40), torch.Generator())).all()
    for frames in (2, 9):
        feats = torch.randn(frames, 40)
        one, same, other = (settings(feats, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
        assert torch.equal(one, same) and not torch.equal(one, other)
    assert SpecAugment(**settings.to_json()) == settings


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="zero or more"):
        SpecAugment(freq_width=-1)
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        SpecAugment(time_share=1.5)
