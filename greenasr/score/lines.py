"""Transcripts with one utterance a line: NIST's trn, Kaldi's text, JSON lines.

    trn     the words (speaker-utterance)            comments begin with ;; or **
    kaldi   utterance the words
    jsonl   {"id": …, "ref" | "hyp" | "text": …}      "hyps" of an N-best list: the first

Readers check what they read: UTF-8, one line an utterance, at least one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.score.markup import Token, parse

Fold = Callable[[str], str]


@dataclass(frozen=True)
class Utterance:
    """One side of a scored pair; ``where`` is file:line, for messages."""

    utt_id: str
    tokens: tuple[Token, ...]
    where: str
    speaker: str | None = None


def fold(text: str, language: str = "") -> str:
    """Lower case; in Turkish and Azeri dotless and dotted i stay apart.

    >>> fold("ISI"), fold("ISI İ", "tr")
    ('isi', 'ısı i')
    """
    if language in ("tr", "az"):
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()


def text_lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """(file:line, line) of a UTF-8 file; a line that is not UTF-8 raises ValueError."""
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as cause:
                raise ValueError(
                    f"{where}: byte {cause.start + 1} of the line is {raw[cause.start]:#04x}, not UTF-8. "
                    f"Convert the file, for example `iconv -f latin1 -t utf-8 {path}`."
                ) from None
            yield where, line.rstrip("\r\n")


def is_comment(line: str) -> bool:
    """Whether sclite passes over the line: empty, or beginning with ;; or **."""
    return not line.strip() or line.startswith((";;", "**"))


def checked(path: str | Path, utterances: list[Utterance], like: str) -> list[Utterance]:
    """The same list, after refusing none and two of a name."""
    if not utterances:
        raise ValueError(f"{path}: found no utterance, expected lines like '{like}'. Was the file cut short?")
    seen: dict[str, str] = {}
    for u in utterances:
        if u.utt_id in seen:
            raise ValueError(
                f"{u.where}: utterance '{u.utt_id}' is already at line {seen[u.utt_id].rpartition(':')[2]}, "
                "expected every id once. Remove one of the two."
            )
        seen[u.utt_id] = u.where
    return utterances


def marked(text: str, where: str) -> tuple[Token, ...]:
    """`markup.parse` whose errors say where the text is."""
    try:
        return parse(text)
    except ValueError as cause:
        raise ValueError(f"{where}: {cause}") from None


def read_trn(path: str | Path, change: Fold = fold) -> list[Utterance]:
    """NIST's transcripts: words, then the id in the last parentheses."""
    utterances = []
    for where, line in text_lines(path):
        if is_comment(line):
            continue
        words, _, rest = change(line).rpartition("(")
        utt_id, bracket, after = rest.partition(")")
        if not bracket or after.strip() or not utt_id.strip():
            raise ValueError(
                f"{where}: found no id in parentheses at the end of '{line[-40:]}', expected 'words (id)'. "
                "Add the id, or name the file's format with --format."
            )
        utterances.append(Utterance(utt_id.strip(), marked(words, where), where))
    return checked(path, utterances, "the words (id)")


def read_kaldi(path: str | Path, change: Fold = str) -> list[Utterance]:
    """Kaldi's text: the id, then the words; an id alone is an empty transcript."""
    utterances = []
    for where, line in text_lines(path):
        if words := line.split():
            utterances.append(Utterance(words[0], tuple(change(w) for w in words[1:]), where))
    return checked(path, utterances, "id the words")


def read_jsonl(path: str | Path, role: str = "hyp", change: Fold = str) -> list[Utterance]:
    """JSON lines with `id`, a text under ``role`` ("ref" or "hyp") or "text", and perhaps `speaker`."""
    utterances = []
    for where, line in text_lines(path):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except json.JSONDecodeError as cause:
            raise ValueError(
                f"{where}: not JSON ({cause.msg}), expected one object a line. Was the file cut short?"
            ) from None
        text = _text_of(row, role) if isinstance(row, dict) else None
        if not isinstance(text, str) or not isinstance(row.get("id"), str | int):
            keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(
                f'{where}: found {keys or "nothing"}, expected "id" and a text in "{role}" or "text". '
                "Add the fields, or give the other file."
            )
        speaker = row.get("speaker")
        words = tuple(change(text).split())
        utterances.append(Utterance(str(row["id"]), words, where, None if speaker is None else str(speaker)))
    return checked(path, utterances, f'{{"id": "utt1", "{role}": "the words"}}')


def _text_of(row: dict[str, Any], role: str) -> object:
    if role == "hyp" and "hyp" not in row and row.get("hyps"):
        return row["hyps"][0]
    return row.get(role, row.get("text"))
