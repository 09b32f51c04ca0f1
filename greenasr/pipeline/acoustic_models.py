"""Acoustic models as files: the packed file holds network, features, pdf map and lexicon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.data.features import Features
from greenasr.data.lexicon import Lexicon
from greenasr.decode.context import PdfMap
from greenasr.models.tdnnf import Tdnnf
from greenasr.pipeline.models import opened, save
from greenasr.roles import BitMap, Quantized
from greenasr.tasks.networks import ACOUSTIC_MODELS

FORMAT = "greenasr hybrid units 1"


@dataclass(frozen=True, eq=False)
class Units:
    """What stands before and behind the network: features in, pdfs out, and the words that they spell."""

    features: Features
    pdf_map: PdfMap
    lexicon: Lexicon

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": FORMAT,
            "features": self.features.to_json(),
            "pdf_map": self.pdf_map.to_json(),
            "lexicon": self.lexicon.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Units:
        """Read what `to_json` wrote."""
        if value.get("format") != FORMAT:
            raise ValueError(f"its units are not '{FORMAT}'")
        return cls(
            Features.from_json(value["features"]),
            PdfMap.from_json(value["pdf_map"]),
            Lexicon.from_json(value["lexicon"]),
        )


@dataclass(frozen=True, eq=False)
class SavedAcoustic:
    """A hybrid recogniser's network read from its file, with everything that it needs."""

    model: Tdnnf
    units: Units
    bit_map: BitMap | None
    recipe: Mapping[str, Any]


def save_acoustic(
    path: Path,
    model: Tdnnf,
    units: Units,
    recipe: Mapping[str, Any],
    quantized: Mapping[str, Quantized] | None = None,
    bit_map: BitMap | None = None,
) -> int:
    """Pack a network; returns the file's size in bytes."""
    return save(path, model, units, recipe, quantized, bit_map)


def load_acoustic(path: str | Path) -> SavedAcoustic:
    """Read a packed acoustic model; ValueError when it is damaged or of another kind."""
    cure = "give one that `greenasr table` made of a hybrid recipe"
    return SavedAcoustic(*opened(path, ACOUSTIC_MODELS, Units.from_json, "acoustic model", cure))
