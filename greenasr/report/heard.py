"""Which engine heard the words of a table's rows, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NUMBERS = {"int8": "of 8 bits", "float32": "in float32"}


def heard_by(value: Mapping[str, Any]) -> str:
    """Behind a table's note; nothing for tables without packed rows, or that are older than the choice.

    >>> heard_by({"rows": [{"bits": 32}, {"name": "bp-4", "bits": 4, "engines": ["runtime"]}]})
    ' Words and RTF of packed rows are of the runtime, with activations of 8 bits; all others of torch.'
    >>> heard_by({"rows": [{"name": "bp-4", "bits": 4, "engines": ["runtime"], "activations": "float32"}]})
    ' Words and RTF of packed rows are of the runtime, with activations in float32; all others of torch.'
    """
    packed = [row for row in value["rows"] if row["bits"] < 32 and row.get("engines")]
    others = [row["name"] for row in packed if row["engines"] != ["runtime"]]
    if not packed or len(others) == len(packed):
        return ""
    which = f"packed rows but {', '.join(others)}" if others else "packed rows"
    kinds = {row.get("activations", "int8") for row in packed}
    numbers = " and ".join(NUMBERS[kind] for kind in sorted(kinds, reverse=True))
    return f" Words and RTF of {which} are of the runtime, with activations {numbers}; all others of torch."
