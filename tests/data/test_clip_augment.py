"""Clips changed in log-mel energies: what that is of the samples, and of one clip at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from greenasr.data.augment import SpecAugment, change_speed
from greenasr.data.clip_augment import ClipAugment, mixed_at, moved_by, noise_powers, warped_by
from greenasr.data.features import Features
from greenasr.data.rooms import coloured_noise, mix

BINS = 40
FBANK = Features("fbank", BINS, "none")


def chirp(factor: float = 1.0) -> np.ndarray:
    time = np.arange(16_000) / 16_000
    tones = [np.sin(2 * np.pi * factor * (hz * time + 300 * time**2)) for hz in (300.0, 900.0, 2500.0)]
    return (0.1 * np.sum(tones, 0)).astype(np.float32)


def test_mixing_powers_is_mixing_samples_but_for_the_cross_term() -> None:
    rng = np.random.default_rng(0)
    speech, noise = chirp(), coloured_noise(16_000, 1.0, rng)
    heard = FBANK.raw(mix(speech, noise, 10.0))
    powers = [torch.from_numpy(FBANK.raw(each)).exp()[None] for each in (speech, noise)]
    ratio = powers[0].sum() / powers[1].sum()
    # The SNR of samples and that of mel powers differ by how sounds are spread over bands: ask for its own.
    energies = np.square(speech).sum() / np.square(noise).sum()
    snr = 10.0 + 10 * np.log10(float(ratio) / float(energies))
    mixed = mixed_at(*powers, torch.tensor([snr], dtype=torch.float32)).log()[0].numpy()
    away = mixed - heard
    assert abs(np.median(away)) < 0.15, "no bias, in nats"
    assert np.percentile(np.abs(away), 90) < 1.6, "noise has its own ripple"


def test_the_snr_of_powers_is_the_one_asked_for() -> None:
    power, noise = torch.rand(3, 7, 4), torch.rand(3, 7, 4)
    snr = torch.tensor([-5.0, 0.0, 12.0])
    added = mixed_at(power, noise, snr) - power
    found = 10 * torch.log10(power.sum((1, 2)) / added.sum((1, 2)))
    torch.testing.assert_close(found, snr, atol=1e-3, rtol=0)


def test_clips_move_as_one_by_one() -> None:
    feats = torch.randn(4, 9, 2)
    moved = moved_by(feats, torch.tensor([0, 2, -3, 20]))
    torch.testing.assert_close(moved[0], feats[0])
    torch.testing.assert_close(moved[1], torch.cat([feats[1, :1].repeat(2, 1), feats[1, :7]]))
    torch.testing.assert_close(moved[2], torch.cat([feats[2, 3:], feats[2, -1:].repeat(3, 1)]))
    torch.testing.assert_close(moved[3], feats[3, :1].repeat(9, 1))


def test_warping_by_a_factor_puts_a_tone_where_its_frequency_times_the_factor_lies() -> None:
    time = np.arange(16_000) / 16_000
    for hz, factor in ((800.0, 1.2), (2000.0, 0.85), (500.0, 1.0)):
        tone, other = (
            torch.from_numpy(FBANK.raw((0.3 * np.sin(2 * np.pi * f * time)).astype(np.float32)))
            for f in (hz, hz * factor)
        )
        warped = warped_by(tone[None], torch.tensor([factor]))[0]
        assert abs(int(warped[50].argmax()) - int(other[50].argmax())) <= 1


def test_warping_is_what_another_speed_does_to_frequencies() -> None:
    sound = chirp()
    fast = torch.from_numpy(FBANK.raw(change_speed(sound, 1.15))).mean(0)
    slow = torch.from_numpy(FBANK.raw(sound))[None]
    plain, warped = slow[0].mean(0), warped_by(slow, torch.tensor([1.15]))[0].mean(0)
    assert float((warped - fast).abs().mean()) < 0.5 * float((plain - fast).abs().mean())


def test_without_changes_clips_stay_as_they_are() -> None:
    feats = torch.randn(5, 20, BINS)
    none = ClipAugment(0, 0.0, (0.0, 0.0), 0.0, 0.0, SpecAugment(0, 0, 0, 0))
    noise = noise_powers([np.zeros((50, BINS), np.float32)], BINS)
    torch.testing.assert_close(none(feats, noise, torch.Generator()), feats, atol=1e-5, rtol=0)


def test_masks_of_a_batch_are_those_of_clips_one_by_one() -> None:
    masks = SpecAugment(freq_masks=1, freq_width=3, time_masks=1, time_width=6, time_share=0.5)
    feats = torch.randn(200, 20, 12)
    many = masks.of_batch(feats, torch.Generator().manual_seed(3))
    hidden = many != feats
    assert hidden.any((1, 2)).float().mean() > 0.7
    frames, bins = hidden.all(2).sum(1), hidden.all(1).sum(1)
    assert int(frames.max()) == 6 and int(bins.max()) == 3
    means = feats.mean(1, keepdim=True).expand_as(feats)
    torch.testing.assert_close(many[hidden], means[hidden])
    alone = masks(feats[0], torch.Generator().manual_seed(3))
    assert alone.shape == (20, 12)


def test_generated_noise_has_every_colour_and_recordings_are_scaled_alike() -> None:
    generated = noise_powers([], BINS)
    assert generated.shape == (6000, BINS)
    white, pink, brown = generated.split(2000)
    tilt = [float(each[:, -5:].mean() / each[:, 5:10].mean()) for each in (white, pink, brown)]
    assert tilt[0] > 3 * tilt[1] > 9 * tilt[2]
    two = noise_powers([np.zeros((3, 2), np.float32), np.full((4, 2), 5.0, np.float32)], 2)
    torch.testing.assert_close(two, torch.ones(7, 2))


@pytest.mark.parametrize(
    "odd", [{"shift": -1}, {"noise": 1.5}, {"snr": (1.0,)}, {"warp": 0.7}, {"gain": -1.0}]
)
def test_changes_that_mean_nothing_are_refused(odd: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(odd))):
        ClipAugment(**odd)  # type: ignore[arg-type]
