"""Speech Commands on disk: its lists, its own way to split speakers, its noise, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from greenasr.data.corpora import guess_kind, read_corpus, speaker, words
from greenasr.data.readers import commands
from greenasr.data.readers.rows import cut_sets

Sound = Callable[..., Path]


@pytest.fixture
def clips(sound: Sound) -> Sound:
    """``clips("yes/a_nohash_0.wav", …)``: clips in the folder ``gsc``, which it returns."""

    def write(*names: str) -> Path:
        paths = [sound(f"gsc/{name}", 440, seconds=0.3) for name in names]
        return paths[0].parents[1]

    return write


def test_the_lists_say_the_splits_and_names_the_speakers(clips: Sound, sound: Sound) -> None:
    root = clips("yes/a1_nohash_0.wav", "yes/b2_nohash_0.wav", "yes/b2_nohash_1.flac", "no/a1_nohash_0.wav")
    clips("no/c3_nohash_0.wav")
    (root / "validation_list.txt").write_text("yes/b2_nohash_0.wav\nyes/b2_nohash_1.flac\n")
    (root / "testing_list.txt").write_text("no/c3_nohash_0.wav\n")
    sound("gsc/_background_noise_/fan.wav", 100, seconds=1.5)
    assert guess_kind(root) == "commands"
    found = read_corpus(root)
    assert {split: [cut.id for cut in cuts] for split, cuts in found.items()} == {
        "train": ["no-a1_nohash_0", "yes-a1_nohash_0"],
        "test": ["no-c3_nohash_0"],
        "dev": ["yes-b2_nohash_0", "yes-b2_nohash_1"],
    }
    assert [(words(cut), speaker(cut)) for cut in found["train"]] == [(["no"], "a1"), (["yes"], "a1")]
    (noise,) = cut_sets(commands.background(root))["background"]
    assert noise.duration == 1.5 and words(noise) == ["_background_noise_"]


def test_without_lists_speakers_are_split_as_speech_commands_does() -> None:
    names = {"train": "004ae714", "dev": "", "test": ""}
    found: dict[str, int] = {}
    for k in range(2000):
        split = commands.split_of(f"{k:08x}")
        found[split] = found.get(split, 0) + 1
        names[split] = names[split] or f"{k:08x}"
    assert 0.77 < found["train"] / 2000 < 0.83 and 0.08 < found["dev"] / 2000 < 0.12
    assert commands.split_of(commands.speaker_of(f"x/{names['dev']}_nohash_3.wav")) == "dev"


def test_splits_by_name_are_those_of_the_published_lists() -> None:
    published = {"62581901": "train", "6d818f6c": "dev", "aef8dcf5": "test", "f428ca69": "test"}  # version 1
    assert {name: commands.split_of(name) for name in published} == published


def test_any_folder_of_word_folders_will_do(clips: Sound) -> None:
    root = clips("ja/anna.wav", "nein/anna.wav", "nein/bob.wav")
    found = read_corpus(root)
    assert sorted(cut.id for cuts in found.values() for cut in cuts) == ["ja-anna", "nein-anna", "nein-bob"]
    by_speaker: dict[str, set[str]] = {}
    for split, cuts in found.items():
        for cut in cuts:
            by_speaker.setdefault(speaker(cut), set()).add(split)
    assert all(len(splits) == 1 for splits in by_speaker.values())


def test_two_files_of_one_name_are_refused(clips: Sound) -> None:
    root = clips("yes/a1_nohash_0.wav", "yes/a1_nohash_0.flac", "no/a1_nohash_0.wav")
    with pytest.raises(ValueError, match="utterance 'yes-a1_nohash_0' is there already, at .*flac"):
        read_corpus(root, "commands")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("testing_list.txt", "yes/zz_nohash_0.wav", "testing_list.txt:1: there is no clip yes/zz_nohash_0"),
        ("testing_list.txt", "yes/a1_nohash_0.wav\nyes/a1_nohash_0.wav", "txt:2: .* is listed already, at"),
        ("validation_list.txt", "maybe/a1_nohash_0.wav", "validation_list.txt:1: there is no clip maybe/"),
    ],
)
def test_lists_must_name_clips_once(clips: Sound, name: str, text: str, message: str) -> None:
    root = clips("yes/a1_nohash_0.wav", "no/a1_nohash_0.wav")
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_corpus(root)


def test_a_word_without_clips_is_refused(clips: Sound) -> None:
    root = clips("yes/a1_nohash_0.wav", "no/a1_nohash_0.wav")
    (root / "up").mkdir()
    with pytest.raises(ValueError, match="up: no sound files in the folder of a word"):
        read_corpus(root)


def test_other_corpora_are_not_taken_for_word_folders(sound: Sound, tmp_path: Path) -> None:
    sound("lone/yes/a.wav", 440)
    with pytest.raises(ValueError, match="not a corpus of a known format"):
        guess_kind(tmp_path / "lone")
