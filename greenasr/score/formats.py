"""Reading a reference and a hypothesis, whatever their format, into pairs ready to be aligned.

The formats are trn, kaldi, jsonl, stm with ctm, and sgml (which is already aligned).  sclite's own
(trn, stm, ctm) have its markup and are compared in lower case, as sclite does unless told otherwise;
kaldi and jsonl are plain words compared as written.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from greenasr.score.errors import Errors, count_ops
from greenasr.score.lines import (
    Fold,
    Utterance,
    fold,
    is_comment,
    read_jsonl,
    read_kaldi,
    read_trn,
    text_lines,
)
from greenasr.score.markup import characters
from greenasr.score.network import PLAIN, Rules, ops_tokens
from greenasr.score.sgml import read_sgml
from greenasr.score.timed import deal, read_ctm, read_stm

FORMATS = ("trn", "kaldi", "jsonl", "stm", "ctm", "sgml")
SUFFIXES = {
    ".trn": "trn",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".stm": "stm",
    ".ctm": "ctm",
    ".sgml": "sgml",
}
SCLITE = ("trn", "stm", "ctm")


@dataclass(frozen=True)
class Settings:
    """How the two texts are compared.

    ``ignore_case``: None is as the formats have it; ``language``: "tr" for Turkish case; ``rules``:
    sclite's -D and -F; ``chars``: characters instead of words; ``reduce``: sclite's -m for stm and
    ctm; ``allow_missing``: a reference without a hypothesis counts as deleted.
    """

    ignore_case: bool | None = None
    language: str = ""
    rules: Rules = PLAIN
    chars: bool = False
    reduce: Collection[str] = ()
    allow_missing: bool = False


SETTINGS = Settings()


def guess_format(path: str | Path) -> str:
    """The format by the file's extension, else by its first line with content.

    An sgml begins with <SYSTEM, a JSON line with {, a trn line ends with ), a ctm has two times and
    a word, an stm a speaker and two times; anything else is Kaldi's text.
    """
    suffix = Path(path).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    for _, line in text_lines(path):
        if is_comment(line):
            continue
        if line.startswith("<SYSTEM"):
            return "sgml"
        if line.startswith("{") and _is_json(line):
            return "jsonl"
        if line.rstrip().endswith(")"):
            return "trn"
        numbers = [_is_number(field) for field in line.split()[:5]]
        if numbers[2:5] == [True, True, False]:
            return "ctm"
        if numbers[3:5] == [True, True]:
            return "stm"
        return "kaldi"
    raise ValueError(f"{path}: found nothing in the file, expected utterances. Was it cut short?")


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Aligned:
    """One utterance's alignment as letters (`align.ops`)."""

    utt_id: str
    speaker: str | None
    ops: str

    @property
    def errors(self) -> Errors:
        """Its counts."""
        return count_ops(self.utt_id, self.ops, self.speaker)


def read_pair(
    ref: str | Path, hyp: str | Path, format: str | None = None, settings: Settings = SETTINGS
) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances of both files; ``format`` overrides the guess ("stm" or "ctm": an stm against a ctm)."""
    ref_format, hyp_format = (format or guess_format(path) for path in (ref, hyp))
    timed = {ref_format, hyp_format} & {"stm", "ctm"}
    if timed and format is None and (ref_format, hyp_format) != ("stm", "ctm"):
        raise ValueError(
            f"{hyp}: found {ref_format} against {hyp_format}, expected a ctm against an stm. "
            "Give both, or name the format with --format."
        )
    ignore = ignores_case({ref_format, hyp_format}, settings)
    change: Fold = partial(fold, language=settings.language) if ignore else str
    if timed:
        return deal(read_stm(ref, change), read_ctm(hyp, change), settings.reduce)
    return _read(ref, ref_format, "ref", change), _read(hyp, hyp_format, "hyp", change)


def ignores_case(formats: set[str], settings: Settings = SETTINGS) -> bool:
    """Whether the texts are compared in lower case: when one is in a format of sclite's, unless set."""
    return bool(formats & set(SCLITE)) if settings.ignore_case is None else settings.ignore_case


