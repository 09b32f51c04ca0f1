"""Rescoring from lists to both halves' errors."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.decode.interpolate import interpolate
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.nbest import NBest, rank_scores
from greenasr.decode.ngram import NGram
from greenasr.decode.rescore import features_of, hyp_errors, in_dev, rescore, run, score_hyps
from greenasr.score.errors import wer

WORDS = "turn the light radio on off to nine time song".split()


def sentence(draw: np.random.Generator) -> list[str]:
    verb, thing, where = (
        draw.choice(["turn", "set"]),
        draw.choice(["light", "radio"]),
        draw.choice(["on", "off"]),
    )
    return [verb, "the", thing, where]


@pytest.fixture(scope="module")
def lm() -> NGram:
    draw = np.random.default_rng(0)
    return kneser_ney([sentence(draw) for _ in range(300)], 3).lm


@pytest.fixture(scope="module")
def lists() -> list[NBest]:
    """The first pass ranks at random a reference and four copies with a word replaced."""
    draw = np.random.default_rng(1)
    made = []
    for u in range(120):
        ref = sentence(draw)
        hyps = [" ".join(ref)]
        for _ in range(4):
            wrong = list(ref)
            wrong[draw.integers(4)] = str(draw.choice(WORDS))
            hyps.append(" ".join(wrong))
        made.append(NBest(f"u{u}", hyps[0], tuple(hyps[i] for i in draw.permutation(5)), rank_scores(5)))
    return made


def test_a_fitting_model_lowers_wer_on_the_held_out_half(lists: list[NBest], lm: NGram) -> None:
    result = run(lists, lm)
    assert result.kept and result.guard_z is not None and result.guard_z > 3
    assert result.weights["first"] == 1 and result.weights["ngram"] > 0
    before, after = result.heldout.wer
    assert after < 0.5 * before
    assert len(result.dev.first) + len(result.heldout.first) == len(lists)
    assert {e.utt_id for e in result.dev.first} == {e.id for e in lists if in_dev(e.id)}
    assert result.to_json()["wer"]["heldout"]["rescored"] == after


def test_errors_of_the_halves_are_those_of_the_written_lists(lists: list[NBest], lm: NGram) -> None:
    result = run(lists, lm)
    again = [e[0] for e, entry in zip(hyp_errors(result.nbest), lists, strict=True) if not in_dev(entry.id)]
    assert wer(again) == wer(result.heldout.rescored)
    for entry, old in zip(result.nbest, lists, strict=True):
        assert sorted(entry.hyps) == sorted(old.hyps) and list(entry.totals) == sorted(
            entry.totals, reverse=True
        )


def test_a_model_that_knows_nothing_is_not_used(lists: list[NBest]) -> None:
    def blind(sentences: list[list[str]]) -> list[np.ndarray]:
        return [np.full(len(words) + 1, -1.0) for words in sentences]

    result = run(lists, lm=blind)
    assert not result.kept
    assert result.dev.first == result.dev.rescored and result.heldout.first == result.heldout.rescored
    assert result.weights == {"first": 1.0, "words": 0.0, "lm": 0.0}


def test_a_model_that_is_in_the_first_pass_may_be_taken_out_and_all_lists_may_be_for_tuning(
    lists: list[NBest], lm: NGram
) -> None:
    misled = kneser_ney([["time", "nine", "song", "to"]], 2).lm

    def with_it(entry: NBest) -> NBest:
        logprobs = [float(misled.score([hyp.split()])[0].sum()) for hyp in entry.hyps]
        scores = [score + logprob for score, logprob in zip(entry.scores, logprobs, strict=True)]
        order = np.argsort([-score for score in scores], kind="stable")
        return NBest(
            entry.id, entry.ref, tuple(entry.hyps[i] for i in order), tuple(scores[i] for i in order)
        )

    first = [with_it(entry) for entry in lists]
    kept, freed = (
        run(first, misled, lm.score, WORDS, dev=lambda _: True, need_heldout=False, in_first=names)
        for names in ((), ("ngram",))
    )
    assert kept.weights["ngram"] >= 0 and -1 <= freed.weights["ngram"] < 0
    assert len(freed.dev.first) == len(lists) and not freed.heldout.first
    assert freed.dev.wer[1] <= kept.dev.wer[1]
    with pytest.raises(ValueError, match="held-out half has 0 of 120 utterances"):
        run(first, misled, dev=lambda _: True)


def test_every_different_hypothesis_is_scored_once(lists: list[NBest], lm: NGram) -> None:
    seen: list[tuple[str, ...]] = []

    def spy(sentences: list[list[str]]) -> list[np.ndarray]:
        seen.extend(tuple(words) for words in sentences)
        return lm.score(sentences)

    run(lists, lm=spy)
    assert len(seen) == len(set(seen)) == len({hyp for entry in lists for hyp in entry.hyps})


def test_given_weights_are_used_as_they_are(lists: list[NBest], lm: NGram) -> None:
    tuned = run(lists, lm)
    same = run(lists, lm, weights=tuned.weights)
    assert same.nbest == tuned.nbest and "tune" not in same.seconds and same.guard_z is None
    with pytest.raises(
        ValueError, match="weights are given for first; this run has first, words, unknown, ngram"
    ):
        run(lists, lm, weights={"first": 1.0})


def test_models_can_be_mixed_word_by_word(lists: list[NBest], lm: NGram) -> None:
    flat = NGram(lm.words, lm.keys[:1], lm.logprobs[:1], ())
    result = run(lists, flat, lm.score, mix=True)
    assert result.mixture["lm"] > 0.9 and sum(result.mixture.values()) == pytest.approx(1)
    assert set(result.weights) == {"first", "words", "unknown", "mixture"}
    hyp = result.nbest[0].hyps[0]
    mixed = interpolate(
        [lm.score([hyp.split()])[0], flat.score([hyp.split()])[0]], list(result.mixture.values())
    )
    parts = [result.nbest[0].scores[0], 4, sum(w not in lm.ids for w in hyp.split()), mixed.sum()]
    assert result.nbest[0].totals[0] == pytest.approx(float(np.dot(list(result.weights.values()), parts)))
    with pytest.raises(ValueError, match="interpolation needs two models"):
        run(lists, lm, mix=True)


def test_the_same_errors_can_be_handed_in(lists: list[NBest], lm: NGram) -> None:
    assert run(lists, lm, errors=hyp_errors(lists)).nbest == run(lists, lm).nbest


def test_hypotheses_with_equal_totals_keep_their_order() -> None:
    entry = NBest("u", "a", ("b", "a", "c"), (0.0, 1.0, 0.0))
    assert rescore([entry], [np.array([[0.0], [1.0], [0.0]])], np.array([1.0]))[0].hyps == ("a", "b", "c")
    assert rescore([entry], [np.zeros((3, 1))], np.array([1.0]))[0].hyps == entry.hyps


def test_an_empty_hypothesis_is_scored_and_an_empty_reference_allowed(lm: NGram) -> None:
    entry = NBest("u", "", ("", "the zebra"), (0.0, -1.0))
    names, features = features_of([entry], lm.ids, {"ngram": score_hyps([entry], lm.score)})
    assert names == ("first", "words", "unknown", "ngram")
    assert features[0][:, :3].tolist() == [[0, 0, 0], [-1, 2, 1]]
    assert [e.total for e in hyp_errors([entry])[0]] == [0, 2]


def test_what_does_not_fit_is_named(lists: list[NBest], lm: NGram) -> None:
    with pytest.raises(ValueError, match="no reference for 'u'"):
        hyp_errors([NBest("u", None, ("a",), (0.0,))])
    with pytest.raises(ValueError, match="the held-out half has 0 of 120 utterances"):
        run(lists, lm, dev=lambda _: True)
    with pytest.raises(ValueError, match="scored 0 of"):
        score_hyps(lists, lambda sentences: [])
    with pytest.raises(ValueError, match="gave 1 log-probabilities for"):
        score_hyps(lists, lambda sentences: [np.zeros(1)] * len(sentences))
