"""lhotse manifests: cuts, or recordings with supervisions, as JSON lines.

    train.cuts.jsonl.gz    libri_cuts_train.jsonl.gz    libri_recordings_train.jsonl.gz + libri_supervisions_…

A split is what a name has beside "cuts", "recordings" or "supervisions".  A cut of several supervisions
becomes one a supervision.  Recordings that are one file and nothing else are checked against it; others
(perturbed, several files, a URL) are left to lhotse.  Paths are relative to the manifest, or to where
the command is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from greenasr.data.readers.lines import json_lines, needed
from greenasr.data.readers.rows import Row, existing

NAME = re.compile(r"(?:(.+)[._-])?(cuts|recordings|supervisions)(?:[._-](.+))?\.jsonl(?:\.gz)?")
ROUNDING = 0.05  # seconds by which a supervision may end late
MONO, MULTI = "MonoCut", "MultiCut"


def manifests(path: Path) -> list[Path]:
    """The file itself, or the cuts, else the supervisions, of a folder."""
    if path.is_file():
        return [path]
    named = {p: m[2] for p in sorted(path.iterdir()) if (m := NAME.fullmatch(p.name))}
    roles = set(named.values())
    role = "cuts" if "cuts" in roles else "supervisions"
    return [p for p, r in named.items() if r == role]


def is_manifest(path: Path) -> bool:
    """Whether the first line is a cut, a recording or a supervision."""
    try:
        first = next(json_lines(path))[1]
    except (ValueError, StopIteration):
        return False
    return first.get("type") in (MONO, MULTI, "MixedCut") or "recording_id" in first or "sources" in first


def split_name(path: Path) -> str:
    """A manifest's split by its name.

    >>> [split_name(Path(p)) for p in ("train.cuts.jsonl.gz", "libri_cuts_dev-clean.jsonl", "cuts.jsonl")]
    ['train', 'dev-clean', 'cuts']
    """
    parts = NAME.fullmatch(path.name)
    if parts is None:
        return path.name.split(".jsonl")[0]
    return parts[3] or parts[1] or parts[2]


def read(path: Path) -> Iterator[Row]:
    """The utterances of a manifest, or of all of a folder."""
    for file in manifests(path):
        parts = NAME.fullmatch(file.name)
        first = next(json_lines(file), ("", {}))[1]
        if "type" in first:
            yield from _of_cuts(file)
        elif parts and parts[2] != "cuts":
            pair = {
                role: file.with_name(_renamed(file.name, role)) for role in ("recordings", "supervisions")
            }
            yield from _of_supervisions(**pair, split=split_name(file))
        else:
            raise ValueError(
                f"{file}: found neither lhotse cuts nor a pair of recordings and supervisions; name them "
                "SPLIT.cuts.jsonl.gz, or recordings_SPLIT.jsonl.gz and supervisions_SPLIT.jsonl.gz."
            )


def _renamed(name: str, role: str) -> str:
    """A manifest's name with another role in it."""
    return re.sub(r"(?<![a-z])(recordings|supervisions)(?![a-z])", role, name)


def _of_cuts(path: Path) -> Iterator[Row]:
    split = split_name(path)
    for where, cut in json_lines(path):
        if cut.get("type") not in (MONO, MULTI):
            raise ValueError(
                f"{where}: a {cut.get('type', 'line')} that is no stretch of one recording; save cuts "
                "before mixing or padding them."
            )
        needed(cut, "id start duration recording", where)
        supervisions = cut.get("supervisions") or [{}]
        audio = _audio(cut["recording"], where, path.parent)
        channel = cut.get("channel") if cut["type"] == MONO else None
        for s in supervisions:
            alone = len(supervisions) == 1
            start = cut["start"] + (0.0 if alone else s.get("start", 0.0))
            yield Row(
                cut["id"] if alone else s["id"], audio, s.get("text"), where, split, s.get("speaker") or "",
                start, start + (cut["duration"] if alone else s["duration"]),
                overshoot=ROUNDING, channel=channel, custom=s.get("custom") or {},
            )  # fmt: skip


def _of_supervisions(recordings: Path, supervisions: Path, split: str) -> Iterator[Row]:
    sounds: dict[str, Any] = {}
    for where, value in json_lines(recordings):
        needed(value, "id sources sampling_rate num_samples", where)
        if value["id"] in sounds:
            raise ValueError(f"{where}: the recording '{value['id']}' is there already; keep one.")
        sounds[value["id"]] = _audio(value, where, recordings.parent)
    for where, s in json_lines(supervisions):
        needed(s, "id recording_id start duration", where)
        channel = s.get("channel")
        yield Row(
            s["id"], sounds.get(s["recording_id"]), s.get("text"), where, split, s.get("speaker") or "",
            s["start"], s["start"] + s["duration"], overshoot=ROUNDING,
            channel=channel if isinstance(channel, int) else None, custom=s.get("custom") or {},
        )  # fmt: skip


def _audio(value: Mapping[str, Any], where: str, folder: Path) -> Any:
    """A recording's file, or a lhotse recording where it is more than a file."""
    sources = value["sources"]
    plain = len(sources) == 1 and sources[0].get("type") == "file" and not value.get("transforms")
    if plain:
        return existing(sources[0]["source"], folder, Path())
    from lhotse import Recording

    try:
        return Recording.from_dict(dict(value))
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"{where}: not a lhotse recording ({error}); write it again with lhotse.") from None
