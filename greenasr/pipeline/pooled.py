"""Two systems on the same runs: errors pooled over parts, MAPSSWE of every seed, difference and interval.

A run is one part of the data and one seed; a system's lists and errors lie in one folder of each, such as
``<part>/seed<k>/float/words``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from greenasr.decode.nbest import read_nbest
from greenasr.pipeline.place import AnyPlace
from greenasr.score.errors import Errors, paired_ci95, read_errors, wer
from greenasr.score.significance import mapsswe

Runs = Mapping[tuple[str, int], Mapping[str, Any]]  # (part, seed) -> result with its test ``sets``


def whole_seeds(runs: Runs) -> list[int]:
    """Seeds that have as many parts as any: error rates of less speech are no figures of the same thing.

    >>> whole_seeds({("all", 0): {}, ("fold0", 0): {}, ("all", 1): {}})
    [0]
    """
    parts = Counter(seed for _, seed in runs)
    return sorted(seed for seed, n in parts.items() if n == max(parts.values()))


def pooled_errors(place: AnyPlace, lists: str, seed: int, runs: Runs) -> list[Errors]:
    """Errors of all test sets of all parts of one seed; ``lists`` is their folder within a seed's."""
    found: list[Errors] = []
    for part, other in runs:
        if other == seed:
            for test in runs[part, other]["sets"]:
                found += read_errors(place.run / part / f"seed{seed}" / lists / f"{test}.errors.jsonl")
    return found


def compare(place: AnyPlace, a: str, b: str, runs: Runs) -> dict[str, Any] | None:
    """Lists in folder ``b`` against those in ``a`` on runs that have both; None without a run.

    MAPSSWE of each seed, the pooled difference in points and its interval; ``mark`` is ``*`` where b is
    significantly worse for most seeds, ``†`` where it is better.
    """
    if not runs:
        return None
    seeds = sorted({seed for _, seed in runs})
    tests = {}
    for seed in seeds:
        refs, hyps_a, hyps_b = [], [], []
        for (part, other), result in runs.items():
            if other != seed:
                continue
            for test in result["sets"]:
                home = place.run / part / f"seed{seed}"
                lists = [read_nbest(home / name / f"{test}.nbest.jsonl") for name in (a, b)]
                for one, two in zip(*lists, strict=True):
                    refs.append((one.ref or "").split())
                    hyps_a.append(one.hyps[0].split())
                    hyps_b.append(two.hyps[0].split())
        found = mapsswe(refs, hyps_a, hyps_b)
        tests[seed] = {
            "p": found.p,
            "better": found.better,
            "changed": sum(x != y for x, y in zip(hyps_a, hyps_b, strict=True)),
        }
    first, second = ([e for seed in seeds for e in pooled_errors(place, name, seed, runs)] for name in (a, b))
    low, high = paired_ci95(first, second)
    better = [test["better"] for test in tests.values()]
    mark = "*" if better.count("a") > len(better) / 2 else "†" if better.count("b") > len(better) / 2 else ""
    return {
        "difference": wer(second) - wer(first),
        "ci95": [low, high],
        "seeds": {str(seed): test for seed, test in tests.items()},
        "mark": mark,
    }
