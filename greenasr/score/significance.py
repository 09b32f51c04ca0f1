"""Is system A really better than B on this test set?  Four tests as NIST's sc_stats has them.

MAPSSWE (MP), the matched-pairs sentence-segment word error test of Gillick and Cox 1989: the two
alignments of an utterance are cut where both systems got two or more words in a row right; a segment
is what lies between such cuts, with its two words on either side.  With d_i the errors of A minus
those of B in segment i,

    z = mean(d) / (std(d) / √n),      p = P(|N(0, 1)| ≥ |z|),      std with n - 1

Signed pairs (SI) and Wilcoxon (WI) compare WER by speaker, McNemar (MN) whole utterances right or
wrong.  Cuts, statistics and tie rules follow SCTK (`mtchprs.c`, `sentmcn.c`, `signtest.c`,
`wilcoxon.c`).  We differ on purpose in three places: p of a normal z is exact where sc_stats rounds z
down to a table in steps of 0.01; binomial p is exact for any n, where sc_stats above n = 20 uses an
approximation that halves the count twice and calls 10 against 11 significant; and differences by
speaker that are equal but for rounding share their rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from statistics import NormalDist, fmean

from greenasr.score.align import ops

BOUNDARY = 2  # words right in both systems that end a segment
NORMAL = NormalDist()
MOST_WAYS = 2_000_000  # of parting figures into two groups


@dataclass(frozen=True)
class Mapsswe:
    """Result of MAPSSWE; ``mean`` > 0 when A makes more errors, ``better`` only when p < alpha."""

    segments: int
    mean: float
    std: float
    z: float
    p: float
    better: str | None


@dataclass(frozen=True)
class Mcnemar:
    """Utterances right (r) or wrong (w) in A, then B; exact two-sided binomial p on ``rw`` and ``wr``."""

    rr: int
    rw: int
    wr: int
    ww: int
    p: float
    better: str | None


@dataclass(frozen=True)
class SignedPairs:
    """Speakers on which A has the higher WER, the lower, or the same; exact two-sided binomial p."""

    higher: int
    lower: int
    same: int
    p: float
    better: str | None


@dataclass(frozen=True)
class Wilcoxon:
    """Signed ranks of the differences in WER by speaker, normal approximation."""

    speakers: int
    z: float
    p: float
    better: str | None


def two_sided(z: float) -> float:
    """P(|N(0, 1)| ≥ |z|).

    >>> round(two_sided(-1.96), 3)
    0.05
    """
    return math.erfc(abs(z) / math.sqrt(2))


def segments(path_a: str, path_b: str) -> list[tuple[int, int]]:
    """Errors of A and of B in every segment of one utterance, from its two alignments' letters.

    Insertions are passed over in each alignment by itself, the other columns go in step, one
    reference word each.  A segment runs from two words before its first error to the second of two
    consecutive words both got right, or the end; segments without an error are none.  As sc_stats
    does it (`test_comp_sents`): where alternatives leave the two with unequal numbers of reference
    words the columns go in step all the same.

    >>> segments("CCSCCCDCI", "CCCCCCSCC")
    [(1, 0), (2, 1)]
    """
    found: list[tuple[int, int]] = []
    i = j = start_i = start_j = right = 0
    clean = True

    def close(end_i: int, end_j: int) -> None:
        a, b = (
            sum(op != "C" for op in path[max(start - BOUNDARY + 1, 0) : end])
            for path, start, end in ((path_a, start_i, end_i), (path_b, start_j, end_j))
        )
        if a or b:
            found.append((a, b))

    while i < len(path_a):
        while i < len(path_a) and path_a[i] == "I":
            i, right, clean = i + 1, 0, False
        while j < len(path_b) and path_b[j] == "I":
            j, right, clean = j + 1, 0, False
        if path_a[i : i + 1] == "C" and path_b[j : j + 1] == "C":
            right += 1
            if clean:
                start_i, start_j = i, j
            elif right >= BOUNDARY:
                close(i + 1, j + 1)
                start_i, start_j, clean = i, j, True
        else:
            right, clean = 0, False
        i, j = min(i + 1, len(path_a)), min(j + 1, len(path_b))
    if not clean or j < len(path_b):
        close(len(path_a), len(path_b))
    return found


def mapsswe_of_differences(differences: Sequence[float], alpha: float = 0.05) -> Mapsswe:
    """The test on d_i, errors of A minus errors of B in every segment.

    As in sc_stats, z is 0 when all differences are equal (which includes no segment and one).

    >>> result = mapsswe_of_differences([1, 0, 1])
    >>> f"{result.mean:.3f} {result.std:.3f} {result.z:.3f} {result.better}"
    '0.667 0.577 2.000 b'
    """
    n = len(differences)
    mean = fmean(differences) if n else 0.0
    squares = sum((d - mean) ** 2 for d in differences)
    std = math.sqrt(squares / (n - 1)) if squares else 0.0
    z = mean / (std / math.sqrt(n)) if std else 0.0
    p = two_sided(z)
    return Mapsswe(n, mean, std, z, p, None if p >= alpha else "a" if mean < 0 else "b")


def mapsswe_of_ops(paths_a: Sequence[str], paths_b: Sequence[str], alpha: float = 0.05) -> Mapsswe:
    """The test on alignments given as letters (`align.ops`), utterance by utterance."""
    pairs = zip(paths_a, paths_b, strict=True)
    return mapsswe_of_differences([a - b for pair in pairs for a, b in segments(*pair)], alpha)


def mapsswe(
    refs: Sequence[Sequence[str]], hyps_a: Sequence[Sequence[str]], hyps_b: Sequence[Sequence[str]]
) -> Mapsswe:
    """MAPSSWE on word lists: references and the hypotheses of two systems, utterance by utterance.

    >>> mapsswe([["a", "b"]], [["a", "b"]], [["a", "b"]]).p
    1.0
    """
    a, b = ([ops(r, h) for r, h in zip(refs, hyps, strict=True)] for hyps in (hyps_a, hyps_b))
    return mapsswe_of_ops(a, b)


def smallest_detectable(
    segments: int, std: float, n_ref: int, alpha: float = 0.05, power: float = 0.5
) -> float:
    """The smallest difference in WER, in points, that MAPSSWE on this set would call significant.

        100 · n / N · (z_{1-alpha/2} + z_power) · std / √n      n segments, N reference words

    At power 0.5 this is the observed difference on the edge; a true difference of that size is
    missed every second time, so plan with power 0.8 (1.43 times as much).

    >>> round(smallest_detectable(100, 0.5, 1000), 2)
    0.98
    """
    if n_ref < 1:
        raise ValueError(
            f"smallest detectable difference: found {n_ref} reference words, expected at least 1."
        )
    return 100 * math.sqrt(segments) * std / n_ref * (NORMAL.inv_cdf(1 - alpha / 2) + NORMAL.inv_cdf(power))


def difference_ci95(result: Mapsswe, n_ref: int) -> tuple[float, float]:
    """95 % interval of WER(A) - WER(B) in points, from the segments' mean and standard deviation.

    100 · n / N · (mean ± z_{0.975} · std / √n)
    """
    centre, half = (
        100 * result.segments * result.mean / n_ref,
        smallest_detectable(result.segments, result.std, n_ref),
    )
    return centre - half, centre + half


def permutation_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Exact two-sided p for the means of two independent groups, such as figures of runs with other seeds.

        p = share of the (m + n choose m) ways to part all figures into groups of m and n
            whose means differ by at least as much as those of a and b

    Fisher 1935.  Five against five figures cannot have a p below 2 / 252; 1 where a group is empty.

    >>> permutation_test([1.0, 2.0, 3.0], [7.0, 8.0, 9.0])
    0.1
    """
    if not a or not b:
        return 1.0
    pool, m, n = [*a, *b], len(a), len(b)
    if math.comb(m + n, m) > MOST_WAYS:
        raise ValueError(
            f"permutation test: {m} against {n} figures have {math.comb(m + n, m):,} ways to be parted, "
            f"expected at most {MOST_WAYS:,}: give fewer seeds."
        )
    total = math.fsum(pool)
    seen = abs(math.fsum(a) / m - math.fsum(b) / n)
    gaps = (abs(s / m - (total - s) / n) for s in map(math.fsum, combinations(pool, m)))
    slack = 1e-9 * max(1.0, seen)
    return sum(gap >= seen - slack for gap in gaps) / math.comb(m + n, m)


