"""LibriSpeech: <split>/<speaker>/<chapter>/<speaker>-<chapter>-<n>.flac beside <speaker>-<chapter>.trans.txt.

    84-121123-0000 GO DO YOU HEAR

Splits are named as their folders, train-clean-100 to test-other.  The folder may be the one that
holds LibriSpeech, LibriSpeech itself or one of its splits.
Panayotov et al. 2015, "Librispeech: an ASR corpus based on public domain audio books".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from greenasr.data.readers.lines import numbered_lines
from greenasr.data.readers.rows import Row

DEPTHS = ("*/*", "*/*/*", "*/*/*/*")  # folders between the given one and a chapter's transcript


def transcripts(path: Path) -> Iterator[Path]:
    """The chapters' transcripts."""
    for depth in DEPTHS:
        if found := sorted(path.resolve().glob(f"{depth}/*.trans.txt")):
            return iter(found)
    return iter(())


def read(path: Path) -> Iterator[Row]:
    """The utterances of all splits, by speaker and chapter."""
    for file in transcripts(path):
        speaker, split = file.parts[-3], file.parts[-4]
        for number, line in numbered_lines(file):
            utt_id, _, text = line.partition(" ")
            audio = file.parent / f"{utt_id}.flac"
            if not audio.exists() and audio.with_suffix(".wav").exists():
                audio = audio.with_suffix(".wav")
            yield Row(utt_id, audio, text, f"{file}:{number}", split, speaker)
