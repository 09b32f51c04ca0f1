"""The stages of a hybrid recogniser: corpus, features, alignment, graphs, network, words.

    corpus ─▶ features ─▶ alignment ─▶ pdf map ─▶ LF-MMI training ─▶ packed file ─▶ n-best lists ─▶ errors

Every part of the data (all training speakers, or all but one fold) has its own alignment, n-gram, networks.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from greenasr.compress.fit import OnStep, Training, fit_
from greenasr.compress.none import NoCompression
from greenasr.compress.upkeep import Upkeep
from greenasr.data.audio import samples
from greenasr.data.augment import SpecAugment
from greenasr.data.corpora import (
    corpus_lexicon,
    guess_kind,
    load_cuts,
    read_corpus,
    save_cuts,
    with_subsets,
    words,
)
from greenasr.data.feature_store import FeatureStore, extract
from greenasr.data.features import Features
from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.data.ivectors import load_vectors
from greenasr.data.lexicon import SPELLED, Lexicon, graphemes
from greenasr.decode.alignment import read_alignments, write_alignments
from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.chain_graphs import denominator_graph, numerator_graph
from greenasr.decode.context import PdfMap
from greenasr.decode.graph import DecodingGraph, cached_graph
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.nbest import NBest, write_nbest
from greenasr.decode.phone_lm import PhoneLm, estimate
from greenasr.decode.tune_scale import tune
from greenasr.decode.wfst import Decoder, to_nbest
from greenasr.models.tdnnf import Tdnnf, semi_orthogonal_step_
from greenasr.ops.lfmmi import Graph
from greenasr.pipeline.acoustic_models import Units, load_acoustic, save_acoustic
from greenasr.pipeline.hybrid_recipe import HybridRecipe
from greenasr.roles import Compressor
from greenasr.score.errors import Errors, count_errors, to_jsonl, wer
from greenasr.tasks.chain import Chain, frame_targets, original
from greenasr.tasks.flat_start import FlatStart, flat_start
from greenasr.tasks.flat_start import Stage as Passes
from greenasr.tasks.gmm_feats import Frontend

Tell = Callable[[int, int, str], None]
ALL = "all"
FOLD_SEED = 1


@dataclass(frozen=True, eq=False)
class Place:
    """Where recognisers are made: the recipe, its run folder, the user's corpus."""

    recipe: HybridRecipe
    run: Path
    data: Path | None = None
    device: str = "cpu"
    jobs: int = 1

    @property
    def parts(self) -> tuple[str, ...]:
        """All training speakers, and all but each fold."""
        return (ALL, *(f"fold{k}" for k in range(self.recipe.corpus.folds)))

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits of the corpus by name, as found in its folder."""
        return tuple(read_json(self.run / "corpus" / "splits.json"))

    @property
    def tests(self) -> tuple[str, ...]:
        """The test sets."""
        corpus = self.recipe.corpus
        return corpus.tests or tuple(s for s in self.splits if s not in (corpus.train, corpus.dev))

    def store(self, split: str) -> FeatureStore:
        """The features of a split."""
        return FeatureStore.open(read_json(self.run / "features" / "folders.json")[split])

    def store_of(self, part: str, name: str) -> FeatureStore:
        """The features that hold a set of a part: its own, or for a fold those of the training split."""
        return self.store(name if part == ALL else self.recipe.corpus.train)

    @cached_property
    def lexicon(self) -> Lexicon:
        """The corpus's lexicon."""
        return Lexicon.from_json(read_json(self.run / "corpus" / "lexicon.json"))

    def ivectors(self, part: str, name: str) -> dict[str, NDArray[np.float32]] | None:
        """A part's i-vectors of a set by utterance, (D,) each; None where the recipe has none."""
        if not self.recipe.features.ivectors:
            return None
        return load_vectors(self.run / part / "ivectors" / f"{name}.npz")

    def fold(self, part: str) -> frozenset[str]:
        """Speakers that a part does not train on: every n-th of them in an order by `FOLD_SEED`."""
        if part == ALL:
            return frozenset()
        store = self.store(self.recipe.corpus.train)
        pairs = zip(store.ids, store.speakers, strict=True)
        speakers = sorted({speaker for utt_id, speaker in pairs if original(utt_id)[1] == 1.0})
        random.Random(FOLD_SEED).shuffle(speakers)
        return frozenset(speakers[int(part.removeprefix("fold")) :: self.recipe.corpus.folds])

    def training_ids(self, part: str) -> list[str]:
        """Utterances that a part trains on, copies at other speeds included."""
        store, held = self.store(self.recipe.corpus.train), self.fold(part)
        rows = zip(store.ids, store.speakers, strict=True)
        return [utt_id for utt_id, speaker in rows if original(speaker)[0] not in held]

    def test_ids(self, part: str) -> dict[str, list[str]]:
        """Utterances of each test set of a part: the corpus's own sets, or the fold held out."""
        if part == ALL:
            return {name: list(self.store(name).ids) for name in self.tests}
        store, held = self.store(self.recipe.corpus.train), self.fold(part)
        rows = zip(store.ids, store.speakers, strict=True)
        return {part: [utt_id for utt_id, speaker in rows if speaker in held]}

    def transcripts(self, part: str) -> list[list[str]]:
        """The words of every utterance that a part trains on, each said once."""
        store = self.store(self.recipe.corpus.train)
        ids = [utt_id for utt_id in self.training_ids(part) if original(utt_id)[1] == 1.0]
        return [store.texts[store.place[utt_id]].split() for utt_id in ids]

    def decoded_sets(self, part: str) -> list[str]:
        """The test sets of a part, and the split dev where rescoring is tuned on it."""
        corpus, names = self.recipe.corpus, list(self.test_ids(part))
        tunes = self.recipe.lm.rows and not corpus.folds and corpus.dev not in names
        return [*names, corpus.dev] if tunes else names


