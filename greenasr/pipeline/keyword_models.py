"""Keyword models as files: the packed file holds network, features and words, and needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.data.clips import FRAMES
from greenasr.data.features import Features
from greenasr.models.matchboxnet import MatchboxNet
from greenasr.pipeline.models import opened
from greenasr.roles import BitMap
from greenasr.tasks.keywords import BACKGROUND
from greenasr.tasks.networks import KEYWORD_MODELS

FORMAT = "greenasr keyword units 1"


@dataclass(frozen=True)
class KeywordUnits:
    """What stands before and behind the network: features in, and the word of every output.

    ``frames`` is how long a clip it was trained on, 100 a second, of which it sees every ``every``-th, and
    of those nothing above ``band`` Hz, if that is not 0.
    """

    features: Features
    words: tuple[str, ...]
    frames: int = FRAMES
    every: int = 1
    band: float = 0.0

    @property
    def has_background(self) -> bool:
        """Whether one output says that there is no word."""
        return BACKGROUND in self.words

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": FORMAT,
            "features": self.features.to_json(),
            "words": list(self.words),
            "frames": self.frames,
            "every": self.every,
            "band": self.band,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> KeywordUnits:
        """Read what `to_json` wrote."""
        if value.get("format") != FORMAT:
            raise ValueError(f"its units are not '{FORMAT}'")
        words, length = tuple(map(str, value["words"])), (int(value["frames"]), int(value["every"]))
        return cls(Features.from_json(value["features"]), words, *length, float(value.get("band", 0.0)))


@dataclass(frozen=True, eq=False)
class SavedKeywords:
    """A keyword model read from its file, with everything that it needs."""

    model: MatchboxNet
    units: KeywordUnits
    bit_map: BitMap | None
    recipe: Mapping[str, Any]


def load_keyword_model(path: str | Path) -> SavedKeywords:
    """Read a packed keyword model; ValueError when it is damaged, of another kind, or has other words."""
    cure = "give one that `greenasr table` made of a recipe of kind keywords"
    saved = SavedKeywords(*opened(path, KEYWORD_MODELS, KeywordUnits.from_json, "keyword model", cure))
    outputs, words = saved.model.config.classes, len(saved.units.words)
    if outputs != words:
        raise ValueError(f"{path}: {outputs} outputs for {words} words: pack it again with its own words.")
    return saved
