"""What recipes of recognisers share, hybrid or transducer: corpus, features, rescoring, rows, reading.

[corpus] speech   [features] what networks see   [lm] rescoring   [compress] as for LMs   [[row]] a line
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args, get_type_hints

from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training
from greenasr.data.generated_splits import parts_of
from greenasr.ops.bits import WIDTHS
from greenasr.pipeline.engines import check_engine
from greenasr.pipeline.recipe import PLANNED, Compress, Row, Windows, check_average, check_model
from greenasr.pipeline.sections import make, older, read_toml

R = TypeVar("R", bound="SpeechRecipe")
LABELS = ("letters", "pieces", "words")


@dataclass(frozen=True)
class Corpus:
    """Speech, relative to ``--data``; without ``source`` it is generated, ``hours`` of training.

    ``domain`` is what is said, one of `data.generated_splits.DOMAINS`; each test set has ``utterances``,
    with 0 of them 500, or fewer below an hour of training.
    With ``folds`` every row is also trained on all but one of so many groups of training speakers, and tested
    on that group; ``seeds`` repeat everything.  ``tests`` are splits, or all but train and dev when empty;
    "eval2000.callhm" is a subset of a split that the corpus knows, "train-clean-100+dev-other" are both.
    ``held_out`` is the share of training speakers that are the split ``dev``, of a corpus that has none.
    With ``only_folds`` nothing is trained on all of the split: it is all the speech that there is.
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
    held_out: float = 0.0
    seeds: tuple[int, ...] = (0,)
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    only_folds: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that give no run."""
        if self.folds == 1 or self.folds < 0 or not self.seeds or self.hours <= 0:
            raise ValueError("[corpus] needs hours above 0, no folds or two and more, and a seed.")
        if self.only_folds and not self.folds:
            raise ValueError("[corpus] only_folds: say how many folds.")
        if not self.source:
            parts_of(self.domain)
        if self.utterances < 0:
            raise ValueError("[corpus] utterances of a test set must not be negative.")
        if not 0 <= self.held_out < 0.5:
            raise ValueError("[corpus] held_out is a share of the training speakers, 0 to 0.5.")
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
class LabelSettings:
    """What the network says: "letters", "pieces" of words, or "words", at most ``size`` of them.

    With ``packed``, a file relative to ``--data``, they are those of the network in it, from which the row
    "float" then begins.
    """

    kind: str = "pieces"
    size: int = 500
    packed: str = ""

    def __post_init__(self) -> None:
        """Refuse kinds that no tokenizer has."""
        if self.kind not in LABELS:
            raise ValueError(f"[labels] kind is '{self.kind}': choose {', '.join(LABELS)}.")


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


class DecodeSection(Protocol):
    """What corpus and rescoring need of [decode]."""

    @property
    def order(self) -> int:
        """Order of the n-gram of the training transcripts."""
        ...

    @property
    def arpa(self) -> str:
        """An n-gram to take instead, relative to ``--data``."""
        ...

    @property
    def nbest(self) -> int:
        """Length of lists."""
        ...

    @property
    def engine(self) -> str:
        """What hears the words of packed rows."""
        ...


@dataclass(frozen=True, kw_only=True)
class SpeechRecipe:
    """What every recipe of recognisers has; a kind narrows [decode] and rows, and adds sections of its own.

    Any field whose type is a dataclass is a section of the file; rows are of the type that the kind names.
    """

    title: str
    corpus: Corpus
    features: FeatureSettings
    model: Mapping[str, Any]
    train: Training
    compress: Compress
    decode: DecodeSection
    rows: tuple[Row, ...]
    lm: LmSettings = LmSettings()

    @property
    def noted(self) -> dict[str, Any]:
        """What the packed files of its rows say of it."""
        return {"title": self.title}

    @property
    def adapted(self) -> tuple[str, ...]:
        """Rows that are adapted to speakers."""
        return ()

    @property
    def lists_are_tuned(self) -> bool:
        """Whether rescoring has weights to tune, hence lists of the split dev to tune on."""
        return self.decode.order > 0 or bool(self.lm.rows)

    @property
    def ngram_in_first_pass(self) -> bool:
        """Whether the scores of lists hold the n-gram's."""
        return False

    def start_of(self, row: Row) -> str:
        """The full-precision row that a compressed one begins from."""
        return row.start

    def rivals(self, row: Row) -> tuple[Row, ...]:
        """The uniform rows of its network that a row of method "search" chooses from; none for others."""
        if row.method != "search":
            return ()
        start = self.start_of(row)
        return tuple(r for r in self.rows if r.method == "admm" and self.start_of(r) == start)

    def to_json(self) -> dict[str, Any]:
        """Plain data, to be kept beside the results; of settings that runs may lack, only what differs."""
        value = older(dataclasses.asdict(self))
        if not value.get("labels", {}).get("packed", True):
            del value["labels"]["packed"]
        for name in ("domain", "utterances", "held_out", "only_folds"):
            if value["corpus"][name] == getattr(Corpus, name):
                del value["corpus"][name]
        return value


