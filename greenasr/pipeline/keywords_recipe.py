"""A recipe of keyword models: everything that a table of them depends on, read from one TOML file.

[corpus] clips   [features] what networks see   [labels] words   [model] network   [task] batches, noise
[train] float models   [compress] as for LMs   [[row]] a line: a network of its own, or a compressed one
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from greenasr.data.augment import SpecAugment
from greenasr.data.clip_augment import ClipAugment
from greenasr.data.clip_features import BACKGROUND
from greenasr.data.clips import FRAMES
from greenasr.data.readers.commands import BACKGROUND as NOISE
from greenasr.models.matchboxnet import MatchboxNetConfig
from greenasr.pipeline.ctc_recipe import CtcRow
from greenasr.pipeline.speech_recipe import SpeechRecipe, check_rows, load_speech
from greenasr.tasks.networks import configure

NETWORK = "matchboxnet"
OTHERS = ("refuse", "leave", "background")


@dataclass(frozen=True)
class LabelSettings:
    """The ``words``, all that training clips say where empty; with ``background`` one class more, of no word.

    ``background`` is the share of examples of it, see `tasks.keywords`: a stream needs it, a test set does
    not.
    ``others`` says what becomes of clips of words that are not listed: "refuse", "leave" them out, or train
    on them as "background", so that a stream's other words are not taken for one that is listed.
    """

    words: tuple[str, ...] = ()
    background: float = 0.0
    others: str = "refuse"

    def __post_init__(self) -> None:
        """Refuse words that are none, and choices that do not exist."""
        if self.others not in OTHERS:
            raise ValueError(f"[labels] others is '{self.others}': choose {', '.join(OTHERS)}.")
        if self.others == "background" and not self.background:
            raise ValueError('[labels] others = "background" needs that class: give background a share.')
        if len(set(self.words)) != len(self.words) or {NOISE, BACKGROUND} & set(self.words):
            raise ValueError(f"[labels] words must differ, and '{NOISE}' is none of them.")


@dataclass(frozen=True)
class KeywordTask:
    """Clips of a batch, and what happens to those of training, see `ClipAugment` and `SpecAugment`.

    A clip is ``frames`` long, 100 a second: networks of short words may see less than a second.  Of them the
    network sees every ``every``-th; ``shift`` and widths of masks count what it sees.  Above ``band`` Hz it
    hears nothing, 0 for all that there is.  ``generated`` hours of generated commands are trained on too, if
    they say a word of the corpus.
    """

    batch: int = 128
    frames: int = FRAMES
    every: int = 1
    band: float = 0.0
    generated: float = 0.0
    smoothing: float = 0.0
    shift: int = 10
    noise: float = 0.8
    snr: tuple[float, ...] = (0.0, 30.0)
    gain: float = 10.0
    warp: float = 0.0
    freq_masks: int = 2
    freq_width: int = 15
    time_masks: int = 2
    time_width: int = 25

    def augment(self) -> ClipAugment:
        """The changes; ValueError for those that mean nothing."""
        if not 20 <= self.frames <= 1000 or not 1 <= self.every <= 4:
            raise ValueError(
                f"[task] frames is {self.frames}, every {self.every}: a clip has 20 to 1,000 frames, 100 a "
                "second, and a network sees each, or every second to fourth."
            )
        if (self.band and not 1000 <= self.band <= 8000) or self.generated < 0:
            raise ValueError(
                f"[task] band is {self.band:g} Hz, generated {self.generated:g} hours: choose 1,000 to 8,000 "
                "Hz, or 0 for all, and 0 hours or more."
            )
        masks = SpecAugment(self.freq_masks, self.freq_width, self.time_masks, self.time_width, 0.5)
        return ClipAugment(self.shift, self.noise, self.snr, self.gain, self.warp, masks)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ListSettings:
    """How many words a clip's list holds, and the engine of packed rows, as in recipes of hybrids.

    What rows of recognisers share beside that is not used here.
    """

    nbest: int = 5
    engine: str = "runtime"
    order: int = field(default=0, init=False)
    arpa: str = field(default="", init=False)


@dataclass(frozen=True, kw_only=True)
class KeywordRecipe(SpeechRecipe):
    """One table."""

    labels: LabelSettings
    task: KeywordTask
    decode: ListSettings
    rows: tuple[CtcRow, ...]

    def settings_of(self, row: CtcRow, classes: int, seed: int = 0) -> MatchboxNetConfig:
        """The network of a full-precision row: [model] with what the row changes.

        Its generated weights follow from the training's seed and the recipe's own.
        """
        shape = {**self.model, **row.model}
        if shape.get("ternary"):
            ternary = dict(shape["ternary"])
            shape["ternary"] = {**ternary, "seed": ternary.get("seed", 0) + seed}
        made = {**shape, "feat_dim": self.features.bins, "classes": classes}
        found: MatchboxNetConfig = configure(NETWORK, made)
        return found

    @property
    def may_generate(self) -> bool:
        """Whether it names a corpus and, for those who have no data, generated commands too."""
        return bool(self.corpus.source) and self.corpus.domain == "commands"

    def generated(self) -> KeywordRecipe:
        """The same on generated commands."""
        return replace(
            self,
            title=f"{self.title}, on generated commands",
            corpus=replace(self.corpus, source="", kind="", tests=("test",)),
        )


def load_keywords(path: str | Path) -> KeywordRecipe:
    """Read a TOML recipe; ValueError names the file and the key that is unknown, missing or odd."""
    return load_speech(path, KeywordRecipe, _check)


def _check(recipe: KeywordRecipe) -> None:
    """Refuse what would fail late."""
    recipe.task.augment()
    features = recipe.features
    if (
        features.ivectors
        or features.kind not in ("fbank", "mfcc")
        or features.cmvn not in ("utterance", "none")
    ):
        raise ValueError(
            '[features] of clips are fbank or mfcc, without ivectors, with cmvn "utterance" or "none".'
        )
    if recipe.lm.rows or recipe.compress.teach or any(row.teach for row in recipe.rows):
        raise ValueError("[lm] and teach are for recognisers and language models: leave them out.")
    for row in recipe.rows:
        if row.method == "float":
            recipe.settings_of(row, 2)
        elif row.start not in {r.name for r in recipe.rows if r.method == "float"}:
            raise ValueError(f"row '{row.name}' starts from '{row.start}': name a row of method float.")
    check_rows(recipe, "method 'float' without a network of its own")
