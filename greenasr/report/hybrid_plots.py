"""Plots of GREEN's tables as SVG text, to stand inside a page: nothing in them points outside it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from greenasr.report.drawing import clean, place_labels, style
from greenasr.report.green_tables import is_full, label, named
from greenasr.report.language_models import MB, bits_label, is_mixed

NICE = {"x": (1, 2, 5), "y": (1, 1.5, 2, 3, 5, 7)}  # where a log axis has its figures
WIDE = 5.0  # inches: as wide as a phone can show without making the letters small


def plots(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plots that the rows have figures for: (title, SVG)."""
    rows = value["rows"]
    found = [("WER against the size of the file", size_plot(rows))]
    if any(is_mixed(row) for row in rows):
        found.append(("Bits of every layer", bits_plot([row for row in rows if is_mixed(row)])))
    full = [row for row in rows if is_full(row) and row["bottlenecks"]]
    if full:
        found.append(("Bottleneck of every layer", bottleneck_plot(full)))
    return found


def size_plot(rows: list[Mapping[str, Any]]) -> str:
    """Pooled WER of every row against megabytes on a log axis, with the 95 % interval of its first seed."""
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDE, 4.4), layout="constrained")
        axes = figure.subplots()
        points = np.array([(row["bytes"] / MB, row["pooled"][0]) for row in rows])
        _log(axes, "x", *points[:, 0].min() * np.array([0.7, 1]), points[:, 0].max() * 1.5)
        low, high = points[:, 1].min(), points[:, 1].max()
        if low > 0 and high / low > 4:
            _log(axes, "y", low / 1.6, low, high * 1.6)
        labels = []
        for (x, y), row in zip(points, rows, strict=True):
            colour, marker = _style(row)
            axes.vlines(x, *row["ci95"], color=colour, linewidth=1, alpha=0.6)
            axes.plot(x, y, marker, color=colour, markersize=10 if marker == "*" else 6)
            labels.append((x, y, named(row).removeprefix("uniform, "), colour, 7.0))
        clean(axes)
        axes.set_xlabel("file, MB (log scale)")
        axes.set_ylabel("WER, % of all words")
        place_labels(axes, labels, [points[[i]] for i in range(len(points))])
        return svg(figure, "WER of every recogniser against the size of its file")


def bits_plot(rows: list[Mapping[str, Any]]) -> str:
    """Bits of every cluster, first on top, a column for every mixed plan; the deeper the colour the more."""
    names = list(dict.fromkeys(name for row in rows for name in row["plan"]))
    bits = np.array([[row["plan"].get(name, np.nan) for row in rows] for name in names], dtype=float)
    with matplotlib.rc_context({"text.parse_math": False}):
        size = (max(3.2, 1.4 + 0.62 * len(rows)), 1.5 + 0.24 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.pcolormesh(np.log2(bits), cmap="Greens", vmin=-1.5, vmax=6.5, edgecolors="white", linewidth=1.5)
        for i, j in np.argwhere(np.isfinite(bits)):
            ink = "white" if bits[i, j] > 4 else "#222222"
            axes.text(
                j + 0.5, i + 0.5, bits_label(bits[i, j]), ha="center", va="center", fontsize=8, color=ink
            )
        axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=8)
        texts = [named(row).replace(" plan", "").replace(", ", "\n") for row in rows]
        axes.set_xticks(np.arange(len(rows)) + 0.5, texts, fontsize=7)
        axes.xaxis.tick_top()
        axes.set_ylim(len(names), 0)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return svg(figure, "bits of every layer, a column for every mixed plan")


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


def svg(figure: Figure, words: str) -> str:
    """A figure as an SVG element that says ``words`` to who cannot see it; ids differ between figures."""
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": words, "text.parse_math": False}):
        figure.savefig(buffer, format="svg", metadata=none, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text)  # a page in HTML needs no namespaces
    prefix = re.sub(r"\W+", "-", words)
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\1{prefix}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)


def _style(row: Mapping[str, Any]) -> tuple[str, str]:
    """Colour and marker by method, as language models have them."""
    return ("#444444", "d") if row["name"] == "compact" else style(row["method"])


def _log(axes: Axes, axis: str, *span: float) -> None:
    """A log axis over ``span`` with plain figures."""
    limits, which = (min(span), max(span)), getattr(axes, f"{axis}axis")
    getattr(axes, f"set_{axis}scale")("log")
    getattr(axes, f"set_{axis}lim")(*limits)
    which.set_major_locator(FixedLocator([n * 10.0**e for e in range(-4, 5) for n in NICE[axis]]))
    which.set_minor_locator(NullLocator())
    which.set_major_formatter(FuncFormatter(lambda found, _: f"{found:g}"))
