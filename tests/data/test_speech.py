"""Voices: disjoint rosters, and an engine that says the same thing the same way every time."""

from __future__ import annotations

import builtins
import random
from typing import Any

import numpy as np
import pytest

from greenasr.data.speech import SPEAKERS, VARIANTS, Synthesiser, respelled, speakers


def test_at_least_sixty_speakers_none_of_whom_shares_a_vocal_tract_with_another_roster() -> None:
    rosters = {name: speakers(name) for name in SPEAKERS}
    assert sum(map(len, rosters.values())) >= 100
    assert len(rosters["train"]) >= 60
    voices = [speaker.voice for roster in rosters.values() for speaker in roster]
    names = [speaker.name for roster in rosters.values() for speaker in roster]
    assert len(set(voices)) == len(set(names)) == len(voices)
    tracts = [{speaker.variant for speaker in roster} for roster in rosters.values()]
    assert not tracts[0] & tracts[1] and not tracts[0] & tracts[2] and not tracts[1] & tracts[2]
    assert [len(tract) for tract in tracts] == [len(variants) for variants in VARIANTS.values()]


def test_pauses_and_respelling_leave_all_other_words_alone() -> None:
    rng, commas = random.Random(0), 0
    for _ in range(200):
        said = respelled("use the code a_ b".split(), rng)
        commas += said.count(",")
        assert said.replace(",", "") == "yooze the code eigh b."
    assert 20 < commas < 70
    assert respelled(["stop"], rng).split() == ["stop."]


def test_a_chunk_sounds_the_same_whatever_was_said_before() -> None:
    pytest.importorskip("espeakng_loader")
    one, other = speakers("test")[:2]  # the second variant draws noise
    texts = ["call the bank.", "stop."]
    with Synthesiser() as fresh:
        first = fresh.say(other, texts, random.Random(1))
    with Synthesiser() as used:
        used.say(one, ["good night."] * 3, random.Random(2))
        again = used.say(other, texts, random.Random(1))
        varied = used.say(other, texts, random.Random(3))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.float32 and 0.3 * 16000 < len(a) < 2 * 16000 and 0.05 < np.abs(a).max() <= 1.1
    assert len(varied[0]) != len(first[0]) or np.any(varied[0] != first[0])


def test_the_letter_a_is_not_the_article() -> None:
    pytest.importorskip("espeakng_loader")
    speaker = speakers("train")[0]
    with Synthesiser() as engine:
        article, letter, spelled = engine.say(
            speaker, ["seat a four.", "seat eigh four.", respelled("seat a_ four".split(), random.Random(0))],
            random.Random(0),
        )  # fmt: skip
    assert abs(len(letter) - len(spelled)) < 0.2 * len(letter)
    assert len(article) < 0.97 * len(letter)


def test_every_voice_of_every_roster_is_one_that_espeak_has() -> None:
    pytest.importorskip("espeakng_loader")
    with Synthesiser() as engine:
        for roster in SPEAKERS:
            for speaker in speakers(roster):
                (sound,) = engine.say(speaker, ["yes."], random.Random(0))
                assert len(sound) > 2000, speaker.voice


def test_a_voice_that_espeak_lacks_is_an_error_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("espeakng_loader")
    from dataclasses import replace

    with Synthesiser() as engine, pytest.raises(ValueError, match="espeak said nothing for 'yes.'"):
        engine.say(replace(speakers("train")[0], accent="en-mars"), ["yes."], random.Random(0))
    assert "no voice 'en-mars+m1'" in capfd.readouterr().err


def test_without_the_package_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_espeak(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "espeakng_loader":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_espeak)
    with pytest.raises(ValueError, match=r"pip install greenasr\[demo\]"):
        Synthesiser()
