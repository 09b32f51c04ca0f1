"""Which words a small system hears otherwise than the full one, from both alignments with the reference.

A word of the reference is *lost* where the full system had it right and the small one has not, *won* the
other way round, *other* where both are wrong in different ways; inserted words are counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from greenasr.score.scored import Scored


@dataclass(frozen=True)
class Changes:
    """(reference, full system, small system) -> how often, by kind; "" stands for nothing."""

    lost: Counter[tuple[str, str, str]]
    won: Counter[tuple[str, str, str]]
    other: Counter[tuple[str, str, str]]
    inserted: tuple[int, int]
    utterances: int


def changes(full: Sequence[Scored], small: Sequence[Scored]) -> Changes:
    """What changed between two systems' words of the same utterances.

    >>> from greenasr.score.scored import said
    >>> found = changes([said("u", ["go", "on"], ["go", "on"])], [said("u", ["go", "on"], ["so", "on"])])
    >>> found.lost, found.utterances
    (Counter({('go', 'go', 'so'): 1}), 1)
    """
    kinds: tuple[Counter[tuple[str, str, str]], ...] = (Counter(), Counter(), Counter())
    inserted, utterances = [0, 0], 0
    for a, b in zip(full, small, strict=True):
        utterances += a.hyp != b.hyp
        inserted[0] += a.errors.n_ins
        inserted[1] += b.errors.n_ins
        for ref, one, two in zip(a.ref, heard(a), heard(b), strict=False):
            if one != two:
                kinds[0 if one == ref else 1 if two == ref else 2][ref, one, two] += 1
    return Changes(kinds[0], kinds[1], kinds[2], (inserted[0], inserted[1]), utterances)


def heard(row: Scored) -> list[str]:
    """What was heard for every word of the reference, "" for a word that is missing.

    >>> from greenasr.score.scored import said
    >>> heard(said("u", ["a", "b", "c"], ["a", "x", "d", "c"]))
    ['a', 'd', 'c']
    """
    words, out = iter(row.hyp), []
    for letter in row.path:
        if letter == "I":
            next(words, None)
        else:
            out.append("" if letter == "D" else next(words, ""))
    return out
