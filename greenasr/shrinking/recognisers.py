"""Our own recognisers as tasks of the search: hybrid, transducer and CTC, from a packed file and cuts.

    MODEL + train, dev, test cuts ─▶ features in OUT ─▶ loss of training, words of dev and test

A hybrid is trained by LF-MMI alone: the numerators need its lexicon and pdf map, which its file has, the
phone n-gram is estimated on the training transcripts; its cross-entropy head, which needs an alignment, is
left off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from greenasr.data import audio
from greenasr.data.augment import SpecAugment
from greenasr.data.corpora import load_cuts
from greenasr.data.feature_store import FeatureStore, extract
from greenasr.data.features import Features
from greenasr.data.files import digest
from greenasr.data.lexicon import Lexicon
from greenasr.decode.arpa import read_arpa
from greenasr.decode.chain_graphs import denominator_graph, numerator_graph
from greenasr.decode.ctc import PrefixBeam
from greenasr.decode.graph import DecodingGraph, cached_graph
from greenasr.decode.labels import words_of
from greenasr.decode.nbest import NBest
from greenasr.decode.ngram import UNK
from greenasr.decode.phone_lm import estimate
from greenasr.decode.transducer import log_softmax
from greenasr.decode.transducer_beam import BeamSearch
from greenasr.decode.wfst import Decoder, to_nbest
from greenasr.pipeline import engines
from greenasr.pipeline.acoustic_models import load_acoustic
from greenasr.pipeline.ctc_models import load_ctc
from greenasr.pipeline.models import save
from greenasr.pipeline.sections import older
from greenasr.pipeline.self_tests import measured
from greenasr.pipeline.transducer_models import load_transducer
from greenasr.pipeline.units import reward_of
from greenasr.roles import BitMap, Quantized
from greenasr.runtime import engine as runtime
from greenasr.runtime import format as packed_format
from greenasr.runtime.activations import Rounding
from greenasr.runtime.calibrate import calibrated
from greenasr.score.scored import Scored, said
from greenasr.shrinking.board import Board, Job, Tell
from greenasr.shrinking.task import SETS
from greenasr.tasks.chain import Chain, original
from greenasr.tasks.ctc import Ctc, alignable_ids
from greenasr.tasks.networks import CTC_MODELS, TRANSDUCERS
from greenasr.tasks.transducer import Transduction, carried

Hear = Callable[[Any, str], Mapping[str, Sequence[str]]]  # model, split -> words of every utterance
T = TypeVar("T")
MOST = 5  # labels an encoder frame of a transducer
PHONE_ORDER = 3


@dataclass(frozen=True, eq=False)
class ByGraph:
    """How a hybrid finds words, and lists of hypotheses, on either engine."""

    listening: Chain
    decoder: Decoder

    def __call__(self, model: Any, split: str) -> dict[str, list[str]]:
        """The best path's words of every utterance."""
        return {u: list(self.decoder.best(each).words) for u, each in self.logits(model, split).items()}

    def lists(self, model: Any, split: str, most: int) -> list[NBest]:
        """At most so many hypotheses of every utterance."""
        store, decoder = self.listening.stores[split], self.decoder
        scale, penalty = decoder.acoustic_scale, decoder.word_penalty
        return [
            to_nbest(u, decoder.nbest(each, most), store.texts[store.place[u]], scale, penalty)
            for u, each in self.logits(model, split).items()
        ]

    def logits(self, model: Any, split: str) -> Mapping[str, Any]:
        """Of every utterance."""
        by_torch = isinstance(model, nn.Module)
        return self.listening.logits(model, split) if by_torch else self.listening.heard(model.logits, split)


@dataclass(frozen=True)
class Hearing:
    """How speech is cut into batches of ``frames``, at which ``speeds`` it teaches, and how words are found.

    ``beam`` is a graph's width in cost or a number of hypotheses, each kind's usual one where it is None.
    ``label_reward`` is a transducer's, that of the recipe behind its file where it is None.
    """

    frames: int = 10_000
    cost_frames: int = 1500
    speeds: tuple[float, ...] = (1.0,)
    beam: float | None = None
    acoustic_scale: float = 1.0
    word_penalty: float = 0.0
    label_reward: float | None = None
    masks: bool = True

    @property
    def augment(self) -> SpecAugment | None:
        """Masks of training."""
        return SpecAugment(1, 6, 1, 15) if self.masks else None


