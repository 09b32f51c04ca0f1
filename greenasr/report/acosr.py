"""What a person sees of ACosR's tables: Markdown, and a page with plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greenasr.models.rnnt import RnntConfig
from greenasr.report import facts, page
from greenasr.report.acosr_plots import plots
from greenasr.report.acosr_tables import general_note, headline, sheets
from greenasr.report.acosr_traces import traces


def write(value: Mapping[str, Any], run: Path) -> None:
    """``table.json``, ``table.md`` and ``report.html`` in the run folder, which holds ``recipe.json``."""
    recipe = page.recipe_of(run)
    drawn = plots(value, traces(value, run))
    page.write(run, value, contents(value), drawn, facts_of(value, recipe))


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
        found.append(("Network", f"{shape(model)}; {facts.full_size(full)}"))
    if training := recipe.get("train"):
        seconds = f"{full['seconds_train']:.0f} s at full precision"
        left = f"; {full['left_out']:,} utterances have more labels than room" if full["left_out"] else ""
        found.append(("Training", f"transducer loss, {training['epochs']:g} epochs, {seconds}{left}"))
    found += facts.quantization(recipe)
    if decode := recipe.get("decode"):
        order = f"; lists rescored by a {decode['order']}-gram" if decode["order"] else ""
        found.append(("Search for words", f"beam {decode['beam']}, {decode['nbest']} best{order}"))
    return found + facts.FIGURES


def shape(model: Mapping[str, Any]) -> str:
    """The recipe's network in words.

    >>> shape({"encoder_layers": 2, "encoder_dim": 64, "predictor_layers": 1, "joint": "addition"})
    'RNN-T: encoder 2 x LSTM-64 of 40 ms frames, prediction network 1 x LSTM-1024, joint by addition'
    """
    c = RnntConfig(**{**model, "feat_dim": 1, "vocab": 2})
    joint = "joint by addition" if c.joint == "addition" else f"joint of one layer over {c.joint_dim}"
    return (
        f"RNN-T: encoder {c.encoder_layers} x LSTM-{c.encoder_dim} of {10 * c.frames_joined} ms frames, "
        f"prediction network {c.predictor_layers} x LSTM-{c.predictor_dim}, {joint}"
    )
