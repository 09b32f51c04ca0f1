"""A NeMo checkpoint as plain values: a tar, zipped or not, of `model_config.yaml` and `model_weights.ckpt`.

Nothing is unpacked to disk and nothing is executed: members are read in memory after their names, kinds and
sizes were looked at, the YAML holds plain values alone, and the weights are loaded as tensors alone.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml
from torch import Tensor

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
LARGEST = {CONFIG: 1 << 22, WEIGHTS: 1 << 31}  # bytes
MEMBERS = 1000


def read_nemo(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint's settings, references resolved, and its tensors by name.

    Raises ValueError in one line for an archive that is damaged, has members that climb out of it, links or
    absurd sizes, for YAML with anything but plain values, and for weights that hold code.
    """
    try:
        with tarfile.open(path, "r:*") as archive:
            parts = _members(archive, str(path))
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise
        raise ValueError(
            f"{path}: no NeMo checkpoint, or a damaged one ({error}): a .nemo file is a tar of {CONFIG} and "
            f"{WEIGHTS}; copy it again from its source."
        ) from None
    if missing := [name for name in LARGEST if name not in parts]:
        raise ValueError(f"{path}: the archive lacks {missing[0]}: it is no NeMo checkpoint of one model.")
    return _settings(parts[CONFIG], str(path)), _tensors(parts[WEIGHTS], str(path))


def _members(archive: tarfile.TarFile, where: str) -> dict[str, bytes]:
    """The two members that we read, by name; every member is looked at."""
    found: dict[str, bytes] = {}
    for count, member in enumerate(archive, 1):
        name = PurePosixPath(member.name)
        if count > MEMBERS:
            raise ValueError(f"{where}: more than {MEMBERS} members: it is no NeMo checkpoint.")
        if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
            raise ValueError(f"{where}: member '{member.name}' climbs out of the archive: do not trust it.")
        if not (member.isfile() or member.isdir()):
            raise ValueError(f"{where}: member '{member.name}' is a link or device: do not trust it.")
        if member.size > max(LARGEST.values()):
            raise ValueError(f"{where}: member '{member.name}' would have {member.size:,} bytes.")
        if not member.isfile() or str(name) not in LARGEST:
            continue
        if member.size > LARGEST[str(name)]:
            raise ValueError(
                f"{where}: {name} would have {member.size:,} bytes, at most {LARGEST[str(name)]:,} are read."
            )
        if str(name) in found:
            raise ValueError(f"{where}: {name} is there twice: do not trust it.")
        file = archive.extractfile(member)
        assert file is not None
        found[str(name)] = file.read()
    return found


def _settings(text: bytes, where: str) -> dict[str, Any]:
    """The YAML's table; ``${a.b}`` stands for the value under a, b."""
    try:
        table = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: {CONFIG} is no plain YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(table, dict):
        raise ValueError(f"{where}: {CONFIG} holds no table of settings.")
    return {key: _resolved(value, table, where) for key, value in table.items()}


def _resolved(value: Any, table: Mapping[str, Any], where: str, depth: int = 0) -> Any:
    """A value without references; NeMo also writes ``${model.a}`` for ``${a}``."""
    if depth > 32:
        raise ValueError(f"{where}: {CONFIG} refers to itself or is nested absurdly deep.")
    if isinstance(value, dict):
        return {key: _resolved(part, table, where, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part, table, where, depth + 1) for part in value]
    if not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
        return value
    keys = value[2:-1].split(".")
    found: Any = table
    for key in keys[1:] if keys[0] == "model" and "model" not in table else keys:
        if not isinstance(found, dict) or key not in found:
            return value  # of a part that a network does not need, perhaps; who needs it refuses a string
        found = found[key]
    return _resolved(found, table, where, depth + 1)


def _tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """The weights; pickled code is refused, not run."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{where}: {WEIGHTS} is damaged or holds more than tensors, which is never run "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "take a checkpoint of weights alone."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{where}: {WEIGHTS} is no table of tensors: take a checkpoint of weights alone.")
    return {str(name): tensor for name, tensor in state.items()}
