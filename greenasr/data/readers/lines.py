"""Lines of a text file with their numbers, decoded or refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(number, line without its ends' spaces) of every line that is not empty; ".gz" is unpacked.

    ValueError where a line is not UTF-8 or the compressed file is cut short.
    """
    with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
        number = 0
        try:
            for number, raw in enumerate(file, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line:
                    yield number, line
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}:{number}: not UTF-8 at byte {error.start + 1}: convert the file, for example "
                "with `iconv -f latin1 -t utf-8`."
            ) from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path}:{number + 1}: {error}: was the file cut short? Copy it again."
            ) from None


def json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, object) of a file of JSON objects, one a line."""
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where}: not JSON: {error.msg} at column {error.colno}; was it cut short?"
            ) from None
        if not isinstance(value, dict):
            raise ValueError(f"{where}: found {line[:30]}, expected a JSON object a line.")
        yield where, value


def needed(value: Mapping[str, Any], keys: str, where: str) -> None:
    """Refuse a row that lacks one of the keys, given with spaces between."""
    if lacking := [key for key in keys.split() if value.get(key) is None]:
        raise ValueError(
            f"{where}: lacks '{lacking[0]}', expected at least {', '.join(keys.split())}; add it."
        )
