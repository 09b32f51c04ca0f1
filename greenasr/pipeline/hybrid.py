"""The stages of a hybrid recogniser behind its features: alignment, graphs, network, words.

    features ─▶ alignment ─▶ pdf map ─▶ LF-MMI training ─▶ packed file ─▶ n-best lists ─▶ errors

Every part of the data (all training speakers, or all but one fold) has its own alignment, n-gram, networks.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from greenasr.compress.fit import OnStep, Training, fit_
from greenasr.compress.none import NoCompression
from greenasr.compress.upkeep import Upkeep
from greenasr.data.augment import SpecAugment
from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.decode.alignment import read_alignments, write_alignments
from greenasr.decode.chain_graphs import denominator_graph, numerator_graph
from greenasr.decode.context import PdfMap
from greenasr.decode.graph import DecodingGraph, cached_graph
from greenasr.decode.nbest import write_nbest
from greenasr.decode.phone_lm import PhoneLm, estimate
from greenasr.decode.tune_scale import tune
from greenasr.decode.wfst import Decoder, Hypothesis, to_nbest
from greenasr.models.tdnnf import Tdnnf, semi_orthogonal_step_
from greenasr.ops.lfmmi import Graph
from greenasr.pipeline import engines, lm
from greenasr.pipeline.acoustic_models import load_acoustic, save_acoustic
from greenasr.pipeline.engines import Acoustic, Engine
from greenasr.pipeline.hybrid_recipe import HybridRecipe
from greenasr.pipeline.place import SpeechPlace, Tell, errors_of, noted, write_ngram
from greenasr.pipeline.units import Units
from greenasr.roles import Compressor
from greenasr.runtime.activations import Rounding
from greenasr.score.errors import to_jsonl, wer
from greenasr.tasks.chain import Chain, frame_targets, original
from greenasr.tasks.flat_start import FlatStart, flat_start
from greenasr.tasks.flat_start import Stage as Passes
from greenasr.tasks.gmm_feats import Frontend

Place = SpeechPlace[HybridRecipe]


def align(place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """Flat start on the speech as it is; the chain's pdf map, by tree or by counts of left biphones."""
    settings, store = place.recipe.align, place.store(place.recipe.corpus.train)
    ids = [utt_id for utt_id in place.training_ids(part) if original(utt_id)[1] == 1.0]
    transcripts = {utt_id: store.texts[store.place[utt_id]].split() for utt_id in ids}
    kind = place.recipe.features.kind
    passes = Passes(settings.passes, settings.gaussians, tuple(range(1, settings.passes, 2)))
    flat = FlatStart(
        frontend=Frontend(kind),  # type: ignore[arg-type]
        monophone=passes,
        context=Passes(0, 1, ()),
        chain_leaves=max(1, settings.leaves),
    )
    aligned = flat_start(
        {utt_id: store[utt_id] for utt_id in ids}, transcripts, place.lexicon, flat, folder,
        progress=lambda p: tell(p.number + 1, settings.passes, f"{p.stage} alignment"),
    )  # fmt: skip
    pdf_map = aligned.pdf_map
    if not settings.leaves:
        counts: Counter[tuple[int, int]] = Counter()
        for alignment in aligned.alignments.values():
            phones = [segment.phone for segment in alignment.segments]
            counts.update(zip([0, *(1 + phone for phone in phones)], phones, strict=False))
        pdf_map = PdfMap.left_biphone(place.lexicon.phones, counts, settings.min_count)
    write_alignments(folder / "alignments.npz", aligned.alignments, aligned.phones)
    write_json(folder / "pdf_map.json", pdf_map.to_json())
    return {"pdfs": pdf_map.n_pdfs, "skipped": len(aligned.skipped)}


