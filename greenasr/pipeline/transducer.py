"""ACosR's tables: the stages of every row, seed and part of a recipe of transducers, see `end_to_end`.

    <row>/model.packed, and where ACosR trained it wgtc.jsonl, levels.npz

Words and figures are of the packed files.  Nguyen et al. 2020, "Quantization aware training with
absolute-cosine regularization for automatic speech recognition".
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from greenasr.compress.acosr import Acosr
from greenasr.compress.compressors import COMPRESSORS
from greenasr.data.augment import SpecAugment
from greenasr.data.feature_store import FeatureStore
from greenasr.decode.nbest import NBest
from greenasr.decode.transducer import decode_transducer, transducer_nbest
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.pipeline import end_to_end, engines, rows
from greenasr.pipeline.convergence import Watched, read_wgtc
from greenasr.pipeline.end_to_end import Kind, ids_of, tokenizer_of
from greenasr.pipeline.place import SpeechPlace, Tell, noted
from greenasr.pipeline.run import Stage
from greenasr.pipeline.transducer_models import load_transducer
from greenasr.pipeline.transducer_recipe import TransducerRecipe, TransducerRow
from greenasr.roles import BitMap, Compressor
from greenasr.tasks.transducer import Transduction, carried

Place = SpeechPlace[TransducerRecipe]
HEARD = 200  # utterances whose features say where the network's first weights begin
TIMED = 20  # utterances of a test set that are recognised once more, one by one, for the RTF


def stages(place: Place) -> list[Stage]:
    """Everything that the recipe's tables need, as stages."""
    return end_to_end.stages(KIND, place)


def make_task(place: Place, part: str, row: TransducerRow | None = None) -> tuple[Transduction, int]:
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


def _compressor(row: TransducerRow, bit_map: BitMap, folder: Path, total: int) -> Compressor:
    """The row's way of training; ACosR is watched."""
    made = COMPRESSORS[rows.method_of(row)](bit_map)
    if not isinstance(made, Acosr):
        return made
    if row.published:
        made = Acosr(bit_map, theta=2.0 ** (row.bits - 1), coupled=True, straight_through=False)
    names = [span.name for cluster in bit_map.clusters for span in cluster.spans]
    return Watched(made, folder, total, [name for name in names if name.startswith("predictor")])


def _said(model: Rnnt, folder: Path) -> dict[str, Any]:
    """WgtC at the end of training, total and of each layer; None where ACosR did not train."""
    lines = read_wgtc(folder / "wgtc.jsonl")
    return {"wgtc": {key: lines[-1][key] for key in ("total", "layers")} if lines else None}


def _hear(place: Place, part: str, name: str, path: Path, tell: Tell) -> tuple[list[NBest], dict[str, Any]]:
    """N-best lists of a set.

    RTF is of one core: seconds of work for a second of speech, utterance by utterance.
    """
    packed, search = engines.read(path), place.recipe.decode.search()
    engine = engines.engine_of_row(packed, place.recipe.decode.engine)
    network, units = engines.transducer(path, packed, engine)
    store, ids = place.store_of(part, name), ids_of(place, part, name)
    task = Transduction({name: store}, units.tokenizer, {name: ids}, place.recipe.task.frames)
    with engines.on_one_core():
        rtf = real_time_factor(partial(decode_transducer, network, search=search), store, ids[:TIMED])
    told = noted(tell, f"{name}: search")
    if engine == "runtime":
        found = task.heard(network, name, search, told)
    else:
        found = task.decode(load_transducer(path).model.to(place.device), name, search, told)
    lists = [
        transducer_nbest(utt_id, store.texts[store.place[utt_id]], hyps, task.words)
        for utt_id, hyps in found.items()
    ]
    return lists, {"rtf": rtf, "engine": engine}


def real_time_factor(
    hear: Callable[[NDArray[np.float32]], object], store: FeatureStore, ids: Sequence[str]
) -> float:
    """Seconds of one core for a second of speech, of ``hear``, which takes features (1, T, F), on the CPU."""
    feats = [store[utt_id][None] for utt_id in ids]
    began = time.process_time()
    for each in feats:
        hear(each)
    return (time.process_time() - began) / (sum(each.shape[1] for each in feats) / 100)


def _network(place: Place, part: str, row: TransducerRow, task: Transduction, seed: int) -> Rnnt:
    """All rows have one shape."""
    return network(place, part, task, seed)


KIND = Kind(make_task, _network, load_transducer, _compressor, _hear, _said)
