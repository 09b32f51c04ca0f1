"""What a person sees of the ternary paper's tables: Markdown, and a page with plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greenasr.report import facts, page
from greenasr.report.ctc_plots import plots
from greenasr.report.ctc_tables import general_note, headline, sheets


def write(value: Mapping[str, Any], run: Path) -> None:
    """``table.json``, ``table.md`` and ``report.html`` in the run folder, which holds ``recipe.json``."""
    recipe = page.recipe_of(run)
    page.write(run, value, contents(value), plots(value), facts_of(value, recipe))


def contents(value: Mapping[str, Any]) -> page.Page:
    """Tables and words."""
    if not value["rows"]:
        return page.Page(value["title"])
    return page.Page(value["title"], headline(value), sheets(value), general_note(value))


def facts_of(value: Mapping[str, Any], recipe: Mapping[str, Any]) -> facts.Facts:
    """What was measured and how; what the recipe does not tell is left out."""
    if not value["rows"]:
        return []
    found, full = facts.speech(value, recipe), value["rows"][0]
    found += facts.labels(recipe)
    if model := recipe.get("model"):
        stride = model.get("stride", 2)
        found.append(
            ("Network", f"QuartzNet {full['shape']}, a frame every {10 * stride} ms; {facts.full_size(full)}")
        )
    if training := recipe.get("train"):
        seconds = f"{full['seconds_train']:.0f} s at full precision"
        left = f"; {full['left_out']:,} utterances are too short for their labels" if full["left_out"] else ""
        found.append(("Training", f"CTC, {training['epochs']:g} epochs, {seconds}{left}"))
    found += facts.quantization(recipe)
    if decode := recipe.get("decode"):
        alone = "greedy" if decode["beam"] == 1 else f"prefix beam of {decode['beam']}"
        graph = f"; graph of the lexicon and a {decode['order']}-gram" if decode["order"] else ""
        found.append(("Search for words", f"{alone}{graph}"))
    return found + facts.FIGURES