def two_sided_binomial(a: int, b: int) -> float:
    """2 · P(X ≤ min(a, b)), X the heads of a + b fair coins; 1 when a = b.

    >>> two_sided_binomial(0, 6)
    0.03125
    """
    if a == b:
        return 1.0
    n = a + b
    ways = total = 1
    for k in range(min(a, b)):
        ways = ways * (n - k) // (k + 1)
        total += ways
    return float(Fraction(total, 2 ** (n - 1)))


def mcnemar(paths_a: Sequence[str], paths_b: Sequence[str], alpha: float = 0.05) -> Mcnemar:
    """McNemar's test on utterances entirely right, from alignments' letters.

    >>> mcnemar(["CC", "CS", "C"], ["CC", "CC", "I"])
    Mcnemar(rr=1, rw=1, wr=1, ww=0, p=1.0, better=None)
    """
    table = {(a, b): 0 for a in (True, False) for b in (True, False)}
    for a, b in zip(paths_a, paths_b, strict=True):
        table[a.count("C") == len(a), b.count("C") == len(b)] += 1
    only_a, only_b = table[True, False], table[False, True]
    p = two_sided_binomial(only_a, only_b)
    better = None if p >= alpha else "a" if only_a > only_b else "b"
    return Mcnemar(table[True, True], only_a, only_b, table[False, False], p, better)


