"""Keyword models as files: the packed file holds network, features and words, and needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.models.matchboxnet import MatchboxNet
from greenasr.pipeline.models import opened
from greenasr.pipeline.units import KeywordUnits, check_classes
from greenasr.roles import BitMap
from greenasr.tasks.networks import KEYWORD_MODELS


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
    check_classes(path, saved.model.config.classes, saved.units)
    return saved
