"""Whether a smaller system may take a full one's place, and how often that is said wrongly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from greenasr.score.decision import compare, decide, detectable_loss, holm, loss_by_units
from greenasr.score.errors import Errors
from greenasr.score.scored import Scored, checked, predicted, read_scored, said, to_jsonl


def simulated(loss: float, sets: int, speakers: int = 40, seed: int = 0) -> float:
    """Share of test sets on which a loss of 0.5 points is ruled out, where the true one is ``loss``."""
    rng, ruled_out = np.random.default_rng(seed), 0
    for k in range(sets):
        words = rng.integers(75, 300, speakers).astype(float)
        own = rng.gamma(4, 1 / 4, speakers)  # speakers differ
        worse = rng.poisson((0.01 + loss / 100) * words * own)
        better = rng.poisson(0.01 * words * own)
        p = loss_by_units((worse - better).astype(float), words, 0.5, seed=k, draws=400).p
        ruled_out += p is not None and p < 0.05
    return ruled_out / sets


def test_a_loss_on_the_margin_is_ruled_out_once_in_twenty() -> None:
    assert 0.03 < simulated(0.5, 1000) < 0.07


def test_systems_that_lose_nothing_are_often_found_to() -> None:
    assert simulated(0.0, 60) > 0.5 > simulated(0.4, 60)


def test_no_changed_word_leaves_the_rule_of_three() -> None:
    found = loss_by_units(np.zeros(10), np.full(10, 100.0), 0.3)
    assert found.upper == pytest.approx(0.3, rel=2e-3)  # 3 of 1,000 words
    assert found.p == pytest.approx(0.05, rel=2e-2)
    assert detectable_loss(found.se) == pytest.approx(0.45, abs=0.01)


def test_standard_error_of_equal_speakers_is_that_of_a_mean() -> None:
    more = np.array([3.0, 0.0, 1.0, 4.0, 2.0] * 40)
    se = loss_by_units(more, np.full(200, 50.0), None).se
    assert se == pytest.approx(100 * more.std(ddof=1) / math.sqrt(200) / 50, rel=0.01)


def test_holm_is_never_above_bonferroni_and_counts_all_that_were_looked_at() -> None:
    ps = [0.01, 0.2, 0.03, 0.004]
    assert all(a <= min(1.0, 4 * p) for a, p in zip(holm(ps), ps, strict=True))
    assert holm([0.01], looked=5) == [0.05]
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def system(wrong: int, sentences: int = 400) -> list[Scored]:
    """Ten words a sentence, the first ``wrong`` sentences with one substitution each."""
    ref = [f"w{i}" for i in range(10)]
    return [said(f"u{k}", ref, ["x", *ref[1:]] if k < wrong else ref, f"s{k % 20}") for k in range(sentences)]


def test_verdicts_are_not_worse_non_inferior_worse_and_undecided() -> None:
    full = system(40)
    same, little, much = (compare(full, system(n), 0.5) for n in (40, 50, 120))
    assert decide({"same": same}, None)["same"]["verdict"] == "not worse"
    found = decide({"same": same, "little": little, "much": much}, 0.5)
    assert [found[name]["verdict"] for name in ("same", "little", "much")] == [
        "non-inferior",
        "worse",
        "worse",
    ]
    small = compare(system(4, 40), system(4, 40), 0.5)
    assert decide({"small": small}, 0.5)["small"]["verdict"] == "undecided"
    assert small.detectable > 0.5


def test_lossless_is_refused_where_a_loss_of_two_percent_could_hide() -> None:
    full = system(40)
    assert not compare(full, full).may_say_lossless  # 4,000 words cannot show 0.02 points
    many = [Scored(Errors(f"u{k}", 10_000, 1_000, 0, 0, f"s{k}")) for k in range(50)]
    assert compare(many, many).may_say_lossless


def test_counts_without_words_are_compared_by_utterances() -> None:
    full = [Scored(Errors(f"u{k}", 10, k % 3, 0, 0, f"s{k % 5}")) for k in range(60)]
    worse = [Scored(Errors(f"u{k}", 10, k % 3 + k % 2, 0, 0, f"s{k % 5}")) for k in range(60)]
    assert compare(full, worse).worse and not compare(full, full).worse


def test_other_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="score both on the same set"):
        compare(system(4, 40), system(4, 41))
    with pytest.raises(ValueError, match="at least 2: give a larger set"):
        loss_by_units(np.zeros(1), np.ones(1), 0.1)


def test_a_scorers_nan_is_refused_with_the_utterance() -> None:
    bad = Scored(Errors("u7", 3, math.nan, 0, 0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dev: the scorer gave n_sub = nan for 'u7'"):
        checked([bad], "dev")
    with pytest.raises(ValueError, match="comes twice"):
        checked([said("u", ["a"], ["a"])] * 2, "dev")
    with pytest.raises(ValueError, match="no reference word"):
        checked([said("u", [], ["a"])], "dev")


def test_scored_words_come_back_from_their_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = [said("u1", ["a", "b"], ["b"], "s"), predicted("u2", ["c"], ["d"])]
    (tmp_path / "dev.jsonl").write_text(to_jsonl(rows))
    assert read_scored(tmp_path / "dev.jsonl") == rows
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="bad.jsonl:1: not a line of scored words"):
        read_scored(tmp_path / "bad.jsonl")