@dataclass(frozen=True, eq=False)
class SpeechTask:
    """A task on feature stores, and how its model hears."""

    inner: Any  # Chain, Transduction or Ctc
    hear: Hear
    contents: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, Any]
    costs: Any  # as ``inner``, in the small batches of costs

    def loss(self, model: Any, batch: Any, *, twice_differentiable: bool = False) -> Tensor:
        """The loss of training."""
        found: Tensor = self.inner.loss(model, batch, twice_differentiable=twice_differentiable)
        return found

    @property
    def can_teach(self) -> bool:
        """Whether outputs are comparable frame by frame; a transducer's depend on its labels."""
        return hasattr(self.inner, "teacher")

    def outputs(self, model: Any, batch: Any) -> Tensor:
        """Logits of every frame."""
        found: Tensor = self.inner.outputs(model, batch)
        return found

    def taught(self, teacher: Any, share: float) -> SpeechTask:
        """The task with a teacher."""
        return replace(self, inner=replace(self.inner, teacher=teacher, share=share))

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        """One pass; "costs" is training in small batches without masks."""
        small = split == "costs"
        found: Iterator[Any] = (self.costs if small else self.inner).batches(
            "train" if small else split, seed
        )
        return found

    def n_batches(self, split: str) -> int:
        """How many batches a pass has, about."""
        return int(self.inner.n_batches(split))

    def score(self, model: Any, split: str) -> list[Scored]:
        """Words of every utterance against its transcript, by a network of torch or of the runtime."""
        store, found = self.inner.stores[split], self.hear(model, split)
        rows = []
        for utt_id, words in found.items():
            place = store.place[utt_id]
            rows.append(said(utt_id, store.texts[place].split(), words, store.speakers[place]))
        return rows

    def utterances(self, split: str) -> Mapping[str, str]:
        """Id -> where its sound lies."""
        return self.contents[split]

    def describe(self) -> Mapping[str, Any]:
        """What figures depend on beside model and speech."""
        return self.settings


@dataclass(frozen=True, eq=False)
class OurFormat:
    """Packed files of our own networks with all around them, as every other command reads them."""

    units: Any
    recipe: Mapping[str, Any]
    open: Callable[[Path], Any]

    def save(
        self, path: Path, model: nn.Module, quantized: Mapping[str, Quantized] | None, bit_map: BitMap | None
    ) -> int:
        """Write a model; bytes on disk."""
        return save(path, model, self.units, self.recipe, quantized, bit_map)

    def judged(self, path: Path, activations: str, device: str) -> tuple[Any, str]:
        """The runtime's network, as the file says; torch's of the full model.

        With "float32" torch's also of files that do not name those activations themselves.
        """
        packed = engines.read(path)
        kind = packed.rounding.kind
        if engines.engine_of_row(packed, "runtime") == "runtime" and activations in (kind, "auto", "static"):
            return runtime.build(packed, where=path), kind
        return self.open(path).model.to(device), "float32"

    def calibrated(self, path: Path, hear: Callable[[Any], T]) -> tuple[Rounding, T]:
        """Static steps of a file's activations, and what ``hear`` gave of its network in float32."""
        return calibrated(engines.read(path), hear)

    def with_rounding(self, path: Path, to: Path, rounding: Rounding) -> int:
        """Write the file anew as ``to`` with other activations, and a self test of these; bytes on disk."""
        packed = replace(engines.read(path), rounding=rounding)
        return packed_format.write(to, replace(packed, self_test=measured(packed)))


