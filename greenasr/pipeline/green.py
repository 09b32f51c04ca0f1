"""GREEN's tables: the stages of every row, seed and part of a hybrid recipe, and what they add up to.

    corpus ─▶ features ─▶ <part>/align ─▶ <part>/ngram ─┬▶ <part>/<seed>/float
                                                        └▶ …/search ─▶ …/compact ─┬▶ …/costs-hessian, -kl
                                                                                  └▶ …/<compressed rows>

A row's figures are pooled over the parts (each speaker is tested once, by models that never heard it) and
averaged over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from greenasr.compress.bottleneck import BottleneckSearch, Part, pipe_gumbel_, shrink
from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training, fit_
from greenasr.compress.upkeep import Upkeep
from greenasr.data.files import read_json, write_json
from greenasr.models.dropout import set_dropout_
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig, semi_orthogonal_step_
from greenasr.pipeline import adaptation, hybrid, hybrid_lm, rows, speakers
from greenasr.pipeline.acoustic_models import load_acoustic, save_acoustic
from greenasr.pipeline.hybrid import Place
from greenasr.pipeline.hybrid_recipe import HybridRow
from greenasr.pipeline.place import Tell, make_corpus, make_features, tuned_on
from greenasr.pipeline.pooled import Runs
from greenasr.pipeline.recipe import PLANNED
from greenasr.pipeline.run import Stage
from greenasr.pipeline.systems import systems
from greenasr.roles import Cluster

XENT = ("xent", "output_xent")  # only training needs it, so it is no cluster and not in the packed file


def stages(place: Place) -> list[Stage]:
    """Everything that the recipe's tables need, as stages."""
    recipe = place.recipe
    made = [
        Stage("corpus", (), partial(make_corpus, place)),
        Stage("features", ("corpus",), partial(make_features, place)),
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
    home = f"{part}/seed{seed}"
    made: list[Stage] = []
    tune: tuple[str, ...] = ()
    if place.recipe.decode.tune:
        other, _ = tuned_on(place, part)
        tune = (f"{home}/tune",)
        made.append(Stage(tune[0], (f"{other}/seed{seed}/float",), partial(_tune, place, part, seed)))
    if any(row.name == "compact" for row in place.recipe.rows):
        made.append(Stage(f"{home}/search", base, partial(_search, place, part, seed), trains=True))
    for row in place.recipe.rows:
        needs = base
        if row.name == "compact":
            needs = (f"{home}/search", *((f"{home}/float",) if row.teach else ()))
        elif row.method != "float":
            needs = (f"{home}/{place.recipe.start_of(row)}",)
            if row.method in PLANNED:
                costs, measure = f"{home}/{rows.costs_of(row)}", _costs
                if row.method == "search":
                    measure = _choose
                    needs = (*needs, *(f"{home}/{r.name}" for r in place.recipe.rivals(row)))
                if costs not in {stage.name for stage in made}:
                    trains = row.method == "search"
                    made.append(Stage(costs, needs, partial(measure, place, part, seed, row), trains))
                needs = (*needs, costs)
        made.append(Stage(f"{home}/{row.name}", needs, partial(_row, place, part, seed, row), trains=True))
        words = (f"{home}/{row.name}", *tune)
        made.append(Stage(f"{home}/{row.name}/words", words, partial(_words, place, part, seed)))
        if row.name in place.recipe.lhuc.rows:
            needs = (f"{home}/{row.name}/{_heard(place, row.name)[0]}",)
            made.append(
                Stage(f"{home}/{row.name}/lhuc", needs, partial(_lhuc, place, part, seed), trains=True)
            )
    return made


def teacher_of(place: Place, row: HybridRow) -> str:
    """The full-precision row to learn from: where a row begins; the manual one for the searched network."""
    return "float" if row.name == "compact" else place.recipe.start_of(row)


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
            eta=0.0 if target else settings.eta, wrap=keep, run=folder, on_step=rows.teller(tell),
        )  # fmt: skip
    else:
        weighting = "gumbel" if settings.method == "gumbel" else "softmax"
        found = BottleneckSearch(
            model.bottlenecks(), settings.dims, weighting, eta=0.0 if target else settings.eta
        )
        fit_(model, task, keep(found), first, run=folder, on_step=rows.teller(tell))
    dims = found.best(target)
    small = shrink(model, dims)
    assert isinstance(small, Tdnnf)
    save_acoustic(folder / "train.packed", small, units, {})
    write_json(folder / "dims.json", dims)
    return {
        "method": settings.method,
        "bottlenecks": dims,
        "shares": found.weights(),
        "parameters": recogniser_size(small),
        "parameters_before": params,
    }


