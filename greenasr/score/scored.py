"""What a scorer says of every utterance: its errors, and where they are known its words.

Words give the alignment, the alignment MAPSSWE's segments; with counts alone an utterance is a segment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from greenasr.score.align import ops
from greenasr.score.errors import Errors, count_ops


@dataclass(frozen=True)
class Scored:
    """Errors of one utterance, the letters of its alignment (`align.ops`), and both word lists, if known."""

    errors: Errors
    path: str = ""
    ref: tuple[str, ...] = ()
    hyp: tuple[str, ...] = ()


def said(utt_id: str, ref: Sequence[str], hyp: Sequence[str], speaker: str | None = None) -> Scored:
    """A reference and what was heard, aligned as sclite does.

    >>> said("u1", ["a", "b"], ["a", "c"]).path
    'CS'
    """
    path = ops(ref, hyp)
    return Scored(count_ops(utt_id, path, speaker), path, tuple(ref), tuple(hyp))


def predicted(utt_id: str, ref: Sequence[str], hyp: Sequence[str], speaker: str | None = None) -> Scored:
    """Words that were foretold one by one, so that place meets place: C or S alone.

    >>> predicted("s1", ["a", "b", "c"], ["b", "b", "c"]).path
    'SCC'
    """
    path = "".join("C" if x == y else "S" for x, y in zip(ref, hyp, strict=True))
    return Scored(count_ops(utt_id, path, speaker), path, tuple(ref), tuple(hyp))


def checked(found: Iterable[Scored], what: str) -> list[Scored]:
    """The records of a scorer; ValueError, beginning with ``what``, for figures that are no counts.

    Ids must differ, and at least one reference word must be there.
    """
    rows = list(found)
    for row in rows:
        e = row.errors
        for name in ("n_ref", "n_sub", "n_ins", "n_del"):
            value = getattr(e, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(
                    f"{what}: the scorer gave {name} = {value} for '{e.utt_id}', expected a whole number of "
                    "words: count errors, and look whether the model's outputs are finite."
                )
    if len({row.errors.utt_id for row in rows}) != len(rows):
        raise ValueError(f"{what}: an utterance id comes twice: give every utterance its own.")
    if not sum(row.errors.n_ref for row in rows):
        raise ValueError(f"{what}: the scorer found no reference word: give references.")
    return rows


def to_jsonl(rows: Iterable[Scored]) -> str:
    """One JSON object a line, the fields of `Errors` and of `Scored` together."""
    lines = []
    for row in rows:
        words = {"path": row.path, "ref": " ".join(row.ref), "hyp": " ".join(row.hyp)}
        lines.append(json.dumps(asdict(row.errors) | words, ensure_ascii=False) + "\n")
    return "".join(lines)


def read_scored(path: str | Path) -> list[Scored]:
    """Read a file of `to_jsonl`; ValueError names the line that does not fit."""
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            value = json.loads(line)
            letters, ref, hyp = value.pop("path"), value.pop("ref"), value.pop("hyp")
            rows.append(Scored(Errors(**value), letters, tuple(ref.split()), tuple(hyp.split())))
        except (json.JSONDecodeError, TypeError, KeyError) as cause:
            raise ValueError(f"{path}:{number}: not a line of scored words ({cause}): score again.") from None
    return rows