def normalisation(
    ref: str | Path, hyp: str | Path, format: str | None = None, settings: Settings = SETTINGS
) -> str:
    """What is done to the texts before they are compared, in words, to stand beside a score."""
    formats = {format or guess_format(ref), format or guess_format(hyp)}
    if "sgml" in formats:
        return "as aligned in the sgml"
    parts = ["lower case" if ignores_case(formats, settings) else "as written"]
    if settings.language and parts[0] == "lower case":
        parts[0] += f" ({settings.language})"
    if settings.rules.optional:
        parts.append("(words) may be left out")
    if settings.rules.fragments:
        parts.append("fragments match")
    if settings.chars:
        parts.append("characters")
    return ", ".join(parts)


def _read(path: str | Path, format: str, role: str, change: Fold) -> list[Utterance]:
    """The utterances of a file with one a line."""
    if format == "trn":
        return read_trn(path, change)
    if format == "jsonl":
        return read_jsonl(path, role, change)
    if format == "kaldi":
        return read_kaldi(path, change)
    raise ValueError(
        f"{path}: found {format}, expected trn, kaldi or jsonl. Give its partner in {format}, too."
    )


def score_files(
    ref: str | Path, hyp: str | Path, format: str | None = None, settings: Settings = SETTINGS
) -> list[Aligned]:
    """Read both files and align every reference with its hypothesis, in the reference's order.

    An sgml as hypothesis is aligned already: it is taken as it is and the reference is not read.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"--format: found '{format}', expected one of {', '.join(FORMATS)}.")
    if (format or guess_format(hyp)) == "sgml":
        return [Aligned(a.utt_id, a.speaker, a.ops) for a in read_sgml(hyp)]
    return align_all(*read_pair(ref, hyp, format, settings), str(hyp), settings)


def align_all(
    refs: list[Utterance], hyps: list[Utterance], hyp_name: str, settings: Settings = SETTINGS
) -> list[Aligned]:
    """Align utterances of the same id; ValueError names the first that only one side has."""
    heard = {h.utt_id: h for h in hyps}
    known = {r.utt_id for r in refs}
    for h in hyps:
        if h.utt_id not in known:
            raise ValueError(
                f"{h.where}: utterance '{h.utt_id}' has no reference, expected every id in both files. "
                "Add its reference, or remove the line."
            )
    aligned = []
    for r in refs:
        if r.utt_id not in heard and not settings.allow_missing:
            raise ValueError(
                f"{r.where}: utterance '{r.utt_id}' has no hypothesis in {hyp_name}, expected one. "
                "Add its line (an id alone is an empty hypothesis), or count it as deleted: --allow-missing."
            )
        found = heard.get(r.utt_id)
        said, hyp = r.tokens, found.tokens if found else ()
        if settings.chars:
            said, hyp = characters(said), characters(hyp)
        path = ops_tokens(said, hyp, settings.rules)
        aligned.append(Aligned(r.utt_id, r.speaker or (found.speaker if found else None), path))
    return aligned


def with_speakers(aligned: list[Aligned], scheme: str) -> list[Aligned]:
    """Speakers by the utterance ids' form, or by a file of lines "id speaker" (Kaldi's utt2spk).

    "auto" keeps what the files say, "none" forgets it, "spu_id" takes the id up to its first - (else
    _), "wsj" its first three characters.
    """
    if scheme == "auto":
        return aligned
    if scheme in ("none", "spu_id", "wsj"):
        return [Aligned(a.utt_id, _speaker(a.utt_id, scheme), a.ops) for a in aligned]
    table = {u.utt_id: " ".join(map(str, u.tokens)) for u in read_kaldi(scheme)}
    for a in aligned:
        if a.utt_id not in table:
            raise ValueError(
                f"{scheme}: utterance '{a.utt_id}' has no line, expected 'id speaker' for every utterance."
            )
    return [Aligned(a.utt_id, table[a.utt_id], a.ops) for a in aligned]


def _speaker(utt_id: str, scheme: str) -> str | None:
    if scheme == "none":
        return None
    if scheme == "wsj":
        return utt_id[:3]
    mark = "-" if "-" in utt_id else "_"
    if mark not in utt_id:
        raise ValueError(
            f"speaker of '{utt_id}': found no - or _, expected 'speaker-utterance'. Use --speakers none."
        )
    return utt_id.partition(mark)[0]
