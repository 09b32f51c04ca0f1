"""ACosR's Tables 3 and 4: what the runs of a recipe of transducers add up to, against full precision.

degradation = 100 (WER - WER of full precision) / WER of full precision         percent, of means over seeds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from greenasr.pipeline import rows
from greenasr.pipeline.place import ALL, AnyPlace
from greenasr.pipeline.pooled import Runs, compare, pooled_errors, whole_seeds
from greenasr.pipeline.recipe import Row
from greenasr.pipeline.systems import systems
from greenasr.pipeline.transducer import Place
from greenasr.pipeline.transducer_recipe import TransducerRow
from greenasr.score.errors import wer


def table(place: Place, results: rows.Results) -> dict[str, Any]:
    """The finished rows as one JSON value: WER, degradation and marks of each set, WgtC, sizes, speeds.

    ``wer`` is {set: [mean, standard deviation, how many]} over seeds, ``degradation`` {set: percent relative
    to the row "float"}, ``marks`` {set: "*" significantly worse than it for most seeds, "†" better, or ""};
    the folds together are the set "folds".  ``rescored`` has the same of lists rescored by the n-gram.
    """
    return {**rows.tabulate(place, results, _figures), "systems": systems(place, results)}


def _figures(place: Place, row: TransducerRow, runs: Runs, results: rows.Results) -> dict[str, Any]:
    """One row of the table."""
    found = rows.figures(place, row, runs, results)
    heads = [f"{part}/seed{seed}/{row.name}" for part, seed in runs]
    rescored = {
        run: results[f"{head}/with-ngram"]
        for run, head in zip(runs, heads, strict=True)
        if f"{head}/with-ngram" in results
    }
    return {
        **found,
        "method": f"{found['method']}, as published" if row.published else found["method"],
        **of_sets(place, row, "words", runs, results),
        "rescored": of_sets(place, row, "with-ngram", rescored, results) if rescored else None,
        "against": None if row.name == "float" else rows.against(place, row, "float", runs, results),
        "wgtc": mean_wgtc([run["wgtc"] for run in runs.values() if run["wgtc"]]),
        "rtf": float(np.mean([each["rtf"] for run in runs.values() for each in run["sets"].values()])),
        "left_out": sum(run["left_out"] for run in runs.values()),
    }


def mean_wgtc(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Mean over runs, total and of every layer; None without a run.

    >>> mean_wgtc([{"total": 1.0, "layers": {"w": 1.0}}, {"total": 0.5, "layers": {"w": 0.5}}])
    {'total': 0.75, 'layers': {'w': 0.75}}
    """
    if not found:
        return None
    layers = {name: float(np.mean([run["layers"][name] for run in found])) for name in found[0]["layers"]}
    return {"total": float(np.mean([run["total"] for run in found])), "layers": layers}


def of_sets(place: AnyPlace, row: Row, stage: str, runs: Runs, results: rows.Results) -> dict[str, Any]:
    """WER, degradation and mark of each set; of the stage "words", "with-ngram" or another with lists."""
    names = dict.fromkeys(name for (part, _), run in runs.items() if part == ALL for name in run["sets"])
    parted: dict[str, Runs] = {
        name: {
            key: {"sets": {name: run["sets"][name]}}
            for key, run in runs.items()
            if key[0] == ALL and name in run["sets"]
        }
        for name in names
    }
    if folds := {key: run for key, run in runs.items() if key[0] != ALL}:
        parted["folds"] = folds
    out: dict[str, dict[str, Any]] = {"wer": {}, "degradation": {}, "marks": {}}
    for name, some in parted.items():
        both = {k: run for k, run in some.items() if f"{k[0]}/seed{k[1]}/float/{stage}" in results}
        mine, full = (
            [wer(pooled_errors(place, lists, seed, of)) for seed in whole_seeds(of)]
            for lists, of in ((f"{row.name}/{stage}", some), (f"float/{stage}", both))
        )
        out["wer"][name] = rows.spread(mine)
        if both and row.name != "float":
            found = compare(place, f"float/{stage}", f"{row.name}/{stage}", both)
            out["marks"][name] = found["mark"] if found else ""
            base = float(np.mean(full))
            out["degradation"][name] = 100 * (float(np.mean(mine)) - base) / base if base else None
    return out
