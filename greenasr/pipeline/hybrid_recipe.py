"""A recipe of hybrid recognisers: everything that GREEN's tables depend on, read from one TOML file.

[corpus] speech and lexicon   [features] what networks see   [align] flat start and tied states
[model] TDNN-F   [chain] LF-MMI   [train] the float model   [search] bottlenecks   [compress] as for LMs
[decode] graph and search   [lm] rescoring   [lhuc] adaptation   [[row]] a line of the table
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training
from greenasr.data.generated_splits import parts_of
from greenasr.ops.bits import WIDTHS
from greenasr.pipeline.recipe import PLANNED, Compress, Row, Windows, check_average, check_model
from greenasr.pipeline.sections import make, read_toml
from greenasr.tasks.networks import configure


@dataclass(frozen=True)
class Corpus:
    """Speech, relative to ``--data``; without ``source`` it is generated, ``hours`` of training.

    ``domain`` is what is said, one of `data.generated_splits.DOMAINS`; each test set has ``utterances``,
    with 0 of them 500, or fewer below an hour of training.
    With ``folds`` every row is also trained on all but one of so many groups of training speakers, and tested
    on that group; ``seeds`` repeat everything.  ``tests`` are splits, or all but train and dev when empty;
    "eval2000.callhm" is a subset of a split that the corpus knows.
    """

    source: str = ""
    kind: str = ""
    lexicon: str = ""
    stress: bool = True
    grapheme: bool = False
    hours: float = 1.0
    domain: str = "speech"
    utterances: int = 0
    train: str = "train"
    dev: str = "dev"
    tests: tuple[str, ...] = ()
    folds: int = 0
    seeds: tuple[int, ...] = (0,)
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)

    def __post_init__(self) -> None:
        """Refuse numbers that give no run."""
        if self.folds == 1 or self.folds < 0 or not self.seeds or self.hours <= 0:
            raise ValueError("[corpus] needs hours above 0, no folds or two and more, and a seed.")
        if not self.source:
            parts_of(self.domain)
        if self.utterances < 0:
            raise ValueError("[corpus] utterances of a test set must not be negative.")
        if 1.0 not in self.speeds:
            raise ValueError("[corpus] speeds must hold 1.0: the speech as it is.")


@dataclass(frozen=True)
class FeatureSettings:
    """See `greenasr.data.features.Features`; ``ivectors`` is their dimension, 0 for none.

    ``ivector_gaussians`` are those of the background model behind them.
    """

    kind: str = "fbank"
    bins: int = 40
    cmvn: str = "utterance"
    ivectors: int = 0
    ivector_gaussians: int = 256


@dataclass(frozen=True)
class AlignSettings:
    """Flat start: passes and Gaussians of the monophones; leaves of the chain's tree, 0 for left biphones.

    Biphones seen less than ``min_count`` times share the phone's pdfs.
    """

    passes: int = 20
    gaussians: int = 800
    leaves: int = 0
    min_count: int = 10


@dataclass(frozen=True)
class ChainSettings:
    """See `greenasr.tasks.chain.Chain`; masks as in `SpecAugment`; ``phone_order`` of the denominator."""

    frames: int = 7000
    xent: float = 0.1
    leaky: float = 1e-5
    l2: float = 5e-5
    phone_order: int = 3
    freq_masks: int = 1
    freq_width: int = 6
    time_masks: int = 1
    time_width: int = 15


@dataclass(frozen=True)
class SearchSettings:
    """Bottleneck search: candidates, passes over the speech for weights, passes for choices, the penalty.

    With ``target``, a share of the manual network's parameters (without its cross-entropy branch), choices
    are trained without a price and the likeliest network of that size is taken; with 0 the penalty decides
    alone, as in the paper.
    """

    dims: tuple[int, ...] = (25, 50, 80, 100, 120, 160, 200, 240)
    method: str = "pipegumbel"
    epochs: float = 6
    choice_epochs: float = 20
    choice_lr: float = 0.05
    eta: float = 0.1
    target: float = 0.0
    held_out: float = 0.05


@dataclass(frozen=True)
class DecodeSettings:
    """N-gram order of the training transcripts, beams, length of n-best lists.

    With ``arpa``, a file relative to ``--data``, the graph is of that n-gram instead.
    Acoustic scale and word penalty are tuned with the manual network, on the split dev, or where there are
    folds on another part's fold, unless ``tune`` is false.
    """

    order: int = 3
    arpa: str = ""
    tune: bool = True
    beam: float = 15.0
    lattice_beam: float = 8.0
    nbest: int = 20
    acoustic_scale: float = 1.0
    word_penalty: float = 0.0


@dataclass(frozen=True)
class LhucSettings:
    """Unsupervised adaptation of the ``rows`` named: passes over a speaker's speech by the words of pass one.

    ``layers`` are names of hidden units, all where empty.
    """

    rows: tuple[str, ...] = ()
    epochs: float = 8
    lr: float = 0.05
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LmSettings:
    """Rescoring of the ``rows`` named by a Transformer LM, full-precision and of ``bits`` on average.

    Its text is the part's training transcripts and the files ``text``, relative to ``--data``.  ``model``,
    ``task``, ``train`` and ``compress`` are the sections of a recipe of language models, here [lm.model] and
    so on; the low-bit model has a plan by ``plan`` and is trained onto it by ``fit``.
    """

    rows: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    tokenizer: str = "words"
    vocab: int = 10_000
    bits: float = 2.0
    plan: str = "hessian"
    fit: str = "admm"
    model: Mapping[str, Any] = field(default_factory=lambda: {"layers": 2, "dim": 64, "heads": 4})
    task: Windows = Windows(length=32, batch=16, stride=16, by_sentence=True)
    train: Training = Training(epochs=10, lr=2e-3)
    compress: Compress = Compress()

    def __post_init__(self) -> None:
        """Refuse what would fail after hours of acoustic training."""
        if self.plan not in ("hessian", "kl"):
            raise ValueError(f"[lm] plan is '{self.plan}': choose hessian or kl.")
        if self.fit not in COMPRESSORS:
            raise ValueError(f"[lm] fit is '{self.fit}': choose from {', '.join(COMPRESSORS)}.")
        if self.tokenizer not in ("words", "pieces"):
            raise ValueError(f"[lm] tokenizer is '{self.tokenizer}': choose words or pieces.")
        check_model(self.model, self.compress)
        check_average("[lm]", self.bits, self.compress.widths)


@dataclass(frozen=True)
class HybridRow(Row):
    """A line: as for language models, and which ``network`` it has: "manual", or the "searched" one."""

    network: str = "searched"

    @property
    def name(self) -> str:
        """The folder of the row."""
        if self.method == "float":
            return "float" if self.network == "manual" else "compact"
        return super().name


@dataclass(frozen=True)
class HybridRecipe:
    """One set of tables."""

    title: str
    corpus: Corpus
    features: FeatureSettings
    align: AlignSettings
    model: Mapping[str, Any]
    chain: ChainSettings
    train: Training
    search: SearchSettings
    compress: Compress
    decode: DecodeSettings
    rows: tuple[HybridRow, ...]
    lm: LmSettings = LmSettings()
    lhuc: LhucSettings = LhucSettings()

    def to_json(self) -> dict[str, Any]:
        """Plain data, to be kept beside the results; runs that are older than a setting have its default."""
        value = dataclasses.asdict(self)
        for name in ("domain", "utterances"):
            if value["corpus"][name] == getattr(Corpus, name):
                del value["corpus"][name]
        return value


SECTIONS: dict[str, type[Any]] = {
    "corpus": Corpus,
    "features": FeatureSettings,
    "align": AlignSettings,
    "chain": ChainSettings,
    "train": Training,
    "search": SearchSettings,
    "compress": Compress,
    "decode": DecodeSettings,
    "lhuc": LhucSettings,
}


def is_hybrid(path: str | Path) -> bool:
    """Whether a recipe says ``kind = "hybrid"``."""
    return bool(read_toml(path).get("kind") == "hybrid")


def load_hybrid(path: str | Path) -> HybridRecipe:
    """Read a TOML recipe; ValueError names the file and the key that is unknown, missing or odd."""
    value = read_toml(path)
    value.pop("kind", None)
    try:
        made: dict[str, Any] = {name: make(cls, value.pop(name, {}), name) for name, cls in SECTIONS.items()}
        recipe = HybridRecipe(
            title=value.pop("title"),
            model=value.pop("model"),
            rows=tuple(make(HybridRow, row, "row") for row in value.pop("row", [])),
            lm=_language_model(value.pop("lm", {})),
            **made,
        )
        _check(recipe)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing; every recipe has it.") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if value:
        known = ", ".join(f.name for f in dataclasses.fields(HybridRecipe))
        raise ValueError(f"{path}: unknown key '{next(iter(value))}'; a recipe has {known}, rows as [[row]].")
    return recipe


def _language_model(value: Any) -> LmSettings:
    """The section [lm] with its sections within."""
    kinds: dict[str, type[Any]] = {"task": Windows, "train": Training, "compress": Compress}
    if not isinstance(value, dict):
        raise ValueError("[lm] must be a table.")
    within = {key: make(cls, value[key], f"lm.{key}") for key, cls in kinds.items() if key in value}
    return make(LmSettings, {**value, **within}, "lm")


def _check(recipe: HybridRecipe) -> None:
    """Refuse what would fail late."""
    inputs = {"feat_dim": recipe.features.bins, "ivector_dim": recipe.features.ivectors}
    configure("tdnnf", {**recipe.model, **inputs, "n_pdfs": 1})
    if recipe.decode.arpa and not recipe.corpus.source:
        raise ValueError("[decode] arpa is of a corpus on disk: name its [corpus] source too.")
    names = [row.name for row in recipe.rows]
    if len(set(names)) != len(names) or "float" not in names:
        raise ValueError(
            f"rows must differ and one must be method 'float', network 'manual'; got {', '.join(names)}."
        )
    for section, chosen in (("lhuc", recipe.lhuc.rows), ("lm", recipe.lm.rows)):
        if unknown := set(chosen) - set(names):
            raise ValueError(f"[{section}] rows names '{min(unknown)}': choose from {', '.join(names)}.")
    if recipe.lm.rows and "float" not in recipe.lm.rows:
        raise ValueError("[lm] rows lacks 'float', the full-precision system that others are held against.")
    for row in recipe.rows:
        if row.network not in ("manual", "searched"):
            raise ValueError(f"row '{row.name}' has network '{row.network}': choose manual or searched.")
        widths = set(recipe.compress.widths)
        if row.method == "search":
            widths = {int(r.bits) for r in recipe.rows if (r.method, r.network) == ("admm", row.network)}
            if len(widths) < 2:
                raise ValueError(f"row '{row.name}' chooses between admm rows of its network: give two.")
        if row.method in PLANNED:
            check_average(f"row '{row.name}'", row.bits, sorted(widths))
    if odd := set(recipe.compress.widths) - set(WIDTHS):
        raise ValueError(f"[compress] widths has {min(odd)}: choose from {', '.join(map(str, WIDTHS))}.")