def recogniser(
    kind: str,
    path: Path,
    cuts: Mapping[str, Path],
    board: Board,
    lm: Path | None = None,
    hearing: Hearing | None = None,
    jobs: int = 1,
) -> tuple[nn.Module, SpeechTask, OurFormat]:
    """Model, task and package of a packed recogniser of a kind of network, and the cuts of three sets.

    Raises ValueError where a hybrid has no ``lm`` (an ARPA file), or others have one.
    """
    hearing = hearing or Hearing()
    if kind in TRANSDUCERS or kind in CTC_MODELS:
        if lm is not None:
            raise ValueError(f"{path}: a {kind} has no decoding graph: leave --lm out.")
        opened: Any = load_transducer if kind in TRANSDUCERS else load_ctc
        make: Any = _transducer if kind in TRANSDUCERS else _ctc
    else:
        if lm is None:
            raise ValueError(
                f"{path}: a hybrid recogniser hears with a grammar: give an ARPA file with --lm."
            )
        opened, make = load_acoustic, partial(_hybrid, lm=lm, board=board)
    saved = opened(path)
    if kind in TRANSDUCERS:
        hearing = replace(hearing, label_reward=reward_of(saved.recipe, hearing.label_reward))
    elif hearing.label_reward is not None:
        raise ValueError(f"{path}: a {kind} has no reward a label: leave --label-reward out.")
    if saved.bit_map is not None:
        bits = saved.bit_map.average_bits
        raise ValueError(f"{path}: is quantized already, to {bits:.2g} bits: give the float model.")
    model = saved.model.without_xent() if hasattr(saved.model, "without_xent") else saved.model
    stores = {split: _store(board, split, cuts[split], saved.units.features, hearing, jobs) for split in SETS}
    contents = {split: _contents(cuts[split]) for split in SETS}
    inner, hear = make(model, saved.units, stores, hearing)
    settings = older({"kind": kind, "lm": digest(lm) if lm else None, **asdict(hearing)})
    costs = replace(inner, frames=hearing.cost_frames, augment=None)
    package = OurFormat(saved.units, {**saved.recipe, "shrunk_from": digest(path)}, opened)
    return model, SpeechTask(inner, hear, contents, settings, costs), package


def _store(
    board: Board, split: str, path: Path, features: Features, hearing: Hearing, jobs: int
) -> FeatureStore:
    """Features of a set of cuts, extracted by one worker."""
    speeds = hearing.speeds if split == "train" else (1.0,)
    name = f"features/{split}-{digest(path)}-{'-'.join(f'{s:g}' for s in speeds)}"

    def work(folder: Path, tell: Tell) -> dict[str, Any]:
        store = extract(
            load_cuts(path), folder, features, audio.samples, speeds=speeds, jobs=jobs,
            progress=lambda done, of: tell(done, of, f"features of {split}"),
        )  # fmt: skip
        return {"folder": store.folder.name, "utterances": len(store)}

    (result,) = board.do([Job(name, work)])
    return FeatureStore.open(board.run / name / result["folder"])


def _contents(path: Path) -> dict[str, str]:
    """Id of every cut -> the recording and second where it begins."""
    found = {}
    for cut in load_cuts(path):
        sources = [source.source for source in cut.recording.sources]
        found[cut.id] = f"{' '.join(map(str, sources))} {cut.start:.3f}"
    return found


def _transducer(
    model: Any, units: Any, stores: Mapping[str, FeatureStore], hearing: Hearing
) -> tuple[Transduction, Hear]:
    joined = model.config.frames_joined
    ids = {s: carried(stores[s], stores[s].ids, units.tokenizer, joined, MOST) for s in ("train", "dev")}
    check_ids(ids)
    task = Transduction(stores, units.tokenizer, ids, hearing.frames, hearing.augment)
    listening = replace(task, ids={})
    search = BeamSearch(int(hearing.beam or 4), 1, label_reward=hearing.label_reward or 0.0)

    def hear(model: Any, split: str) -> dict[str, list[str]]:
        decode = listening.decode if isinstance(model, nn.Module) else listening.heard
        found = decode(model, split, search)
        return {utt_id: task.words(hyps[0].labels).split() for utt_id, hyps in found.items()}

    return task, hear


