"""Transducers as files: the packed file holds network, features, and the tokenizer of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.models.rnnt import Rnnt
from greenasr.pipeline.models import opened
from greenasr.pipeline.units import Labels, check_outputs
from greenasr.roles import BitMap
from greenasr.tasks.networks import TRANSDUCERS, Kinds


@dataclass(frozen=True, eq=False)
class SavedTransducer:
    """A transducer read from its file, with everything that it needs."""

    model: Rnnt
    units: Labels
    bit_map: BitMap | None
    recipe: Mapping[str, Any]


def load_transducer(path: str | Path) -> SavedTransducer:
    """Read a packed transducer; ValueError when it is damaged, of another kind, or has another tokenizer."""
    return SavedTransducer(*opened_with_labels(path, TRANSDUCERS, "transducer"))


def opened_with_labels(
    path: str | Path, kinds: Kinds, what: str
) -> tuple[Any, Labels, BitMap | None, Mapping[str, Any]]:
    """Network, labels, plan, recipe of a packed file whose network is of ``kinds``; ValueError as above."""
    cure = f"give one that `greenasr table` made of a recipe of kind {what}"
    model, units, bit_map, recipe = opened(path, kinds, Labels.from_json, what, cure)
    check_outputs(path, model.config.vocab, units)
    return model, units, bit_map, recipe
