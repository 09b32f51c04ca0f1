"""The stages of every end-to-end recogniser, transducer or CTC: what its kind does not change.

    corpus ─▶ features ─▶ <part>/labels ─▶ <part>/<seed>/<float row> ─┬▶ …/costs-… ─▶ …/<plans' rows>
                                                                      └▶ …/<uniform rows>
    <row>/model.packed ─▶ <row>/words                                     lists, errors
    <part>/ngram ─▶ …/ngram-weights ─▶ <row>/with-ngram                   rescored lists, errors

A `Kind` says how its networks are made, trained, opened and heard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from greenasr.compress.clusters import make_clusters
from greenasr.compress.fit import fit_
from greenasr.compress.none import NoCompression
from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.data.text import Tokenizer, tokenizer_from_json
from greenasr.decode.nbest import NBest, write_nbest
from greenasr.models.dropout import set_dropout_
from greenasr.pipeline import hybrid_lm, lm, rows
from greenasr.pipeline.models import Describable, save
from greenasr.pipeline.place import (
    SpeechPlace,
    Tell,
    errors_of,
    make_corpus,
    make_features,
    tuned_on,
    write_ngram,
)
from greenasr.pipeline.recipe import PLANNED, Row
from greenasr.pipeline.run import Stage
from greenasr.pipeline.units import Labels
from greenasr.roles import BitMap, Compressor
from greenasr.score.errors import to_jsonl, wer

Place = SpeechPlace[Any]
Result = dict[str, Any]


def _labels(kind: Any, place: Place, part: str, folder: Path, tell: Tell) -> Result:
    settings, text = place.recipe.labels, [words for words in place.transcripts(part) if words]
    if settings.packed:
        made = kind.load(packed_file(place)).units.tokenizer
    else:
        made = lm.make_tokenizer(settings.kind, settings.size, text)
    write_json(folder / "tokenizer.json", made.to_json())
    return {"size": made.size, "sentences": len(text)}


def separable(model: Any, folder: Path) -> Result:
    """Of a separable network its shape, its skips, and the sparsity t of what is generated."""
    config, ternary = model.config, model.config.ternary
    return {
        "threshold": None if ternary is None else ternary.threshold,
        "structured": ternary is not None and ternary.structured,
        "skips": config.skips,
        "shape": f"{config.blocks}x{config.repeat}x{config.width}",
    }


def _units(place: Place, task: Any) -> Describable:
    return Labels(task.stores["train"].features, task.tokenizer)


def _small(task: Any, place: Place) -> Any:
    return replace(task, frames=place.recipe.compress.cost_frames, augment=None)


def _no_more(place: Place, part: str, seed: int) -> list[Stage]:
    return []


@dataclass(frozen=True)
class Kind:
    """What differs between end-to-end recognisers.

    ``task`` is a row's training task in a part, and how many utterances it leaves out; ``network`` a new one
    for a row of method "float", by part, row, task and seed; ``load`` opens its packed file; ``compressor``
    trains a row onto its plan, in a folder and so many steps; ``hear`` makes lists of a set by a packed file,
    and figures; ``said`` is what else a row's result tells; ``more`` are further stages of a seed.

    The others are as transcribed speech has them: how ``corpus``, ``features`` and a part's ``labels`` are
    made, the ``units`` of a task that are packed with a network, the ``small`` task of costs.
    """

    task: Callable[[Place, str, Any], tuple[Any, int]]
    network: Callable[[Place, str, Any, Any, int], nn.Module]
    load: Callable[[Path], Any]
    compressor: Callable[[Any, BitMap, Path, int], Compressor]
    hear: Callable[[Place, str, str, Path, Tell], tuple[list[NBest], Result]]
    said: Callable[[Any, Path], Result]
    more: Callable[[Place, str, int], list[Stage]] = _no_more
    corpus: Callable[[Place, Path, Tell], Result] = make_corpus
    features: Callable[[Place, Path, Tell], Result] = make_features
    labels: Callable[[Any, Place, str, Path, Tell], Result] = _labels
    units: Callable[[Place, Any], Describable] = _units
    small: Callable[[Any, Place], Any] = _small


def stages(kind: Kind, place: Place) -> list[Stage]:
    """Everything that the recipe's tables need, as stages."""
    made = [
        Stage("corpus", (), partial(kind.corpus, place)),
        Stage("features", ("corpus",), partial(kind.features, place)),
    ]
    for part in place.parts:
        made.append(Stage(f"{part}/labels", ("features",), partial(kind.labels, kind, place, part)))
        if place.recipe.decode.order:
            made.append(Stage(f"{part}/ngram", ("features",), partial(_ngram, place, part)))
        for seed in place.recipe.corpus.seeds:
            made += _of_seed(kind, place, part, seed)
            made += kind.more(place, part, seed)
            made += hybrid_lm.stages_of_seed(place, part, seed, tuned_on(place, part))
        made += hybrid_lm.stages_of_part(place, part)
    return made


