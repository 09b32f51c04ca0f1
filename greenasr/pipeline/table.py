"""A table of compressed language models: the stages of MPLM's Tables 1 to 3, from text to rows.

    text ─▶ tokenizer ─▶ float ─┬▶ bp, admm, … at one width            each row: model.packed, result.json
                                ├▶ costs-hessian, costs-kl ─▶ plan ─▶ bp or admm on the plan
                                └▶ admm models ─▶ super-network ─▶ plan ─▶ …

Every figure of a row is measured on the model as read back from its packed file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from greenasr.compress.allocate import allocate
from greenasr.compress.clusters import make_clusters
from greenasr.data.files import digest, read_json, write_json
from greenasr.data.grammar import generate
from greenasr.data.text import read_sentences, tokenizer_from_json
from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.models.dropout import set_dropout_
from greenasr.pipeline import engines, lm
from greenasr.pipeline.models import load, span_weights
from greenasr.pipeline.plans import read_bit_map, read_costs
from greenasr.pipeline.recipe import METHODS, PLANNED, Recipe, Row
from greenasr.pipeline.rescoring import rescore_sets, training_refs
from greenasr.pipeline.run import Stage
from greenasr.roles import BitMap, Cluster

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Place:
    """Where a table is made: its recipe, its run folder, the user's texts and n-best lists."""

    recipe: Recipe
    run: Path
    data: Path | None = None
    nbest: Path | None = None
    device: str = "cpu"

    def sentences(self, split: str) -> list[list[str]]:
        """The text of a split: the user's, or the generated corpus."""
        data = self.recipe.data
        if not data.train:
            amount = data.sentences if split == "train" else max(200, data.sentences // 10)
            return [line.split() for line in generate(split, amount, seed=0)]
        if self.data is None:
            raise ValueError(
                f"'{self.recipe.title}' is made from {data.train[0]}: give its folder with --data."
            )
        names = data.train if split == "train" else (data.dev if split == "dev" else data.test,)
        text = [words for name in names for words in read_sentences(self.data / name)]
        if split == "train" and self.recipe.rescore is not None:
            text += training_refs(self.recipe.rescore, self.nbest)
        return text

    def digests(self) -> dict[str, str]:
        """What the user's texts and lists were when the run began, by name."""
        data, lists = self.recipe.data, self.recipe.rescore
        names = (*data.train, data.dev, data.test) if data.train and self.data is not None else ()
        found = {name: digest(self.data / name) for name in names if self.data is not None}
        if lists is not None and self.nbest is not None:
            found |= {name: digest(self.nbest / name) for name in lists.sets}
        return found


def stages(place: Place) -> list[Stage]:
    """Everything that the recipe's table needs, as stages."""
    recipe = place.recipe
    made = [Stage("tokenizer", (), partial(_tokenizer, place)), Stage("ngram", (), partial(_ngram, place))]
    uniform = tuple(row.name for row in recipe.rows if row.method == "admm" and not row.bands)
    for row in recipe.rows:
        needs: tuple[str, ...] = ("tokenizer", "ngram") if row.name == "float" else (row.start,)
        if row.method in PLANNED:
            plan = f"plan-search-{row.bits:g}" if row.method == "search" else f"costs-{row.method}"
            if plan not in {stage.name for stage in made}:
                made.append(
                    Stage(plan, uniform, partial(_search, place, row), trains=True)
                    if row.method == "search"
                    else Stage(plan, ("float",), partial(_costs, place, row.method))
                )
            needs = (*needs, plan)
        made.append(Stage(row.name, needs, partial(_row, place, row), trains=True))
        if recipe.rescore is not None:
            first = ("rescore-float",) if row.name != "float" else ()
            made.append(Stage(f"rescore-{row.name}", (row.name, *first), partial(_rescore, place, row)))
    return made


def clusters_of(place: Place, model: nn.Module, row: Row | None = None) -> tuple[Cluster, ...]:
    """A row's clusters: matrices, in bands where the plan is mixed or the row asks for them."""
    compress = place.recipe.compress
    mixed = row is None or row.method in PLANNED
    banded = mixed if row is None or row.bands is None else row.bands
    by = (row.by if row is not None else None) or compress.by
    return make_clusters(model, by if mixed else "matrix", compress.bands if banded else None)


def bit_map_of(place: Place, row: Row, clusters: tuple[Cluster, ...]) -> BitMap | None:
    """A row's plan: one width, or the one that its costs lead to; None for the float model."""
    step = row.step or (place.recipe.compress.step if row.method in PLANNED else "cluster")
    if row.method == "float":
        return None
    if row.method == "search":
        return read_bit_map(place.run / f"plan-search-{row.bits:g}" / "bit_map.json")
    if row.method in PLANNED:
        costs = read_costs(place.run / f"costs-{row.method}" / "costs.json")
        if row.widths is not None:
            kept = {
                name: {b: c for b, c in by.items() if b in row.widths} for name, by in costs.costs.items()
            }
            costs = replace(costs, costs=kept)
        return allocate(costs, average_bits=row.bits, pinned=place.recipe.compress.pin, step=step)
    return BitMap.uniform(clusters, int(row.bits), step)


def table(place: Place, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The finished rows as one JSON value, for `greenasr.report`."""
    float_row = results["float"]
    rows = []
    for row in place.recipe.rows:
        if row.name not in results:
            continue
        result, rescored = results[row.name], results.get(f"rescore-{row.name}", {})
        rows.append(
            {
                "name": row.name,
                "method": METHODS[row.method]
                if row.name != "float-continued"
                else "full precision, trained on",
                "fit": row.fit if row.method in PLANNED else None,
                "relative": result["ppl_test"] / float_row["ppl_test"],
                "ratio": float_row["bytes"] / result["bytes"],
                **{
                    k: result.get(k)
                    for k in ("bits", "ppl_dev", "ppl_test", "ppl_4gram", "bytes", "seconds_train", "plan")
                },
                "paper": dict(row.paper) or None,
                "rescoring": rescored.get("sets"),
                "seconds_eval": rescored.get("seconds_eval"),
            }
        )
    hessian = results.get("costs-hessian")
    traces = {} if hessian is None else {name: list(pair) for name, pair in hessian["traces"].items()}
    names = list(traces) or list(next((r["plan"] for r in rows if r["plan"]), {}))
    return {
        "title": place.recipe.title,
        "model": _describe(place.recipe, float_row["parameters"]),
        "rows": rows,
        "traces": traces,
        "clusters": names,
    }


def _tokenizer(place: Place, folder: Path, tell: Tell) -> dict[str, Any]:
    text = place.sentences("train")
    made = lm.make_tokenizer(place.recipe.data.tokenizer, place.recipe.data.vocab, text)
    write_json(folder / "tokenizer.json", made.to_json())
    return {"size": made.size, "sentences": len(text), "words": sum(map(len, text))}


def _ngram(place: Place, folder: Path, tell: Tell) -> dict[str, Any]:
    tell(0, 3, "estimate")
    made = kneser_ney(place.sentences("train"), place.recipe.ngram_order).lm
    tell(1, 3, "write")
    write_arpa(made, folder / "lm.arpa.gz")
    tell(2, 3, "score")
    logprobs = np.concatenate(made.score(place.sentences("test")))
    tell(3, 3, "")
    return {"counts": list(made.counts), "ppl_test": lm.perplexity(logprobs)}


def _row(place: Place, row: Row, folder: Path, tell: Tell) -> dict[str, Any]:
    recipe, on_step = place.recipe, lm.teller(tell)
    texts = {split: place.sentences(split) for split in ("train", "dev", "test")}
    tokenizer = tokenizer_from_json(read_json(place.run / "tokenizer" / "tokenizer.json"))
    task = lm.make_task(tokenizer, recipe.task, texts)
    compress = recipe.compress
    epochs = compress.epochs if row.epochs is None else row.epochs
    training = replace(
        recipe.train, epochs=epochs, lr=row.lr or compress.lr, weight_decay=compress.weight_decay
    )
    if row.name == "float":
        path = lm.train_float(
            folder,
            tokenizer,
            task,
            recipe.task,
            recipe.model,
            recipe.train,
            device=place.device,
            on_step=on_step,
        )
    else:
        saved = load(place.run / row.start / "model.packed")
        dropout = compress.dropout if row.dropout is None and row.method != "float" else row.dropout
        if dropout is not None:
            set_dropout_(saved.model, dropout)
        bit_map = bit_map_of(place, row, clusters_of(place, saved.model, row))
        if bit_map is None:
            path = lm.train_float(
                folder, tokenizer, task, recipe.task, {}, training,
                start=saved.model, device=place.device, on_step=on_step,
            )  # fmt: skip
        else:
            method = row.fit if row.method in PLANNED else row.method
            share = compress.teach if row.teach is None else row.teach
            if share:
                task = lm.taught(task, place.run / "float" / "model.packed", share, saved, place.device)
            if method == "none":
                training = replace(training, epochs=0)
            path = lm.compress_onto(
                folder, saved, task, bit_map, method, training,
                device=place.device, on_step=on_step, rounding=row.rounding,
            )  # fmt: skip
    arpa = place.run / "ngram" / "lm.arpa.gz"
    figures = lm.measure(path, task, read_arpa(arpa), texts, place.device, tell)
    log = (folder / "log.jsonl").read_text().splitlines()  # of all sessions, when the run was resumed
    return {**figures, "seconds_train": json.loads(log[-1])["seconds"] if log else 0.0}


def _costs(place: Place, method: str, folder: Path, tell: Tell) -> dict[str, Any]:
    compress = place.recipe.compress
    saved = load(place.run / "float" / "model.packed")
    task = lm.task_of(saved, {"train": place.sentences("train")})
    costs = lm.measure_costs(
        method, saved.model, task, clusters_of(place, saved.model), compress.widths, step=compress.step,
        n_batches=compress.cost_batches, tolerance=compress.cost_tolerance, max_probes=compress.max_probes,
        kept=folder / "probes.json", tell=tell,
    )  # fmt: skip
    write_json(folder / "costs.json", costs.to_json())
    (folder / "probes.json").unlink(missing_ok=True)
    traces, errors = costs.details.get("traces", {}), costs.details.get("standard_errors", {})
    return {"method": method, "traces": {name: [trace, errors[name]] for name, trace in traces.items()}}


def _search(place: Place, row: Row, folder: Path, tell: Tell) -> dict[str, Any]:
    recipe, compress = place.recipe, place.recipe.compress
    uniform = [r for r in recipe.rows if r.method == "admm" and not r.bands]
    trained = {int(r.bits): span_weights(place.run / r.name / "model.packed") for r in uniform}
    saved = load(place.run / "float" / "model.packed")
    task = lm.task_of(saved, {"train": place.sentences("train")})
    training = replace(
        recipe.train, epochs=compress.search_epochs, lr=compress.search_lr, weight_decay=0.0, warmup=0.0
    )
    clusters = make_clusters(saved.model, row.by or "matrix")
    costs, bit_map = lm.search_plan(
        folder, saved, task, clusters, trained, row.bits, training, compress.step, lm.teller(tell)
    )
    write_json(folder / "costs.json", costs.to_json())
    write_json(folder / "bit_map.json", bit_map.to_json())
    return {"plan": dict(bit_map.bits), "bits": bit_map.average_bits}


def _rescore(place: Place, row: Row, folder: Path, tell: Tell) -> dict[str, Any]:
    lists = place.recipe.rescore
    assert lists is not None
    model = engines.language_model_of_row(place.run / row.name / "model.packed", lists.engine)
    ngram = read_arpa(place.run / "ngram" / "lm.arpa.gz")
    base = None if row.name == "float" else place.run / "rescore-float"
    return rescore_sets(lists, place.nbest, model, ngram, folder, base, tell)


def _describe(recipe: Recipe, parameters: int) -> str:
    shape = ", ".join(f"{key} {value}" for key, value in recipe.model.items() if key != "network")
    return f"{recipe.model.get('network', 'transformer')}, {shape}, {parameters / 1e6:.2f}M parameters"
