"""CTC networks as files: the packed file holds network, features, and the tokenizer of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.pipeline.transducer_models import opened_with_labels
from greenasr.pipeline.units import Labels
from greenasr.roles import BitMap
from greenasr.tasks.networks import CTC_MODELS


@dataclass(frozen=True, eq=False)
class SavedCtc:
    """A CTC network read from its file, with everything that it needs."""

    model: Any  # of `CTC_MODELS`, in evaluation mode
    units: Labels
    bit_map: BitMap | None
    recipe: Mapping[str, Any]


def load_ctc(path: str | Path) -> SavedCtc:
    """Read a packed CTC network; ValueError when it is damaged, of another kind, or has another tokenizer."""
    return SavedCtc(*opened_with_labels(path, CTC_MODELS, "ctc"))
