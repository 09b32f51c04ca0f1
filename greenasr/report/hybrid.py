"""What a person sees of GREEN's tables: Markdown, and a page with plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greenasr.report import facts, page
from greenasr.report.green_tables import general_note, headline, sheets
from greenasr.report.hybrid_plots import plots


def write(value: Mapping[str, Any], run: Path) -> None:
    """``table.json``, ``table.md`` and ``report.html`` in the run folder, which holds ``recipe.json``."""
    recipe = page.recipe_of(run)
    page.write(run, value, contents(value, recipe), plots(value), facts_of(value, recipe))


def contents(value: Mapping[str, Any], recipe: Mapping[str, Any] | None = None) -> page.Page:
    """Tables and words; ``recipe`` is the run's, for what the rows do not say themselves."""
    if not value["rows"]:
        return page.Page(value["title"])
    return page.Page(value["title"], headline(value), sheets(value, recipe or {}), general_note(value))


def facts_of(value: Mapping[str, Any], recipe: Mapping[str, Any]) -> facts.Facts:
    """What was measured and how; what the recipe does not tell is left out."""
    if not value["rows"]:
        return []
    found, full = facts.speech(value, recipe), value["rows"][0]
    if model := recipe.get("model"):
        shape = ", ".join(f"{key} {model[key]}" for key in ("layers", "dim", "bottleneck") if key in model)
        found.append(("Network", f"TDNN-F, {shape}; {facts.full_size(full)}"))
    if training := recipe.get("train"):
        seconds = f"{full['seconds_train']:.0f} s at full precision"
        found.append(("Training", f"LF-MMI, {training['epochs']:g} epochs, {seconds}"))
    if search := recipe.get("search"):
        dims = ", ".join(map(str, search["dims"]))
        found.append(("Search", f"{search['method']} over bottlenecks {dims}"))
    found += facts.quantization(recipe)
    if decode := recipe.get("decode"):
        tuned = "tuned on speech that is not tested on" if decode.get("tune") else "not tuned"
        found.append(("Search for words", f"{decode['order']}-gram of the training text; scales {tuned}"))
    return found + facts.FIGURES
