"""A recipe of hybrid recognisers: everything that GREEN's tables depend on, read from one TOML file.

[corpus] speech and lexicon   [features] what networks see   [align] flat start and tied states
[model] TDNN-F   [chain] LF-MMI   [train] the float model   [search] bottlenecks   [compress] as for LMs
[decode] graph and search   [lm] rescoring   [lhuc] adaptation   [[row]] a line of the table
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from greenasr.pipeline.recipe import Row
from greenasr.pipeline.speech_recipe import SpeechRecipe, check_rows, load_speech
from greenasr.tasks.networks import configure


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
    alone, as in the paper.  The network found begins anew, as in the paper, or, with ``inherit``, where the
    search left its weights.
    """

    dims: tuple[int, ...] = (25, 50, 80, 100, 120, 160, 200, 240)
    method: str = "pipegumbel"
    epochs: float = 6
    choice_epochs: float = 20
    choice_lr: float = 0.05
    eta: float = 0.1
    target: float = 0.0
    held_out: float = 0.05
    inherit: bool = False


@dataclass(frozen=True)
class DecodeSettings:
    """N-gram order of the training transcripts, beams, length of n-best lists.

    With ``arpa``, a file relative to ``--data``, the graph is of that n-gram instead.
    Acoustic scale and word penalty are tuned with the manual network, on the split dev, or where there are
    folds on another part's fold, unless ``tune`` is false.  ``engine`` "runtime" hears the words of packed
    rows as they ship, rows in full precision run in torch; "torch" is for all.
    """

    order: int = 3
    arpa: str = ""
    tune: bool = True
    beam: float = 15.0
    lattice_beam: float = 8.0
    nbest: int = 20
    acoustic_scale: float = 1.0
    word_penalty: float = 0.0
    engine: str = "runtime"


@dataclass(frozen=True)
class LhucSettings:
    """Unsupervised adaptation of the ``rows`` named: passes over a speaker's speech by the words heard in it.

    ``hyps``: how many hypotheses an utterance, in the order of the low-bit language model if it is rescored.
    ``layers`` are names of hidden units, all where empty.
    """

    rows: tuple[str, ...] = ()
    epochs: float = 12
    lr: float = 0.05
    hyps: int = 1
    layers: tuple[str, ...] = ()


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


@dataclass(frozen=True, kw_only=True)
class HybridRecipe(SpeechRecipe):
    """One set of tables."""

    align: AlignSettings
    chain: ChainSettings
    search: SearchSettings
    decode: DecodeSettings
    rows: tuple[HybridRow, ...]
    lhuc: LhucSettings = LhucSettings()

    @property
    def adapted(self) -> tuple[str, ...]:
        """Rows that are adapted to speakers."""
        return self.lhuc.rows

    @property
    def lists_are_tuned(self) -> bool:
        """Where rows are rescored: the n-gram is in the graph."""
        return bool(self.lm.rows)

    @property
    def ngram_in_first_pass(self) -> bool:
        """It is in the graph."""
        return True

    def start_of(self, row: HybridRow) -> str:  # type: ignore[override]
        """The full-precision row of its network: the searched one where there is one, or the manual one."""
        if row.start != "float" or row.network == "manual":
            return row.start
        return "compact" if any(r.name == "compact" for r in self.rows) else "float"


def load_hybrid(path: str | Path) -> HybridRecipe:
    """Read a TOML recipe; ValueError names the file and the key that is unknown, missing or odd."""
    return load_speech(path, HybridRecipe, _check)


def _check(recipe: HybridRecipe) -> None:
    """Refuse what would fail late."""
    inputs = {"feat_dim": recipe.features.bins, "ivector_dim": recipe.features.ivectors}
    configure("tdnnf", {**recipe.model, **inputs, "n_pdfs": 1})
    for row in recipe.rows:
        share = recipe.compress.teach if row.teach is None else row.teach
        if not 0 <= share <= 1:
            raise ValueError(f"row '{row.name}' has teach {share:g}: choose from 0 to 1.")
        if row.name == "float" and row.teach:
            raise ValueError("row 'float' has teach: nothing was trained before it, leave it out.")
        if row.name == "compact" and row.teach and all(r.name != "float" for r in recipe.rows):
            raise ValueError("row 'compact' has teach: add the manual network's row to learn from.")
        if row.network not in ("manual", "searched"):
            raise ValueError(f"row '{row.name}' has network '{row.network}': choose manual or searched.")
    if recipe.lhuc.hyps < 1:
        raise ValueError(f"[lhuc] hyps is {recipe.lhuc.hyps}: a speaker learns from one hypothesis or more.")
    check_rows(recipe, "method 'float', network 'manual'")
