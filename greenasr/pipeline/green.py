"""GREEN's tables: the stages of every row, seed and part of a hybrid recipe, and what they add up to.

    corpus ─▶ features ─▶ <part>/align ─▶ <part>/ngram ─┬▶ <part>/<seed>/float
                                                        └▶ …/search ─▶ …/compact ─┬▶ …/costs-hessian, -kl
                                                                                  └▶ …/<compressed rows>

A row's figures are pooled over the parts (each speaker is tested once, by models that never heard it) and
averaged over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from greenasr.compress.allocate import allocate
from greenasr.compress.bottleneck import BottleneckSearch, Part, pipe_gumbel_, shrink
from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training, fit_
from greenasr.compress.hessian import hessian_costs
from greenasr.compress.kl import kl_costs
from greenasr.compress.search import Search
from greenasr.compress.upkeep import Upkeep
from greenasr.data.files import read_json, write_json
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig, semi_orthogonal_step_
from greenasr.pipeline import adaptation, hybrid, hybrid_lm, speakers
from greenasr.pipeline.acoustic_models import load_acoustic
from greenasr.pipeline.hybrid import ALL, Place, Tell
from greenasr.pipeline.hybrid_recipe import HybridRow
from greenasr.pipeline.models import span_weights
from greenasr.pipeline.plans import read_costs
from greenasr.pipeline.pooled import Runs, compare, pooled_errors
from greenasr.pipeline.recipe import METHODS, PLANNED
from greenasr.pipeline.run import Stage
from greenasr.pipeline.systems import systems
from greenasr.roles import BitMap, Cluster
from greenasr.score.errors import bootstrap_ci95, wer

XENT = ("xent", "output_xent")  # only training needs it, so it is no cluster and not in the packed file


def stages(place: Place) -> list[Stage]:
    """Everything that the recipe's tables need, as stages."""
    recipe = place.recipe
    made = [
        Stage("corpus", (), partial(hybrid.make_corpus, place)),
        Stage("features", ("corpus",), partial(hybrid.make_features, place)),
    ]
    for part in place.parts:
        align, ngram = f"{part}/align", f"{part}/ngram"
        made.append(Stage(align, ("features",), partial(hybrid.align, place, part)))
        made.append(Stage(ngram, (align,), partial(hybrid.make_ngram, place, part)))
        base = [align, ngram]
        if recipe.features.ivectors:
            base.append(f"{part}/ivectors")
            made.append(Stage(base[-1], ("features",), partial(speakers.make_ivectors, place, part)))
        for seed in recipe.corpus.seeds:
            made += _of_seed(place, part, seed, tuple(base))
            made += hybrid_lm.stages_of_seed(place, part, seed, tuned_on(place, part))
        made += hybrid_lm.stages_of_part(place, part)
    return made


def _of_seed(place: Place, part: str, seed: int, base: tuple[str, ...]) -> list[Stage]:
    rows, home = place.recipe.rows, f"{part}/seed{seed}"
    made: list[Stage] = []
    tune: tuple[str, ...] = ()
    if place.recipe.decode.tune:
        other, _ = tuned_on(place, part)
        tune = (f"{home}/tune",)
        made.append(Stage(tune[0], (f"{other}/seed{seed}/float",), partial(_tune, place, part, seed)))
    if any(row.name == "compact" for row in rows):
        made.append(Stage(f"{home}/search", base, partial(_search, place, part, seed)))
    for row in rows:
        needs = base
        if row.name == "compact":
            needs = (f"{home}/search",)
        elif row.method != "float":
            needs = (f"{home}/{start_of(place, row)}",)
            if row.method in PLANNED:
                costs, measure = f"{home}/{costs_of(row)}", _costs
                if row.method == "search":
                    needs, measure = (*needs, *(f"{home}/{r.name}" for r in candidates(place, row))), _choose
                if costs not in {stage.name for stage in made}:
                    made.append(Stage(costs, needs, partial(measure, place, part, seed, row)))
                needs = (*needs, costs)
        made.append(Stage(f"{home}/{row.name}", needs, partial(_row, place, part, seed, row)))
        words = (f"{home}/{row.name}", *tune)
        made.append(Stage(f"{home}/{row.name}/words", words, partial(_words, place, part, seed)))
        if row.name in place.recipe.lhuc.rows:
            made.append(
                Stage(f"{home}/{row.name}/lhuc", (words[0] + "/words",), partial(_lhuc, place, part, seed))
            )
    return made