def signed_pairs(wer_a: Mapping[str, float], wer_b: Mapping[str, float], alpha: float = 0.05) -> SignedPairs:
    """The sign test on WER by speaker; ties (within 0.005 points) are split between the two sides.

    The odd tie goes to the side that makes a difference harder to find.

    >>> signed_pairs({"s1": 9.0, "s2": 8.0}, {"s1": 7.0, "s2": 8.5}).p
    1.0
    """
    differences = _by_speaker(wer_a, wer_b)
    higher = sum(d > 0.005 for d in differences)
    lower = sum(d < -0.005 for d in differences)
    same = len(differences) - higher - lower
    a_is_worse = sum(wer_a.values()) > sum(wer_b.values())
    plus, minus = (higher, lower) if a_is_worse else (lower, higher)
    p = two_sided_binomial(plus + same // 2, minus + same // 2 + same % 2)
    better = None if p >= alpha else "b" if a_is_worse else "a"
    return SignedPairs(higher, lower, same, p, better)


def wilcoxon(wer_a: Mapping[str, float], wer_b: Mapping[str, float], alpha: float = 0.05) -> Wilcoxon:
    """Wilcoxon's signed ranks on WER by speaker, with sc_stats' rules.

        z = (W - n(n+1)/4) / √(n(n+1)(2n+1)/24)

    W sums the ranks of the side with fewer speakers; equal differences share the mean rank; speakers
    without a difference go to either side in turn.

    >>> wilcoxon({"s1": 9.0, "s2": 8.0}, {"s1": 7.0, "s2": 10.0}).z
    0.0
    """
    differences = _by_speaker(wer_a, wer_b)
    a_is_worse = sum(wer_a.values()) > sum(wer_b.values())
    if not a_is_worse:
        differences = [-d for d in differences]
    n = len(differences)
    sizes = [round(abs(d), 9) for d in differences]
    ranks = [sum(other < s for other in sizes) + (sizes.count(s) + 1) / 2 for s in sizes]
    sides: tuple[list[float], list[float]] = ([], [])
    ties = 0
    for d, rank in zip(differences, ranks, strict=True):
        if abs(d) > 0.005:
            sides[d < 0].append(rank)
        else:
            sides[ties % 2].append(rank)
            ties += 1
    plus, minus = sides
    w = sum(plus) if len(plus) < len(minus) else sum(minus)
    z = (w - n * (n + 1) / 4) / math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    p = two_sided(z)
    plus_is_worse = len(plus) >= len(minus)
    better = None if p >= alpha else "b" if a_is_worse == plus_is_worse else "a"
    return Wilcoxon(n, z, p, better)


def _by_speaker(wer_a: Mapping[str, float], wer_b: Mapping[str, float]) -> list[float]:
    """WER of A minus B, speaker by speaker in A's order."""
    if not wer_a or set(wer_a) != set(wer_b):
        only_one = "".join(f", only one has {name}" for name in sorted(set(wer_a) ^ set(wer_b))[:1])
        raise ValueError(
            f"tests by speaker: found {len(wer_a)} and {len(wer_b)} speakers{only_one}, "
            "expected the same speakers in both. Score both systems against the same references."
        )
    return [wer_a[name] - wer_b[name] for name in wer_a]
