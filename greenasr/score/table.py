"""Rows as a table in Markdown, columns lined up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def cell(value: object) -> str:
    r"""A value as it stands in a table: floats to two places, sequences with spaces, None as –.

    >>> [cell(v) for v in (2.5, None, True, (1, 2), "a|b")]
    ['2.50', '–', 'yes', '1 2', 'a\\|b']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list | tuple):
        return " ".join(cell(v) for v in value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def markdown(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """The rows as a table; columns are the keys in order of appearance unless given, numbers to the right.

    >>> print(markdown([{"set": "dev", "WER": 12.345}, {"set": "test", "WER": None}]), end="")
    | set  |   WER |
    |:-----|------:|
    | dev  | 12.35 |
    | test |     – |
    """
    names = list(columns) if columns is not None else list(dict.fromkeys(k for row in rows for k in row))
    numeric = [
        all(isinstance(row.get(n), int | float | None) and not isinstance(row.get(n), bool) for row in rows)
        for n in names
    ]
    lines = [[cell(n) for n in names], *([cell(row.get(n)) for n in names] for row in rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(names))]

    def written(line: Sequence[str]) -> str:
        cells = (
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)
        )
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join(
        "-" * (w + 1) + ":" if right else ":" + "-" * (w + 1)
        for w, right in zip(widths, numeric, strict=True)
    )
    return "\n".join([written(lines[0]), rule + "|", *map(written, lines[1:])]) + "\n"
