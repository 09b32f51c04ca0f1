"""Rows of a table of recognisers: plans, how a compressed row is trained, and what its runs add up to.

Networks and tasks are given, hybrid or transducer; a row's runs are its parts of the data times its seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from greenasr.compress.allocate import allocate
from greenasr.compress.fit import OnStep, Training, fit_
from greenasr.compress.search import Search
from greenasr.data.files import write_json
from greenasr.pipeline.lm import measure_costs
from greenasr.pipeline.models import span_weights
from greenasr.pipeline.place import ALL, AnyPlace, Tell
from greenasr.pipeline.plans import read_costs
from greenasr.pipeline.pooled import Runs, compare, pooled_errors, whole_seeds
from greenasr.pipeline.recipe import METHODS, PLANNED, Row
from greenasr.roles import BitMap, Cluster, Task
from greenasr.score.errors import bootstrap_ci95, wer

Results = Mapping[str, Mapping[str, Any]]  # stage -> result


def costs_of(row: Row) -> str:
    """The folder of the costs behind a row's plan; a search has a target of bits, hence its own.

    So has each network that rows begin from, where a table has several.
    """
    start = "" if row.start in ("float", "compact") else f"{row.start}-"
    bits = f"-{row.bits:g}" if row.method == "search" else ""
    return f"{start}costs-{row.method}{bits}"


def bit_map_of(place: AnyPlace, home: Path, row: Row, clusters: tuple[Cluster, ...]) -> BitMap:
    """A compressed row's plan: one width, or the one that its costs lead to."""
    compress = place.recipe.compress
    step = row.step or compress.step
    if row.method in PLANNED:
        costs = read_costs(home / costs_of(row) / "costs.json")
        return allocate(costs, average_bits=row.bits, pinned=compress.pin, step=step)
    return BitMap.uniform(clusters, int(row.bits), step)


def method_of(row: Row) -> str:
    """The way of training of a compressed row, a key of `COMPRESSORS`."""
    return row.fit if row.method in PLANNED else row.method


def training_of(place: AnyPlace, row: Row, seed: int) -> Training:
    """How a row is trained: the float one as the recipe says, others as its [compress] and they say."""
    train, compress = place.recipe.train, place.recipe.compress
    if row.method == "float":
        return replace(train, seed=seed, epochs=row.epochs or train.epochs)
    epochs = compress.epochs if row.epochs is None else row.epochs
    return replace(
        train,
        epochs=0 if method_of(row) == "none" else epochs,
        lr=row.lr or compress.lr,
        weight_decay=compress.weight_decay,
        seed=seed,
    )


def measure(
    place: AnyPlace,
    row: Row,
    model: nn.Module,
    task: Task,
    clusters: tuple[Cluster, ...],
    seed: int,
    folder: Path,
    tell: Tell,
) -> dict[str, Any]:
    """Hessian or KL costs of a full-precision network, into ``folder/costs.json``."""
    compress = place.recipe.compress
    costs = measure_costs(
        row.method, model, task, clusters, compress.widths, step=compress.step,
        n_batches=compress.cost_batches, tolerance=compress.cost_tolerance, max_probes=compress.max_probes,
        seed=seed, kept=folder / "probes.json", tell=tell,
    )  # fmt: skip
    write_json(folder / "costs.json", costs.to_json())
    (folder / "probes.json").unlink(missing_ok=True)
    return {"method": row.method, "details": dict(costs.details)}


def choose(
    place: AnyPlace,
    row: Row,
    model: nn.Module,
    task: Any,
    clusters: tuple[Cluster, ...],
    trained: Mapping[int, Path],
    seed: int,
    folder: Path,
    tell: Tell,
) -> dict[str, Any]:
    """Costs by choices, by Gumbel-softmax, between the weights of uniform models, bits -> packed file."""
    compress = place.recipe.compress
    weights = {bits: span_weights(path) for bits, path in trained.items()}
    search = Search(clusters, weights, target_bits=row.bits, weighting="gumbel")
    training = replace(
        place.recipe.train,
        epochs=compress.search_epochs,
        lr=compress.search_lr,
        weight_decay=0.0,
        warmup=0.0,
        seed=seed,
    )
    fit_(model, task, search, training, run=folder, on_step=teller(tell))
    costs = search.costs()
    write_json(folder / "costs.json", costs.to_json())
    return {"method": row.method, "details": dict(costs.details), "shares": search.weights()}


