"""What stands around a network in its file: features before it, and behind it the words that it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.data.clip_features import BACKGROUND
from greenasr.data.clips import FRAMES
from greenasr.data.features import Features
from greenasr.data.lexicon import Lexicon
from greenasr.data.text import Tokenizer, tokenizer_from_json
from greenasr.decode.context import PdfMap

HYBRID, TRANSDUCER = "greenasr hybrid units 1", "greenasr transducer units 1"
KEYWORDS = "greenasr keyword units 1"


@dataclass(frozen=True, eq=False)
class Units:
    """What stands before and behind the network: features in, pdfs out, and the words that they spell."""

    features: Features
    pdf_map: PdfMap
    lexicon: Lexicon

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": HYBRID,
            "features": self.features.to_json(),
            "pdf_map": self.pdf_map.to_json(),
            "lexicon": self.lexicon.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Units:
        """Read what `to_json` wrote."""
        if value.get("format") != HYBRID:
            raise ValueError(f"its units are not '{HYBRID}'")
        return cls(
            Features.from_json(value["features"]),
            PdfMap.from_json(value["pdf_map"]),
            Lexicon.from_json(value["lexicon"]),
        )


@dataclass(frozen=True, eq=False)
class Labels:
    """What stands before and behind the network: features in, and words out of its labels."""

    features: Features
    tokenizer: Tokenizer

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": TRANSDUCER,
            "features": self.features.to_json(),
            "tokenizer": self.tokenizer.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Labels:
        """Read what `to_json` wrote."""
        if value.get("format") != TRANSDUCER:
            raise ValueError(f"its units are not '{TRANSDUCER}'")
        return cls(Features.from_json(value["features"]), tokenizer_from_json(value["tokenizer"]))


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
            "format": KEYWORDS,
            "features": self.features.to_json(),
            "words": list(self.words),
            "frames": self.frames,
            "every": self.every,
            "band": self.band,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> KeywordUnits:
        """Read what `to_json` wrote."""
        if value.get("format") != KEYWORDS:
            raise ValueError(f"its units are not '{KEYWORDS}'")
        words, length = tuple(map(str, value["words"])), (int(value["frames"]), int(value["every"]))
        return cls(Features.from_json(value["features"]), words, *length, float(value.get("band", 0.0)))


def check_outputs(path: str | Path, outputs: int, labels: Labels) -> None:
    """Refuse a transducer whose outputs are not its tokenizer's ids and a blank."""
    if outputs != labels.tokenizer.size + 1:
        raise ValueError(
            f"{path}: {outputs} outputs, but a tokenizer of {labels.tokenizer.size} ids beside the blank: "
            "pack it again with the tokenizer that it was trained with."
        )


def check_classes(path: str | Path, outputs: int, units: KeywordUnits) -> None:
    """Refuse a keyword model whose outputs are not its words."""
    if outputs != len(units.words):
        raise ValueError(
            f"{path}: {outputs} outputs for {len(units.words)} words: pack it again with its own words."
        )


def reward_of(recipe: Mapping[str, Any], wanted: float | None) -> float:
    """A transducer's reward a label: the one wanted, or that of the recipe in its file, 0 where it has none.

    >>> reward_of({"label_reward": 0.5}, None), reward_of({"label_reward": 0.5}, 0.0), reward_of({}, None)
    (0.5, 0.0, 0.0)
    """
    return float(recipe.get("label_reward", 0.0)) if wanted is None else wanted
