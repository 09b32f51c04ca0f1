"""Plots of the ternary paper's tables as SVG text: its Fig. 4 and 5, sizes, plans.

    Fig. 4    WER against the sparsity t, a line a configuration, its floating-point network dashed
    Fig. 5    WER against trained parameters: floating point, random ternary, other skips; fronts as lines

Mordido, Van keirsbilck and Keller 2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from greenasr.report.acosr_tables import layer_label
from greenasr.report.ctc_tables import configuration, named
from greenasr.report.drawing import WIDE, clean, log_axis, place_labels, style, svg
from greenasr.report.language_models import bits_label, is_mixed
from greenasr.report.row_plots import bits_plot, size_plot

Row = Mapping[str, Any]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FAMILIES = {  # (ternary, skips as trained) -> label, colour, marker
    (False, True): ("floating point (FP)", "#000000", "*"),
    (True, True): ("random ternary (RT)", "#0072B2", "o"),
    (True, False): ("RT, other skips", "#D55E00", "s"),
    (False, False): ("FP, other skips", "#777777", "X"),
}


def plots(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plots that there are figures for: (title, SVG)."""
    if not (rows := value["rows"]):
        return []
    networks = [row for row in rows if row["bits"] == 32]
    found = []
    if any(len(line) > 1 for line in lines(networks).values()):
        found.append(("Fig. 4: WER against sparsity", sparsity_plot(networks)))
    if len(networks) > 1:
        found.append(("Fig. 5: WER against trained parameters", parameters_plot(networks)))
    found.append(("WER against the size of the file", size_plot(rows, _short, _look)))
    if mixed := [row for row in rows if is_mixed(row)]:
        found.append(("Bits of every layer", bits_plot(mixed, named, layer_label)))
    return found


def lines(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Ternary rows by configuration, in the order of t."""
    found: dict[str, list[Row]] = {}
    for row in sorted((r for r in rows if r["threshold"] is not None), key=lambda r: r["threshold"]):
        if not row["structured"]:
            found.setdefault(configuration(row), []).append(row)
    return found


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that none beats in both size and error, by size.

    >>> front([(1.0, 9.0), (2.0, 9.5), (3.0, 7.0), (2.5, 9.0)])
    [(1.0, 9.0), (3.0, 7.0)]
    """
    kept: list[tuple[float, float]] = []
    for size, error in sorted(points):
        if not kept or error < kept[-1][1]:
            kept.append((size, error))
    return kept


def sparsity_plot(rows: Sequence[Row]) -> str:
    """Fig. 4: pooled WER with its interval against t; dashed, the same configuration in floating point."""
    full = {configuration(row): row["pooled"][0] for row in rows if row["threshold"] is None}
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDE, 3.6), layout="constrained")
        axes = figure.subplots()
        several = {label: line for label, line in lines(rows).items() if len(line) > 1}
        for colour, (label, line) in zip(COLOURS * len(rows), several.items(), strict=False):
            t, wer = [row["threshold"] for row in line], [row["pooled"][0] for row in line]
            axes.plot(t, wer, "o-", color=colour, markersize=5, linewidth=1.4, label=f"{label}, RT")
            for row in line:
                axes.vlines(row["threshold"], *row["ci95"], color=colour, linewidth=1, alpha=0.5)
            if label in full:
                axes.axhline(full[label], color=colour, linewidth=1, linestyle="--", label=f"{label}, FP")
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("t, expected share of zeros")
        axes.set_ylabel("WER, % of all words")
        clean(axes)
        figure.legend(loc="outside upper left", ncols=3, fontsize=7, frameon=False)
        return svg(figure, "WER of ternary networks against their sparsity")


def parameters_plot(rows: Sequence[Row], errors: str = "WER, % of all words", unit: float = 1e6) -> str:
    """Fig. 5: pooled WER with its interval against trained parameters, a colour a family, fronts as lines.

    ``errors`` is what the vertical axis has, parameters are in a ``unit`` of 1e6 or 1e3.
    """
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDE, 4.2), layout="constrained")
        axes = figure.subplots()
        sizes = np.array([row["parameters"] / unit for row in rows])
        log_axis(axes, "x", sizes.min() * 0.75, sizes.max() * 1.4)
        labels, drawn = [], []
        for (ternary, trained), (family, colour, marker) in FAMILIES.items():
            of = [
                row
                for row in rows
                if (row["threshold"] is not None, row["skips"] == "trained") == (ternary, trained)
            ]
            points = [(row["parameters"] / unit, row["pooled"][0]) for row in of]
            if not of:
                continue
            for (x, y), row in zip(points, of, strict=True):
                axes.vlines(x, *row["ci95"], color=colour, linewidth=1, alpha=0.4)
                axes.plot(x, y, marker, color=colour, markersize=9 if marker == "*" else 5)
                labels.append((x, y, _short(row), colour, 6.5))
            edge = front(points)
            axes.plot(*zip(*edge, strict=True), color=colour, linewidth=1.2, alpha=0.8)
            axes.plot([], [], marker, color=colour, linestyle="-", label=family)
            drawn += [np.array([point]) for point in points] + ([np.array(edge)] if len(edge) > 1 else [])
        axes.set_xlabel(f"trained parameters, {'millions' if unit == 1e6 else 'thousands'} (log scale)")
        axes.set_ylabel(errors)
        clean(axes)
        figure.legend(loc="outside upper left", ncols=2, fontsize=7, frameon=False)
        place_labels(axes, labels, drawn)
        return svg(figure, f"{errors.partition(',')[0]} of every network against its trained parameters")


def _short(row: Row) -> str:
    """A point's label: shape, t where there is one, bits where there are fewer."""
    t = "" if row["threshold"] is None else " 2:4" if row["structured"] else f" t{row['threshold']:g}"
    return f"{row['shape']}{t}" + ("" if row["bits"] == 32 else f", {bits_label(row['bits'])} bits")


def _look(row: Row) -> tuple[str, str]:
    """Colour and marker: of a network its family's, of a compressed one its method's."""
    if row["bits"] < 32:
        return style(row["method"])
    return FAMILIES[row["threshold"] is not None, row["skips"] == "trained"][1:]
