"""GREEN's Table 3: acoustic model x language model, with and without LHUC, as whole systems.

    bytes = acoustic file + language model's file
    ratio = bytes of the full-precision recogniser and language model / bytes

A system is a recogniser row, the pass that made its lists, and the model that ordered them.  The n-gram of
the decoding graph belongs to every system and is counted in none, as in the paper.  All are held against the
full-precision recogniser with the full-precision language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from greenasr.pipeline.hybrid_lm import MODELS, PASSES
from greenasr.pipeline.place import ALL, AnyPlace
from greenasr.pipeline.pooled import Runs, compare, pooled_errors, whole_seeds
from greenasr.score.errors import wer

Results = Mapping[str, Mapping[str, Any]]  # stage -> result


@dataclass(frozen=True)
class System:
    """A recogniser ``row``, the ``lists`` of its first pass ("words") or of LHUC, a ``model`` or None."""

    row: str
    lists: str = "words"
    model: str | None = None

    @property
    def name(self) -> str:
        """As the table calls it, for example "kl-4 + LHUC, low-bit LM"."""
        adapted = " + LHUC" if self.lists == "lhuc" else ""
        return f"{self.row}{adapted}, {f'{MODELS[self.model]} LM' if self.model else 'no LM'}"

    @property
    def stage(self) -> str:
        """The stage, within a seed's folder, that made its lists."""
        return f"{self.row}/{PASSES[self.lists] if self.model else self.lists}"

    @property
    def folder(self) -> str:
        """Where its lists lie, within a seed's folder."""
        return f"{self.stage}/{self.model}" if self.model else self.stage

    def runs(self, place: AnyPlace, results: Results) -> Runs:
        """(part, seed) -> its ``sets`` and ``bytes``, of the runs that are finished."""
        found = {}
        for part in place.parts:
            for seed in place.recipe.corpus.seeds:
                home = f"{part}/seed{seed}"
                if f"{home}/{self.stage}" not in results:
                    continue
                made, size = results[f"{home}/{self.stage}"], results[f"{home}/{self.row}"]["bytes"]
                if self.model:
                    made, size = made[self.model], size + results[f"{part}/lm/{self.model}"]["bytes"]
                found[part, seed] = {"sets": made["sets"], "bytes": size}
        return found


def systems(place: AnyPlace, results: Results) -> list[dict[str, Any]]:
    """Table 3's finished lines in the recipe's order of rows; none where nothing is rescored or adapted.

    ``sets`` are the corpus's own test sets, ``pooled`` is [mean, deviation, seeds] over the words of all
    parts.  ``against`` holds `pooled.compare` with the full-precision system, and of an adapted system with
    itself unadapted; ``mark`` and the sets' marks (``*`` worse, ``†`` better) are of the former.
    """
    recipe = place.recipe
    full = System("float", model="float" if recipe.lm.rows else None)
    reference = full.runs(place, results)
    lines = []
    for row in [row.name for row in recipe.rows if row.name in {*recipe.lm.rows, *recipe.adapted}]:
        for lists in PASSES:
            for model in (None, *MODELS):
                system = System(row, lists, model)
                if runs := system.runs(place, results):
                    lines.append(_line(place, results, system, runs, full, reference))
    return lines


def _line(
    place: AnyPlace, results: Results, system: System, runs: Runs, full: System, reference: Runs
) -> dict[str, Any]:
    """One system's figures."""
    pooled = [wer(pooled_errors(place, system.folder, s, runs)) for s in whole_seeds(runs)]
    against = {"full": None if system == full else _compare(place, full, system, reference, runs)}
    if system.lists == "lhuc":
        before = System(system.row, model=system.model)
        against["unadapted"] = _compare(place, before, system, before.runs(place, results), runs)
    ratios = [reference[key]["bytes"] / run["bytes"] for key, run in runs.items() if key in reference]
    part, seed = next(iter(runs))
    adapted = results.get(f"{part}/seed{seed}/{system.row}/lhuc") if system.lists == "lhuc" else None
    sets = {}
    for name in dict.fromkeys(test for (part, _), run in runs.items() if part == ALL for test in run["sets"]):
        some = {
            key: {"sets": {name: run["sets"][name]}}
            for key, run in runs.items()
            if key[0] == ALL and name in run["sets"]
        }
        rates = [run["sets"][name]["wer"] for run in some.values()]
        found = None if system == full else _compare(place, full, system, reference, some)
        sets[name] = {
            "wer": float(np.mean(rates)),
            "deviation": float(np.std(rates)),
            "mark": found["mark"] if found else "",
            "p": [test["p"] for test in found["seeds"].values()] if found else [],
        }
    return {
        "name": system.name,
        "row": system.row,
        "lm": system.model,
        "lhuc": system.lists == "lhuc",
        "bits": [
            results[f"{part}/seed{seed}/{system.row}"]["bits"],
            results[f"{part}/lm/{system.model}"]["bits"] if system.model else None,
        ],
        "sets": sets,
        "pooled": [float(np.mean(pooled)), float(np.std(pooled)), len(pooled)],
        "mark": against["full"]["mark"] if against["full"] else "",
        "against": against,
        "bytes": float(np.mean([run["bytes"] for run in runs.values()])),
        "ratio": float(np.mean(ratios)) if ratios and system.model else None,
        "parameters_a_speaker": adapted["parameters_a_speaker"] if adapted else None,
        "runs": len(runs),
    }


def _compare(place: AnyPlace, a: System, b: System, runs_a: Runs, runs_b: Runs) -> dict[str, Any] | None:
    """System b against system a on the runs that both have."""
    both = {key: run for key, run in runs_b.items() if key in runs_a}
    return compare(place, a.folder, b.folder, both)
