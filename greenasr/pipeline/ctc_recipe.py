"""A recipe of CTC networks: everything that the ternary tables depend on, read from one TOML file.

[corpus] speech   [features] what networks see   [labels] letters, pieces or words   [model] network
[task] batches   [train] float models   [compress] as for LMs   [decode] beams, n-gram, graph   [lm] rescoring
[[row]] a line: a network of its own, or a compressed one
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenasr.decode.ctc import PrefixBeam
from greenasr.pipeline.recipe import Row
from greenasr.pipeline.speech_recipe import (
    LabelSettings,
    SpeechRecipe,
    check_end_to_end,
    check_rows,
    load_speech,
)
from greenasr.tasks.networks import CTC_MODELS, configure


@dataclass(frozen=True)
class TaskSettings:
    """Frames of a batch, and masks as in `SpecAugment`."""

    frames: int = 10_000
    freq_masks: int = 2
    freq_width: int = 8
    time_masks: int = 2
    time_width: int = 30


@dataclass(frozen=True)
class DecodeSettings:
    """Searches with nothing but the network, and in a graph of words.

    A ``beam`` of 1 is greedy, else see `PrefixBeam`; ``nbest`` is the length of lists.  With ``order`` above
    0 lists are also rescored by an n-gram of the training transcripts, or the one in the file ``arpa``,
    relative to ``--data``; and words are searched in a graph of that n-gram and the lexicon's words, by a
    Viterbi beam of ``graph_beam`` nats.  Weights, scale and penalty are tuned with the row "float" on the
    split dev, or where there are folds on another part's fold.  ``engine`` is that of packed rows, as in
    recipes of hybrids.
    """

    beam: int = 1
    nbest: int = 1
    prune: float = 8.0
    order: int = 0
    arpa: str = ""
    graph_beam: float = 16.0
    lattice_beam: float = 8.0
    engine: str = "runtime"

    def search(self) -> PrefixBeam:
        """The search without a graph; ValueError for one that finds nothing."""
        return PrefixBeam(self.beam, self.nbest, self.prune)


@dataclass(frozen=True)
class CtcRow(Row):
    """A line: as for language models, and which network it has.

    A row of method "float" may have a ``network`` of its own: a name, and what it changes in [model].  Other
    rows begin from the one that ``start`` names.
    """

    network: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names that are no folders, and networks of rows that begin from another row's."""
        super().__post_init__()
        if (self.network or self.model) and self.method != "float":
            raise ValueError(f"a row of method '{self.method}' has its start's network: leave both out.")
        if bool(self.network) != bool(self.model):
            raise ValueError("a network of a row's own needs a name, network, and what it changes, model.")
        if self.network and not re.fullmatch(r"[\w.]+(-[\w.]+)*", self.network):
            raise ValueError(f"network '{self.network}' is to be a folder: use letters, digits, '.' and '-'.")

    @property
    def name(self) -> str:
        """The folder of the row."""
        if self.network:
            return self.network
        return super().name if self.start == "float" else f"{self.start}-{super().name}"


@dataclass(frozen=True, kw_only=True)
class CtcRecipe(SpeechRecipe):
    """One set of tables."""

    labels: LabelSettings
    task: TaskSettings
    decode: DecodeSettings
    rows: tuple[CtcRow, ...]

    def row(self, name: str) -> CtcRow:
        """The row of that name; ValueError where there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise ValueError(f"no row '{name}': choose from {', '.join(row.name for row in self.rows)}.")

    def settings_of(self, row: CtcRow, vocab: int) -> Any:
        """The settings of a row's network, or of that which it begins from."""
        while row.method != "float":
            row = self.row(row.start)
        return network_settings({**self.model, **row.model}, self.features.bins, vocab)


def network_settings(model: Mapping[str, Any], bins: int, vocab: int) -> Any:
    """A network's settings from [model], whose ``network`` is its kind; ValueError for what does not fit."""
    kind = model.get("network", "quartznet")
    if kind not in CTC_MODELS:
        raise ValueError(f"[model] network is '{kind}': choose from {', '.join(CTC_MODELS)}.")
    shape = {key: value for key, value in model.items() if key != "network"}
    return configure(kind, {**shape, "feat_dim": bins, "vocab": vocab})


def load_ctc_recipe(path: str | Path) -> CtcRecipe:
    """Read a TOML recipe; ValueError names the file and the key that is unknown, missing or odd."""
    return load_speech(path, CtcRecipe, _check)


def _check(recipe: CtcRecipe) -> None:
    """Refuse what would fail late."""
    recipe.decode.search()
    if recipe.labels.packed and not recipe.corpus.source:
        raise ValueError("[labels] packed lies in the folder of a corpus: name its [corpus] source too.")
    check_end_to_end(recipe, "CTC networks")
    check_rows(recipe, "method 'float' without a network of its own")
    for row in recipe.rows:
        recipe.settings_of(row, 2)
