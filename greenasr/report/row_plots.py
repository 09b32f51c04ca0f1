"""Plots that tables of recognisers share: WER against size, and the plans of mixed rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from greenasr.report.drawing import WIDE, clean, log_axis, place_labels, svg
from greenasr.report.language_models import MB, bits_label

Row = Mapping[str, Any]
Named = Callable[[Row], str]


def size_plot(
    rows: Sequence[Row],
    named: Named,
    look: Callable[[Row], tuple[str, str]],
    errors: str = "WER, % of all words",
) -> str:
    """Pooled WER of every row against megabytes on a log axis, with the 95 % interval of its first seed.

    ``look`` is a row's colour and marker, ``errors`` what the vertical axis has.
    """
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDE, 4.4), layout="constrained")
        axes = figure.subplots()
        points = np.array([(row["bytes"] / MB, row["pooled"][0]) for row in rows])
        log_axis(axes, "x", *points[:, 0].min() * np.array([0.7, 1]), points[:, 0].max() * 1.5)
        low, high = points[:, 1].min(), points[:, 1].max()
        if low > 0 and high / low > 4:
            log_axis(axes, "y", low / 1.6, low, high * 1.6)
        labels = []
        for (x, y), row in zip(points, rows, strict=True):
            colour, marker = look(row)
            axes.vlines(x, *row["ci95"], color=colour, linewidth=1, alpha=0.6)
            axes.plot(x, y, marker, color=colour, markersize=10 if marker == "*" else 6)
            labels.append((x, y, named(row), colour, 7.0))
        clean(axes)
        axes.set_xlabel("file, MB (log scale)")
        axes.set_ylabel(errors)
        place_labels(axes, labels, [points[[i]] for i in range(len(points))])
        return svg(figure, f"{errors.partition(',')[0]} of every recogniser against the size of its file")


def bits_plot(rows: Sequence[Row], named: Named, short: Callable[[str], str] = str) -> str:
    """Bits of every cluster, first on top, a column for every mixed plan; the deeper the colour the more.

    ``short`` is how a cluster's name is written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row["plan"]))
    bits = np.array([[row["plan"].get(name, np.nan) for row in rows] for name in names], dtype=float)
    with matplotlib.rc_context({"text.parse_math": False}):
        size = (max(WIDE, 1.4 + 0.62 * len(rows)), 1.5 + 0.24 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.pcolormesh(np.log2(bits), cmap="Greens", vmin=-1.5, vmax=6.5, edgecolors="white", linewidth=1.5)
        for i, j in np.argwhere(np.isfinite(bits)):
            ink = "white" if bits[i, j] > 4 else "#222222"
            axes.text(
                j + 0.5, i + 0.5, bits_label(bits[i, j]), ha="center", va="center", fontsize=8, color=ink
            )
        axes.set_yticks(np.arange(len(names)) + 0.5, [short(name) for name in names], fontsize=8)
        texts = [named(row).replace(" plan", "").replace(", ", "\n") for row in rows]
        axes.set_xticks(np.arange(len(rows)) + 0.5, texts, fontsize=7)
        axes.xaxis.tick_top()
        axes.set_ylim(len(names), 0)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return svg(figure, "bits of every layer, a column for every mixed plan")
