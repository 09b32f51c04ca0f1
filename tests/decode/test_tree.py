"""The tree against closed forms, brute force, and dependence on context that was planted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from greenasr.decode.tree import Leaf, Split, Tree, gaussian_logprob, grow_tree, leaves, phone_questions

PHONES = ("SIL", "A", "B", "C", "D")
P, F, STATES = 5, 3, 2
FLOOR = np.full(F, 1e-4)


def drawn(seed: int = 0, frames: int = 40, shift: dict[int, float] | None = None) -> tuple[dict, np.ndarray]:
    """Frames of every [left, phone, state]; the left contexts in ``shift`` move the mean of phone A."""
    draw = np.random.default_rng(seed)
    found: dict[tuple[int, int, int], np.ndarray] = {}
    moments = np.zeros((P + 1, P, STATES, 1 + 2 * F))
    for left, phone, state in np.ndindex(P + 1, P, STATES):
        mean = 3.0 * phone + (shift or {}).get(left, 0.0) * (phone == 1)
        x = draw.normal(mean, 1, (frames, F))
        found[left, phone, state] = x
        moments[left, phone, state] = [len(x), *x.sum(0), *(x * x).sum(0)]
    return found, moments


def slow_logprob(x: np.ndarray) -> float:
    return float(-0.5 * (np.log(2 * np.pi * x.var(0)) + (x - x.mean(0)) ** 2 / x.var(0)).sum())


def test_the_likelihood_is_that_of_the_frames() -> None:
    frames, moments = drawn()
    for key, x in frames.items():
        assert float(gaussian_logprob(moments[key], FLOOR)) == pytest.approx(slow_logprob(x))


def test_the_first_split_is_the_best_of_all_questions_and_its_gain_the_difference() -> None:
    frames, moments = drawn(shift={1: 0.4, 3: -0.8, 4: 0.1})
    questions = [(1, 2), (3, 4), (0, 3)]
    asked = [("left", q) for q in [*questions, *((c,) for c in range(P + 1))]] + [("state", (0,))]
    gains = {}
    for phone in range(P):
        whole = np.vstack([x for (_, p, _), x in frames.items() if p == phone])
        for ask, among in asked:
            if phone == 0 and ask == "left":
                continue
            yes = [(left if ask == "left" else s) in among for left, p, s in frames if p == phone]
            parts = [x for (_, p, _), x in frames.items() if p == phone]
            one = np.vstack([x for x, y in zip(parts, yes, strict=True) if y])
            two = np.vstack([x for x, y in zip(parts, yes, strict=True) if not y])
            gains[phone, ask, among] = slow_logprob(one) + slow_logprob(two) - slow_logprob(whole)
    (phone, ask, among), gain = max(gains.items(), key=lambda item: item[1])
    tree = grow_tree(PHONES, moments, questions, FLOOR, P + 1, min_count=1, min_gain=gain - 1e-6)
    root = tree.roots[phone]
    assert isinstance(root, Split) and (root.ask, root.among) == (ask, among)
    assert grow_tree(PHONES, moments, questions, FLOOR, P + 1, 1, min_gain=gain + 1e-6).n_pdfs == P


def test_planted_dependence_on_the_left_phone_is_found() -> None:
    _, moments = drawn(shift={2: 2.0, 4: 2.0})
    tree = grow_tree(PHONES, moments, [(2, 4), (1, 3)], FLOOR, 30, min_count=10, min_gain=60)
    assert tree.roots[1] == Split("left", (2, 4), Leaf(1), Leaf(2))
    assert tree.n_pdfs == P + 1


def test_single_left_contexts_are_found_without_being_asked_for() -> None:
    _, moments = drawn(shift={3: 2.5})
    root = grow_tree(PHONES, moments, [], FLOOR, 30, min_count=10, min_gain=60).roots[1]
    assert isinstance(root, Split) and root.among == (3,)


def test_leaves_keep_their_frames_and_their_number() -> None:
    _, moments = drawn(frames=7)
    for n_leaves, min_count in [(9, 1), (500, 30), (500, 1)]:
        tree = grow_tree(PHONES, moments, [], FLOOR, n_leaves, min_count, min_gain=0)
        table = tree.table()
        assert tree.n_pdfs <= n_leaves
        assert sorted(set(table.ravel().tolist())) == list(range(tree.n_pdfs))
        count = np.bincount(table.ravel(), moments[..., 0].ravel())
        assert count.min() >= min_count
        assert len({tuple(row) for row in table[:, 0].tolist()}) == 1  # silence has no context
    assert tree.n_pdfs == (P - 1) * (P + 1) * STATES + STATES


def test_the_tree_is_its_table_and_survives_json() -> None:
    _, moments = drawn(shift={2: 1.0, 3: -1.0})
    tree = grow_tree(PHONES, moments, [(1, 2), (2, 3)], FLOOR, 20, 10, 10)
    assert Tree.from_json(json.loads(json.dumps(tree.to_json()))) == tree
    table = tree.table()
    assert all(table[c] == tree.pdf(*c) for c in np.ndindex(*table.shape))
    assert [leaf.pdf for root in tree.roots for leaf in leaves(root)] == list(range(tree.n_pdfs))


def test_the_chain_topology_gets_the_tree_s_pdfs() -> None:
    _, moments = drawn(shift={2: 2.0})
    tree = grow_tree(PHONES, moments, [], FLOOR, 20, 10, 10)
    found = tree.pdf_map()
    assert found.n_pdfs == tree.n_pdfs and (found.table == tree.table()).all() and found.phones == PHONES
    with pytest.raises(ValueError, match="ties 3 states a phone, the chain topology has 2"):
        Tree(("SIL",), 3, (Leaf(0),)).pdf_map()


def test_phones_that_sound_alike_are_asked_about_together() -> None:
    count = 100.0
    means = np.array([[0, 0, 9], [5, 0, 0], [5, 1, 0], [-5, 0, 0], [-5, 1, 0.5]])
    moments = np.hstack([np.full((5, 1), count), count * means, count * (means**2 + 1)])
    found = phone_questions(moments, FLOOR)
    assert (2, 3) in found and (4, 5) in found
    assert (0, 1) in found  # the boundary sits with silence
    assert {(c,) for c in (2, 3, 4, 5)} <= set(found)
    for one in found:
        for two in found:
            both = set(one) & set(two)
            assert both in (set(), set(one), set(two))  # sets of a hierarchy


def test_bad_input_is_named() -> None:
    _, moments = drawn()
    with pytest.raises(ValueError, match=r"4 phones need \(5, 4\)"):
        grow_tree(PHONES[:4], moments, [], FLOOR, 20)
    with pytest.raises(ValueError, match="4 leaves are too few for 5 phones"):
        grow_tree(PHONES, moments, [], FLOOR, 4)
    with pytest.raises(ValueError, match="'format' should be 'greenasr tree 1', it is 'None'"):
        Tree.from_json({})