def _of_seed(kind: Kind, place: Place, part: str, seed: int) -> list[Stage]:
    home = f"{part}/seed{seed}"
    made: list[Stage] = []
    lists: tuple[str, ...]
    reorders = place.recipe.decode.order and place.recipe.decode.nbest > 1  # a list of one has one order
    if reorders:
        other, _ = tuned_on(place, part)
        lists = (f"{other}/ngram", f"{other}/seed{seed}/float/words")
        made.append(Stage(f"{home}/ngram-weights", lists, partial(_weights, place, part, seed)))
    for row in place.recipe.rows:
        name = f"{home}/{row.name}"
        needs: tuple[str, ...] = (f"{part}/labels",) if row.method == "float" else (f"{home}/{row.start}",)
        if row.method in PLANNED:
            costs = f"{home}/{rows.costs_of(row)}"
            if costs not in {stage.name for stage in made}:
                rivals = tuple(f"{home}/{r.name}" for r in place.recipe.rivals(row))
                work, trains = partial(_costs, kind, place, part, seed, row), row.method == "search"
                made.append(Stage(costs, (*needs, *rivals), work, trains))
            needs = (*needs, costs)
        made.append(Stage(name, needs, partial(_row, kind, place, part, seed, row), trains=True))
        made.append(Stage(f"{name}/words", (name,), partial(_words, kind, place, part)))
        if reorders:
            lists = (f"{name}/words", f"{home}/ngram-weights", f"{part}/ngram")
            made.append(Stage(f"{name}/with-ngram", lists, partial(_with_ngram, place, part)))
    return made


def _ngram(place: Place, part: str, folder: Path, tell: Tell) -> Result:
    made = write_ngram(place, part, folder)
    return {"order": made.order, "counts": list(made.counts)}


def packed_file(place: Place) -> Path:
    """The network that the recipe begins from; ValueError where it is not there."""
    path = (place.data or Path()) / place.recipe.labels.packed
    if not path.is_file():
        raise ValueError(f"{path}: no such file, which [labels] packed names.")
    return path


def tokenizer_of(place: Place, part: str) -> Tokenizer:
    """The labels of a part."""
    return tokenizer_from_json(read_json(place.run / part / "labels" / "tokenizer.json"))


def _row(kind: Kind, place: Place, part: str, seed: int, row: Row, folder: Path, tell: Tell) -> Result:
    task, left_out = kind.task(place, part, row)
    training, home = rows.training_of(place, row, seed), folder.parent
    compressor: Compressor = NoCompression()
    bit_map = None
    if row.method == "float":
        model = kind.network(place, part, row, task, seed)
    else:
        model = kind.load(home / row.start / "model.packed").model
        dropout = place.recipe.compress.dropout if row.dropout is None else row.dropout
        if dropout is not None:
            set_dropout_(model, dropout)
        clusters = make_clusters(model, row.by or place.recipe.compress.by)
        bit_map = rows.bit_map_of(place, home, row, clusters)
        compressor = kind.compressor(row, bit_map, folder, training.steps(task.n_batches("train")))
    fitted = fit_(model.to(place.device), task, compressor, training, run=folder, on_step=rows.teller(tell))
    path, units = folder / "model.packed", kind.units(place, task)
    if bit_map is not None:
        write_json(folder / "bit_map.json", bit_map.to_json())
    save(path, model.cpu(), units, place.recipe.noted, fitted, bit_map, row.rounding)
    saved = kind.load(path)
    return {
        **lm.describe(path, saved),
        "left_out": left_out,
        **kind.said(saved.model, folder),
        "seconds_train": rows.seconds_of(folder),
    }


def _costs(kind: Kind, place: Place, part: str, seed: int, row: Row, folder: Path, tell: Tell) -> Result:
    task, _ = kind.task(place, part, row)
    home = folder.parent
    model = kind.load(home / row.start / "model.packed").model
    clusters = make_clusters(model, row.by or place.recipe.compress.by)
    if row.method == "search":
        trained = {int(r.bits): home / r.name / "model.packed" for r in place.recipe.rivals(row)}
        device = place.device
        return rows.choose(place, row, model.to(device), task, clusters, trained, seed, folder, tell)
    small = kind.small(task, place)
    return rows.measure(place, row, model, small, clusters, seed, folder, tell)


def _words(kind: Kind, place: Place, part: str, folder: Path, tell: Tell) -> Result:
    """N-best lists of a part's sets, errors of the best; the split dev too where lists are tuned on it."""
    return decoded(place, part, folder, partial(kind.hear, place, part), tell)


def decoded(
    place: Place,
    part: str,
    folder: Path,
    hear: Callable[[str, Path, Tell], tuple[list[NBest], Result]],
    tell: Tell,
) -> Result:
    """Lists by ``hear`` of every set of a part into ``folder``, with their errors; WER and figures by set.

    Of the figures "engine" is that of all sets.
    """
    sets: dict[str, Result] = {}
    engine = None
    for name in place.decoded_sets(part):
        lists, figures = hear(name, folder.parent / "model.packed", tell)
        engine = figures.pop("engine")
        errors = errors_of(place.store_of(part, name), lists)
        write_nbest(folder / f"{name}.nbest.jsonl", lists)
        write_atomic(folder / f"{name}.errors.jsonl", to_jsonl(errors))
        sets[name] = {"wer": wer(errors), **figures}
    tests = place.test_ids(part)
    return {
        "sets": {name: found for name, found in sets.items() if name in tests},
        "others": {name: found for name, found in sets.items() if name not in tests},
        "engine": engine,
    }


def ids_of(place: Place, part: str, name: str) -> list[str]:
    """The utterances of a set of a part."""
    ids: Sequence[str] | None = place.test_ids(part).get(name)
    return list(place.store_of(part, name).ids if ids is None else ids)


def _weights(place: Place, part: str, seed: int, folder: Path, tell: Tell) -> Result:
    other, name = tuned_on(place, part)
    return hybrid_lm.tuned_weights(place, other, seed, name, None, tell)


def _with_ngram(place: Place, part: str, folder: Path, tell: Tell) -> Result:
    row = folder.parent
    weights: Mapping[str, float] = read_json(row.parent / "ngram-weights" / "result.json")["weights"]
    return hybrid_lm.reordered(place, part, row / "words", folder, weights, None, tell)
