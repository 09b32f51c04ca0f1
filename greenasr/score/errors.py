"""Counts of errors, one record an utterance, and what follows from them.

    WER = 100 · (S + D + I) / N          sums over the whole set, never a mean of sentence rates

The interval of WER is the bootstrap of Bisani and Ney 2004 (ICASSP, "Bootstrap estimates for
confidence intervals in ASR performance evaluation"): whole speakers are drawn with replacement when
every utterance names its speaker, since one speaker's utterances fail together; else utterances.

An utterance without reference words adds nothing to N and every word of its hypothesis to I.  A set
without a single reference word has no WER, which is an error.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from greenasr.score.align import ops


@dataclass(frozen=True)
class Errors:
    """Reference words of one utterance, and how many were substituted, inserted and deleted."""

    utt_id: str
    n_ref: int
    n_sub: int
    n_ins: int
    n_del: int
    speaker: str | None = None

    @property
    def total(self) -> int:
        """S + I + D."""
        return self.n_sub + self.n_ins + self.n_del


def count_ops(utt_id: str, path: str, speaker: str | None = None) -> Errors:
    """Errors of an alignment given as its letters C, S, D, I (`align.ops`).

    >>> count_ops("u1", "CCSDI")
    Errors(utt_id='u1', n_ref=4, n_sub=1, n_ins=1, n_del=1, speaker=None)
    """
    n_ins = path.count("I")
    return Errors(utt_id, len(path) - n_ins, path.count("S"), n_ins, path.count("D"), speaker)


def count_errors(
    utt_id: str, ref_words: Sequence[str], hyp_words: Sequence[str], speaker: str | None = None
) -> Errors:
    """Align two word lists as sclite does and count; either list may be empty.

    >>> count_errors("u1", "a b c".split(), "a x c d".split()).total
    2
    """
    return count_ops(utt_id, ops(ref_words, hyp_words), speaker)


def wer(errors: Iterable[Errors]) -> float:
    """100 · (S + I + D) / N over the whole set, in percent.

    >>> wer([count_errors("1", ["a"], ["b"]), count_errors("2", ["a"] * 9, ["a"] * 9)])
    10.0
    """
    wrong = words = 0
    for e in errors:
        wrong, words = wrong + e.total, words + e.n_ref
    if not words:
        raise ValueError(
            "WER is undefined: found 0 reference words, expected at least 1. "
            "Give references that are not all empty."
        )
    return 100 * wrong / words


def by_speaker(errors: Iterable[Errors]) -> dict[str, list[Errors]]:
    """Speaker -> utterances, in order of appearance; utterances without a speaker are under "-"."""
    groups: dict[str, list[Errors]] = defaultdict(list)
    for e in errors:
        groups["-" if e.speaker is None else e.speaker].append(e)
    return dict(groups)


def wer_by_speaker(errors: Iterable[Errors]) -> dict[str, float]:
    """Speaker -> WER in percent; 0 for a speaker without reference words, as sc_stats counts it."""
    groups = by_speaker(errors)
    return {name: wer(group) if any(e.n_ref for e in group) else 0.0 for name, group in groups.items()}


def knows_speakers(errors: Sequence[Errors]) -> bool:
    """Whether every utterance has a speaker and there are at least two."""
    return len({e.speaker for e in errors}) > 1 and all(e.speaker is not None for e in errors)


def bootstrap_ci95(errors: Sequence[Errors], seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """2.5 % and 97.5 % points of WER when speakers (else utterances) are drawn with replacement.

    Speakers are the unit when every utterance has one and there are at least two; with a handful of
    them the interval is rough.  The same errors and seed give the same interval.

    >>> right = [count_errors(str(i), ["a"], ["a"]) for i in range(8)]
    >>> bootstrap_ci95(right)
    (0.0, 0.0)
    """
    wer(errors)
    units = list(by_speaker(errors).values()) if knows_speakers(errors) else [[e] for e in errors]
    wrong = np.array([sum(e.total for e in unit) for unit in units])
    words = np.array([sum(e.n_ref for e in unit) for unit in units])
    rng = np.random.default_rng(seed)
    rates = []
    rows = max(1, 1_000_000 // len(units))
    for start in range(0, draws, rows):
        pick = rng.integers(len(units), size=(min(rows, draws - start), len(units)))
        total = words[pick].sum(1)
        rates.append((100 * wrong[pick].sum(1)[total > 0]) / total[total > 0])
    low, high = np.percentile(np.concatenate(rates), [2.5, 97.5])
    return float(low), float(high)


def paired_ci95(
    a: Sequence[Errors], b: Sequence[Errors], seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """2.5 % and 97.5 % points of WER(b) - WER(a) in points, speakers (else utterances) drawn together.

    Both lists hold the same utterances in the same order; ValueError where they do not.  Several systems of a
    kind (seeds) may stand one behind the other: a speaker is drawn with all of them.

    >>> one, two = ([count_errors(str(i), ["a"], hyp) for i in range(8)] for hyp in (["a"], []))
    >>> paired_ci95(one, two)
    (100.0, 100.0)
    """
    if [(e.utt_id, e.n_ref) for e in a] != [(e.utt_id, e.n_ref) for e in b]:
        raise ValueError("errors of two systems are compared utterance by utterance: give both the same set.")
    more = [replace(y, n_sub=y.total - x.total, n_ins=0, n_del=0) for x, y in zip(a, b, strict=True)]
    return bootstrap_ci95(more, seed, draws)


def to_jsonl(errors: Iterable[Errors]) -> str:
    r"""One JSON object a line with the fields of `Errors`.

    >>> to_jsonl([count_ops("u1", "CS")])
    '{"utt_id": "u1", "n_ref": 2, "n_sub": 1, "n_ins": 0, "n_del": 0, "speaker": null}\n'
    """
    return "".join(json.dumps(asdict(e), ensure_ascii=False) + "\n" for e in errors)


def read_errors(path: str | Path) -> list[Errors]:
    """Read a file of `to_jsonl`; ValueError names the line that does not fit."""
    errors = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            errors.append(Errors(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as cause:
            raise ValueError(
                f"{path}:{number}: not a line of errors ({cause}). "
                "Write the file with `greenasr score --errors FILE`."
            ) from None
    return errors
