"""Marks of a table's rescoring: made on the held-out half, against the first pass and full precision."""

from __future__ import annotations

import pytest

from greenasr.data.confusions import generate_nbest
from greenasr.decode.nbest import NBest
from greenasr.decode.rescore import in_dev
from greenasr.pipeline.recipe import Lists
from greenasr.pipeline.rescoring import compare, read_sets, training_refs


def lists(hyps: list[str]) -> list[NBest]:
    return [NBest(f"u{i}", "a b c d e f", (hyp,), (0.0,)) for i, hyp in enumerate(hyps)]


def test_a_list_that_is_right_everywhere_is_significantly_better_than_one_that_is_wrong_everywhere() -> None:
    right, wrong = lists(["a b c d e f"] * 60), lists(["a b x d e f"] * 59 + ["a x x d e f"])
    assert compare(right, wrong, right).better == "b"
    assert compare(right, right, wrong).better == "a"
    assert compare(right, right, right).better is None


def test_what_happens_in_the_dev_half_changes_no_mark() -> None:
    right = lists(["a b c d e f"] * 60)
    spoilt = [NBest(e.id, e.ref, ("x",), e.scores) if in_dev(e.id) else e for e in right]
    assert compare(right, spoilt, right) == compare(right, right, right)


def test_references_that_join_the_training_text_are_those_of_a_quarter_of_the_utterances() -> None:
    entries = read_sets(Lists(generate=200), None)["generated"]
    assert [e.id for e in entries] == [e["id"] for e in generate_nbest(200, seed=1)]
    given = Lists(generate=200, refs_in_training=2)
    chosen = [e for e in entries if given.gives("generated", e.id)]
    assert 30 < len(chosen) < 70
    assert training_refs(given, None) == [(e.ref or "").split() for e in chosen] * 2
    assert training_refs(Lists(generate=200), None) == []


def test_only_the_sets_that_are_named_give_references() -> None:
    some = Lists(sets=("a/one.jsonl", "two.jsonl"), refs_in_training=1, refs_from=("a/one.jsonl",))
    ids = [f"u{i}" for i in range(50)]
    assert any(some.gives("one", i) for i in ids)
    assert not any(some.gives("two", i) for i in ids)
    with pytest.raises(ValueError, match=r"refs_from names 'three.jsonl', which sets does not list"):
        Lists(sets=("one.jsonl",), refs_from=("three.jsonl",))
