"""Kaldi data directories: wav.scp, text, utt2spk and, where recordings hold several utterances, segments.

    wav.scp    recording path                    segments   utterance recording start end
    text       utterance the words               utt2spk    utterance speaker

A pipe of wav.scp is never run.  Three that only unpack a file are read from that file: `sph2pipe … -c N
FILE |`, `flac -d … FILE |`, `cat FILE |`.  An end of -1 is the recording's end.
Format: Kaldi's "Data preparation" page (kaldi-asr.org/doc/data_prep.html).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from greenasr.data.readers.lines import numbered_lines
from greenasr.data.readers.rows import OVERSHOOT, Row, existing

Table = dict[str, tuple[str, str]]  # key -> rest of the line, file:line


def data_dirs(path: Path) -> list[Path]:
    """The folder itself where it has a wav.scp, else those within it that have."""
    return [path] if (path / "wav.scp").exists() else sorted(p.parent for p in path.glob("*/wav.scp"))


def read(path: Path) -> Iterator[Row]:
    """The utterances of one data directory or of a folder of them; a split is named as its folder."""
    for folder in data_dirs(path):
        yield from _read(folder)


def _read(folder: Path) -> Iterator[Row]:
    sources = {
        recording: _source(rest, where, folder)
        for recording, (rest, where) in read_table(folder / "wav.scp").items()
    }
    texts = read_table(folder / "text")
    speakers = read_table(folder / "utt2spk") if (folder / "utt2spk").exists() else {}
    split = folder.resolve().name
    for utt_id, (recording, start, end, where) in _stretches(folder, sources).items():
        if recording not in sources:
            raise ValueError(f"{where}: '{utt_id}' is of the recording '{recording}', which wav.scp lacks.")
        audio, channel = sources[recording]
        text, text_where = texts.pop(utt_id, (None, where))
        speaker = speakers.get(utt_id, ("", ""))[0]
        yield Row(
            utt_id, audio, text, text_where, split, speaker, start, end,
            overshoot=OVERSHOOT, channel=channel,
        )  # fmt: skip
    for utt_id, (text, where) in texts.items():
        yield Row(utt_id, None, text, where, split)


def read_table(path: Path) -> Table:
    """Lines "key rest" by key; ValueError where a key stands twice."""
    table: Table = {}
    for number, line in numbered_lines(path):
        key, _, rest = line.replace("\t", " ").partition(" ")
        where = f"{path}:{number}"
        if key in table:
            raise ValueError(
                f"{where}: '{key}' is there already, at {table[key][1]}; give every one its own id."
            )
        table[key] = rest.strip(), where
    if not table:
        raise ValueError(f"{path}: nothing in it, expected lines of an id and what belongs to it.")
    return table


def _stretches(
    folder: Path, sources: dict[str, tuple[Path, int | None]]
) -> dict[str, tuple[str, float, float | None, str]]:
    """Utterance -> recording, start, end, file:line; whole recordings where there are no segments."""
    if not (folder / "segments").exists():
        return {recording: (recording, 0.0, None, f"{folder / 'wav.scp'}") for recording in sources}
    stretches: dict[str, tuple[str, float, float | None, str]] = {}
    for utt_id, (rest, where) in read_table(folder / "segments").items():
        fields = rest.split()
        try:
            recording, start, end = fields[0], float(fields[1]), float(fields[2])
        except (IndexError, ValueError):
            raise ValueError(
                f"{where}: found '{utt_id} {rest}', expected 'utterance recording start end' in seconds."
            ) from None
        stretches[utt_id] = recording, start, None if end == -1 else end, where
    return stretches


def _source(rest: str, where: str, folder: Path) -> tuple[Path, int | None]:
    """The file and, where it is chosen, the channel from 0 of a line of wav.scp."""
    base = (Path(), folder, folder.parent, folder.parent.parent)  # Kaldi's paths begin where it is run
    if not rest:
        raise ValueError(f"{where}: a recording without a path, expected 'recording path'.")
    if not rest.endswith("|"):
        if ".ark:" in rest:
            raise ValueError(f"{where}: '{rest}' is in an archive; list plain sound files instead.")
        return existing(rest, *base), None
    try:
        words = shlex.split(rest[:-1])
    except ValueError:
        words = []
    program = Path(words[0]).name if words else ""
    if len(words) > 1 and "|" not in words and not words[-1].startswith("-"):
        if program == "sph2pipe":
            channel = int(words[words.index("-c") + 1]) - 1 if "-c" in words else None
            return existing(words[-1], *base), channel
        if program == "cat" or (
            program == "flac" and any(w.startswith("-") and "d" in w for w in words[1:-1])
        ):
            return existing(words[-1], *base), None
    raise ValueError(
        f"{where}: '{rest[:60]}' is a command, which is not run here; run it once for every recording and "
        "list the files that it writes."
    )