def kind_of(path: str | Path) -> str:
    """What a recipe says it is: "hybrid", "transducer", "ctc", "keywords", or "" for language models."""
    return str(read_toml(path).get("kind", ""))


def load_speech(path: str | Path, recipe: type[R], check: Callable[[R], None]) -> R:
    """Read a TOML recipe; ValueError names the file and the key that is unknown, missing or odd."""
    value = read_toml(path)
    value.pop("kind", None)
    kinds = get_type_hints(recipe)
    row = get_args(kinds["rows"])[0]
    try:
        made: dict[str, Any] = {
            name: make(kind, value.pop(name, {}), name)
            for name, kind in kinds.items()
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and name != "lm"
        }
        found = recipe(
            title=value.pop("title"),
            model=value.pop("model"),
            rows=tuple(make(row, each, "row") for each in value.pop("row", [])),
            lm=_language_model(value.pop("lm", {})),
            **made,
        )
        check_engine(found.decode.engine, "[decode] engine")
        check(found)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing; every recipe has it.") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if value:
        known = ", ".join(f.name for f in dataclasses.fields(recipe))
        raise ValueError(f"{path}: unknown key '{next(iter(value))}'; a recipe has {known}, rows as [[row]].")
    return found


def _language_model(value: Any) -> LmSettings:
    """The section [lm] with its sections within."""
    kinds: dict[str, type[Any]] = {"task": Windows, "train": Training, "compress": Compress}
    if not isinstance(value, dict):
        raise ValueError("[lm] must be a table.")
    within = {key: make(cls, value[key], f"lm.{key}") for key, cls in kinds.items() if key in value}
    return make(LmSettings, {**value, **within}, "lm")


def check_rows(recipe: SpeechRecipe, full: str) -> None:
    """Refuse rows that cannot be, or that a section names and are not there; ``full`` is what "float" is."""
    if recipe.decode.arpa and not recipe.corpus.source:
        raise ValueError("[decode] arpa is of a corpus on disk: name its [corpus] source too.")
    names = [row.name for row in recipe.rows]
    if len(set(names)) != len(names) or "float" not in names:
        raise ValueError(f"rows must differ and one must be {full}; got {', '.join(names)}.")
    for section, rows in (("lhuc", recipe.adapted), ("lm", recipe.lm.rows)):
        if unknown := set(rows) - set(names):
            raise ValueError(f"[{section}] rows names '{min(unknown)}': choose from {', '.join(names)}.")
    if recipe.lm.rows and "float" not in recipe.lm.rows:
        raise ValueError("[lm] rows lacks 'float', the full-precision system that others are held against.")
    for row in recipe.rows:
        widths = set(recipe.compress.widths)
        if row.method == "search":
            widths = {int(rival.bits) for rival in recipe.rivals(row)}
            if len(widths) < 2:
                raise ValueError(f"row '{row.name}' chooses between admm rows of its network: give two.")
        if row.method in PLANNED:
            check_average(f"row '{row.name}'", row.bits, sorted(widths))
    if odd := set(recipe.compress.widths) - set(WIDTHS):
        raise ValueError(f"[compress] widths has {min(odd)}: choose from {', '.join(map(str, WIDTHS))}.")


def check_end_to_end(recipe: Any, networks: str) -> None:
    """Refuse what networks from sound to labels do not have; ``networks`` is what errors call them."""
    if recipe.features.ivectors:
        raise ValueError(f"[features] ivectors: {networks} read none, leave them out.")
    if recipe.decode.order not in range(6) or (recipe.lm.rows and not recipe.decode.order):
        raise ValueError(
            f"[decode] order is {recipe.decode.order}: choose 1 to 5, or 0 for no n-gram without [lm] rows."
        )
    if recipe.compress.teach or any(row.teach for row in recipe.rows):
        raise ValueError("teach is for language models: leave it out.")