def _ctc(model: Any, units: Any, stores: Mapping[str, FeatureStore], hearing: Hearing) -> tuple[Ctc, Hear]:
    stride = model.config.stride
    ids = {s: alignable_ids(stores[s], stores[s].ids, units.tokenizer, stride) for s in ("train", "dev")}
    check_ids(ids)
    task = Ctc(stores, units.tokenizer, ids, hearing.frames, hearing.augment)
    listening = replace(task, ids={})
    search = PrefixBeam(int(hearing.beam or 1), 1)

    def hear(model: Any, split: str) -> dict[str, list[str]]:
        if isinstance(model, nn.Module):
            found = listening.logprobs(model, split)
        else:
            store = stores[split]
            found = {utt_id: log_softmax(model.logits(store[utt_id])) for utt_id in store.ids}
        return {u: words_of(units.tokenizer, search(each)[0].labels).split() for u, each in found.items()}

    return task, hear


def _hybrid(
    model: Any,
    units: Any,
    stores: Mapping[str, FeatureStore],
    hearing: Hearing,
    *,
    lm: Path,
    board: Board,
) -> tuple[Chain, Hear]:
    if model.config.ivector_dim:
        raise ValueError(
            "the model reads i-vectors, which are not in its file: give one trained without them."
        )
    lexicon, pdf_map = units.lexicon, units.pdf_map
    spoken = {split: _spoken(stores[split], lexicon, split) for split in ("train", "dev")}
    prons = {u: [lexicon.prons[w] for w in words] for u, words in spoken["train"].items()}
    phone_lm = estimate(list(prons.values()), lexicon.phones, order=PHONE_ORDER)
    prons |= {u: [lexicon.prons[w] for w in words] for u, words in spoken["dev"].items()}
    numerators = {u: numerator_graph(each, phone_lm, pdf_map) for u, each in prons.items()}
    usable = {u for u, graph in numerators.items() if len(graph.src)}
    ids = {s: [u for u in stores[s].ids if original(u)[0] in usable] for s in ("train", "dev")}
    check_ids(ids)
    task = Chain(
        stores, denominator_graph(phone_lm, pdf_map), numerators, ids=ids, frames=hearing.frames, xent=0.0,
        augment=hearing.augment,
    )  # fmt: skip
    listening = replace(task, ids={})
    decoder = Decoder(
        _graph(board, lexicon, pdf_map, lm),
        hearing.acoustic_scale,
        hearing.word_penalty,
        hearing.beam or 15.0,
    )

    return task, ByGraph(listening, decoder)


def check_ids(ids: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for a set that the loss cannot use."""
    if empty := [split for split, chosen in ids.items() if not chosen]:
        raise ValueError(
            f"no utterance of {empty[0]} can be used by the loss: are these cuts of its language?"
        )


def _spoken(store: FeatureStore, lexicon: Lexicon, split: str) -> dict[str, list[str]]:
    """Words of the utterances that the lexicon can say; all of training must be such."""
    rows: Iterable[tuple[str, str]] = zip(store.ids, store.texts, strict=True)
    found = {u: text.split() for u, text in rows if original(u)[1] == 1.0 and text}
    said = {u: words for u, words in found.items() if all(word in lexicon.prons for word in words)}
    if split == "train" and len(said) < len(found):
        word = next(w for words in found.values() for w in words if w not in lexicon.prons)
        raise ValueError(
            f"{len(found) - len(said)} of {len(found)} training utterances have words that the model's "
            f"lexicon lacks, the first is '{word}': leave them out of the cuts."
        )
    return said


def _graph(board: Board, lexicon: Lexicon, pdf_map: Any, lm: Path) -> DecodingGraph:
    """The decoding graph in the run folder, made by one worker."""
    known = read_arpa(lm).ids
    if not any(word in known for word in lexicon.prons):
        raise ValueError(f"{lm}: has no word of the model's lexicon: give a grammar of its language.")
    unk = UNK if UNK in known else None
    name = f"graph-{digest(lm)}"
    make = partial(cached_graph, board.run / name / "hclg", lexicon, pdf_map, lm, unk=unk)

    def work(folder: Path, tell: Tell) -> dict[str, Any]:
        return {"states": make().meta["states"]}

    board.do([Job(name, work)])
    return make()
