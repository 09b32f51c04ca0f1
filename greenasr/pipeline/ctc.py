"""The ternary paper's tables: the stages of every row, seed and part of a recipe of CTC networks.

    as in `end_to_end`, and with an n-gram:
    <part>/ngram ─▶ …/graph-weights ─▶ <row>/with-graph            lists of the lexicon and n-gram, errors

The graph is of the lexicon's words, spelled in the network's labels.  Mordido, Van keirsbilck and Keller
2021, "Compressing 1D time-channel separable convolutions using sparse random ternary matrices".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from greenasr.compress.compressors import COMPRESSORS
from greenasr.data.augment import SpecAugment
from greenasr.data.features import RATE, SHIFT
from greenasr.data.files import read_json
from greenasr.decode.ctc_graph import cached_ctc_graph
from greenasr.decode.labels import spellings, words_of
from greenasr.decode.nbest import NBest
from greenasr.decode.ngram import UNK
from greenasr.decode.transducer import log_softmax, transducer_nbest
from greenasr.decode.tune_scale import tune
from greenasr.decode.wfst import Decoder, to_nbest
from greenasr.pipeline import end_to_end, engines, rows
from greenasr.pipeline.ctc_models import SavedCtc, load_ctc
from greenasr.pipeline.ctc_recipe import CtcRecipe, CtcRow
from greenasr.pipeline.end_to_end import (
    Kind,
    decoded,
    ids_of,
    packed_file,
    separable,
    tokenizer_of,
)
from greenasr.pipeline.engines import Engine
from greenasr.pipeline.place import SpeechPlace, Tell, noted, tuned_on
from greenasr.pipeline.run import Stage
from greenasr.pipeline.units import Labels
from greenasr.roles import BitMap, Compressor
from greenasr.tasks.ctc import Ctc, alignable_ids
from greenasr.tasks.networks import CTC_MODELS

Place = SpeechPlace[CtcRecipe]
TUNED = 8  # hypotheses of each utterance, scale and penalty that weights are tuned on


def stages(place: Place) -> list[Stage]:
    """Everything that the recipe's tables need, as stages."""
    return end_to_end.stages(KIND, place)


def make_task(place: Place, part: str, row: CtcRow) -> tuple[Ctc, int]:
    """The training task of a part, and how many utterances it leaves out (see `tasks.ctc.alignable_ids`)."""
    recipe, store = place.recipe, place.store(place.recipe.corpus.train)
    tokenizer, settings, every = tokenizer_of(place, part), recipe.task, place.training_ids(part)
    ids = alignable_ids(store, every, tokenizer, recipe.settings_of(row, 2).stride)
    if not ids:
        raise ValueError(
            f"no utterance of {len(every)} has frames enough for its labels: give the network a smaller "
            "stride, or use larger pieces."
        )
    masks = SpecAugment(settings.freq_masks, settings.freq_width, settings.time_masks, settings.time_width)
    return Ctc({"train": store}, tokenizer, {"train": ids}, settings.frames, masks), len(every) - len(ids)


def _network(place: Place, part: str, row: CtcRow, task: Ctc, seed: int) -> nn.Module:
    """A new network of a row; rows of one seed and shape begin from the same weights.

    The row "float" of a recipe with [labels] packed begins from that file.
    """
    torch.manual_seed(seed)
    config = place.recipe.settings_of(row, task.tokenizer.size + 1)
    if place.recipe.labels.packed and not row.network:
        return _begun(place, config, task)
    make = next(network for network, settings in CTC_MODELS.values() if isinstance(config, settings))
    made: nn.Module = make(config)
    return made


def _begun(place: Place, config: Any, task: Ctc) -> nn.Module:
    """The network of the recipe's packed file; ValueError where the recipe describes another."""
    path = packed_file(place)
    saved = load_ctc(path)
    pairs = [(saved.model.config.to_json(), config.to_json())]
    pairs.append((saved.units.features.to_json(), task.stores["train"].features.to_json()))
    for section, (theirs, ours) in zip(("model", "features"), pairs, strict=True):
        if odd := [key for key, value in theirs.items() if ours.get(key) != value]:
            raise ValueError(
                f"{path}: its {odd[0]} is {theirs[odd[0]]}, the recipe's {ours.get(odd[0])}: give the file's "
                f"settings in [{section}], `greenasr inspect` lists them."
            )
    made: nn.Module = saved.model
    return made


def _compressor(row: CtcRow, bit_map: BitMap, folder: Path, total: int) -> Compressor:
    """The row's way of training."""
    return COMPRESSORS[rows.method_of(row)](bit_map)


def _hear(place: Place, part: str, name: str, path: Path, tell: Tell) -> tuple[list[NBest], dict[str, Any]]:
    """N-best lists of a set by the network alone; ``rtf`` is of one core, of network and search."""
    hearing, search = Hearing.of(place, path), place.recipe.decode.search()
    store = place.store_of(part, name)
    began = time.process_time()
    logprobs = hearing.logprobs(place, part, name, tell)
    lists = []
    for done, (utt_id, each) in enumerate(logprobs.items(), 1):
        ref = store.texts[store.place[utt_id]]
        hyps = search(each)
        lists.append(transducer_nbest(utt_id, ref, hyps, partial(words_of, hearing.units.tokenizer)))
        tell(done, len(logprobs), f"{name}: search")
    return lists, {"rtf": _rtf(place, part, name, began), "engine": hearing.engine}