def teller(tell: Tell) -> OnStep:
    """Progress of training, with the loss."""
    return lambda step, total, loss: tell(step, total, f"loss {loss:.4f}")


def seconds_of(folder: Path) -> float:
    """Seconds of training, of all sessions where the run was resumed."""
    log = (folder / "log.jsonl").read_text().splitlines()
    return float(json.loads(log[-1])["seconds"]) if log else 0.0


def tabulate(place: AnyPlace, results: Results, figures: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What every table has: title, parts, seeds, ``figures(place, row, runs, results)`` of finished rows."""
    recipe = place.recipe
    finished = [(row, runs) for row in recipe.rows if (runs := runs_of(place, row, results))]
    return {
        "title": recipe.title,
        "rows": [figures(place, row, runs, results) for row, runs in finished],
        "parts": list(place.parts),
        "seeds": list(recipe.corpus.seeds),
    }


def runs_of(place: AnyPlace, row: Row, results: Results) -> dict[tuple[str, int], dict[str, Any]]:
    """(part, seed) -> figures of a row's network and of its words, of the runs that are finished."""
    return {
        (part, seed): {**results[name], **results[f"{name}/words"]}
        for part in place.parts
        for seed in place.recipe.corpus.seeds
        for name in [f"{part}/seed{seed}/{row.name}"]
        if f"{name}/words" in results
    }


def spread(values: Sequence[float]) -> list[float]:
    """[mean, standard deviation, how many]."""
    return [float(np.mean(values)), float(np.std(values)), len(values)]


def figures(place: AnyPlace, row: Row, runs: Runs, results: Results) -> dict[str, Any]:
    """What every row of a table says: WER of each set and pooled over parts, size, plan, seconds.

    ``pooled`` is [mean, deviation, seeds] over the words of all parts, of `whole_seeds`; ``wer`` of the
    corpus's own sets; ``engines`` are those that heard the words, torch in runs older than the choice.
    """
    some = next(iter(runs.values()))
    base = [results.get(f"{part}/seed{seed}/float") for part, seed in runs]
    ratios = [b["bytes"] / r["bytes"] for b, r in zip(base, runs.values(), strict=True) if b]
    sets: dict[str, list[float]] = {}
    for (part, _), result in runs.items():
        if part == ALL:
            for name, each in result["sets"].items():
                sets.setdefault(name, []).append(each["wer"])
    pooled = [pooled_errors(place, f"{row.name}/words", seed, runs) for seed in whole_seeds(runs)]
    return {
        "name": row.name,
        "method": METHODS[row.method],
        "fit": row.fit if row.method in PLANNED else None,
        "bits": some["bits"],
        "runs": len(runs),
        "wer": {name: spread(rates) for name, rates in sets.items()},
        "pooled": spread([wer(found) for found in pooled]),
        "ci95": list(bootstrap_ci95(pooled[0])),
        "words": sum(e.n_ref for e in pooled[0]),
        "parameters": float(np.mean([r["parameters"] for r in runs.values()])),
        "bytes": float(np.mean([r["bytes"] for r in runs.values()])),
        "ratio": float(np.mean(ratios)) if ratios else None,
        "plan": some["plan"],
        "seconds_train": float(np.mean([r["seconds_train"] for r in runs.values()])),
        "engines": sorted({r.get("engine", "torch") for r in runs.values()}),
        "activations": row.activations,
        "paper": dict(row.paper) or None,
    }


def against(place: AnyPlace, row: Row, reference: str, runs: Runs, results: Results) -> dict[str, Any] | None:
    """A row's words against those of the row ``reference`` on the runs of both, see `pooled.compare`."""
    both = {key: run for key, run in runs.items() if f"{key[0]}/seed{key[1]}/{reference}/words" in results}
    return compare(place, f"{reference}/words", f"{row.name}/words", both)
