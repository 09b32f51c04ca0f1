from __future__ import annotations

import random
from itertools import product

import pytest

from greenasr.score.align import align, ops

COST = {"C": 0, "S": 4, "D": 3, "I": 3}


def all_paths(ref: list[str], hyp: list[str]) -> list[str]:
    """Every alignment there is."""
    if not ref and not hyp:
        return [""]
    found = []
    if ref and hyp:
        found += [p + ("C" if ref[-1] == hyp[-1] else "S") for p in all_paths(ref[:-1], hyp[:-1])]
    if ref:
        found += [p + "D" for p in all_paths(ref[:-1], hyp)]
    if hyp:
        found += [p + "I" for p in all_paths(ref, hyp[:-1])]
    return found


def cost(path: str) -> int:
    return sum(COST[op] for op in path)


def sclite_choice(ref: list[str], hyp: list[str]) -> str:
    """The rule of net_dp.c by brute force: from the end the diagonal if among the best, then I, then D."""
    path = ""
    while ref or hyp:
        best = min(cost(p) for p in all_paths(ref, hyp))
        moves = []
        if ref and hyp:
            same = ref[-1] == hyp[-1]
            moves.append(("C" if same else "S", ref[:-1], hyp[:-1]))
        if hyp:
            moves.append(("I", ref, hyp[:-1]))
        if ref:
            moves.append(("D", ref[:-1], hyp))
        for op, left_ref, left_hyp in moves:
            if min(cost(p) for p in all_paths(left_ref, left_hyp)) + COST[op] == best:
                path, ref, hyp = op + path, left_ref, left_hyp
                break
    return path


def test_alignment_is_the_cheapest_of_all_and_ties_go_as_sclite_breaks_them() -> None:
    for n, m in product(range(4), range(4)):
        for ref in product("ab", repeat=n):
            for hyp in product("abc", repeat=m):
                assert ops(ref, hyp) == sclite_choice(list(ref), list(hyp))


def test_three_substitutions_win_over_two_insertions_two_deletions_of_the_same_cost() -> None:
    assert ops("x y a".split(), "a p q".split()) == "SSS"


@pytest.mark.parametrize(("ref", "hyp", "path"), [("", "", ""), ("a b", "", "DD"), ("", "a b", "II")])
def test_empty_sides_are_all_deletions_or_all_insertions(ref: str, hyp: str, path: str) -> None:
    assert ops(ref.split(), hyp.split()) == path


def test_columns_give_back_both_word_lists() -> None:
    draw = random.Random(0)
    for _ in range(200):
        ref, hyp = ([draw.choice("abcd") for _ in range(draw.randrange(9))] for _ in range(2))
        pairs = align(ref, hyp)
        assert [p.ref for p in pairs if p.ref is not None] == ref
        assert [p.hyp for p in pairs if p.hyp is not None] == hyp
        assert all((p.op == "C") == (p.ref == p.hyp) for p in pairs)
