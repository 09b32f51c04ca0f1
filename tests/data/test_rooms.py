"""Noise at the SNR asked for; rooms that ring as long as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.data.rooms import (
    EARLY,
    RATE,
    SPEED_OF_SOUND,
    Room,
    babble,
    coloured_noise,
    decay_time,
    images,
    mix,
    response,
    reverberate,
)


def signal(n: int = 8000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5, 40.0])
def test_what_mixing_adds_to_speech_lies_the_asked_decibels_below_it(snr: float) -> None:
    speech, noise = 0.1 * signal(), signal(seed=1)
    added = mix(speech, noise, snr) - speech
    assert 10 * np.log10((speech**2).sum() / (added**2).sum()) == pytest.approx(snr, abs=0.01)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_by_three_decibels_an_octave_and_exponent(exponent: float) -> None:
    noise = coloured_noise(1 << 18, exponent, np.random.default_rng(0))
    assert np.mean(noise**2) == pytest.approx(1, rel=0.1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    freqs = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = [power[(freqs >= f) & (freqs < 2 * f)].mean() for f in (500, 1000, 2000, 4000)]
    np.testing.assert_allclose(np.diff(10 * np.log10(octaves)), -3.01 * exponent, atol=0.4)


def test_babble_hears_every_talker_equally_and_repeats_short_ones() -> None:
    loud, soft = 9 * signal(400), 0.01 * signal(6000, seed=1)
    both = babble([loud, soft], 6000)
    np.testing.assert_allclose(both - babble([loud], 6000), babble([soft], 6000), atol=1e-5)
    np.testing.assert_allclose(babble([loud], 800)[:400], babble([loud], 800)[400:])


def test_images_are_those_of_mirroring_the_mouth_in_walls_again_and_again() -> None:
    room = Room((3.0, 4.0, 2.5), (0.7, 1.2, 1.4), (2.1, 2.9, 1.1), 0.3)
    seconds = 0.03
    found = {tuple(np.round(room.mouth, 9)): 0}  # slow and obvious: place -> walls met on the shortest way
    edge = [room.mouth]
    for walls in range(1, 12):
        mirrored = []
        for place in edge:
            for axis, wide in enumerate(room.size):
                for wall in (0.0, wide):
                    image = list(place)
                    image[axis] = 2 * wall - image[axis]
                    if (key := tuple(np.round(image, 9))) not in found:
                        found[key] = walls
                        mirrored.append(tuple(image))
        edge = mirrored
    metres = {key: float(np.linalg.norm(np.subtract(key, room.microphone))) for key in found}
    near = sorted(key for key in found if metres[key] < SPEED_OF_SOUND * seconds)
    slow = [
        (metres[k] / SPEED_OF_SOUND, (-room.reflection) ** found[k] / (4 * np.pi * metres[k])) for k in near
    ]
    times, amplitudes = images(room, seconds)
    assert len(times) == len(slow) > 30
    np.testing.assert_allclose(sorted(zip(times, amplitudes, strict=True)), sorted(slow), rtol=1e-6)


@pytest.mark.parametrize("asked", [0.25, 0.4, 0.7])
def test_a_room_takes_the_asked_time_to_fall_by_sixty_decibels(asked: float) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        room = Room.draw((asked, asked), rng)
        assert decay_time(response(room, rng)) == pytest.approx(asked, rel=0.1)


def test_the_tail_has_the_energy_that_images_would_have() -> None:
    ratios = []
    for seed in range(6):
        room = Room.draw((0.4, 0.6), np.random.default_rng(seed))
        times, amplitudes = images(room, EARLY + 0.04)
        late = np.arange(EARLY, EARLY + 0.04, 1 / RATE)
        power = SPEED_OF_SOUND / (4 * np.pi * room.volume * RATE) * 10 ** (-6 * late / room.rt60)
        ratios.append((amplitudes[times >= EARLY] ** 2).sum() / power.sum())
    assert abs(10 * np.log10(np.mean(ratios))) < 1


def test_the_direct_sound_stays_where_it_was() -> None:
    rng = np.random.default_rng(3)
    heard = response(Room.draw((0.3, 0.3), rng), rng)
    assert heard[0] == pytest.approx(1, rel=0.02)
    click = np.zeros(2000, np.float32)
    click[500] = 1
    found = reverberate(click, heard)
    assert len(found) == 2000
    np.testing.assert_allclose(found[:500], 0, atol=1e-5)
    np.testing.assert_allclose(found[500:], np.resize(heard, 1500), atol=1e-5)


def test_reverberation_is_convolution() -> None:
    speech, heard = signal(300), signal(77, seed=1)
    np.testing.assert_allclose(reverberate(speech, heard), np.convolve(speech, heard)[:300], atol=1e-4)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="not silent all through"):
        mix(np.zeros(10, np.float32), signal(10), 10)
    with pytest.raises(ValueError, match="make both of one length"):
        mix(signal(9), signal(10), 10)
    with pytest.raises(ValueError, match="the mouth at .* is not in a room"):
        Room((3.0, 3.0, 3.0), (4.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.3)
    with pytest.raises(ValueError, match="positive rt60 and a mouth apart"):
        Room((3.0, 3.0, 3.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.3)
    with pytest.raises(ValueError, match="babble wants talkers"):
        babble([], 10)
