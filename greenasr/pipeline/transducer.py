"""ACosR's tables: the stages of every row, seed and part of a recipe of transducers.

    corpus ─▶ features ─▶ <part>/labels ─▶ <part>/<seed>/float ─┬▶ …/costs-hessian, -kl ─▶ …/<plans' rows>
                                                                └▶ …/<uniform rows>
    <row>/model.packed, and where ACosR trained it wgtc.jsonl, levels.npz       <row>/words: lists, errors
    <part>/ngram ─▶ …/ngram-weights ─▶ <row>/with-ngram                         rescored lists, errors

Words and figures are of the packed files.  Nguyen et al. 2020, "Quantization aware training with
absolute-cosine regularization for automatic speech recognition".
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from greenasr.compress.acosr import Acosr
from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import fit_
from greenasr.compress.none import NoCompression
from greenasr.data.augment import SpecAugment
from greenasr.data.feature_store import FeatureStore
from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.data.text import Tokenizer, tokenizer_from_json
from greenasr.decode.nbest import write_nbest
from greenasr.decode.transducer import decode_transducer, transducer_nbest
from greenasr.models.dropout import set_dropout_
from greenasr.models.on_arrays import RnntOnArrays
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.pipeline import hybrid_lm, lm, rows
from greenasr.pipeline.convergence import Watched, read_wgtc
from greenasr.pipeline.models import save
from greenasr.pipeline.place import (
    SpeechPlace,
    Tell,
    errors_of,
    make_corpus,
    make_features,
    noted,
    tuned_on,
    write_ngram,
)
from greenasr.pipeline.recipe import PLANNED
from greenasr.pipeline.run import Stage
from greenasr.pipeline.transducer_models import load_transducer
from greenasr.pipeline.transducer_recipe import TransducerRecipe, TransducerRow
from greenasr.pipeline.units import Labels
from greenasr.roles import BitMap, Compressor
from greenasr.score.errors import to_jsonl, wer
from greenasr.tasks.transducer import Transduction, carried

Place = SpeechPlace[TransducerRecipe]
HEARD = 200  # utterances whose features say where the network's first weights begin
TIMED = 20  # utterances of a test set that are recognised once more, one by one, for the RTF


def stages(place: Place) -> list[Stage]:
    """Everything that the recipe's tables need, as stages."""
    made = [
        Stage("corpus", (), partial(make_corpus, place)),
        Stage("features", ("corpus",), partial(make_features, place)),
    ]
    for part in place.parts:
        made.append(Stage(f"{part}/labels", ("features",), partial(_labels, place, part)))
        if place.recipe.decode.order:
            made.append(Stage(f"{part}/ngram", ("features",), partial(_ngram, place, part)))
        for seed in place.recipe.corpus.seeds:
            made += _of_seed(place, part, seed)
            made += hybrid_lm.stages_of_seed(place, part, seed, tuned_on(place, part))
        made += hybrid_lm.stages_of_part(place, part)
    return made


def _of_seed(place: Place, part: str, seed: int) -> list[Stage]:
    home = f"{part}/seed{seed}"
    made: list[Stage] = []
    lists: tuple[str, ...]
    if place.recipe.decode.order:
        other, _ = tuned_on(place, part)
        lists = (f"{other}/ngram", f"{other}/seed{seed}/float/words")
        made.append(Stage(f"{home}/ngram-weights", lists, partial(_weights, place, part, seed)))
    for row in place.recipe.rows:
        name = f"{home}/{row.name}"
        needs: tuple[str, ...] = (f"{part}/labels",) if row.method == "float" else (f"{home}/{row.start}",)
        if row.method in PLANNED:
            costs = f"{home}/{rows.costs_of(row)}"
            if costs not in {stage.name for stage in made}:
                rivals = tuple(f"{home}/{r.name}" for r in _rivals(place, row))
                made.append(Stage(costs, (*needs, *rivals), partial(_costs, place, part, seed, row)))
            needs = (*needs, costs)
        made.append(Stage(name, needs, partial(_row, place, part, seed, row)))
        made.append(Stage(f"{name}/words", (name,), partial(_words, place, part)))
        if place.recipe.decode.order:
            lists = (f"{name}/words", f"{home}/ngram-weights", f"{part}/ngram")
            made.append(Stage(f"{name}/with-ngram", lists, partial(_with_ngram, place, part)))
    return made


