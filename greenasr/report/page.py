"""report.html: the tables, the plots and how they were made, one file that needs nothing beside itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from greenasr import __version__
from greenasr.report.green_tables import Sheet, general_note, headline, sheets
from greenasr.report.hybrid_plots import plots
from greenasr.report.language_models import MB, number

NUMBER = re.compile(r"[-+–]?\d")  # a cell that begins so is set to the right


def page(value: Mapping[str, Any], recipe: Mapping[str, Any] | None = None) -> str:
    """The whole page as HTML; everything that a recipe or a corpus named is escaped."""
    recipe, rows = recipe or {}, value["rows"]
    environment = Environment(
        loader=PackageLoader("greenasr", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=value["title"],
        headline=headline(value) if rows else "No row is finished yet.",
        sheets=[_sheet(sheet) for sheet in sheets(value, recipe)] if rows else [],
        plots=[(title, Markup(svg)) for title, svg in plots(value)] if rows else [],
        facts=facts(value, recipe) if rows else [],
        note=_prose(general_note(value)) if rows else "",
        version=__version__,
    )


def facts(value: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and how, as (term, sentence); what the recipe does not tell is left out."""
    found: list[tuple[str, str]] = []
    if corpus := recipe.get("corpus"):
        source = corpus["source"] or f"generated, {corpus['hours']:g} hours for training"
        speeds = ", ".join(f"{speed:g}" for speed in corpus["speeds"])
        found.append(("Speech", f"{source}; trained on at speeds {speeds}"))
    parts, seeds = value.get("parts") or [], value.get("seeds") or []
    words = max(row["words"] for row in value["rows"])
    folds = f", and {len(parts) - 1} folds of the training speakers" if len(parts) > 1 else ""
    found.append(("Tested on", f"{words:,} words: the test sets{folds}; seeds {', '.join(map(str, seeds))}"))
    if features := recipe.get("features"):
        ivectors = f", i-vectors of {features['ivectors']}" if features.get("ivectors") else ""
        found.append(("Features", f"{features['bins']} {features['kind']}, 100 frames a second{ivectors}"))
    if model := recipe.get("model"):
        full = value["rows"][0]
        size = f"{full['parameters'] / 1e6:.2f}M parameters, {number(full['bytes'] / MB, 2)} MB"
        shape = ", ".join(f"{key} {model[key]}" for key in ("layers", "dim", "bottleneck") if key in model)
        found.append(("Network", f"TDNN-F, {shape}; at full precision {size}"))
    if training := recipe.get("train"):
        seconds = ", ".join(f"{row['seconds_train']:.0f}" for row in value["rows"][:1])
        found.append(("Training", f"LF-MMI, {training['epochs']:g} epochs, {seconds} s at full precision"))
    if search := recipe.get("search"):
        dims = ", ".join(map(str, search["dims"]))
        found.append(("Search", f"{search['method']} over bottlenecks {dims}"))
    if compress := recipe.get("compress"):
        widths = ", ".join(map(str, compress["widths"]))
        how = f"{compress['epochs']:g} epochs towards the grid, a width by {compress['by']}, a step by "
        found.append(("Quantization", f"{how}{compress['step']}; plans choose from {widths} bits"))
    if decode := recipe.get("decode"):
        tuned = "tuned on speech that is not tested on" if decode.get("tune") else "not tuned"
        found.append(("Search for words", f"{decode['order']}-gram of the training text; scales {tuned}"))
    found.append(("Intervals", "95 %, resampling speakers; of the first seed in the plot"))
    found.append(("Sizes", "bytes of the packed files on disk, MB = 1e6 bytes; nothing is a formula"))
    return found


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