@dataclass(frozen=True, eq=False)
class Hearing:
    """The network of a row's packed file: the runtime's, or torch's with its file's contents."""

    network: engines.Ctc | SavedCtc
    units: Labels
    stride: int

    @classmethod
    def of(cls, place: Place, path: Path) -> Hearing:
        """On the engine that the recipe has for packed rows, see `engines.engine_of_row`."""
        packed = engines.read(path)
        if engines.engine_of_row(packed, place.recipe.decode.engine) == "torch":
            saved = load_ctc(path)
            return cls(saved, saved.units, saved.model.config.stride)
        network, units = engines.ctc(path, packed)
        return cls(network, units, network.stride)

    @property
    def engine(self) -> Engine:
        """What runs it."""
        return "torch" if isinstance(self.network, SavedCtc) else "runtime"

    def logprobs(self, place: Place, part: str, name: str, tell: Tell) -> dict[str, Any]:
        """Log probabilities (T', C) of a set's utterances."""
        if isinstance(self.network, SavedCtc):
            return _logprobs(place, part, name, self.network, tell)
        store, ids, found = place.store_of(part, name), ids_of(place, part, name), {}
        with engines.on_one_core():
            for utt_id in ids:
                found[utt_id] = log_softmax(self.network.logits(store[utt_id]))
                tell(len(found), len(ids), f"{name}: network")
        return found


def _logprobs(place: Place, part: str, name: str, saved: SavedCtc, tell: Tell) -> dict[str, Any]:
    """Log probabilities (T', C) of a set's utterances."""
    ids = ids_of(place, part, name)
    task = Ctc(
        {name: place.store_of(part, name)}, saved.units.tokenizer, {name: ids}, place.recipe.task.frames
    )
    return dict(task.logprobs(saved.model.to(place.device), name, noted(tell, f"{name}: network")))


def _rtf(place: Place, part: str, name: str, began: float) -> float:
    """Seconds of work since ``began`` for a second of the set's speech."""
    store = place.store_of(part, name)
    frames = sum(int(store.frames[store.place[utt_id]]) for utt_id in ids_of(place, part, name))
    return (time.process_time() - began) / (frames / 100)


def _graph_stages(place: Place, part: str, seed: int) -> list[Stage]:
    """Decoding in a graph of words, at weights tuned on the float row."""
    if not place.recipe.decode.order:
        return []
    home, (other, _) = f"{part}/seed{seed}", tuned_on(place, part)
    weights = f"{home}/graph-weights"
    needs = (f"{other}/ngram", f"{other}/seed{seed}/float")
    made = [Stage(weights, needs, partial(_tune, place, part, seed))]
    for row in place.recipe.rows:
        name = f"{home}/{row.name}"
        lists = (name, weights, f"{part}/ngram")
        made.append(Stage(f"{name}/with-graph", lists, partial(_with_graph, place, part)))
    return made


def make_decoder(place: Place, part: str, stride: int, tuned: Mapping[str, float] | None = None) -> Decoder:
    """The search of a part in the graph of its n-gram and the lexicon's words, kept in the n-gram's folder.

    Words that the tokenizer cannot spell are left out; those that the n-gram lacks share its unknown mass.
    """
    tokenizer, settings, folder = tokenizer_of(place, part), place.recipe.decode, place.run / part / "ngram"
    spelled = spellings(tokenizer, place.lexicon.words)
    graph = cached_ctc_graph(folder / "graph", spelled, tokenizer.size + 1, folder / "lm.arpa.gz", unk=UNK)
    tuned = tuned or {"acoustic_scale": 1.0, "word_penalty": 0.0}
    return Decoder(
        graph, tuned["acoustic_scale"], tuned["word_penalty"], settings.graph_beam, settings.lattice_beam,
        frame_shift=stride * SHIFT / RATE,
    )  # fmt: skip


def _tune(place: Place, part: str, seed: int, folder: Path, tell: Tell) -> dict[str, Any]:
    """Scale and penalty of the fewest errors of the float row on speech that is not tested on.

    On one round of lists: at the small scales that networks of little training want, lattices are huge.
    """
    other, name = tuned_on(place, part)
    saved = load_ctc(place.run / other / f"seed{seed}" / "float" / "model.packed")
    logprobs = _logprobs(place, other, name, saved, tell)
    store = place.store_of(other, name)
    refs = [store.texts[store.place[utt_id]].split() for utt_id in logprobs]
    decoder = make_decoder(place, other, saved.model.config.stride)
    tell(0, 1, f"{name}: search")
    found = tune(decoder, list(logprobs.values()), refs, n=TUNED, rounds=1)
    return {"tuned_on": [other, name], **found.to_json()}


def _with_graph(place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """The graph's words, and their errors."""
    tuned = read_json(folder.parent.parent / "graph-weights" / "result.json")
    hearing = Hearing.of(place, folder.parent / "model.packed")
    decoder = make_decoder(place, part, hearing.stride, tuned)

    def hear(name: str, path: Path, tell: Tell) -> tuple[list[NBest], dict[str, Any]]:
        store, lists = place.store_of(part, name), []
        began = time.process_time()
        logprobs = hearing.logprobs(place, part, name, tell)
        for done, (utt_id, each) in enumerate(logprobs.items(), 1):
            hyps = [decoder.best(each)]  # nothing reads more: what is rescored are the network's own lists
            ref = store.texts[store.place[utt_id]]
            lists.append(to_nbest(utt_id, hyps, ref, decoder.acoustic_scale, decoder.word_penalty))
            tell(done, len(logprobs), f"{name}: search")
        return lists, {"rtf": _rtf(place, part, name, began), "engine": hearing.engine}

    return decoded(place, part, folder, hear, tell)


KIND = Kind(make_task, _network, load_ctc, _compressor, _hear, separable, _graph_stages)