def _rivals(place: Place, row: TransducerRow) -> list[TransducerRow]:
    """The uniform rows that a search chooses from; none for other plans."""
    if row.method != "search":
        return []
    return [r for r in place.recipe.rows if (r.method, r.start) == ("admm", row.start)]


def _labels(place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    settings, text = place.recipe.labels, [words for words in place.transcripts(part) if words]
    made = lm.make_tokenizer(settings.kind, settings.size, text)
    write_json(folder / "tokenizer.json", made.to_json())
    return {"size": made.size, "sentences": len(text)}


def _ngram(place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    made = write_ngram(place, part, folder)
    return {"order": made.order, "counts": list(made.counts)}


def tokenizer_of(place: Place, part: str) -> Tokenizer:
    """The labels of a part."""
    return tokenizer_from_json(read_json(place.run / part / "labels" / "tokenizer.json"))


def make_task(place: Place, part: str) -> tuple[Transduction, int]:
    """The training task of a part, and how many utterances it leaves out (see `tasks.transducer.carried`)."""
    recipe, store = place.recipe, place.store(place.recipe.corpus.train)
    tokenizer, settings = tokenizer_of(place, part), recipe.task
    every = place.training_ids(part)
    ids = carried(store, every, tokenizer, config_of(place, 2).frames_joined, settings.max_symbols)
    if not ids:
        raise ValueError(
            f"no utterance of {len(every)} has room for its labels: raise [task] max_symbols, join fewer "
            "frames, or use larger pieces."
        )
    masks = SpecAugment(settings.freq_masks, settings.freq_width, settings.time_masks, settings.time_width)
    task = Transduction(
        {"train": store}, tokenizer, {"train": ids}, settings.frames, masks, settings.ctc, settings.hidden
    )
    return task, len(every) - len(ids)


def config_of(place: Place, vocab: int) -> RnntConfig:
    """The shape of the recipe's network."""
    return RnntConfig(**{**place.recipe.model, "feat_dim": place.recipe.features.bins, "vocab": vocab})


def network(place: Place, part: str, task: Transduction, seed: int) -> Rnnt:
    """A new network, whose first layer begins as if every feature had mean 0 and deviation 1.

    LSTM gates that begin in saturation hardly learn, and log-mel energies reach far beyond ±1.
    """
    torch.manual_seed(seed)
    model = Rnnt(config_of(place, task.tokenizer.size + 1))
    store, ids = task.stores["train"], list(task.ids["train"])
    heard = np.concatenate([store[u] for u in random.Random(0).sample(ids, min(HEARD, len(ids)))])
    first: Any = model.encoder.layers[0]
    joined = first.input.in_features // heard.shape[1]
    mean, std = (torch.from_numpy(x).repeat(joined) for x in (heard.mean(0), heard.std(0).clip(1e-3)))
    with torch.no_grad():
        first.input.weight /= std
        first.input.bias -= first.input.weight @ mean
    return model


def _row(place: Place, part: str, seed: int, row: TransducerRow, folder: Path, tell: Tell) -> dict[str, Any]:
    task, left_out = make_task(place, part)
    training, home = rows.training_of(place, row, seed), folder.parent
    compressor: Compressor = NoCompression()
    bit_map = None
    if row.method == "float":
        model = network(place, part, task, seed)
    else:
        model = load_transducer(home / row.start / "model.packed").model
        dropout = place.recipe.compress.dropout if row.dropout is None else row.dropout
        if dropout is not None:
            set_dropout_(model, dropout)
        clusters = make_clusters(model, row.by or place.recipe.compress.by)
        bit_map = rows.bit_map_of(place, home, row, clusters)
        compressor = _compressor(row, bit_map, folder, training.steps(task.n_batches("train")))
    fitted = fit_(model.to(place.device), task, compressor, training, run=folder, on_step=rows.teller(tell))
    path, units = folder / "model.packed", Labels(task.stores["train"].features, task.tokenizer)
    if bit_map is not None:
        write_json(folder / "bit_map.json", bit_map.to_json())
    save(path, model.cpu(), units, {"title": place.recipe.title}, fitted, bit_map)
    return {
        **lm.describe(path, load_transducer(path)),
        "left_out": left_out,
        "wgtc": _last(folder),
        "seconds_train": rows.seconds_of(folder),
    }


def _compressor(row: TransducerRow, bit_map: BitMap, folder: Path, total: int) -> Compressor:
    """The row's way of training; ACosR is watched."""
    made = COMPRESSORS[rows.method_of(row)](bit_map)
    if not isinstance(made, Acosr):
        return made
    if row.published:
        made = Acosr(bit_map, theta=2.0 ** (row.bits - 1), coupled=True, straight_through=False)
    names = [span.name for cluster in bit_map.clusters for span in cluster.spans]
    return Watched(made, folder, total, [name for name in names if name.startswith("predictor")])


def _last(folder: Path) -> dict[str, Any] | None:
    """WgtC at the end of training, total and of each layer; None where ACosR did not train."""
    lines = read_wgtc(folder / "wgtc.jsonl")
    return {key: lines[-1][key] for key in ("total", "layers")} if lines else None


def _costs(
    place: Place, part: str, seed: int, row: TransducerRow, folder: Path, tell: Tell
) -> dict[str, Any]:
    task, _ = make_task(place, part)
    home = folder.parent
    model = load_transducer(home / row.start / "model.packed").model
    clusters = make_clusters(model, row.by or place.recipe.compress.by)
    if row.method == "search":
        trained = {int(r.bits): home / r.name / "model.packed" for r in _rivals(place, row)}
        device = place.device
        return rows.choose(place, row, model.to(device), task, clusters, trained, seed, folder, tell)
    small = replace(task, frames=place.recipe.compress.cost_frames, augment=None)
    return rows.measure(place, row, model, small, clusters, seed, folder, tell)


def _words(place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """N-best lists of a part's test sets, errors of the best; the split dev too where lists are tuned on it.

    RTF is of one core: seconds of work for a second of speech, utterance by utterance.
    """
    saved, search = load_transducer(folder.parent / "model.packed"), place.recipe.decode.search()
    sets = {}
    for name in place.decoded_sets(part):
        store, ids = place.store_of(part, name), place.test_ids(part).get(name)
        ids = list(store.ids) if ids is None else ids
        task = Transduction({name: store}, saved.units.tokenizer, {name: ids}, place.recipe.task.frames)
        rtf = real_time_factor(saved.model, store, ids[:TIMED], search)
        found = task.decode(saved.model.to(place.device), name, search, noted(tell, f"{name}: search"))
        saved.model.cpu()
        lists = [
            transducer_nbest(utt_id, store.texts[store.place[utt_id]], hyps, task.words)
            for utt_id, hyps in found.items()
        ]
        errors = errors_of(store, lists)
        write_nbest(folder / f"{name}.nbest.jsonl", lists)
        write_atomic(folder / f"{name}.errors.jsonl", to_jsonl(errors))
        sets[name] = {"wer": wer(errors), "rtf": rtf}
    tests = place.test_ids(part)
    return {
        "sets": {name: found for name, found in sets.items() if name in tests},
        "others": {name: found for name, found in sets.items() if name not in tests},
    }


def real_time_factor(model: Rnnt, store: FeatureStore, ids: list[str], search: Any) -> float:
    """Seconds of one core for a second of speech, of network and search together, on the CPU."""
    feats, network = [store[utt_id][None] for utt_id in ids], RnntOnArrays(model)
    began = time.process_time()
    for each in feats:
        decode_transducer(network, each, search=search)
    return (time.process_time() - began) / (sum(each.shape[1] for each in feats) / 100)


def _weights(place: Place, part: str, seed: int, folder: Path, tell: Tell) -> dict[str, Any]:
    other, name = tuned_on(place, part)
    return hybrid_lm.tuned_weights(place, other, seed, name, None, tell)


def _with_ngram(place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    row = folder.parent
    weights = read_json(row.parent / "ngram-weights" / "result.json")["weights"]
    return hybrid_lm.reordered(place, part, row / "words", folder, weights, None, tell)
