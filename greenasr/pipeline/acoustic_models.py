"""Acoustic models as files: the packed file holds network, features, pdf map and lexicon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.models.tdnnf import Tdnnf
from greenasr.pipeline.models import opened, save
from greenasr.pipeline.units import Units
from greenasr.roles import BitMap, Quantized
from greenasr.runtime.activations import Rounding
from greenasr.tasks.networks import ACOUSTIC_MODELS


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
    rounding: Rounding | None = None,
) -> int:
    """Pack a network; returns the file's size in bytes."""
    return save(path, model, units, recipe, quantized, bit_map, rounding)


def load_acoustic(path: str | Path) -> SavedAcoustic:
    """Read a packed acoustic model; ValueError when it is damaged or of another kind."""
    cure = "give one that `greenasr table` made of a hybrid recipe"
    return SavedAcoustic(*opened(path, ACOUSTIC_MODELS, Units.from_json, "acoustic model", cure))
