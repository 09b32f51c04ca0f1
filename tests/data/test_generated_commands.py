"""Generated commands: all words equally often, voices that are in one split alone, clips of one word."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from greenasr.data.clips import census
from greenasr.data.corpora import load_cuts, speaker, words
from greenasr.data.generated import generate_speech
from greenasr.data.generated_splits import COMMANDS, parts_of, sayings
from greenasr.data.speech import speakers


def test_all_words_are_said_once_before_one_is_said_again() -> None:
    said = list(islice(sayings("commands", random.Random(1)), 90))
    assert all(set(said[k : k + 30]) == set(COMMANDS) for k in (0, 30, 60)) and len(COMMANDS) == 30
    assert said[:30] != said[30:60]


def test_there_are_eighty_voices_and_none_is_in_two_splits() -> None:
    voices = {
        split: {each.voice for each in speakers(part.roster, part.speakers)}
        for split, part in parts_of("commands").items()
    }
    assert len(voices["train"]) >= 80 and len({s for each in voices.values() for s in each}) == sum(
        map(len, voices.values())
    )


def test_a_clip_holds_one_word_and_the_corpus_is_the_same_again(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    for out in ("a", "b"):
        generate_speech(tmp_path / out, 0.006, jobs=1, utterances=5, domain="commands")
    cuts = load_cuts(tmp_path / "a" / "test.cuts.jsonl.gz")
    assert Counter(len(words(cut)) for cut in cuts) == {1: 5} and {w for c in cuts for w in words(c)} <= set(
        COMMANDS
    )
    assert census(cuts)["silent"] == 0 and len({speaker(cut) for cut in cuts}) == 1
    sounds = [
        sorted((path.name, path.read_bytes()) for path in (tmp_path / out).rglob("*.wav")) for out in "ab"
    ]
    assert sounds[0] == sounds[1]


def test_strings_of_two_to_four_digits_come_equally_often() -> None:
    said = [line.split() for line in islice(sayings("digits", random.Random(1)), 3000)]
    assert set(map(len, said)) == {2, 3, 4} and min(Counter(map(len, said)).values()) > 900
    digits = Counter(word for line in said for word in line)
    assert set(digits) == set(COMMANDS[:10]) and min(digits.values()) > 750
    parts = parts_of("digits")
    heard = [{each.voice for each in speakers(part.roster, part.speakers)} for part in parts.values()]
    assert len(set.union(*heard)) == sum(map(len, heard))