def tuned_on(place: Place, part: str) -> tuple[str, str]:
    """The part and set on which a part's search is tuned: the split dev, or another part's fold."""
    if place.recipe.corpus.folds:
        k = 0 if part == ALL else int(part.removeprefix("fold")) + 1
        other = f"fold{k % place.recipe.corpus.folds}"
        return other, other
    return ALL, place.recipe.corpus.dev


def start_of(place: Place, row: HybridRow) -> str:
    """The full-precision row that a compressed one begins from."""
    if row.start != "float" or row.network == "manual":
        return row.start
    return "compact" if any(r.name == "compact" for r in place.recipe.rows) else "float"


def costs_of(row: HybridRow) -> str:
    """The folder of the costs behind a row's plan; a search has a target of bits, hence its own."""
    return f"costs-{row.method}-{row.bits:g}" if row.method == "search" else f"costs-{row.method}"


def candidates(place: Place, row: HybridRow) -> list[HybridRow]:
    """The uniform ADMM rows that a search chooses from: those of the row's own network."""
    start = start_of(place, row)
    return [r for r in place.recipe.rows if r.method == "admm" and start_of(place, r) == start]


def network(place: Place, units: Any, seed: int, **changes: Any) -> Tdnnf:
    """A new network of the recipe's shape."""
    torch.manual_seed(seed)
    shape = {
        "feat_dim": units.features.dim,
        "ivector_dim": place.recipe.features.ivectors,
        "n_pdfs": units.pdf_map.n_pdfs,
        "xent": place.recipe.chain.xent > 0,
    }
    return Tdnnf(TdnnfConfig(**{**shape, **place.recipe.model, **changes}))


def recogniser_size(model: nn.Module) -> int:
    """Parameters of the network that recognises: the cross-entropy branch serves training alone."""
    return sum(p.numel() for name, p in model.named_parameters() if name.partition(".")[0] not in XENT)


def clusters_of(place: Place, model: nn.Module) -> tuple[Cluster, ...]:
    """What gets a width: by layer as GREEN's plans, or as the recipe says."""
    there = {name for name, _ in model.named_modules()}
    return make_clusters(model, place.recipe.compress.by, skip=[name for name in XENT if name in there])


def _search(place: Place, part: str, seed: int, folder: Path, tell: Tell) -> dict[str, Any]:
    recipe, settings = place.recipe, place.recipe.search
    task, units = hybrid.make_task(place, part, settings.held_out)
    model = network(place, units, seed, bottleneck=max(settings.dims)).to(place.device)
    params = recogniser_size(network(place, units, seed))
    least = recogniser_size(network(place, units, seed, bottleneck=min(settings.dims)))
    if settings.target and least > settings.target * params:
        raise ValueError(
            f"[search] target {settings.target:g} of {params} parameters is out of reach: with every "
            f"bottleneck at {min(settings.dims)} the network still has {least}; raise target, or lower the "
            "least of dims."
        )
    first = replace(recipe.train, epochs=settings.epochs, seed=seed)
    second = Training(
        settings.choice_epochs, settings.choice_lr, warmup=0, weight_decay=0, leg=100, seed=seed
    )
    unused = sum(p.numel() for p in model.parameters()) - recogniser_size(model)
    target = settings.target * params + unused if settings.target else None

    def keep(compressor: Any) -> Any:
        return Upkeep(compressor, semi_orthogonal_step_)

    if settings.method == "pipegumbel":
        found = pipe_gumbel_(
            model, model.bottlenecks(), settings.dims, task, Part(task, "dev"), (first, second),
            eta=0.0 if target else settings.eta, wrap=keep, run=folder, on_step=_teller(tell),
        )  # fmt: skip
    else:
        weighting = "gumbel" if settings.method == "gumbel" else "softmax"
        found = BottleneckSearch(
            model.bottlenecks(), settings.dims, weighting, eta=0.0 if target else settings.eta
        )
        fit_(model, task, keep(found), first, run=folder, on_step=_teller(tell))
    dims = found.best(target)
    small = shrink(model, dims, inherit=False)
    write_json(folder / "dims.json", dims)
    return {
        "method": settings.method,
        "bottlenecks": dims,
        "shares": found.weights(),
        "parameters": recogniser_size(small),
        "parameters_before": params,
    }


