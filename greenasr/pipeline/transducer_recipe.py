"""A recipe of transducers: everything that ACosR's tables depend on, read from one TOML file.

[corpus] speech   [features] what networks see   [labels] letters or pieces   [model] RNN-T   [task] batches
[train] the float model   [compress] as for LMs   [decode] search, n-gram   [lm] rescoring   [[row]] a line
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.decode.transducer_beam import BeamSearch
from greenasr.pipeline.recipe import Row
from greenasr.pipeline.speech_recipe import (
    LabelSettings,
    SpeechRecipe,
    check_end_to_end,
    check_rows,
    load_speech,
)
from greenasr.tasks.networks import configure


@dataclass(frozen=True)
class TaskSettings:
    """Frames of a batch, and masks as in `SpecAugment`.

    Utterances with more than ``max_symbols`` labels for every encoder frame are not trained on.  ``ctc``
    and ``hidden`` are for training, see `tasks.transducer`.
    """

    frames: int = 10_000
    ctc: float = 0.0
    hidden: float = 0.0
    max_symbols: int = 5
    freq_masks: int = 1
    freq_width: int = 6
    time_masks: int = 1
    time_width: int = 15


@dataclass(frozen=True)
class DecodeSettings:
    """See `BeamSearch`; ``nbest`` is the length of lists.

    With ``order`` above 0 lists are also rescored by an n-gram of the training transcripts, or the one in the
    file ``arpa``, relative to ``--data``; its weight is tuned with the float row on the split dev, or where
    there are folds on another part's fold.  ``engine`` is that of packed rows, as in recipes of hybrids.
    """

    beam: int = 8
    nbest: int = 8
    max_symbols: int = 5
    prune: float = 10.0
    ilm_scale: float = 0.0
    label_reward: float = 0.0
    order: int = 0
    arpa: str = ""
    engine: str = "runtime"

    def search(self) -> BeamSearch:
        """The search; ValueError for one that finds nothing."""
        return BeamSearch(
            self.beam, self.nbest, self.max_symbols, self.prune, self.ilm_scale, self.label_reward
        )


@dataclass(frozen=True)
class TransducerRow(Row):
    """A line: as for language models.

    ``published`` is ACosR to the letter of its paper: one table of spacing 2^(1 - bits) for all weights, the
    regularizer in the loss with α = 0.005, and a float forward pass; see `compress.acosr` for ours.
    """

    published: bool = False

    def __post_init__(self) -> None:
        """Refuse what the paper's form does not have."""
        super().__post_init__()
        if self.published and (self.method != "acosr" or self.bits < 2):
            raise ValueError("published = true is for rows of method 'acosr' of 2 bits and more.")

    @property
    def name(self) -> str:
        """The folder of the row."""
        return f"{super().name}-published" if self.published else super().name


@dataclass(frozen=True, kw_only=True)
class TransducerRecipe(SpeechRecipe):
    """One set of tables."""

    labels: LabelSettings
    task: TaskSettings
    decode: DecodeSettings
    rows: tuple[TransducerRow, ...]

    @property
    def noted(self) -> dict[str, Any]:
        """Also the reward a label, with which `transcribe` and `shrink` then search as the table does."""
        reward = self.decode.label_reward
        return {**super().noted, **({"label_reward": reward} if reward else {})}


def load_transducers(path: str | Path) -> TransducerRecipe:
    """Read a TOML recipe; ValueError names the file and the key that is unknown, missing or odd."""
    return load_speech(path, TransducerRecipe, _check)


def _check(recipe: TransducerRecipe) -> None:
    """Refuse what would fail late."""
    configure("rnnt", {**recipe.model, "feat_dim": recipe.features.bins, "vocab": 2})
    recipe.decode.search()
    if recipe.labels.packed:
        raise ValueError("[labels] packed: only CTC networks begin from a file, leave it out.")
    check_end_to_end(recipe, "transducers")
    check_rows(recipe, "method 'float'")
