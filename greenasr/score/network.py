"""Alignment of transcripts with alternatives: sclite's dynamic programme over two word networks.

Each transcript is a network whose arcs carry words; arc b may follow arc a when a is in pred(b).
With arcs in topological order and arc 0 the start of each side,

    D(a, b) = min( min D(a', b') + sub(a, b),   min D(a', b) + del(a),   min D(a, b') + ins(b) )

over a' in pred(a), b' in pred(b), with the costs

    sub   0 the same word, 4 another, 1 a null for a null
    del, ins   3 a word, 2 an optional word, 0.001 a null "@"

An optional word left out counts as right.  Ties as in `align`, and between predecessors the one
written first.  Sums are in single precision as sclite's are: with exact sums one alignment in two
hundred of random transcripts with nulls came out another way.
SCTK, `word.c` (`wwd_WORD`, `equal_WORD2`) and `net_dp.c`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from greenasr.score.align import DELETION, SUBSTITUTION, Pair, align, ops
from greenasr.score.markup import NULL, Token

SAME, NULLS, OTHER = np.float32(0), np.float32(1), np.float32(SUBSTITUTION)
ABSENT_NULL, ABSENT_OPTIONAL, ABSENT = np.float32(0.001), np.float32(2), np.float32(DELETION)


@dataclass(frozen=True)
class Rules:
    """What counts as right beyond the same word: sclite's -D (``optional``) and -F (``fragments``)."""

    optional: bool = False
    fragments: bool = False

    def may_be_left_out(self, word: str) -> bool:
        """Whether the word is in parentheses and those have a meaning."""
        return self.optional and word.startswith("(") and word.endswith(")")

    def same(self, ref: str, hyp: str) -> bool:
        """Whether the two words agree.

        >>> Rules(fragments=True).same("fi-", "find"), Rules().same("fi-", "find")
        (True, False)
        """
        marked = self.fragments and any(
            w.startswith("-") or w.endswith("-") or (self.may_be_left_out(w) and w[-2] == "-")
            for w in (ref, hyp)
        )
        ref, hyp = (w[1:-1] if self.may_be_left_out(w) else w for w in (ref, hyp))
        if marked:
            for part, whole in ((ref, hyp), (hyp, ref)):
                if len(part) > 1 and part.startswith("-"):
                    return whole.endswith(part[1:])
                if len(part) > 1 and part.endswith("-"):
                    return whole.startswith(part[:-1])
        return ref == hyp


PLAIN = Rules()


@dataclass
class Network:
    """Arcs of one transcript in topological order; arc 0 is the start and carries no word."""

    words: list[str] = field(default_factory=lambda: [NULL])
    before: list[list[int]] = field(default_factory=lambda: [[]])
    last: list[int] = field(default_factory=lambda: [0])


def network(tokens: Sequence[Token]) -> Network:
    """The network of a transcript.

    >>> from greenasr.score.markup import parse
    >>> network(parse("a { b / c d }"))
    Network(words=['@', 'a', 'b', 'c', 'd'], before=[[], [0], [1], [1], [3]], last=[2, 4])
    """
    net = Network()

    def extend(tokens: Sequence[Token], ends: list[int]) -> list[int]:
        for token in tokens:
            if isinstance(token, str):
                net.words.append(token)
                net.before.append(ends)
                ends = [len(net.words) - 1]
            else:
                ends = [end for option in token.options for end in extend(option, ends)]
        return ends

    net.last = extend(tokens, net.last)
    return net


def align_networks(ref: Network, hyp: Network, rules: Rules = PLAIN) -> list[Pair]:
    """The cheapest pairing of one path of ``ref`` with one of ``hyp``, nulls left out."""

    def alone(word: str) -> np.float32:
        return ABSENT_NULL if word == NULL else ABSENT_OPTIONAL if rules.may_be_left_out(word) else ABSENT

    def together(a: str, b: str) -> np.float32:
        if a == b == NULL:
            return NULLS
        return SAME if rules.same(a, b) else OTHER

    deletion, insertion = [alone(w) for w in ref.words], [alone(w) for w in hyp.words]
    cost = [[SAME] * len(hyp.words) for _ in ref.words]
    back = [[(0, 0)] * len(hyp.words) for _ in ref.words]
    for a, word in enumerate(ref.words):
        row, rows_before = cost[a], [(cost[p], p) for p in ref.before[a]]
        for b, other in enumerate(hyp.words):
            moves = []
            if a and b:
                best, pa, pb = min(
                    ((above[q], p, q) for above, p in rows_before for q in hyp.before[b]), key=lambda m: m[0]
                )
                moves.append((best + together(word, other), pa, pb))
            if b:
                best, pb = min(((row[q], q) for q in hyp.before[b]), key=lambda m: m[0])
                moves.append((best + insertion[b], a, pb))
            if a:
                best, pa = min(((above[b], p) for above, p in rows_before), key=lambda m: m[0])
                moves.append((best + deletion[a], pa, b))
            if moves:  # min keeps the first of equals: diagonal, insertion, deletion
                row[b], *where = min(moves, key=lambda m: m[0])
                back[a][b] = (where[0], where[1])
    a, b = min(((p, q) for p in ref.last for q in hyp.last), key=lambda ends: cost[ends[0]][ends[1]])
    pairs = []
    while a or b:
        to = back[a][b]
        r, h = ref.words[a], hyp.words[b]
        if to[0] == a:
            if h != NULL:
                pairs.append(Pair("C", "", h) if rules.may_be_left_out(h) else Pair("I", None, h))
        elif to[1] == b:
            if r != NULL:
                pairs.append(Pair("C", r, "") if rules.may_be_left_out(r) else Pair("D", r, None))
        elif not r == h == NULL:
            pairs.append(Pair("C" if rules.same(r, h) else "S", r, h))
        a, b = to
    return pairs[::-1]


def _simple(ref: Sequence[Token], hyp: Sequence[Token], rules: Rules) -> tuple[list[str], list[str]] | None:
    """The two as plain words when neither has a word that needs a network or one of the rules."""
    words: tuple[list[str], list[str]] = ([], [])
    for side, tokens in zip(words, (ref, hyp), strict=True):
        for token in tokens:
            if not isinstance(token, str) or token == NULL:
                return None
            if rules != PLAIN and (token[0] in "(-" or token[-1] in ")-"):
                return None
            side.append(token)
    return words


def align_tokens(ref: Sequence[Token], hyp: Sequence[Token], rules: Rules = PLAIN) -> list[Pair]:
    """Alignment of two transcripts, by `align` where both are plain words."""
    if simple := _simple(ref, hyp, rules):
        return align(*simple)
    return align_networks(network(ref), network(hyp), rules)


def ops_tokens(ref: Sequence[Token], hyp: Sequence[Token], rules: Rules = PLAIN) -> str:
    """The letters of `align_tokens`.

    >>> from greenasr.score.markup import parse
    >>> ops_tokens(parse("a { um / @ } b"), parse("a b"))
    'CC'
    """
    if simple := _simple(ref, hyp, rules):
        return ops(*simple)
    return "".join(pair.op for pair in align_networks(network(ref), network(hyp), rules))
