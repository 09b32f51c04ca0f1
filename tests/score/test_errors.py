from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from greenasr.score.errors import (
    Errors,
    bootstrap_ci95,
    count_errors,
    paired_ci95,
    read_errors,
    to_jsonl,
    wer,
    wer_by_speaker,
)


def some_errors(n: int, speakers: int | None = None) -> list[Errors]:
    draw = random.Random(1)
    names = [f"s{i % speakers}" if speakers else None for i in range(n)]
    return [Errors(str(i), 10, draw.randrange(3), 0, draw.randrange(2), names[i]) for i in range(n)]


def test_len_hyp_equals_ref_minus_deletions_plus_insertions() -> None:
    draw = random.Random(2)
    for _ in range(200):
        ref, hyp = ([draw.choice("abc") for _ in range(draw.randrange(8))] for _ in range(2))
        e = count_errors("u", ref, hyp)
        assert e.n_ref == len(ref)
        assert len(hyp) == e.n_ref - e.n_del + e.n_ins


def test_wer_weighs_by_words_not_by_sentences() -> None:
    long_right, short_wrong = Errors("a", 99, 0, 0, 0), Errors("b", 1, 1, 0, 0)
    assert wer([long_right, short_wrong]) == 1.0


def test_an_empty_reference_adds_only_insertions_and_a_set_of_them_has_no_wer() -> None:
    noise = count_errors("a", [], ["uh", "huh"])
    assert wer([noise, count_errors("b", ["x"] * 4, ["x"] * 4)]) == 50.0
    with pytest.raises(ValueError, match="found 0 reference words"):
        wer([noise])


def test_bootstrap_interval_of_independent_utterances_is_that_of_the_normal_approximation() -> None:
    errors = some_errors(2000)
    mean = wer(errors)
    spread = (sum((10 * e.total - mean) ** 2 for e in errors) / len(errors)) ** 0.5 / len(errors) ** 0.5
    low, high = bootstrap_ci95(errors)
    assert low == pytest.approx(mean - 1.96 * spread, abs=0.1 * spread)
    assert high == pytest.approx(mean + 1.96 * spread, abs=0.1 * spread)


def test_the_same_seed_gives_the_same_interval() -> None:
    errors = some_errors(50)
    assert bootstrap_ci95(errors, seed=3) == bootstrap_ci95(errors, seed=3) != bootstrap_ci95(errors, seed=4)


def test_utterances_of_a_speaker_are_drawn_together() -> None:
    """Ten copies of everything tell nothing new when they are the same speaker's."""
    once = [Errors(f"{i}", 10, i % 4, 0, 0, f"s{i}") for i in range(20)]
    ten = [Errors(f"{e.utt_id}-{k}", 10, e.n_sub, 0, 0, e.speaker) for e in once for k in range(10)]
    assert bootstrap_ci95(ten) == bootstrap_ci95(once)
    unknown = [Errors(e.utt_id, e.n_ref, e.n_sub, 0, 0) for e in ten]
    low, high = bootstrap_ci95(unknown)
    assert high - low < 0.5 * (bootstrap_ci95(once)[1] - bootstrap_ci95(once)[0])


def test_one_speaker_alone_falls_back_to_utterances() -> None:
    assert bootstrap_ci95(some_errors(50, speakers=1)) == bootstrap_ci95(some_errors(50))


def two_systems(speakers: int | None) -> tuple[list[Errors], list[Errors]]:
    """The second makes an error more in every fifth utterance, and one less in every seventh."""
    first = some_errors(120, speakers)
    more = [(k % 5 == 0) - (k % 7 == 0 and e.n_sub > 0) for k, e in enumerate(first)]
    return first, [replace(e, n_sub=e.n_sub + m) for e, m in zip(first, more, strict=True)]


@pytest.mark.parametrize("speakers", [None, 12])
def test_a_paired_interval_equals_a_bootstrap_that_draws_both_systems_together(speakers: int | None) -> None:
    first, second = two_systems(speakers)
    names = sorted({e.speaker or e.utt_id for e in first})
    said = [
        {n: [e for e in system if (e.speaker or e.utt_id) == n] for n in names} for system in (first, second)
    ]
    draw = random.Random(5)
    found = []
    for _ in range(1000):
        drawn = [draw.choice(names) for _ in names]
        a, b = (wer(e for name in drawn for e in system[name]) for system in said)
        found.append(b - a)
    found.sort()
    low, high = paired_ci95(first, second)
    assert low < wer(second) - wer(first) < high
    assert (low, high) == pytest.approx((found[24], found[974]), abs=0.1 * (high - low))


def test_a_paired_interval_is_narrower_than_that_of_either_system_and_turns_its_sign_with_them() -> None:
    first, second = two_systems(12)
    low, high = paired_ci95(first, second)
    alone = bootstrap_ci95(first)
    assert high - low < 0.8 * (alone[1] - alone[0])
    assert paired_ci95(second, first) == pytest.approx((-high, -low))
    assert paired_ci95(first, first) == (0.0, 0.0)


def test_the_same_systems_twice_tell_nothing_new_of_their_speakers() -> None:
    """Seeds stand one behind the other: a speaker is drawn with all of them."""
    first, second = two_systems(12)
    assert paired_ci95(first * 3, second * 3) == pytest.approx(paired_ci95(first, second))


def test_systems_that_heard_other_utterances_are_not_compared() -> None:
    first, second = two_systems(None)
    for other in (second[:-1], second[::-1], [replace(second[0], n_ref=11), *second[1:]]):
        with pytest.raises(ValueError, match="compared utterance by utterance: give both the same set"):
            paired_ci95(first, other)


def test_speakers_rates_and_a_speaker_without_reference_words() -> None:
    errors = [Errors("a", 10, 1, 0, 0, "x"), Errors("b", 10, 0, 0, 0, "x"), Errors("c", 0, 0, 3, 0, "y")]
    assert wer_by_speaker(errors) == {"x": 5.0, "y": 0.0}


def test_errors_survive_the_file(tmp_path: Path) -> None:
    errors = some_errors(5, speakers=2)
    (tmp_path / "errors.jsonl").write_text(to_jsonl(errors), encoding="utf-8")
    assert read_errors(tmp_path / "errors.jsonl") == errors


def test_a_line_that_is_not_errors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    path.write_text(to_jsonl(some_errors(1)) + '{"utt_id": "x"}\n')
    with pytest.raises(ValueError, match=r"errors\.jsonl:2: not a line of errors"):
        read_errors(path)


def test_five_thousand_utterances_are_counted_in_about_a_second() -> None:
    draw = random.Random(0)
    words = [f"w{i}" for i in range(1000)]
    refs = [[draw.choice(words) for _ in range(20)] for _ in range(5000)]
    hyps = [[w if draw.random() > 0.2 else draw.choice(words) for w in ref] for ref in refs]
    start = time.process_time()
    wer(count_errors(str(i), r, h) for i, (r, h) in enumerate(zip(refs, hyps, strict=True)))
    assert time.process_time() - start < 2
