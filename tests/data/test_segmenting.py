"""Long sound is cut where it is quiet, the same whatever blocks it comes in."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from greenasr.data.segmenting import (
    FLOOR,
    HISTORY,
    RISE,
    SHARE,
    SILENT,
    Pauses,
    Piece,
    is_voiced,
    level_size,
    levels,
    pieces,
    split,
    utterances,
)

Hum = Callable[..., NDArray[np.float32]]
RATE = 16_000


def seconds(sound: NDArray[np.float32], rate: int = RATE, **how: float) -> list[tuple[float, float]]:
    return [(start / rate, end / rate) for start, end in split(sound, rate, Pauses(**how))]


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100])
def test_an_utterance_keeps_half_a_pause_on_either_side(hum: Hum, rate: int) -> None:
    sound = hum(1.0, "LOW", 0.3, "HIGH", 0.7, "LOW", 2.0, rate=rate)
    found = seconds(sound, rate)
    assert found == [pytest.approx((0.75, 2.55), abs=0.06), pytest.approx((2.75, 3.75), abs=0.06)]
    assert len(seconds(sound, rate, pause=0.2)) == 3
    assert len(seconds(sound, rate, pause=1.0)) == 1


def test_sound_that_ends_early_or_begins_at_once_is_kept_to_its_ends(hum: Hum) -> None:
    sound = hum("LOW", 0.1)
    assert split(sound, RATE) == [(0, len(sound))]
    assert split(sound[:-100], RATE) == [(0, len(sound) - 100)]


def test_quiet_is_no_utterance(hum: Hum) -> None:
    assert split(np.zeros(3 * RATE, np.float32), RATE) == []
    assert split(np.full(3 * RATE, 1e-4, np.float32), RATE) == []
    assert split(np.zeros(0, np.float32), RATE) == []
    behind = seconds(hum("LOW", 25.0, "LOW"))
    assert behind == [(0.0, 0.75), (25.25, 26.0)]


def test_loud_noise_is_heard_until_half_a_minute_shows_that_nothing_stands_out() -> None:
    noise = np.random.default_rng(0).standard_normal(90 * RATE).astype(np.float32)
    assert seconds(0.1 * noise)[-1][1] == pytest.approx(30, abs=0.5)
    assert seconds(1e-3 * noise) == []


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.1])
def test_speech_on_noise_is_cut_at_its_pauses_once_the_noise_is_known(hum: Hum, sigma: float) -> None:
    sound = hum("LOW", 40.0, "LOW", 0.7, "HIGH", 60.0, "LOW", 1.0)
    sound += sigma * np.random.default_rng(1).standard_normal(len(sound)).astype(np.float32)
    found = seconds(sound)
    assert found[0][0] == 0.0, "before that nothing is left out, so that no word can be lost"
    assert all(end < 31 for _, end in found[:-3])
    assert found[-3:] == [(40.25, 41.25), (41.45, 42.45), (101.95, 102.95)]


def test_after_minutes_of_digital_silence_the_first_word_is_whole(hum: Hum) -> None:
    silence = np.zeros(180 * RATE, np.float32)
    found = seconds(np.concatenate([silence, hum("LOW"), silence, hum("HIGH")]))
    assert found == [(179.75, 180.75), (360.25, 361.0)]


@pytest.mark.parametrize("gain", [0.01, 0.1, 1.0])
def test_loudness_moves_no_cut(hum: Hum, gain: float) -> None:
    sound = hum(1.0, "LOW", 0.7, "HIGH", 1.0)
    assert split(gain * sound, RATE) == split(sound, RATE)


def test_without_a_pause_the_quietest_place_of_the_second_half_is_cut(hum: Hum) -> None:
    sound = hum(*["LOW"] * 16, 0.3, *["HIGH"] * 3, 0.25, *["LOW"] * 30)
    found = seconds(sound, longest=10.0)
    assert found[0] == (0.0, pytest.approx(8.15, abs=0.1))  # in the longer gap, of those behind 5 s
    assert all(end - start <= 10 for start, end in found)
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]
    assert found[-1][1] == len(sound) / RATE


@pytest.mark.parametrize("size", [7, 160, 400, 800, 801, 12_345, 10**6])
def test_blocks_of_any_size_are_cut_alike(hum: Hum, size: int) -> None:
    if size < 400:  # so many blocks: a short sound
        sound = hum(0.1, "LOW", 0.2, "HIGH", 0.05)
        how = Pauses(pause=0.1, longest=1.0)
    else:
        rng = np.random.default_rng(3)
        parts = [part for _ in range(20) for part in (("LOW", "HIGH")[rng.integers(2)], rng.uniform(0.05, 1))]
        sound, how = hum(*parts), Pauses(pause=0.4, longest=4.0)
    blocks = (sound[at : at + size] for at in range(0, len(sound), size))
    found = list(utterances(blocks, RATE, how))
    assert [(u.start, u.start + len(u.samples)) for u in found] == split(sound, RATE, how)
    assert len(found) > 1
    for each in found:
        np.testing.assert_array_equal(each.samples, sound[each.start : each.start + len(each.samples)])


def test_an_utterance_is_handed_on_when_its_pause_is_over_and_no_later(hum: Hum) -> None:
    taken = 0

    def blocks(sound: NDArray[np.float32], size: int = 800) -> Iterator[NDArray[np.float32]]:
        nonlocal taken
        for at in range(0, len(sound), size):
            taken = at + size
            yield sound[at : at + size]

    sound = hum(0.5, "LOW", 5.0, "HIGH", 1.0)
    first = next(utterances(blocks(sound), RATE, Pauses(0.5)))
    assert (first.start + len(first.samples)) / RATE == 1.25
    assert taken / RATE == 1.5


def test_quiet_of_any_length_is_not_kept() -> None:
    block = np.zeros(RATE, np.float32)
    tracemalloc.start()
    assert list(utterances((block for _ in range(300)), RATE)) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * block.nbytes


def test_levels_equal_the_obvious_loop() -> None:
    sound = np.random.default_rng(0).standard_normal(5_000).astype(np.float32)
    size = level_size(RATE)
    slow = [
        10 * math.log10(sum(float(x) ** 2 for x in part) / len(part))
        for at in range(0, len(sound), size)
        for part in [sound[at : at + size]]
    ]
    assert levels(sound, RATE).tolist() == pytest.approx(slow)


def test_thresholds_equal_the_obvious_loop() -> None:
    level = np.maximum(np.random.default_rng(1).normal(-50, 20, size=1_500), SILENT)
    slow = []
    for t, each in enumerate(level):
        window = level[max(0, t + 1 - HISTORY) : t + 1]
        low, high = min(window), max(window)
        if t + 1 < HISTORY:
            low = min(low, FLOOR)
        slow.append(bool(high - low >= RISE and each >= low + SHARE * (high - low)))
    assert is_voiced(level, np.zeros(0)).tolist() == slow
    assert is_voiced(level[900:], level[:900]).tolist() == slow[900:]
    assert is_voiced(level[900:], level[300:900]).tolist() == slow[900:]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ((0.0,), "a pause of 0 s: expected 0.1 to 10"),
        ((math.nan,), "a pause of nan s"),
        ((0.5, 0.6), "utterances of at most 0.6 s: expected two pauses"),
        ((0.5, math.inf), "utterances of at most inf s"),
    ],
)
def test_settings_that_cut_words_or_never_cut_are_refused(how: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pauses(*how)


def joined(found: list[Piece]) -> list[tuple[int, NDArray[np.float32]]]:
    """The utterances that pieces make, each with its start."""
    made: list[tuple[int, NDArray[np.float32]]] = []
    ended = True
    for each in found:
        if ended:
            made.append((each.start, each.samples))
        else:
            assert each.start == made[-1][0]
            made[-1] = each.start, np.concatenate([made[-1][1], each.samples])
        ended = each.last
    assert ended, "the last utterance ends as well"
    return made


@pytest.mark.parametrize("size", [160, 800, 1_001, 10**6])
@pytest.mark.parametrize("pause", [0.1, 0.25, 0.5, 1.0])
def test_pieces_make_the_utterances_that_pauses_end(hum: Hum, size: int, pause: float) -> None:
    rng = np.random.default_rng(7)
    parts = [part for _ in range(12) for part in (("LOW", "HIGH")[rng.integers(2)], rng.uniform(0.05, 1.5))]
    for sound in (hum(*parts), hum(*parts, "LOW")[:-100], hum(0.7, *parts, 0.12)):
        blocks = [sound[at : at + size] for at in range(0, len(sound), size)]
        found, want = (
            joined(list(pieces(blocks, RATE, Pauses(pause)))),
            utterances([sound], RATE, Pauses(pause)),
        )
        for (start, samples), each in zip(found, want, strict=True):
            assert start == each.start
            np.testing.assert_array_equal(samples, each.samples)


def test_a_piece_comes_with_the_block_that_ends_its_level(hum: Hum) -> None:
    sound, taken, given = hum(0.5, "LOW", 0.2, "HIGH", 2.0), 0, 0

    def blocks() -> Iterator[NDArray[np.float32]]:
        nonlocal taken
        for at in range(0, len(sound), 160):
            taken = at + 160
            yield sound[at : at + 160]

    for each in pieces(blocks(), RATE):
        given += len(each.samples)
        if each.last:
            assert (each.start + given, taken) == (round(1.95 * RATE), round(2.2 * RATE))
        elif len(each.samples):
            assert taken == each.start + given, "nothing that surely belongs is held back"
        else:
            assert each.start + given + 800 <= taken, "in quiet it is said that time goes by"


def test_without_a_pause_pieces_end_at_once_when_they_are_too_long(hum: Hum) -> None:
    sound = hum(*["LOW"] * 23)
    found = joined(list(pieces([sound], RATE, Pauses(0.5, 5.0))))
    assert [(start, len(samples)) for start, samples in found] == [
        (0, 80_000),
        (80_000, 80_000),
        (160_000, 24_000),
    ]
    np.testing.assert_array_equal(np.concatenate([samples for _, samples in found]), sound)


def test_nothing_is_a_piece_of_quiet_and_none_of_it_is_kept() -> None:
    block = np.zeros(RATE // 20, np.float32)
    tracemalloc.start()
    assert list(pieces((block for _ in range(20 * 120)), RATE)) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6
    assert list(pieces([], RATE)) == []


def test_what_was_heard_of_a_source_that_breaks_is_an_utterance_and_then_its_error_comes(hum: Hum) -> None:
    def blocks() -> Iterator[NDArray[np.float32]]:
        yield hum("LOW")
        raise ValueError("broken pipe")

    for cut in (utterances, pieces):
        found = []
        with pytest.raises(ValueError, match="broken pipe"):
            for each in cut(blocks(), RATE):
                found.append(each)
        assert sum(len(each.samples) for each in found) == 8_000
    assert isinstance(found[-1], Piece) and found[-1].last
