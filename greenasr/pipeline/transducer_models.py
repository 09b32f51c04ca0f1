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
from greenasr.tasks.networks import TRANSDUCERS


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
    check_outputs(path, saved.model.config.vocab, saved.units)
    return saved
