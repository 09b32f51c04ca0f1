"""A table of keyword models: what differs from other recognisers' stages (`end_to_end`).

    corpus      cuts, recorded noise where there is any, and how many clips are odd
    features    log-mel energies, from which a network's features are made when noise has been mixed in
    labels      the words of a part's training clips are its networks' outputs

Mordido, Van keirsbilck and Keller 2021, "Compressing 1D time-channel separable convolutions using sparse
random ternary matrices".
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from greenasr.compress.compressors import COMPRESSORS
from greenasr.data import clips
from greenasr.data.clip_augment import noise_powers
from greenasr.data.clip_features import BACKGROUND, seen, stored
from greenasr.data.corpora import load_cuts, save_cuts
from greenasr.data.feature_store import FeatureStore, extract
from greenasr.data.features import RATE, SHIFT, Feats, Features
from greenasr.data.files import read_json, write_json
from greenasr.data.generated import generate_speech
from greenasr.data.readers import commands
from greenasr.data.readers.rows import cut_sets
from greenasr.decode.nbest import NBest
from greenasr.models.matchboxnet import MatchboxNet
from greenasr.pipeline import end_to_end, engines, rows
from greenasr.pipeline.ctc_recipe import CtcRow
from greenasr.pipeline.end_to_end import Kind, ids_of, separable
from greenasr.pipeline.engines import Classifier
from greenasr.pipeline.keyword_models import load_keyword_model
from greenasr.pipeline.keywords_recipe import KeywordRecipe
from greenasr.pipeline.place import SpeechPlace, Tell, make_corpus, make_features, noted
from greenasr.pipeline.run import Stage
from greenasr.pipeline.units import KeywordUnits
from greenasr.roles import BitMap, Compressor
from greenasr.tasks.keywords import Clips, Keywords

Place = SpeechPlace[KeywordRecipe]
NOISE, GENERATED = "background", "generated"  # cuts and features beside the splits' own
HEARD = 1000  # clips whose features say where the network's first weights begin
TIMED = 20  # clips of a test set that are classified once more, one by one, for the RTF


def stages(place: Place) -> list[Stage]:
    """Everything that the recipe's table needs, as stages."""
    return end_to_end.stages(KIND, place)


def _corpus(place: Place, folder: Path, tell: Tell) -> dict[str, Any]:
    """Cuts of every split, those of recorded noise where there are any, and what is odd about clips.

    With the recipe's ``generated`` hours also commands that are said beside the corpus's own in training.
    """
    made = make_corpus(place, folder, tell)
    counted = {
        split: clips.census(load_cuts(folder / f"{split}.cuts.jsonl.gz"), noted(tell, f"clips of {split}"))
        for split in made["splits"]
    }
    source = place.data / place.recipe.corpus.source if place.data and place.recipe.corpus.source else None
    noise = list(commands.background(source)) if source is not None and source.is_dir() else []
    if noise:
        save_cuts(folder / f"{NOISE}.cuts.jsonl.gz", cut_sets(noise)[NOISE])
    if hours := place.recipe.task.generated:
        generate_speech(folder / GENERATED, hours, 0, max(1, place.jobs), tell, 1, "commands")
    return {**made, "clips": counted, "recorded_noise": len(noise)}


def _features(place: Place, folder: Path, tell: Tell) -> dict[str, Any]:
    """Log-mel energies of every split before CMVN, and of the noise."""
    kept = stored(network_features(place))
    made = make_features(place, folder, tell, kept, clips.samples)
    more = {NOISE: f"{NOISE}.cuts.jsonl.gz", GENERATED: f"{GENERATED}/train.cuts.jsonl.gz"}
    for name, file in more.items():
        if (cuts := place.run / "corpus" / file).exists():
            told = noted(tell, f"features of {name}")
            store = extract(load_cuts(cuts), folder / name, kept, jobs=place.jobs, progress=told)
            write_json(folder / f"{name}.json", str(store.folder))
    return made


