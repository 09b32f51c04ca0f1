"""Transducers as files: the packed file holds network, features, and the tokenizer of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.data.features import Features
from greenasr.data.text import Tokenizer, tokenizer_from_json
from greenasr.models.rnnt import Rnnt
from greenasr.pipeline.models import opened
from greenasr.roles import BitMap
from greenasr.tasks.networks import TRANSDUCERS

FORMAT = "greenasr transducer units 1"


@dataclass(frozen=True, eq=False)
class Labels:
    """What stands before and behind the network: features in, and words out of its labels."""

    features: Features
    tokenizer: Tokenizer

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": FORMAT,
            "features": self.features.to_json(),
            "tokenizer": self.tokenizer.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Labels:
        """Read what `to_json` wrote."""
        if value.get("format") != FORMAT:
            raise ValueError(f"its units are not '{FORMAT}'")
        return cls(Features.from_json(value["features"]), tokenizer_from_json(value["tokenizer"]))


@dataclass(frozen=True, eq=False)
class SavedTransducer:
    """A transducer read from its file, with everything that it needs."""

    model: Rnnt
    units: Labels
    bit_map: BitMap | None
    recipe: Mapping[str, Any]


def load_transducer(path: str | Path) -> SavedTransducer:
    """Read a packed transducer; ValueError when it is damaged, of another kind, or has another tokenizer."""
    cure = "give one that `greenasr table` made of a recipe of kind transducer"
    saved = SavedTransducer(*opened(path, TRANSDUCERS, Labels.from_json, "transducer", cure))
    outputs, size = saved.model.config.vocab, saved.units.tokenizer.size
    if outputs != size + 1:
        raise ValueError(
            f"{path}: {outputs} outputs, but a tokenizer of {size} ids beside the blank: pack it again with "
            "the tokenizer that it was trained with."
        )
    return saved