def make_ngram(place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """The n-gram of a part's transcripts, or the recipe's own, and its decoding graph."""
    lm = write_ngram(place, part, folder)
    graph = decoding_graph(place, part, folder)
    return {"order": lm.order, "states": graph.meta["states"], "arcs": graph.meta["arcs"]}


def decoding_graph(place: Place, part: str, folder: Path | None = None) -> DecodingGraph:
    """HCLG of a part, kept in its n-gram's folder; words that its text lacks share the mass of <unk>."""
    folder = folder or place.run / part / "ngram"
    pdf_map = PdfMap.from_json(read_json(place.run / part / "align" / "pdf_map.json"))
    return cached_graph(folder / "graph", place.lexicon, pdf_map, folder / "lm.arpa.gz", unk="<unk>")


def training_prons(place: Place, part: str) -> dict[str, list[tuple[tuple[str, ...], ...]]]:
    """The pronunciations of the words of every training utterance, copies at other speeds apart."""
    store, prons = place.store(place.recipe.corpus.train), place.lexicon.prons
    plain = [utt_id for utt_id in place.training_ids(part) if original(utt_id)[1] == 1.0]
    return {utt_id: [prons[word] for word in store.texts[store.place[utt_id]].split()] for utt_id in plain}


def make_phone_lm(place: Place, part: str) -> PhoneLm:
    """The phone n-gram of a part's training transcripts, the same whenever it is asked for."""
    transcripts = list(training_prons(place, part).values())
    return estimate(transcripts, place.lexicon.phones, order=place.recipe.chain.phone_order)


def make_task(place: Place, part: str, held_out: float = 0.0) -> tuple[Chain, Units]:
    """The training task of a part; with ``held_out`` that share of its speech is the split "dev"."""
    recipe, store = place.recipe, place.store(place.recipe.corpus.train)
    alignments, _ = read_alignments(place.run / part / "align" / "alignments.npz")
    pdf_map = PdfMap.from_json(read_json(place.run / part / "align" / "pdf_map.json"))
    ids = [utt_id for utt_id in place.training_ids(part) if original(utt_id)[0] in alignments]
    prons = training_prons(place, part)
    chain = recipe.chain
    phone_lm = make_phone_lm(place, part)
    numerators: dict[str, Graph] = {
        utt_id: numerator_graph(each, phone_lm, pdf_map) for utt_id, each in prons.items()
    }
    targets = {
        utt_id: frame_targets(alignments[o], pdf_map, s) for utt_id in ids for o, s in [original(utt_id)]
    }
    split = {"train": ids}
    if held_out:
        names = sorted(prons)
        random.Random(0).shuffle(names)
        dev = set(names[: max(1, round(held_out * len(names)))])
        split = {
            "train": [utt_id for utt_id in ids if original(utt_id)[0] not in dev],
            "dev": [utt_id for utt_id in ids if utt_id in dev],
        }
    masks = SpecAugment(chain.freq_masks, chain.freq_width, chain.time_masks, chain.time_width)
    task = Chain(
        dict.fromkeys(split, store), denominator_graph(phone_lm, pdf_map), numerators, targets, split,
        ivectors=place.ivectors(part, place.recipe.corpus.train), frames=chain.frames,
        xent=chain.xent, leaky=chain.leaky, l2=chain.l2, augment=masks,
    )  # fmt: skip
    return task, Units(store.features, pdf_map, place.lexicon)


def train(
    place: Place,
    folder: Path,
    task: Chain,
    units: Units,
    model: Tdnnf,
    training: Training,
    compressor: Compressor | None = None,
    on_step: OnStep | None = None,
    rounding: Rounding | None = None,
) -> Path:
    """Train a network into ``folder/model.packed``, and ``train.packed`` with the cross-entropy head.

    Without a compressor the factors are kept semi-orthogonal.
    """
    bit_map = getattr(compressor, "bit_map", None)
    chosen = compressor or Upkeep(NoCompression(), semi_orthogonal_step_)
    quantized = fit_(model.to(place.device), task, chosen, training, run=folder, on_step=on_step)
    model = model.cpu()
    recipe = place.recipe.noted
    if bit_map is None:
        save_acoustic(folder / "train.packed", model, units, recipe)
    else:
        write_json(folder / "bit_map.json", bit_map.to_json())
    save_acoustic(folder / "model.packed", model.without_xent(), units, recipe, quantized, bit_map, rounding)
    return folder / "model.packed"


def make_decoder(place: Place, part: str, tuned: Mapping[str, float]) -> Decoder:
    """The search of a part at the tuned scale and penalty, or at the recipe's."""
    settings = place.recipe.decode
    scale = tuned.get("acoustic_scale", settings.acoustic_scale)
    penalty = tuned.get("word_penalty", settings.word_penalty)
    return Decoder(decoding_graph(place, part), scale, penalty, settings.beam, settings.lattice_beam)


def listening(place: Place, part: str, name: str) -> Chain:
    """A task that only listens to one test set of a part (or the split dev): it has no graphs."""
    ids = place.test_ids(part).get(name)
    store = place.store_of(part, name)
    return Chain(
        {name: store}, _NO_GRAPH, {}, ids={name: list(store.ids) if ids is None else ids},
        ivectors=place.ivectors(part, name), frames=place.recipe.chain.frames,
    )  # fmt: skip


def tune_decoding(place: Place, part: str, path: Path, name: str, tell: Tell) -> dict[str, Any]:
    """Acoustic scale and word penalty for the network in a packed file on a set of the part."""
    task = listening(place, part, name)
    logits = task.logits(load_acoustic(path).model, name, noted(tell, f"{name}: network"))
    store = task.stores[name]
    refs = [store.texts[store.place[utt_id]].split() for utt_id in logits]
    tell(0, 1, f"{name}: search")
    found = tune(make_decoder(place, part, {}), list(logits.values()), refs)
    tell(1, 1, f"{name}: search")
    return found.to_json()


@dataclass(frozen=True, eq=False)
class Hearing:
    """The network of a row's packed file: the runtime's, or torch's."""

    network: Acoustic | Tdnnf

    @classmethod
    def of(cls, place: Place, path: Path) -> Hearing:
        """On the engine that the recipe has for packed rows, see `engines.engine_of_row`."""
        packed = engines.read(path)
        if engines.engine_of_row(packed, place.recipe.decode.engine) == "torch":
            return cls(load_acoustic(path).model)
        return cls(engines.acoustic(path, packed)[0])

    @property
    def engine(self) -> Engine:
        """What runs it."""
        return "torch" if isinstance(self.network, Tdnnf) else "runtime"

    def logits(self, task: Chain, name: str, tell: Tell) -> Mapping[str, Any]:
        """Logits (T', C) of a set's utterances."""
        told = noted(tell, f"{name}: network")
        if isinstance(self.network, Tdnnf):
            return task.logits(self.network, name, told)
        with engines.on_one_core():
            return task.heard(self.network.logits, name, told)


def list_length(place: Place, row: str) -> int:
    """Hypotheses an utterance: a list where one is needed, else the best path alone, far faster."""
    rescored = place.recipe.decode.nbest if row in place.recipe.lm.rows else 1
    return max(rescored, place.recipe.lhuc.hyps if row in place.recipe.lhuc.rows else 1)


def decode(
    place: Place, part: str, path: Path, out: Path, tuned: Mapping[str, float], tell: Tell
) -> dict[str, Any]:
    """N-best lists of every test set of a part into ``out``, and errors of the best; WER and speeds.

    Where no list is needed (`list_length`) each is of the best path alone.  The split dev, where rescoring is
    tuned on it, is decoded too but is no test set.
    RTF is of one core: seconds of work for a second of speech, of the network, of the search for the best
    path, and of lattices and lists.
    """
    hearing, sets = Hearing.of(place, path), {}
    decoder, length = make_decoder(place, part, tuned), list_length(place, path.parent.name)
    for name in place.decoded_sets(part):
        task = listening(place, part, name)
        store, ids = task.stores[name], task.ids[name]
        began = time.process_time()
        logits = hearing.logits(task, name, tell)
        network = time.process_time() - began
        began = time.process_time()
        best = [_best(decoder, each, f"{path}: {name}, '{utt_id}'") for utt_id, each in logits.items()]
        search = time.process_time() - began
        began = time.process_time()
        lists, times = [], {}
        for done, (utt_id, each) in enumerate(logits.items(), 1):
            hyps = decoder.nbest(each, length) if length > 1 else [best[done - 1]]
            times[utt_id] = [list(pair) for pair in hyps[0].word_times]
            ref = store.texts[store.place[utt_id]]
            lists.append(to_nbest(utt_id, hyps, ref, decoder.acoustic_scale, decoder.word_penalty))
            tell(done, len(logits), f"{name}: search")
        listing = time.process_time() - began
        write_nbest(out / f"{name}.nbest.jsonl", lists)
        write_json(out / f"{name}.times.json", times)
        frames = sum(store.frames[store.place[utt_id]] for utt_id in ids)
        found = errors_of(store, lists)
        write_atomic(out / f"{name}.errors.jsonl", to_jsonl(found))
        sets[name] = {
            "wer": wer(found),
            "rtf_network": network / (frames / 100),
            "rtf_search": search / (frames / 100),
            "rtf_nbest": listing / (frames / 100) if length > 1 else None,
        }
    tests = place.test_ids(part)
    return {
        "sets": {name: found for name, found in sets.items() if name in tests},
        "others": {name: found for name, found in sets.items() if name not in tests},
        "engine": hearing.engine,
    }


def _best(decoder: Decoder, logits: Any, what: str) -> Hypothesis:
    """The best path; ValueError says ``what`` could not be decoded."""
    try:
        return decoder.best(logits)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def describe(path: Path) -> dict[str, Any]:
    """Sizes and plan of the network in a packed file."""
    saved = load_acoustic(path)
    return {**lm.describe(path, saved), "bottlenecks": list(saved.model.config.bottlenecks)}


_EMPTY = torch.zeros(0, dtype=torch.int64)
_NO_GRAPH = Graph(_EMPTY, _EMPTY, _EMPTY, torch.zeros(0), torch.zeros(1), torch.zeros(1))
