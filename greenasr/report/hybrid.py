"""What a person sees of GREEN's tables: Markdown, and a page with plots.

table.json ─▶ table.md, report.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.report.green_tables import general_note, headline, sheets
from greenasr.report.language_models import markdown
from greenasr.report.page import page
from greenasr.score.table import cell


def write(value: Mapping[str, Any], run: Path) -> None:
    """``table.json``, ``table.md`` and ``report.html`` in the run folder, which holds ``recipe.json``."""
    recipe = read_json(run / "recipe.json") if (run / "recipe.json").exists() else {}
    write_json(run / "table.json", dict(value))
    write_atomic(run / "table.md", to_markdown(value, recipe))
    write_atomic(run / "report.html", page(value, recipe))


def to_markdown(value: Mapping[str, Any], recipe: Mapping[str, Any] | None = None) -> str:
    """The tables as Markdown; ``recipe`` is the run's, for what the rows do not say themselves."""
    if not value["rows"]:
        return f"# {value['title']}\n\nNo row is finished yet.\n"
    parts = [f"# {value['title']}", headline(value)]
    for sheet in sheets(value, recipe or {}):
        columns = list(sheet.rows[0])
        lines = [[cell(row[name]) for name in columns] for row in sheet.rows]
        parts += [f"## {sheet.title}", markdown([cell(name) for name in columns], lines), sheet.note]
    return "\n\n".join(parts) + f"\n\n{general_note(value)}\n"
