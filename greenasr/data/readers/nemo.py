"""NeMo manifests: JSON lines {"audio_filepath": …, "text": …, "duration": …, "offset": …, "speaker": …}.

`audio_filepath` is relative to the manifest, `duration` and `offset` are seconds and may lack.  There is no
utterance id: `id` is taken where a line has it, else the path below the manifest's common folder, with the
offset in ms where there is one.  A file `train_manifest.json` is the split train.
Format: NeMo's documentation, "ASR datasets", preparing custom data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from greenasr.data.readers.lines import json_lines, needed
from greenasr.data.readers.rows import Row, existing

ROUNDING = 0.05  # seconds by which a stated duration may be too long


def is_manifest(path: Path) -> bool:
    """Whether the first line is a JSON object with an audio_filepath."""
    try:
        return "audio_filepath" in next(json_lines(path))[1]
    except (ValueError, StopIteration):
        return False


def manifests(path: Path) -> list[Path]:
    """The file itself, or the manifests of a folder."""
    if path.is_file():
        return [path]
    return sorted(p for end in ("json", "jsonl", "jsonl.gz") for p in path.glob(f"*.{end}") if is_manifest(p))


def split_name(path: Path) -> str:
    """A manifest's split by its name.

    >>> split_name(Path("manifest_dev_clean.json")), split_name(Path("train.jsonl.gz"))
    ('dev_clean', 'train')
    """
    stem = path.name.split(".json")[0]
    return re.sub(r"^manifest[._-]|[._-]manifest$", "", stem)


def read(path: Path) -> Iterator[Row]:
    """The utterances of a manifest, or of all of a folder."""
    for file in manifests(path):
        yield from _read(file)


def _read(path: Path) -> Iterator[Row]:
    lines = list(json_lines(path))
    for where, value in lines:
        needed(value, "audio_filepath", where)
    folders = {os.path.dirname(value["audio_filepath"]) for _, value in lines}
    common = os.path.commonpath(folders) if len({os.path.isabs(f) for f in folders}) == 1 else ""
    for where, value in lines:
        audio = value["audio_filepath"]
        start, end = _stretch(value, where)
        text = None if value.get("text") is None else str(value["text"])
        utt_id = str(value.get("id") or _utt_id(os.path.relpath(audio, common or "."), value))
        file = existing(audio, path.parent, Path())
        speaker = str(value.get("speaker") or "")
        yield Row(utt_id, file, text, where, split_name(path), speaker, start, end, overshoot=ROUNDING)


def _utt_id(path: str, value: dict[str, Any]) -> str:
    """Path without suffix, its folders joined by "-", and the offset in ms where there is one."""
    name = os.path.splitext(path)[0].replace(os.sep, "-")
    return f"{name}-{round(1000 * float(value['offset'])):07d}" if value.get("offset") is not None else name


def _stretch(value: dict[str, Any], where: str) -> tuple[float, float | None]:
    """Start and end in seconds."""
    offset, duration = value.get("offset"), value.get("duration")
    try:
        start = float(offset or 0.0)
        return start, None if duration is None else start + float(duration)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: offset {offset!r} and duration {duration!r}: expected seconds as numbers."
        ) from None
