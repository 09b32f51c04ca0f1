"""Sections of a recipe: a TOML table to a frozen dataclass of the same names, checked key by key."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
KINDS |= {"tuple": (list,), "Mapping": (dict,)}
NEWER = (  # settings that runs may be older than, at defaults
    ("precision", "float32"), ("engine", "runtime"), ("label_reward", 0.0), ("label_reward", None),
    ("activations", "int8"),
)  # fmt: skip


def read_toml(path: str | Path) -> dict[str, Any]:
    """The file as plain values; ValueError names it and the place where it is no TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8: a recipe is a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not TOML: {error}") from None


def make(cls: type[T], value: Any, section: str) -> T:
    """A frozen dataclass from a TOML table: lists become tuples; ValueError for unknown keys and kinds."""
    if not isinstance(value, dict):
        raise ValueError(f"[{section}] must be a table.")
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := set(value) - known:
        raise ValueError(f"[{section}] has no '{sorted(unknown)[0]}'; it knows {', '.join(sorted(known))}.")
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        kind = KINDS.get(str(item.type).partition("[")[0].partition(" |")[0])
        if kind and item.name in value and (type(value[item.name]) not in kind):
            expected = str(item.type).partition(" |")[0]
            raise ValueError(f"[{section}] {item.name}: found {value[item.name]!r}, expected {expected}.")

    def plain(item: Any) -> Any:
        if isinstance(item, list):
            return tuple(plain(part) for part in item)
        return {key: plain(part) for key, part in item.items()} if isinstance(item, dict) else item

    return cls(**{key: plain(item) for key, item in value.items()})


def older(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as JSON takes it, where runs that are older than a setting have its default.

    >>> older({"train": {"lr": 1.0, "precision": "float32"}, "decode": {"engine": "runtime"}, "title": "t"})
    {'train': {'lr': 1.0}, 'decode': {}, 'title': 't'}
    >>> older({"rows": [{"bits": 4, "activations": "int8"}, {"bits": 4, "activations": "float32"}]})
    {'rows': [{'bits': 4}, {'bits': 4, 'activations': 'float32'}]}
    """

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple) and all(isinstance(each, dict) for each in value):
            return [older(each) for each in value]
        return older(value) if isinstance(value, dict) else value

    found = {key: plain(value) for key, value in recipe.items()}
    return {key: value for key, value in found.items() if (key, value) not in NEWER}
