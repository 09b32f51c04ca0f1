"""N-best lists: what the recognizer proposed for each utterance, best first.

JSON lines, one utterance a line:    {"id": "u1", "ref": "a b", "hyps": ["a b", "a p"], "scores": [-1, -2]}
Kaldi-style, one hypothesis a line:  u1-1 a b    with a file of scores  u1-1 -1  and one of references  u1 a b

A score is larger when the hypothesis is better.  Lists without scores can be read with
``first_pass="rank"``, which makes the score of the r-th hypothesis -log r.  An empty text is a
hypothesis of no words; a list of no hypotheses is an error.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.data.files import atomic

MAX_LINE = 10_000_000  # bytes: longer is no N-best list
FilePath = str | os.PathLike[str]


@dataclass(frozen=True)
class NBest:
    """One utterance: its reference (None if unknown), hypotheses best first, and one score a hypothesis.

    ``totals`` are the scores after rescoring, () before.
    """

    id: str
    ref: str | None
    hyps: tuple[str, ...]
    scores: tuple[float, ...]
    totals: tuple[float, ...] = ()


def rank_scores(n: int) -> tuple[float, ...]:
    """-log rank for lists that come without scores.

    >>> [round(s, 3) for s in rank_scores(3)]
    [0.0, -0.693, -1.099]
    """
    return tuple(0.0 - math.log(rank) for rank in range(1, n + 1))


def read_nbest(path: FilePath, first_pass: str = "scores", need_ref: bool = True) -> list[NBest]:
    """Read JSON lines; ``first_pass`` is "scores" or "rank"."""
    _check_first_pass(first_pass)
    nbest: list[NBest] = []
    seen: dict[str, int] = {}
    for line, text in _lines(path):
        where = f"{path}:{line}"
        try:
            value = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(
                f"{where}: not JSON ({error}). Expected one object a line with id, ref, hyps and scores."
            ) from None
        entry = _entry(value, where, first_pass, need_ref)
        if entry.id in seen:
            raise ValueError(
                f"{where}: id '{entry.id}' was given on line {seen[entry.id]}. Keep one list an utterance."
            )
        seen[entry.id] = line
        nbest.append(entry)
    if not nbest:
        raise ValueError(f"{path}:1: no N-best list in the file. Give one JSON object a line.")
    return nbest


def _entry(value: Any, where: str, first_pass: str, need_ref: bool) -> NBest:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str) or not value["id"]:
        raise ValueError(f"{where}: no text 'id'. Expected an object with id, ref, hyps and scores.")
    hyps, ref, scores = value.get("hyps"), value.get("ref"), value.get("scores")
    if not isinstance(hyps, list) or not all(isinstance(hyp, str) for hyp in hyps):
        raise ValueError(
            f"{where}: 'hyps' of '{value['id']}' is not a list of texts. Give the hypotheses best first."
        )
    if not hyps:
        raise ValueError(
            f"{where}: 'hyps' of '{value['id']}' is empty. Give at least one hypothesis, "
            '"" for one of no words.'
        )
    if ref is not None and not isinstance(ref, str):
        raise ValueError(
            f"{where}: 'ref' of '{value['id']}' is not a text. Give the words said, \"\" for none."
        )
    if ref is None and need_ref:
        raise ValueError(
            f"{where}: no 'ref' for '{value['id']}'. Add what was said, or leave the utterance out."
        )
    if first_pass == "rank":
        return NBest(value["id"], ref, tuple(hyps), rank_scores(len(hyps)))
    if scores is None:
        raise ValueError(f"{where}: no 'scores' for '{value['id']}'. Add them, or use --first-pass rank.")
    if not isinstance(scores, list) or len(scores) != len(hyps):
        found = len(scores) if isinstance(scores, list) else "no list of"
        raise ValueError(
            f"{where}: {found} scores for {len(hyps)} hyps of '{value['id']}'. Give one score a hypothesis, "
            "or use --first-pass rank."
        )
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(
                f"{where}: score {score!r} of '{value['id']}' is not a finite number. Correct it."
            )
    return NBest(value["id"], ref, tuple(hyps), tuple(map(float, scores)))


def write_nbest(path: FilePath, nbest: Iterable[NBest]) -> None:
    """Write JSON lines, whole or not at all; rescored lists also have ``totals``."""
    with atomic(Path(path)) as draft, open(draft, "w", encoding="utf-8") as out:
        for entry in nbest:
            value: dict[str, Any] = {"id": entry.id}
            if entry.ref is not None:
                value["ref"] = entry.ref
            value |= {"hyps": entry.hyps, "scores": entry.scores}
            if entry.totals:
                value["totals"] = entry.totals
            out.write(json.dumps(value, ensure_ascii=False) + "\n")


def read_kaldi_nbest(
    text: FilePath, scores: FilePath | None = None, refs: FilePath | None = None, first_pass: str = "scores"
) -> list[NBest]:
    """Read ``utt-N words`` with ``utt-N score`` and ``utt words``; N counts from 1, lines in any order.

    Scores are taken as they are: negate costs such as those of lattice-to-nbest before.
    """
    _check_first_pass(first_pass)
    hyps: dict[str, dict[int, tuple[str, int]]] = {}
    for line, found in _lines(text):
        key, words = _split(found)
        utt, rank = _utt_rank(key, f"{text}:{line}")
        if rank in hyps.setdefault(utt, {}):
            raise ValueError(
                f"{text}:{line}: '{key}' was given on line {hyps[utt][rank][1]}. Keep one of them."
            )
        hyps[utt][rank] = (words, line)
    if not hyps:
        raise ValueError(f"{text}:1: no hypothesis in the file. Give lines of 'utt-N words'.")
    if first_pass == "scores" and scores is None:
        raise ValueError(f"{text}: no file of scores. Give lines of 'utt-N score', or use --first-pass rank.")
    score = _read_scores(scores, hyps) if first_pass == "scores" and scores is not None else None
    said = {}
    for line, found in _lines(refs) if refs is not None else ():
        utt, words = _split(found)
        if utt in said:
            raise ValueError(f"{refs}:{line}: '{utt}' is given twice. Keep one reference an utterance.")
        said[utt] = words
    nbest = []
    for utt, ranked in hyps.items():
        ranks = range(1, len(ranked) + 1)
        line = next(iter(ranked.values()))[1]
        if sorted(ranked) != list(ranks):
            found = ", ".join(map(str, sorted(ranked)[:9]))
            raise ValueError(
                f"{text}:{line}: hypotheses of '{utt}' are numbered {found}, "
                f"they should be 1 to {len(ranked)} without gaps. Add the missing lines."
            )
        if refs is not None and utt not in said:
            raise ValueError(
                f"{refs}: no reference for '{utt}' of {text}:{line}. Add it, or leave the utterance out."
            )
        ordered = tuple(ranked[rank][0] for rank in ranks)
        points = (
            rank_scores(len(ranked)) if score is None else tuple(score[f"{utt}-{rank}"] for rank in ranks)
        )
        nbest.append(NBest(utt, said.get(utt), ordered, points))
    return nbest


def write_kaldi_nbest(
    nbest: Sequence[NBest], text: FilePath, scores: FilePath, refs: FilePath | None = None
) -> None:
    """Write the three files that `read_kaldi_nbest` reads; totals, where present, are the scores."""
    with atomic(Path(text)) as draft, open(draft, "w", encoding="utf-8") as out:
        out.writelines(f"{e.id}-{n} {hyp}".rstrip() + "\n" for e in nbest for n, hyp in enumerate(e.hyps, 1))
    with atomic(Path(scores)) as draft, open(draft, "w", encoding="utf-8") as out:
        out.writelines(f"{e.id}-{n} {s!r}\n" for e in nbest for n, s in enumerate(e.totals or e.scores, 1))
    if refs is not None:
        with atomic(Path(refs)) as draft, open(draft, "w", encoding="utf-8") as out:
            out.writelines(f"{e.id} {e.ref}".rstrip() + "\n" for e in nbest if e.ref is not None)


def _check_first_pass(first_pass: str) -> None:
    if first_pass not in ("scores", "rank"):
        raise ValueError(
            f"first pass is '{first_pass}', it should be 'scores' or 'rank'. Use --first-pass rank."
        )


def _lines(path: FilePath) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank."""
    with open(path, "rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
            if len(raw) > MAX_LINE:
                raise ValueError(
                    f"{path}:{number}: the line is longer than {MAX_LINE:,} bytes. Give one utterance a line."
                )
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(
                    f"{path}:{number}: not UTF-8. Convert the file, e.g. `iconv -f latin1 -t utf-8`."
                ) from None
            if text.strip():
                yield number, text


def _split(text: str) -> tuple[str, str]:
    key, *words = text.split()
    return key, " ".join(words)


def _utt_rank(key: str, where: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)-([0-9]+)", key)
    if match is None:
        raise ValueError(
            f"{where}: '{key[:60]}' is not 'utt-N'. Number the hypotheses of an utterance from 1."
        )
    return match[1], int(match[2])


def _read_scores(path: FilePath, hyps: dict[str, dict[int, tuple[str, int]]]) -> dict[str, float]:
    score: dict[str, float] = {}
    for line, found in _lines(path):
        key, text = _split(found)
        utt, rank = _utt_rank(key, f"{path}:{line}")
        if rank not in hyps.get(utt, {}):
            raise ValueError(
                f"{path}:{line}: a score for '{key}', which has no hypothesis. Remove it or add its words."
            )
        if key in score:
            raise ValueError(f"{path}:{line}: a second score for '{key}'. Keep one.")
        try:
            score[key] = float(text)
        except ValueError:
            score[key] = math.nan
        if not math.isfinite(score[key]):
            raise ValueError(
                f"{path}:{line}: score '{text[:40]}' of '{key}' is not a finite number. Correct it."
            )
    missing = next(
        (f"{u}-{r}" for u, ranked in hyps.items() for r in ranked if f"{u}-{r}" not in score), None
    )
    if missing is not None:
        raise ValueError(f"{path}: no score for '{missing}'. Add it, or use --first-pass rank.")
    return score
