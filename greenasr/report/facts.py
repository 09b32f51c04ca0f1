"""What was measured and how, as (term, sentence); what the recipe does not tell is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from greenasr.report.language_models import MB, number

Facts = list[tuple[str, str]]
FIGURES: Facts = [
    ("Intervals", "95 %, resampling speakers; of the first seed in the plot"),
    ("Sizes", "bytes of the packed files on disk, MB = 1e6 bytes; nothing is a formula"),
]


def speech(value: Mapping[str, Any], recipe: Mapping[str, Any]) -> Facts:
    """The corpus, what was tested on, and what networks see."""
    found = []
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
    return found


def labels(recipe: Mapping[str, Any]) -> Facts:
    """What a network spells words with, and how many of them at most."""
    settings = recipe.get("labels")
    if not settings:
        return []
    most = "" if settings["kind"] == "letters" else f", at most {settings['size']:,}"
    return [("Labels", f"{settings['kind']}{most}")]


def quantization(recipe: Mapping[str, Any]) -> Facts:
    """How compressed rows are trained, and what plans choose from."""
    if not (compress := recipe.get("compress")):
        return []
    widths = ", ".join(map(str, compress["widths"]))
    how = f"{compress['epochs']:g} epochs towards the grid, a width by {compress['by']}, a step by "
    return [("Quantization", f"{how}{compress['step']}; plans choose from {widths} bits")]


def full_size(row: Mapping[str, Any]) -> str:
    """Parameters and file of a full-precision row."""
    return f"at full precision {row['parameters'] / 1e6:.2f}M parameters, {number(row['bytes'] / MB, 2)} MB"
