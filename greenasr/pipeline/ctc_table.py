"""The ternary paper's figures: what the runs of a recipe of CTC networks add up to."""

from __future__ import annotations

from typing import Any

import numpy as np

from greenasr.pipeline import rows
from greenasr.pipeline.ctc import Place
from greenasr.pipeline.ctc_recipe import CtcRow
from greenasr.pipeline.pooled import Runs
from greenasr.pipeline.systems import systems
from greenasr.pipeline.transducer_table import of_sets

PASSES = {"rescored": "with-ngram", "graph": "with-graph"}  # key of a row -> stage of its lists


def table(place: Place, results: rows.Results) -> dict[str, Any]:
    """The finished rows as one JSON value: WER, degradation, marks of each set; network, sparsity, sizes.

    ``wer``, ``degradation`` and ``marks`` as in `transducer_table`; ``rescored`` has them of lists rescored
    by the n-gram, ``graph`` of words searched in the lexicon and n-gram, None where there are none.
    ``start`` is the row that a compressed one began from, which it is held against in ``against``; a ternary
    network is held against its ``dense`` twin, the row of the same network with the lowest threshold.
    """
    return {**rows.tabulate(place, results, _figures), "systems": systems(place, results)}


def _figures(place: Place, row: CtcRow, runs: Runs, results: rows.Results) -> dict[str, Any]:
    """One row of the table."""
    some = next(iter(runs.values()))
    passes: dict[str, Any] = {}
    for key, stage in PASSES.items():
        found = {
            (part, seed): results[name]
            for part, seed in runs
            if (name := f"{part}/seed{seed}/{row.name}/{stage}") in results
        }
        passes[key] = of_sets(place, row, stage, found, results) if found else None
    start = "float" if row.method == "float" else row.start
    dense = dense_twin(place, row)
    return {
        **rows.figures(place, row, runs, results),
        **of_sets(place, row, "words", runs, results),
        **passes,
        "network": row.network,
        "start": None if row.name == "float" else start,
        "against": None if row.name == "float" else rows.against(place, row, start, runs, results),
        "dense": dense,
        "against_dense": rows.against(place, row, dense, runs, results) if dense else None,
        **{key: some[key] for key in ("threshold", "structured", "skips", "shape")},
        "rtf": float(np.mean([each["rtf"] for run in runs.values() for each in run["sets"].values()])),
        "left_out": sum(run["left_out"] for run in runs.values()),
    }


def dense_twin(place: Place, row: CtcRow) -> str | None:
    """The row whose network differs from a ternary one's by a lower t alone, the lowest; None without one."""
    recipe = place.recipe
    if row.method != "float" or (mine := recipe.settings_of(row, 2)).ternary is None:
        return None

    def shape(settings: Any) -> dict[str, Any]:
        value: dict[str, Any] = settings.to_json()
        ternary = value["ternary"] or {}
        return {
            **value,
            "ternary": {k: v for k, v in ternary.items() if k not in ("threshold", "structured")},
        }

    twins = []
    for other in recipe.rows:
        theirs = recipe.settings_of(other, 2)
        if other.method == "float" and theirs.ternary is not None and shape(theirs) == shape(mine):
            twins.append((theirs.ternary.threshold, other.name))
    return min(twins)[1] if min(twins)[0] < mine.ternary.threshold else None
