"""Google Speech Commands and folders like it: a folder a word, a file a clip of somebody who says it.

    yes/004ae714_nohash_0.wav          speaker 004ae714 says yes
    validation_list.txt, testing_list.txt     their clips are the splits dev and test, all others train
    _background_noise_/*.wav           no words: `background` reads them

Version 1 has 30 words, version 2 35, any other folder its own.  Without the two lists a speaker's split
follows from the name, as Speech Commands made its lists, so that nobody is in two:

    100 · (SHA-1(speaker) mod 2^27) / (2^27 - 1)     below 10: dev, below 20: test, else train

Warden 2018, "Speech Commands: A dataset for limited-vocabulary speech recognition" (arXiv 1804.03209).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from greenasr.data.readers.lines import numbered_lines
from greenasr.data.readers.rows import Row

LISTS = {"dev": "validation_list.txt", "test": "testing_list.txt"}
BACKGROUND = "_background_noise_"
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".sph", ".aiff")
LARGEST = 2**27 - 1
SHARES = {"dev": 10.0, "test": 20.0}  # percent of speakers below which a name's number lies


def is_corpus(path: Path) -> bool:
    """Whether a folder has Speech Commands' lists or noise, or two folders with sounds in them and more."""
    if any((path / name).exists() for name in (*LISTS.values(), BACKGROUND)):
        return bool(word_folders(path))
    return sum(any(_sounds(folder)) for folder in word_folders(path)) > 1


def word_folders(path: Path) -> list[Path]:
    """The folders of words, in order."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))


def speaker_of(name: str) -> str:
    """Who says a clip, by the name of its file.

    >>> speaker_of("004ae714_nohash_1.wav"), speaker_of("anna.wav")
    ('004ae714', 'anna')
    """
    return re.sub(r"_nohash_.*$", "", Path(name).stem)


def split_of(speaker: str) -> str:
    """The split of a speaker where no list says it."""
    number = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % (LARGEST + 1)
    share = 100.0 * number / LARGEST
    return next((split for split, below in SHARES.items() if share < below), "train")


def read(path: Path) -> Iterator[Row]:
    """Every clip of every word; ValueError for lists that name what is not there, and folders of no sound."""
    listed = _lists(path)
    by_list = any((path / name).exists() for name in LISTS.values())
    for folder in word_folders(path):
        files = sorted(_sounds(folder))
        if not files:
            raise ValueError(f"{folder}: no sound files in the folder of a word: fill it or take it out.")
        for file in files:
            clip, speaker = f"{folder.name}/{file.name}", speaker_of(file.name)
            split, _ = listed.pop(clip, ("train" if by_list else split_of(speaker), ""))
            yield Row(
                f"{folder.name}-{file.stem}", file, folder.name, str(file), split, speaker, in_samples=True
            )
    for clip, (_, where) in listed.items():
        raise ValueError(f"{where}: there is no clip {clip} in {path}: is the corpus whole?")


def background(path: Path) -> Iterator[Row]:
    """The recordings of noise, each whole; none where there is no such folder."""
    for file in sorted(_sounds(path / BACKGROUND)) if (path / BACKGROUND).is_dir() else ():
        yield Row(file.stem, file, BACKGROUND, str(file), "background", "background", in_samples=True)


def _sounds(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.suffix.lower() in SOUNDS and not p.name.startswith("."))


def _lists(path: Path) -> dict[str, tuple[str, str]]:
    """Clip -> (split, file:line) of both lists."""
    found: dict[str, tuple[str, str]] = {}
    for split, name in LISTS.items():
        for number, clip in numbered_lines(path / name) if (path / name).exists() else ():
            where = f"{path / name}:{number}"
            if clip in found:
                raise ValueError(f"{where}: {clip} is listed already, at {found[clip][1]}: list it once.")
            found[clip] = split, where
    return found
