"""A recipe: everything that a table of language models depends on, read from one TOML file.

    [data] text and tokenizer   [model] network   [task] windows   [train] the float model
    [compress] widths, bands, training towards the grid   [[row]] a line of the table   [rescore] n-best lists

Frozen dataclasses with the file's own names; an unknown key is an error that names it.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training
from greenasr.ops.bits import WIDTHS
from greenasr.pipeline.engines import check_engine
from greenasr.pipeline.sections import make, older, read_toml
from greenasr.runtime.activations import Activations, Rounding
from greenasr.tasks.networks import configure

PLANNED = ("hessian", "kl", "search")  # methods whose rows have a plan
METHODS = {
    "float": "full precision",
    "bp": "BP uniform",
    "admm": "ADMM",
    "acosr": "ACosR",
    "ttq": "TTQ uniform",
    "none": "post-training",
    "hessian": "Hessian plan",
    "kl": "KL plan",
    "search": "search plan",
}

CHOSEN: tuple[Activations, ...] = ("int8", "float32")  # static ones need measured steps: `greenasr shrink`


@dataclass(frozen=True)
class Data:
    """Texts, relative to ``--data``; without ``train`` the embedded grammar generates ``sentences``."""

    train: tuple[str, ...] = ()
    dev: str = ""
    test: str = ""
    sentences: int = 20_000
    tokenizer: str = "words"
    vocab: int = 10_000

    def __post_init__(self) -> None:
        """Refuse a text without its dev and test."""
        if self.train and not (self.dev and self.test):
            raise ValueError("[data] names a training text: name dev and test texts too.")


@dataclass(frozen=True)
class Windows:
    """How text becomes batches, see `greenasr.tasks.language_model.LanguageModel`."""

    length: int = 64
    batch: int = 16
    stride: int = 32
    by_sentence: bool = False

    def __post_init__(self) -> None:
        """Refuse windows that hold nothing."""
        if self.length < 2 or self.batch < 1 or not 0 < self.stride <= self.length:
            raise ValueError(
                f"windows of {self.length} tokens, {self.batch} a batch, moved by {self.stride}: make "
                "length 2 or more, batch 1 or more, stride 1 to length."
            )


@dataclass(frozen=True)
class Compress:
    """What every compressed row shares; ``bands`` and ``by`` shape the clusters of mixed plans.

    ``dropout`` is another than the float model's; ``cost_frames`` how much speech a batch of costs holds.
    ``teach`` is the share of the training targets, or of a recogniser's loss, that the full-precision model's
    softmax makes up.  A row of method "search" chooses in ``search_epochs`` passes: several where a corpus is
    small, for short of some 200 steps the choices stand where the price first pushed them.
    """

    widths: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    step: str = "cluster"
    by: str = "matrix"
    bands: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    pin: Mapping[str, int] = field(default_factory=dict)
    epochs: float = 3
    lr: float = 5e-4
    dropout: float | None = None
    teach: float = 0.0
    weight_decay: float = 0.0
    cost_batches: int = 8
    cost_frames: int = 1500
    cost_tolerance: float = 0.05
    max_probes: int = 256
    search_epochs: float = 0.3
    search_lr: float = 0.05


@dataclass(frozen=True)
class Row:
    """A line of the table.

    ``fit`` is how a plan's row is trained, ``start`` the row it begins from; ``epochs``, ``lr``,
    ``dropout``, ``teach``, ``step``, ``by`` and ``widths`` as in `Compress`.  Its file multiplies
    ``activations`` of "int8", row by row, or of "float32", where weights alone shall be of few bits.
    """

    method: str
    bits: float = 32
    fit: str = "bp"
    bands: bool | None = None
    epochs: float | None = None
    lr: float | None = None
    dropout: float | None = None
    teach: float | None = None
    start: str = "float"
    step: str | None = None
    by: str | None = None
    widths: tuple[int, ...] | None = None
    activations: Activations = "int8"
    paper: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse methods that do not exist, and widths that they cannot have."""
        if self.method not in METHODS:
            raise ValueError(f"unknown method '{self.method}': choose from {', '.join(METHODS)}.")
        if self.fit not in COMPRESSORS:
            raise ValueError(f"unknown fit '{self.fit}' of a row: choose from {', '.join(COMPRESSORS)}.")
        if self.method in COMPRESSORS and self.bits not in WIDTHS:
            widths = ", ".join(map(str, WIDTHS))
            raise ValueError(f"a row of method '{self.method}' has {self.bits:g} bits: choose from {widths}.")
        if self.activations not in CHOSEN:
            raise ValueError(f"activations of a row are '{self.activations}': choose {' or '.join(CHOSEN)}.")
        if self.method == "float" and self.activations != "int8":
            raise ValueError("a row in full precision computes in float32 as it is: leave activations out.")

    @property
    def rounding(self) -> Rounding:
        """What its file says of activations."""
        return Rounding(self.activations)

    @property
    def name(self) -> str:
        """The folder of the row: method, bits and what is special about it."""
        if self.method == "float":
            return "float" if self.epochs is None else "float-continued"
        tail = "" if self.method not in PLANNED or self.fit == "bp" else f"-{self.fit}"
        banded = "-bands" if self.bands and self.method not in PLANNED else ""
        step = f"-{self.step.replace(':', '')}" if self.step else ""
        floats = "" if self.activations == "int8" else f"-{self.activations}"
        return f"{self.method}-{self.bits:g}{tail}{banded}{step}{floats}"