def _row(place: Place, part: str, seed: int, row: HybridRow, folder: Path, tell: Tell) -> dict[str, Any]:
    recipe, compress = place.recipe, place.recipe.compress
    task, units = hybrid.make_task(place, part)
    home = folder.parent
    compressor = None
    if row.method == "float":
        training = replace(recipe.train, seed=seed, epochs=row.epochs or recipe.train.epochs)
        dims = read_json(home / "search" / "dims.json") if row.name == "compact" else {}
        model = network(place, units, seed)
        if dims:
            torch.manual_seed(seed)
            model = model.shrunk(dims)
    else:
        model = load_acoustic(home / start_of(place, row) / "train.packed").model
        clusters = clusters_of(place, model)
        bit_map = bit_map_of(place, home, row, clusters)
        method = row.fit if row.method in PLANNED else row.method
        compressor = COMPRESSORS[method](bit_map)
        epochs = 0 if method == "none" else (compress.epochs if row.epochs is None else row.epochs)
        training = replace(
            recipe.train,
            epochs=epochs,
            lr=row.lr or compress.lr,
            weight_decay=compress.weight_decay,
            seed=seed,
        )
    path = hybrid.train(place, folder, task, units, model, training, compressor, _teller(tell))
    log = (folder / "log.jsonl").read_text().splitlines()
    return {**hybrid.describe(path), "seconds_train": json.loads(log[-1])["seconds"] if log else 0.0}


def _tune(place: Place, part: str, seed: int, folder: Path, tell: Tell) -> dict[str, Any]:
    other, name = tuned_on(place, part)
    path = place.run / other / f"seed{seed}" / "float" / "model.packed"
    return hybrid.tune_decoding(place, other, path, name, tell)


def _tuned(place: Place, part: str, seed: int) -> Mapping[str, float]:
    path = place.run / part / f"seed{seed}" / "tune" / "result.json"
    return dict(read_json(path)) if path.exists() else {}


def _words(place: Place, part: str, seed: int, folder: Path, tell: Tell) -> dict[str, Any]:
    model = folder.parent / "model.packed"
    return hybrid.decode(place, part, model, folder, _tuned(place, part, seed), tell)


def _lhuc(place: Place, part: str, seed: int, folder: Path, tell: Tell) -> dict[str, Any]:
    words = folder.parent / "words"
    return adaptation.adapt(
        place, part, folder.parent / "model.packed", words, folder, _tuned(place, part, seed), tell, seed
    )


def bit_map_of(place: Place, home: Path, row: HybridRow, clusters: tuple[Cluster, ...]) -> BitMap:
    """A compressed row's plan: one width, or the one that its costs lead to."""
    compress = place.recipe.compress
    step = row.step or compress.step
    if row.method in PLANNED:
        costs = read_costs(home / costs_of(row) / "costs.json")
        return allocate(costs, average_bits=row.bits, pinned=compress.pin, step=step)
    return BitMap.uniform(clusters, int(row.bits), step)


def _costs(place: Place, part: str, seed: int, row: HybridRow, folder: Path, tell: Tell) -> dict[str, Any]:
    compress = place.recipe.compress
    task, _ = hybrid.make_task(place, part)
    model = load_acoustic(folder.parent / start_of(place, row) / "train.packed").model
    clusters = clusters_of(place, model)
    small = replace(task, frames=compress.cost_frames, augment=None)
    batches = list(islice(small.batches("train", seed=seed + 1), compress.cost_batches))
    if row.method == "kl":
        costs = kl_costs(
            model, small, batches, clusters, compress.widths, step=compress.step,
            progress=lambda n: tell(n, len(batches), "batches"),
        )  # fmt: skip
    else:
        costs = hessian_costs(
            model, small, batches, clusters, compress.widths, generator=torch.Generator().manual_seed(seed),
            step=compress.step, tolerance=compress.cost_tolerance, max_probes=compress.max_probes,
            progress=lambda n, error: tell(n, compress.max_probes, f"standard error {100 * error:.1f} %"),
        )  # fmt: skip
    write_json(folder / "costs.json", costs.to_json())
    return {"method": row.method, "details": dict(costs.details)}