def make_corpus(place: Place, folder: Path, tell: Tell) -> dict[str, Any]:
    """Cuts of every split, and the lexicon with what it lacks."""
    corpus = place.recipe.corpus
    if not corpus.source:
        from greenasr.data.generated import generate_speech

        utterances = corpus.utterances or min(500, max(10, round(500 * corpus.hours)))
        generate_speech(
            folder, corpus.hours, corpus.seeds[0], max(1, place.jobs), tell, utterances, corpus.domain
        )
        names = [path.name.removesuffix(".cuts.jsonl.gz") for path in sorted(folder.glob("*.cuts.jsonl.gz"))]
        write_json(folder / "splits.json", names)
        return {"splits": names}
    if place.data is None:
        raise ValueError(f"'{place.recipe.title}' is made from {corpus.source}: give its folder with --data.")
    arpa = place.recipe.decode.arpa
    if arpa and not (place.data / arpa).is_file():
        raise ValueError(f"{place.data / arpa}: no such file, which [decode] arpa names.")
    kind = corpus.kind or guess_kind(place.data / corpus.source)
    found = read_corpus(place.data / corpus.source, kind, progress=_noted(tell, "headers"))
    found = with_subsets(found, corpus.tests)
    if corpus.train not in found:
        raise ValueError(
            f"{place.data / corpus.source}: no split '{corpus.train}', found {', '.join(found)}."
        )
    wanted = {corpus.train, corpus.dev, *corpus.tests} if corpus.tests else set(found)
    if lacking := set(corpus.tests) - set(found):
        raise ValueError(
            f"{place.data / corpus.source}: no test set '{min(lacking)}', found {', '.join(found)}."
        )
    found = {split: cuts for split, cuts in found.items() if split in wanted}
    for split, cuts in found.items():
        save_cuts(folder / f"{split}.cuts.jsonl.gz", cuts)
    counts = Counter(word for cut in found[corpus.train] for word in words(cut))
    lexicon = None
    if corpus.lexicon:
        lexicon = corpus_lexicon(place.data / corpus.lexicon, kind, stress=corpus.stress)
    missing = lexicon.missing(counts.elements()) if lexicon else []
    if lexicon is None or corpus.grapheme and missing:
        spelled = graphemes([word for word, _ in missing], SPELLED) if lexicon else graphemes(counts)
        lexicon = lexicon.extended(spelled) if lexicon else spelled
    elif missing:
        word, near = missing[0]
        raise ValueError(
            f"{place.data / corpus.lexicon}: {len(missing)} words of the training text lack a pronunciation, "
            f"the first is '{word}' (near '{near}'): add them, or set grapheme = true to spell them."
        )
    write_json(folder / "lexicon.json", lexicon.to_json())
    write_json(folder / "splits.json", list(found))
    hours = {split: sum(cut.duration for cut in cuts) / 3600 for split, cuts in found.items()}
    return {"splits": list(found), "hours": hours, "words": len(lexicon.words)}


