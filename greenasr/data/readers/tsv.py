"""TSV manifests: a header, then one utterance a line; columns are found by their names, others are let be.

    utt_id   audio          start_sample   num_samples   speaker   split   text
    an1      audio/a.flac   0              64000         fcaw      test    GO

`utt_id`, `audio` and `text` are needed; without `start_sample` and `num_samples` an utterance is its whole
file, without `split` the split is named as the file, without `speaker` everyone is their own.  Paths are
relative to the manifest.  A column `sample_rate`, where there is one, must agree with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from greenasr.data.audio import header
from greenasr.data.readers.lines import needed
from greenasr.data.readers.rows import Row, existing

NEEDED = "utt_id audio text"


def is_manifest(path: Path) -> bool:
    """Whether the first line names the columns that are needed."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return set(NEEDED.split()) <= set(file.readline().rstrip("\r\n").split("\t"))


def manifests(path: Path) -> list[Path]:
    """The file itself, or the manifests of a folder."""
    return [path] if path.is_file() else sorted(p for p in path.glob("*.tsv") if is_manifest(p))


def read(path: Path) -> Iterator[Row]:
    """The utterances of a manifest, or of all of a folder."""
    for file in manifests(path):
        yield from _read(file)


def _read(path: Path) -> Iterator[Row]:
    rates: dict[Path, str] = {}
    with open(path, encoding="utf-8-sig") as file:
        columns = file.readline().rstrip("\r\n").split("\t")
        if lacking := set(NEEDED.split()) - set(columns):
            raise ValueError(
                f"{path}:1: the header lacks '{sorted(lacking)[0]}', expected tab-separated columns "
                "utt_id audio start_sample num_samples speaker split text."
            )
        for number, line in enumerate(file, 2):
            fields = line.rstrip("\r\n").split("\t")
            where = f"{path}:{number}"
            if fields == [""]:
                continue
            if len(fields) != len(columns):
                raise ValueError(f"{where}: {len(fields)} columns, the header has {len(columns)}.")
            value = dict(zip(columns, fields, strict=True))
            needed(value, NEEDED, where)
            audio = existing(value["audio"], path.parent)
            start, end = _stretch(value, where)
            if stated := value.get("sample_rate", ""):
                if audio not in rates:
                    rates[audio] = str(header(audio).rate) if audio.exists() else stated
                if stated != rates[audio]:
                    raise ValueError(
                        f"{where}: sample_rate {stated}, but {audio} has {rates[audio]}; samples are counted "
                        "at the file's rate, correct the manifest."
                    )
            yield Row(
                value["utt_id"], audio, value["text"], where, value.get("split") or path.stem,
                value.get("speaker", ""), start, end, in_samples=True,
            )  # fmt: skip


def _stretch(value: dict[str, str], where: str) -> tuple[int, int | None]:
    """First sample and the one after the last."""
    try:
        start = int(value.get("start_sample") or 0)
        count = value.get("num_samples")
        return start, start + int(count) if count else None
    except ValueError:
        raise ValueError(
            f"{where}: start_sample '{value.get('start_sample')}' and num_samples "
            f"'{value.get('num_samples')}', expected whole numbers."
        ) from None
