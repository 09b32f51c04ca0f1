"""What a person sees of a run: tables in Markdown, and one HTML file with plots that needs nothing else.

table.json ─▶ table.md, report.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from greenasr import __version__
from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.report.language_models import markdown
from greenasr.score.table import cell

NUMBER = re.compile(r"[-+–]?\d")  # a cell that begins so is set to the right
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Sheet:
    """A table for people: rows of column -> text, the same columns in each, and what to know of it."""

    title: str
    rows: Sequence[Mapping[str, str]]
    note: str


@dataclass(frozen=True)
class Page:
    """A heading, the result in a sentence or two, tables, and what holds for all of them."""

    title: str
    lead: str = "No row is finished yet."
    sheets: Sequence[Sheet] = ()
    note: str = ""


def write(run: Path, value: Mapping[str, Any], page: Page, plots: Pairs, facts: Pairs) -> None:
    """``table.json``, ``table.md`` and ``report.html`` in the run folder."""
    write_json(run / "table.json", dict(value))
    write_atomic(run / "table.md", to_markdown(page))
    write_atomic(run / "report.html", to_html(page, plots, facts))


def recipe_of(run: Path) -> dict[str, Any]:
    """What a run says that it runs; nothing where it does not."""
    path = run / "recipe.json"
    return dict(read_json(path)) if path.exists() else {}


def to_markdown(page: Page) -> str:
    """The page without plots, as it is printed."""
    parts = [f"# {page.title}", page.lead]
    for sheet in page.sheets:
        columns = list(sheet.rows[0])
        lines = [[cell(row[name]) for name in columns] for row in sheet.rows]
        parts += [f"## {sheet.title}", markdown([cell(name) for name in columns], lines), sheet.note]
    return "\n\n".join(part for part in (*parts, page.note) if part) + "\n"


def to_html(page: Page, plots: Pairs = (), facts: Pairs = ()) -> str:
    """The page with plots, (title, SVG), and facts, (term, sentence); texts are escaped, plots are not."""
    environment = Environment(
        loader=PackageLoader("greenasr", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=page.title,
        headline=page.lead,
        sheets=[_sheet(sheet) for sheet in page.sheets],
        plots=[(title, Markup(svg)) for title, svg in plots],
        facts=facts,
        note=_prose(page.note),
        version=__version__,
    )


def _sheet(sheet: Sheet) -> dict[str, Any]:
    """A table for the template: header, cells with their side, note."""
    columns = list(sheet.rows[0])
    right = [all(NUMBER.match(row[name]) or row[name] == "–" for row in sheet.rows) for name in columns]
    lines = [[(row[name], r) for name, r in zip(columns, right, strict=True)] for row in sheet.rows]
    return {
        "title": sheet.title,
        "columns": list(zip(columns, right, strict=True)),
        "lines": lines,
        "note": _prose(sheet.note),
    }


def _prose(text: str) -> str:
    """A note without Markdown's signs."""
    return re.sub(r"[`]|\*\*", "", text).replace("\n", " ")