def make_features(place: Place, folder: Path, tell: Tell) -> dict[str, Any]:
    """Features of every split; copies at other speeds of the training split alone."""
    settings = place.recipe.features
    features = Features(settings.kind, settings.bins, settings.cmvn)  # type: ignore[arg-type]
    folders, frames = {}, {}
    for split in place.splits:
        cuts = load_cuts(place.run / "corpus" / f"{split}.cuts.jsonl.gz")
        speeds = place.recipe.corpus.speeds if split == place.recipe.corpus.train else (1.0,)
        store = extract(
            cuts, folder / split, features, samples, speeds=speeds, jobs=place.jobs,
            progress=_noted(tell, f"features of {split}"),
        )  # fmt: skip
        folders[split], frames[split] = str(store.folder), int(store.frames.sum())
    write_json(folder / "folders.json", folders)
    return {"frames": frames}


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
    settings = place.recipe.decode
    given = place.data / settings.arpa if place.data and settings.arpa else None
    lm = read_arpa(given) if given else kneser_ney(place.transcripts(part), settings.order).lm
    write_arpa(lm, folder / "lm.arpa.gz")
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
) -> Path:
    """Train a network into ``folder/model.packed``, and ``train.packed`` with the cross-entropy head.

    Without a compressor the factors are kept semi-orthogonal.
    """
    bit_map = getattr(compressor, "bit_map", None)
    chosen = compressor or Upkeep(NoCompression(), semi_orthogonal_step_)
    quantized = fit_(model.to(place.device), task, chosen, training, run=folder, on_step=on_step)
    model = model.cpu()
    recipe = {"title": place.recipe.title}
    if bit_map is None:
        save_acoustic(folder / "train.packed", model, units, recipe)
    else:
        write_json(folder / "bit_map.json", bit_map.to_json())
    save_acoustic(folder / "model.packed", model.without_xent(), units, recipe, quantized, bit_map)
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
    logits = task.logits(load_acoustic(path).model, name, _noted(tell, f"{name}: network"))
    store = task.stores[name]
    refs = [store.texts[store.place[utt_id]].split() for utt_id in logits]
    tell(0, 1, f"{name}: search")
    found = tune(make_decoder(place, part, {}), list(logits.values()), refs)
    tell(1, 1, f"{name}: search")
    return found.to_json()


def list_length(place: Place, row: str) -> int:
    """Hypotheses an utterance: a list where the row is rescored, else the best path alone, far faster."""
    return place.recipe.decode.nbest if row in place.recipe.lm.rows else 1


def decode(
    place: Place, part: str, path: Path, out: Path, tuned: Mapping[str, float], tell: Tell
) -> dict[str, Any]:
    """N-best lists of every test set of a part into ``out``, and errors of the best; WER and speeds.

    Where no list is needed (`list_length`) each is of the best path alone.  The split dev, where rescoring is
    tuned on it, is decoded too but is no test set.
    RTF is of one core: seconds of work for a second of speech, of the network, of the search for the best
    path, and of lattices and lists.
    """
    saved, sets = load_acoustic(path), {}
    decoder, length = make_decoder(place, part, tuned), list_length(place, path.parent.name)
    for name in place.decoded_sets(part):
        task = listening(place, part, name)
        store, ids = task.stores[name], task.ids[name]
        began = time.process_time()
        logits = task.logits(saved.model, name, _noted(tell, f"{name}: network"))
        network = time.process_time() - began
        began = time.process_time()
        best = [decoder.best(each) for each in logits.values()]
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
        found = errors(store, lists)
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
    }


def describe(path: Path) -> dict[str, Any]:
    """Sizes and plan of the network in a packed file."""
    saved = load_acoustic(path)
    plan = saved.bit_map
    return {
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in saved.model.parameters()),
        "bits": 32 if plan is None else plan.average_bits,
        "plan": None if plan is None else dict(plan.bits),
        "bottlenecks": list(saved.model.config.bottlenecks),
    }


def errors(store: FeatureStore, lists: Sequence[NBest]) -> list[Errors]:
    """Errors of every list's best hypothesis, with its speaker."""
    return [
        count_errors(e.id, (e.ref or "").split(), e.hyps[0].split(), store.speakers[store.place[e.id]])
        for e in lists
    ]


def _noted(tell: Tell, note: str) -> Callable[[int, int], None]:
    return lambda done, of: tell(done, of, note)


_EMPTY = torch.zeros(0, dtype=torch.int64)
_NO_GRAPH = Graph(_EMPTY, _EMPTY, _EMPTY, torch.zeros(0), torch.zeros(1), torch.zeros(1))
