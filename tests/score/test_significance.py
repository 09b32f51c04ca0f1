from __future__ import annotations

import math
import random
from itertools import product

import pytest

from greenasr.score.significance import (
    difference_ci95,
    mapsswe,
    mapsswe_of_differences,
    mapsswe_of_ops,
    mcnemar,
    permutation_test,
    segments,
    signed_pairs,
    smallest_detectable,
    two_sided,
    two_sided_binomial,
    wilcoxon,
)


def test_mapsswe_of_two_aligned_utterances_is_as_sc_stats_prints_it() -> None:
    """Two utterances whose letters have the shape of SCTK's own test: 9 and 7 errors, 3 segments, z 2."""
    a = ["I", "CDSCSSSCCDCII"]
    b = ["", "CDSCSSSCCSS"]
    result = mapsswe_of_ops(a, b)
    assert [x for pair in zip(a, b, strict=True) for x in segments(*pair)] == [(1, 0), (5, 5), (3, 2)]
    assert (result.segments, result.better) == (3, "b")
    assert f"{result.mean:.3f} {result.std:.3f} {result.z:.3f} {result.p:.4f}" == "0.667 0.577 2.000 0.0455"


def test_swapping_the_systems_turns_the_sign_and_nothing_else() -> None:
    one, two = mapsswe_of_differences([1, 0, 1, 2]), mapsswe_of_differences([-1, 0, -1, -2])
    assert (one.mean, one.std, one.z, one.p) == (-two.mean, two.std, -two.z, two.p)
    assert (one.better, two.better) == ("b", "a")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("CCCC", "CCCC", []),  # nothing wrong, no segment
        ("CCSCC", "CCCCC", [(1, 0)]),
        ("CCSCSCC", "CCCCCCC", [(2, 0)]),  # one word right between errors is no cut
        ("CCSCCSCC", "CCCCCCCC", [(1, 0), (1, 0)]),  # two are
        ("CCSCCCC", "CCCCSCC", [(1, 1)]),  # both must be right
        ("SCC", "CCC", [(1, 0)]),
        ("CCS", "CCC", [(1, 0)]),
        ("CICC", "CCC", [(1, 0)]),  # an insertion is no column of the other
        ("CCC", "CCCI", [(0, 1)]),  # at the very end, too
        ("", "II", [(0, 2)]),
    ],
)
def test_segments_end_where_both_have_two_words_right(
    a: str, b: str, expected: list[tuple[int, int]]
) -> None:
    assert segments(a, b) == expected


def test_segments_lose_no_error_and_count_none_twice() -> None:
    """Where substitutions are the only errors, the segments partition them."""
    for a, b in product(product("CS", repeat=6), repeat=2):
        found = segments("".join(a), "".join(b))
        assert (sum(x for x, _ in found), sum(y for _, y in found)) == (a.count("S"), b.count("S"))


def test_no_segment_one_segment_and_equal_differences_have_z_zero() -> None:
    for differences in ([], [3], [1, 1, 1]):
        result = mapsswe_of_differences(differences)
        assert (result.z, result.p, result.better) == (0, 1, None)


def test_mapsswe_on_words_aligns_first() -> None:
    ref = "the cat sat on the mat near the old door".split()
    worse = "the hat sat on the mat here the old door".split()
    result = mapsswe([ref] * 4, [worse] * 4, [ref, ref, ref, worse])
    assert (result.segments, result.mean, result.better) == (8, 0.75, "b")


def test_false_alarms_of_mapsswe_are_about_five_percent() -> None:
    draw = random.Random(0)
    alarms = 0
    for _ in range(300):
        same = ["".join(draw.choices("CS", (9, 1), k=12)) for _ in range(60)]
        other = ["".join(draw.choices("CS", (9, 1), k=12)) for _ in range(60)]
        alarms += mapsswe_of_ops(same, other).better is not None
    assert 0.02 < alarms / 300 < 0.09


def test_smallest_detectable_difference_is_the_one_whose_p_is_alpha() -> None:
    n, std, words = 120, 0.8, 3000
    points = smallest_detectable(n, std, words)
    mean = points * words / (100 * n)
    assert two_sided(mean / (std / math.sqrt(n))) == pytest.approx(0.05)
    assert smallest_detectable(n, std, words, power=0.8) == pytest.approx(1.43 * points, rel=1e-3)


