"""A table of keyword models: what the runs of a recipe add up to, network against network.

    p      exact permutation test on the seeds' error rates: are two ways of training different?
    mark   matched pairs on the same clips, seed by seed: are two trained networks different?

The first asks whether another seed would say the same, the second whether other clips would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from greenasr.pipeline import rows
from greenasr.pipeline.ctc_recipe import CtcRow
from greenasr.pipeline.keywords import Place
from greenasr.pipeline.pooled import Runs, pooled_errors
from greenasr.score.errors import wer
from greenasr.score.significance import permutation_test


def table(place: Place, results: rows.Results) -> dict[str, Any]:
    """The finished rows as one JSON value: error rates, networks, sizes, differences.

    ``rates`` are a row's error rates in percent by seed, of all parts and test sets together; ``parent`` is
    for compressed rows alone.
    """
    corpus = results.get("corpus") or {}
    return {
        **rows.tabulate(place, results, _figures),
        "clips": corpus.get("clips"),
        "recorded_noise": corpus.get("recorded_noise"),
        "classes": next((results[key]["words"] for key in results if key.endswith("/labels")), None),
    }


def _figures(place: Place, row: CtcRow, runs: Runs, results: rows.Results) -> dict[str, Any]:
    """One row of the table."""
    some, compressed = next(iter(runs.values())), row.method != "float"
    return {
        **rows.figures(place, row, runs, results),
        **{key: some[key] for key in ("threshold", "structured", "skips", "shape")},
        "start": row.start if compressed else None,
        "rates": rates(place, row.name, runs),
        "rtf": float(np.mean([each["rtf"] for run in runs.values() for each in run["sets"].values()])),
        "left_out": sum(run["left_out"] for run in runs.values()),
        "against": _against(place, row, "float", runs, results),
        "parent": _against(place, row, row.start, runs, results) if compressed else None,
    }


def rates(place: Place, name: str, runs: Runs) -> dict[str, float]:
    """Seed -> error rate in percent of a row, over all parts."""
    seeds = sorted({seed for _, seed in runs})
    return {str(seed): wer(pooled_errors(place, f"{name}/words", seed, runs)) for seed in seeds}


def _against(
    place: Place, row: CtcRow, reference: str, runs: Runs, results: rows.Results
) -> dict[str, Any] | None:
    """A row against another on the runs that both have, by clips and by seeds; None for itself."""
    if row.name == reference or not (found := rows.against(place, row, reference, runs, results)):
        return None
    both: Mapping[tuple[str, int], Any] = {
        key: run for key, run in runs.items() if f"{key[0]}/seed{key[1]}/{reference}/words" in results
    }
    mine, theirs = (list(rates(place, name, both).values()) for name in (row.name, reference))
    return {**found, "seeds_p": permutation_test(theirs, mine)}