def _labels(kind: Kind, place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """The words of the part's training clips, and the class of no word where the recipe has it."""
    settings, store = place.recipe.labels, place.store(place.recipe.corpus.train)
    ids = place.training_ids(part)
    said = {store.texts[store.place[utt_id]] for utt_id in ids}
    if lacking := set(settings.words) - said:
        raise ValueError(f"[labels] words: no training clip says '{min(lacking)}': leave it out.")
    if settings.words and settings.others == "refuse" and (others := said - set(settings.words)):
        raise ValueError(
            f"'{min(others)}' is said in training clips and none of [labels] words: add it, or leave such "
            'clips out with others = "leave".'
        )
    words = sorted(settings.words or said)
    write_json(folder / "words.json", [*words, BACKGROUND] if settings.background else words)
    return {"words": len(words), "clips": len(ids)}


def words_of(place: Place, part: str) -> tuple[str, ...]:
    """The networks' outputs of a part, in order."""
    return tuple(read_json(place.run / part / "labels" / "words.json"))


def _known(store: FeatureStore, ids: list[str], place: Place) -> list[str]:
    """The clips that say a word of the recipe, where others are no error."""
    settings = place.recipe.labels
    if not settings.words or settings.others == "refuse":
        return ids
    return [utt_id for utt_id in ids if store.texts[store.place[utt_id]] in settings.words]


def network_features(place: Place) -> Features:
    """What networks see."""
    settings = place.recipe.features
    return Features(settings.kind, settings.bins, settings.cmvn)  # type: ignore[arg-type]


def make_task(place: Place, part: str) -> tuple[Keywords, int]:
    """The training task of a part, its clips in memory, and how many clips it leaves out."""
    recipe, store, every = place.recipe, place.store(place.recipe.corpus.train), place.training_ids(part)
    known, as_background = words_of(place, part), recipe.labels.others == "background"
    ids = every if as_background else _known(store, every, place)
    train = Clips.of(store, ids, recipe.task.frames, recipe.task.every)
    if as_background:
        train = replace(train, words=tuple(w if w in known else BACKGROUND for w in train.words))
    if recipe.task.generated:
        more = FeatureStore.open(read_json(place.run / "features" / f"{GENERATED}.json"))
        said = [utt_id for utt_id in more.ids if more.texts[more.place[utt_id]] in known]
        train = train + Clips.of(more, said, recipe.task.frames, recipe.task.every)
    task = Keywords(
        {"train": train}, known, network_features(place), _noise(place), recipe.task.batch,
        recipe.task.augment(), recipe.labels.background, recipe.task.smoothing, recipe.task.band,
    )  # fmt: skip
    return task, len(every) - len(ids)


def _task(place: Place, part: str, row: CtcRow) -> tuple[Keywords, int]:
    """Every row has the same."""
    return make_task(place, part)


def _units(place: Place, task: Keywords) -> KeywordUnits:
    settings = place.recipe.task
    return KeywordUnits(task.features, task.words, settings.frames, settings.every, task.band)


def _small(task: Keywords, place: Place) -> Keywords:
    """Costs are measured on batches as they are, without changes."""
    return replace(task, augment=None)


def _noise(place: Place) -> torch.Tensor:
    """Powers of the corpus's noise, or of generated noise, (M, F)."""
    recorded: list[Feats] = []
    if (note := place.run / "features" / f"{NOISE}.json").exists():
        store = FeatureStore.open(read_json(note))
        recorded = [store.raw(utt_id) for utt_id in store.ids]
    return noise_powers(recorded, place.recipe.features.bins)[:: place.recipe.task.every]


def _network(place: Place, part: str, row: CtcRow, task: Keywords, seed: int) -> MatchboxNet:
    """A new network of a full-precision row, whose first layer begins as if every feature had deviation 1.

    Liftered cepstra differ by a factor of ten and more, which is slow to unlearn; their means the first norm
    takes away.
    """
    torch.manual_seed(seed)
    model = MatchboxNet(place.recipe.settings_of(row, len(task.words), seed))
    heard = task.seen(task.clips["train"].feats[:HEARD].float())
    first: Any = model.prologue.subs[0]
    with torch.no_grad():
        first.depthwise.weight /= heard.std((0, 1)).clamp(min=1e-3)[:, None, None]
    return model


def _compressor(row: CtcRow, bit_map: BitMap, folder: Path, total: int) -> Compressor:
    """The row's way of training."""
    return COMPRESSORS[rows.method_of(row)](bit_map)


def _hear(place: Place, part: str, name: str, path: Path, tell: Tell) -> tuple[list[NBest], dict[str, Any]]:
    """The likeliest words of every clip of a set; RTF is the network's on one core, a clip at a time."""
    packed, told = engines.read(path), noted(tell, name)
    engine = engines.engine_of_row(packed, place.recipe.decode.engine)
    network, units = engines.keywords(path, packed, engine)
    store = place.store_of(part, name)
    ids = _known(store, ids_of(place, part, name), place)
    heard = Clips.of(store, ids, units.frames, units.every)
    task = Keywords({name: heard}, units.words, units.features, torch.zeros(0), band=units.band)
    with engines.on_one_core():
        rtf = real_time_factor(network, heard, units)
    if engine == "runtime":
        logprobs = task.heard(network, name, told)
    else:
        logprobs = task.logprobs(load_keyword_model(path).model.to(place.device), name, told)
    return task.nbest(logprobs, name, place.recipe.decode.nbest), {"rtf": rtf, "engine": engine}


def real_time_factor(network: Classifier, heard: Clips, units: KeywordUnits) -> float:
    """Seconds of one core for a second of sound, one clip at a time."""
    feats = [seen(each, units.features, units.band) for each in heard.feats[:TIMED].float().numpy()]
    network.logits(feats[0])
    began = time.process_time()
    for each in feats:
        network.logits(each)
    return (time.process_time() - began) / (len(feats) * units.frames * SHIFT / RATE)


KIND = Kind(
    task=_task,
    network=_network,
    load=load_keyword_model,
    compressor=_compressor,
    hear=_hear,
    said=separable,
    corpus=_corpus,
    features=_features,
    labels=_labels,
    units=_units,
    small=_small,
)
