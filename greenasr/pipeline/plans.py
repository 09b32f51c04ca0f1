"""Cost tables and bit maps from their files, with errors that name the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from greenasr.compress.clusters import check_clusters
from greenasr.data.files import read_json
from greenasr.roles import BitMap, CostTable

T = TypeVar("T")


def read_costs(path: Path) -> CostTable:
    """A cost table; ValueError that names the file when it is none, or damaged."""
    return _read(path, CostTable.from_json, "cost table", "greenasr costs")


def read_bit_map(path: Path, model: nn.Module | None = None) -> BitMap:
    """A bit map; ValueError that names the file when it is none, damaged, or not for ``model``."""
    plan = _read(path, BitMap.from_json, "bit map", "greenasr allocate")
    if model is not None:
        try:
            check_clusters(model, plan.clusters)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return plan


def _read(path: Path, from_json: Callable[[Mapping[str, Any]], T], kind: str, command: str) -> T:
    value = read_json(path)
    try:
        return from_json(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a whole {kind} ({type(error).__name__}: {error}): write it again with `{command}`"
        ) from error
