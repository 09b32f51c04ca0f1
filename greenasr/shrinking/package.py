"""Any model as a packed file, and back into its own class.

    save_module(path, model, …)      codes, steps, the rest, the class's name
    load_into(model, path)           the same weights, in a model of that class

The file says what the class was called, never how to build it: whoever loads brings a model of the class, so
no code is read from a file.  A model that has a ``config`` of plain data, as in transformers, keeps it too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from greenasr.roles import BitMap, Quantized
from greenasr.runtime.activations import Rounding
from greenasr.runtime.pack import pack, unpack

T = TypeVar("T")


class Package(Protocol):
    """How models become files and come back: what is judged is what was read from the file."""

    def save(
        self, path: Path, model: nn.Module, quantized: Mapping[str, Quantized] | None, bit_map: BitMap | None
    ) -> int:
        """Write a model; bytes on disk."""
        ...

    def judged(self, path: Path, activations: str, device: str) -> tuple[Any, str]:
        """What finds words of it, as it ships, and in which activations that computes.

        Without ``activations`` of "float32" those that the file names; a package that cannot have them says
        what it has.
        """
        ...


@runtime_checkable
class Rounds(Protocol):
    """A package whose files the runtime runs: their activations can be chosen."""

    def calibrated(self, path: Path, hear: Callable[[Any], T]) -> tuple[Rounding, T]:
        """Static steps of a file's activations, and what ``hear`` gave of its network in float32."""
        ...

    def with_rounding(self, path: Path, to: Path, rounding: Rounding) -> int:
        """Write the file anew as ``to`` with other activations; bytes on disk."""
        ...


@dataclass(frozen=True, eq=False)
class OwnClass:
    """The package of any module: ``like`` is a model of its class and shape, and stays as it is."""

    like: nn.Module

    def save(
        self, path: Path, model: nn.Module, quantized: Mapping[str, Quantized] | None, bit_map: BitMap | None
    ) -> int:
        """Write a model; bytes on disk."""
        return save_module(path, model, quantized, bit_map)

    def judged(self, path: Path, activations: str, device: str) -> tuple[nn.Module, str]:
        """A copy of ``like`` with the file's weights, in float32: nothing but its own class runs it."""
        model = copy.deepcopy(self.like)
        load_into(model, path)
        return model.eval().to(device), "float32"


def save_module(
    path: Path,
    model: nn.Module,
    quantized: Mapping[str, Quantized] | None = None,
    bit_map: BitMap | None = None,
) -> int:
    """Pack any module; returns the file's size in bytes."""
    return pack(
        path, class_of(model), config_of(model), model.state_dict(), dict(quantized or {}), bit_map, {}, {}
    )


def load_into(model: nn.Module, path: str | Path) -> None:
    """Put the weights of a packed file into ``model``, a model of the class and shape that was packed.

    >>> import tempfile
    >>> full, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> path = Path(tempfile.mkdtemp()) / "linear.packed"
    >>> _ = save_module(path, full)
    >>> load_into(other, path)
    >>> torch.equal(full.weight, other.weight)
    True

    Raises ValueError where the file holds a model of another class or shape.
    """
    packed, state = unpack(path)
    if packed.model != class_of(model):
        raise ValueError(
            f"{path}: holds a {packed.model}, not a {class_of(model)}: load it into a model of its own class."
        )
    there = model.state_dict()
    if odd := sorted(state.keys() ^ there.keys()):
        where = "the file" if odd[0] in there else "the model"
        raise ValueError(
            f"{path}: {where} lacks '{odd[0]}': load it into a model of the shape that was packed."
        )
    for name, value in state.items():
        if value.shape != there[name].shape:
            raise ValueError(
                f"{path}: '{name}' is {tuple(value.shape)}, the model's {tuple(there[name].shape)}: load it "
                "into a model of the shape that was packed."
            )
    with torch.no_grad():
        model.load_state_dict(state)


def class_of(model: nn.Module) -> str:
    """The full name of a model's class."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def config_of(model: nn.Module) -> dict[str, Any]:
    """The model's ``config`` as plain data; nothing where it has none."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return {}
    return dict(json.loads(json.dumps(config.to_dict(), default=str)))