@dataclass(frozen=True)
class Lists:
    """N-best lists to rescore, relative to ``--nbest``; without ``sets`` the grammar generates one.

    ``rank`` names the sets that have no scores: theirs are -log(rank).  ``refs_in_training``: the references
    of one utterance in four join the training text so many times over, and those utterances are not scored;
    ``refs_from`` names the sets that give theirs, all when empty.  ``engine`` "runtime" scores with packed
    rows as they ship, rows in full precision run in torch; "torch" is for all.
    """

    sets: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()
    refs_in_training: int = 0
    refs_from: tuple[str, ...] = ()
    generate: int = 400
    engine: str = "runtime"

    def __post_init__(self) -> None:
        """Refuse sets that are not listed, and engines that there are not."""
        check_engine(self.engine, "[rescore] engine")
        for key, names in (("rank", self.rank), ("refs_from", self.refs_from)):
            if unknown := set(names) - set(self.sets):
                raise ValueError(f"[rescore] {key} names '{min(unknown)}', which sets does not list.")

    def gives(self, name: str, utt_id: str) -> bool:
        """Whether the reference of an utterance of ``name`` joins the training text: one id in four."""
        listed = not self.refs_from or name in {Path(file).stem for file in self.refs_from}
        return bool(self.refs_in_training) and listed and zlib.crc32(utt_id.encode("utf-8")) % 4 == 0


@dataclass(frozen=True)
class Recipe:
    """One table."""

    title: str
    data: Data
    model: Mapping[str, Any]
    task: Windows
    train: Training
    compress: Compress
    rows: tuple[Row, ...]
    rescore: Lists | None = None
    ngram_order: int = 4

    def row(self, name: str) -> Row:
        """A row by its folder's name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise ValueError(
            f"no row '{name}' in '{self.title}': it has {', '.join(row.name for row in self.rows)}."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, to be kept beside the results."""
        return older(dataclasses.asdict(self))


def load_recipe(path: str | Path) -> Recipe:
    """Read a TOML recipe.

    Raises ValueError naming the file and the key that is unknown, missing or of the wrong kind.
    """
    value = read_toml(path)
    rows = value.pop("row", [])
    sections: dict[str, type[Any]] = {"data": Data, "task": Windows, "train": Training, "compress": Compress}
    try:
        made: dict[str, Any] = {name: make(cls, value.pop(name, {}), name) for name, cls in sections.items()}
        lists = value.pop("rescore", None)
        recipe = Recipe(
            title=value.pop("title"),
            model=value.pop("model"),
            rows=tuple(make(Row, row, "row") for row in rows),
            rescore=None if lists is None else make(Lists, lists, "rescore"),
            ngram_order=value.pop("ngram_order", 4),
            **made,
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing; every recipe has it.") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if value:
        known = ", ".join(field.name for field in dataclasses.fields(Recipe))
        raise ValueError(f"{path}: unknown key '{next(iter(value))}'; a recipe has {known}, rows as [[row]].")
    try:
        _check(recipe)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    names = [row.name for row in recipe.rows]
    if len(set(names)) != len(names) or "float" not in names:
        raise ValueError(f"{path}: rows must differ and one must be the float model; got {', '.join(names)}.")
    return recipe


def _check(recipe: Recipe) -> None:
    """Refuse what would fail late: a network or a plan that cannot be, after hours of training."""
    check_model(recipe.model, recipe.compress)
    if recipe.ngram_order not in range(1, 6):
        raise ValueError(f"ngram_order is {recipe.ngram_order!r}, expected 1 to 5.")
    for row in recipe.rows:
        widths = row.widths or recipe.compress.widths
        if row.method == "search":
            widths = tuple(int(r.bits) for r in recipe.rows if r.method == "admm" and not r.bands)
            if len(set(widths)) < 2:
                raise ValueError(f"row '{row.name}' chooses between admm rows: give two or more.")
        if row.method in PLANNED:
            check_average(f"row '{row.name}'", row.bits, widths)


def check_model(model: Mapping[str, Any], compress: Compress) -> None:
    """Refuse a language model that cannot be built, and widths that no weight can have."""
    if not isinstance(model, dict):
        raise ValueError("[model] must be a table.")
    shape = {key: size for key, size in model.items() if key != "network"}
    configure(model.get("network", "transformer"), {**shape, "vocab": 1})
    if odd := set(compress.widths) - set(WIDTHS):
        raise ValueError(f"[compress] widths has {min(odd)}: choose from {', '.join(map(str, WIDTHS))}.")


def check_average(what: str, bits: float, widths: Sequence[int]) -> None:
    """Refuse an average that a plan of these widths cannot have."""
    if not min(widths) <= bits <= max(widths):
        raise ValueError(
            f"{what} asks for {bits:g} bits on average, its widths go from "
            f"{min(widths)} to {max(widths)}: choose a number between."
        )