def _row(place: Place, part: str, seed: int, row: HybridRow, folder: Path, tell: Tell) -> dict[str, Any]:
    task, units = hybrid.make_task(place, part)
    home = folder.parent
    compressor, compress = None, place.recipe.compress
    share, dropout = row.teach, row.dropout
    if row.method == "float":
        dims = read_json(home / "search" / "dims.json") if row.name == "compact" else {}
        model = network(place, units, seed)
        if dims and place.recipe.search.inherit:
            model = load_acoustic(home / "search" / "train.packed").model
        elif dims:
            torch.manual_seed(seed)
            model = model.shrunk(dims)
    else:
        model = load_acoustic(home / place.recipe.start_of(row) / "train.packed").model
        bit_map = rows.bit_map_of(place, home, row, clusters_of(place, model))
        compressor = COMPRESSORS[rows.method_of(row)](bit_map)
        share = compress.teach if share is None else share
        dropout = compress.dropout if dropout is None else dropout
    if share:
        teacher = load_acoustic(home / teacher_of(place, row) / "train.packed").model.to(place.device)
        task = replace(task, teacher=teacher.eval(), share=share)
    if dropout is not None:
        set_dropout_(model, dropout)
    training = rows.training_of(place, row, seed)
    path = hybrid.train(
        place, folder, task, units, model, training, compressor, rows.teller(tell), row.rounding
    )
    return {**hybrid.describe(path), "seconds_train": rows.seconds_of(folder)}


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


def _heard(place: Place, row: str) -> tuple[str, str]:
    """The stage whose lists teach a row's speakers, and where they lie in its folder."""
    return (hybrid_lm.PASSES["words"], "low") if row in place.recipe.lm.rows else ("words", "")


def _lhuc(place: Place, part: str, seed: int, folder: Path, tell: Tell) -> dict[str, Any]:
    home = folder.parent
    heard = home.joinpath(*_heard(place, home.name))
    return adaptation.adapt(
        place,
        part,
        home / "model.packed",
        home / "words",
        heard,
        folder,
        _tuned(place, part, seed),
        tell,
        seed,
    )


def _costs(place: Place, part: str, seed: int, row: HybridRow, folder: Path, tell: Tell) -> dict[str, Any]:
    task, _ = hybrid.make_task(place, part)
    model = load_acoustic(folder.parent / place.recipe.start_of(row) / "train.packed").model
    small = replace(task, frames=place.recipe.compress.cost_frames, augment=None)
    return rows.measure(place, row, model, small, clusters_of(place, model), seed, folder, tell)


def _choose(place: Place, part: str, seed: int, row: HybridRow, folder: Path, tell: Tell) -> dict[str, Any]:
    """GREEN §4.3: choices, by Gumbel-softmax, between the weights of the uniform models at every layer."""
    home = folder.parent
    task, _ = hybrid.make_task(place, part)
    model = load_acoustic(home / place.recipe.start_of(row) / "train.packed").model.to(place.device)
    trained = {int(r.bits): home / r.name / "model.packed" for r in place.recipe.rivals(row)}
    return rows.choose(place, row, model, task, clusters_of(place, model), trained, seed, folder, tell)


def table(place: Place, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The finished rows as one JSON value: WER of each set and pooled, sizes, ratios, marks."""
    return {**rows.tabulate(place, results, _figures), "systems": systems(place, results)}


def _figures(place: Place, row: HybridRow, runs: Runs, results: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    found = rows.figures(place, row, runs, results)
    speeds = [each for result in runs.values() for each in result["sets"].values()]
    full = [r.name for r in place.recipe.rows if r.name in ("float", "compact") and r.name != row.name]
    if row.name == "compact":
        found["method"] = f"{place.recipe.search.method} bottlenecks"
    return {
        **found,
        "against": {name: rows.against(place, row, name, runs, results) for name in full},
        **{key: float(np.mean([s[key] for s in speeds])) for key in ("rtf_network", "rtf_search")},
        "bottlenecks": next(iter(runs.values()))["bottlenecks"],
    }