def test_the_difference_is_significant_when_its_interval_leaves_out_zero() -> None:
    for extra in range(12):
        differences = [1] * extra + [1, -1, 0, 0, 1, -1, 0, 0] * 3
        result = mapsswe_of_differences(differences)
        low, high = difference_ci95(result, 500)
        assert (low > 0 or high < 0) == (result.better is not None)
        assert (low + high) / 2 == pytest.approx(100 * sum(differences) / 500)


def test_binomial_p_equals_counting_every_outcome_of_the_coins() -> None:
    for a, b in product(range(6), repeat=2):
        if a + b:
            outcomes = [sum(coins) for coins in product((0, 1), repeat=a + b)]
            tail = 2 * sum(heads <= min(a, b) for heads in outcomes) / len(outcomes)
            assert two_sided_binomial(a, b) == (1.0 if a == b else tail)
    assert two_sided_binomial(1000, 1200) == pytest.approx(2.18e-5, rel=0.05)


def test_mcnemar_looks_at_utterances_that_only_one_system_has_right() -> None:
    result = mcnemar(["C"] * 9 + ["S", "I"], ["S"] * 8 + ["C", "C", "S"])
    assert (result.rr, result.rw, result.wr, result.ww) == (1, 8, 1, 1)
    assert (result.p, result.better) == (20 / 512, "a")


def test_signed_pairs_split_ties_and_give_the_odd_one_against_a_difference() -> None:
    a = {f"s{i}": 10.0 + (i < 7) for i in range(10)}
    b = dict.fromkeys(a, 10.0)
    result = signed_pairs(a, b)
    assert (result.higher, result.lower, result.same) == (7, 0, 3)
    assert result.p == two_sided_binomial(8, 2)
    assert signed_pairs({f"s{i}": 2.0 for i in range(6)}, {f"s{i}": 1.0 for i in range(6)}).better == "b"


def test_wilcoxon_of_all_speakers_one_way_is_the_extreme_of_its_formula() -> None:
    n = 8
    a, b = {f"s{i}": 10.0 + i for i in range(n)}, {f"s{i}": 9.5 - i for i in range(n)}
    result = wilcoxon(a, b)
    assert result.z == pytest.approx(-(n * (n + 1) / 4) / math.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    assert result.better == "b"
    assert wilcoxon(b, a).better == "a"


def test_five_speakers_without_a_difference_have_the_p_of_sc_stats() -> None:
    """Ranks 3 each, three to one side and two to the other: z = (6 - 7.5) / √13.75."""
    same = {f"s{i}": 10.0 for i in range(5)}
    assert wilcoxon(same, same).p == pytest.approx(two_sided(-1.5 / math.sqrt(13.75)))


def test_tests_by_speaker_refuse_other_speakers() -> None:
    with pytest.raises(ValueError, match="only one has s2"):
        signed_pairs({"s1": 1.0}, {"s1": 1.0, "s2": 2.0})


def test_the_permutation_test_is_the_share_of_ways_to_part_the_figures() -> None:
    rng = random.Random(3)
    for m, n in ((2, 3), (3, 3), (4, 2)):
        a, b = ([rng.gauss(0, 1) for _ in range(size)] for size in (m, n))
        pool, seen, ways, extreme = a + b, abs(sum(a) / m - sum(b) / n), 0, 0
        for marks in product((0, 1), repeat=m + n):
            if sum(marks) == m:
                one = [x for x, mark in zip(pool, marks, strict=True) if mark]
                two = [x for x, mark in zip(pool, marks, strict=True) if not mark]
                ways, extreme = ways + 1, extreme + (abs(sum(one) / m - sum(two) / n) >= seen - 1e-12)
        assert permutation_test(a, b) == pytest.approx(extreme / ways)
        assert permutation_test(a, b) == pytest.approx(permutation_test(b, a))


def test_groups_that_do_not_touch_have_the_least_p_and_equal_ones_none() -> None:
    assert permutation_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert permutation_test([1.0, 1.0], [1.0, 1.0]) == 1.0 and permutation_test([], [1.0]) == 1.0
    with pytest.raises(ValueError, match="ways to be parted"):
        permutation_test(list(range(20)), list(range(20)))
