"""Plots of GREEN's tables as SVG text, to stand inside a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from greenasr.report.drawing import WIDE, clean, style, svg
from greenasr.report.green_tables import is_full, label, named
from greenasr.report.language_models import is_mixed
from greenasr.report.row_plots import bits_plot, size_plot


def plots(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plots that the rows have figures for: (title, SVG)."""
    if not (rows := value["rows"]):
        return []
    found = [("WER against the size of the file", size_plot(rows, _short, _look))]
    if mixed := [row for row in rows if is_mixed(row)]:
        found.append(("Bits of every layer", bits_plot(mixed, named)))
    if full := [row for row in rows if is_full(row) and row["bottlenecks"]]:
        found.append(("Bottleneck of every layer", bottleneck_plot(full)))
    return found


def bottleneck_plot(rows: list[Mapping[str, Any]]) -> str:
    """Bottleneck of every layer of the full-precision networks, bars side by side."""
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDE, 2.8), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(rows)
        for k, row in enumerate(rows):
            at = np.arange(len(row["bottlenecks"])) + (k - (len(rows) - 1) / 2) * width
            colour = "#bbbbbb" if row["name"] == "float" else f"C{k}"
            text = f"{label(row)}, {row['parameters'] / 1e6:.2f}M parameters"
            bars = axes.bar(at, row["bottlenecks"], width, color=colour, label=text)
            axes.bar_label(bars, fontsize=7, color="#333333")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("TDNN-F layer")
        axes.set_ylabel("bottleneck dimension")
        axes.margins(y=0.15)
        clean(axes)
        axes.grid(False, axis="x")
        figure.legend(loc="outside upper left", fontsize=8, frameon=False)
        return svg(figure, "bottleneck of every layer")


def _short(row: Mapping[str, Any]) -> str:
    """The name without what most rows have."""
    return named(row).removeprefix("uniform, ")


def _look(row: Mapping[str, Any]) -> tuple[str, str]:
    """Colour and marker by method, as language models have them."""
    return ("#444444", "d") if row["name"] == "compact" else style(row["method"])