def _choose(place: Place, part: str, seed: int, row: HybridRow, folder: Path, tell: Tell) -> dict[str, Any]:
    """GREEN §4.3: choices, by Gumbel-softmax, between the weights of the uniform models at every layer."""
    recipe, compress, home = place.recipe, place.recipe.compress, folder.parent
    task, _ = hybrid.make_task(place, part)
    model = load_acoustic(home / start_of(place, row) / "train.packed").model.to(place.device)
    trained = {int(r.bits): span_weights(home / r.name / "model.packed") for r in candidates(place, row)}
    search = Search(clusters_of(place, model), trained, target_bits=row.bits, weighting="gumbel")
    training = replace(
        recipe.train,
        epochs=compress.search_epochs,
        lr=compress.search_lr,
        weight_decay=0.0,
        warmup=0.0,
        seed=seed,
    )
    fit_(model, task, search, training, run=folder, on_step=_teller(tell))
    costs = search.costs()
    write_json(folder / "costs.json", costs.to_json())
    return {"method": row.method, "details": dict(costs.details), "shares": search.weights()}


def table(place: Place, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The finished rows as one JSON value: WER of each set and pooled, sizes, ratios, marks."""
    recipe = place.recipe
    rows = []
    for row in recipe.rows:
        runs = {
            (part, seed): {**results[name], **results[f"{name}/words"]}
            for part in place.parts
            for seed in recipe.corpus.seeds
            for name in [f"{part}/seed{seed}/{row.name}"]
            if f"{name}/words" in results
        }
        if runs:
            rows.append(_figures(place, row, runs, results))
    return {
        "title": recipe.title,
        "rows": rows,
        "systems": systems(place, results),
        "parts": list(place.parts),
        "seeds": list(recipe.corpus.seeds),
    }


def _figures(place: Place, row: HybridRow, runs: Runs, results: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    some = next(iter(runs.values()))
    base = [results.get(f"{part}/seed{seed}/float") for part, seed in runs]
    ratios = [b["bytes"] / r["bytes"] for b, r in zip(base, runs.values(), strict=True) if b]
    speeds = [each for result in runs.values() for each in result["sets"].values()]
    sets: dict[str, list[float]] = {}
    for (part, _), result in runs.items():
        if part == ALL:
            for name, each in result["sets"].items():
                sets.setdefault(name, []).append(each["wer"])
    pooled = {
        seed: pooled_errors(place, f"{row.name}/words", seed, runs) for seed in {seed for _, seed in runs}
    }
    mean = [wer(found) for found in pooled.values()]
    marks = {}
    for reference in ("float", "compact"):
        if reference != row.name and any(r.name == reference for r in place.recipe.rows):
            both = {
                key: run for key, run in runs.items() if f"{key[0]}/seed{key[1]}/{reference}/words" in results
            }
            marks[reference] = compare(place, f"{reference}/words", f"{row.name}/words", both)
    return {
        "name": row.name,
        "method": METHODS[row.method]
        if row.name != "compact"
        else f"{place.recipe.search.method} bottlenecks",
        "fit": row.fit if row.method in PLANNED else None,
        "bits": some["bits"],
        "runs": len(runs),
        "wer": {name: [float(np.mean(w)), float(np.std(w)), len(w)] for name, w in sets.items()},
        "pooled": [float(np.mean(mean)), float(np.std(mean)), len(mean)],
        "ci95": list(bootstrap_ci95(next(iter(pooled.values())))),
        "words": sum(e.n_ref for e in next(iter(pooled.values()))),
        "against": marks,
        "parameters": float(np.mean([r["parameters"] for r in runs.values()])),
        "bytes": float(np.mean([r["bytes"] for r in runs.values()])),
        "ratio": float(np.mean(ratios)) if ratios else None,
        **{key: float(np.mean([s[key] for s in speeds])) for key in ("rtf_network", "rtf_search")},
        "plan": some["plan"],
        "bottlenecks": some["bottlenecks"],
        "seconds_train": float(np.mean([r["seconds_train"] for r in runs.values()])),
        "paper": dict(row.paper) or None,
    }


def _teller(tell: Tell) -> Any:
    return lambda step, total, loss: tell(step, total, f"loss {loss:.4f}")
