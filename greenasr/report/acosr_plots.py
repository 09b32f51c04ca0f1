"""Plots of ACosR's tables as SVG text: the paper's Fig. 2 and 4, convergence over training, sizes.

    Fig. 2    dL/dw = α π θ sin(π r) beside α (π θ)² (w - q(w)), r the offset from the level q(w), eq. 7
    Fig. 4    weights among the levels at moments of training, a panel a layer of the prediction network

Nguyen et al. 2020.  The squared distance has α_L2 = α (π θ)² / 2, so that both slopes agree on the levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from greenasr.ops.periodic import absolute_cosine_slope, offset
from greenasr.report.acosr_tables import layer_label, named
from greenasr.report.acosr_traces import Levels, Trace
from greenasr.report.drawing import GREY, METHODS, WIDE, clean, style, svg
from greenasr.report.language_models import is_mixed
from greenasr.report.row_plots import bits_plot, size_plot

Row = Mapping[str, Any]
PARTS = {"encoder": "#0072B2", "prediction network": "#D55E00", "joint network": "#009E73"}
VIEW = 2.5  # levels either side of zero: the paper's Fig. 4 is "zoomed in on the near-zero region" too
TABLES = 2.6  # levels either side of zero in Fig. 2


def plots(value: Mapping[str, Any], traces: Mapping[str, Trace]) -> list[tuple[str, str]]:
    """The plots that there are figures for: (title, SVG)."""
    if not (rows := value["rows"]):
        return []
    found = [("WER against the size of the file", size_plot(rows, named, lambda row: style(row["method"])))]
    watched = [(row, traces[row["name"]]) for row in rows if row["name"] in traces]
    if watched:
        found.append(("Weights that have converged, over training", convergence_plot(watched)))
    one_table = [pair for pair in watched if not is_mixed(pair[0]) and len(pair[1].thetas)]
    if one_table:
        found.append(("Fig. 2: what pulls a weight to its level", slope_plot(one_table)))
    for row, trace in watched:
        if trace.levels:
            found.append((f"Fig. 4: weights among the levels, {named(row)}", levels_plot(row, trace.levels)))
    if mixed := [row for row in rows if is_mixed(row)]:
        found.append(("Bits of every layer", bits_plot(mixed, named, layer_label)))
    return found


def convergence_plot(watched: Sequence[tuple[Row, Trace]]) -> str:
    """WgtC of every layer over training, the colour by its part of the network, and of all weights, black."""
    with matplotlib.rc_context({"text.parse_math": False}):
        figure, panels = _panels(len(watched), 2.0)
        parts = {part_of(name) for _, trace in watched for name in trace.lines[-1]["layers"]}
        for axes, (row, trace) in zip(panels, watched, strict=True):
            at = [100 * line["step"] / line["of"] for line in trace.lines]
            for name in trace.lines[-1]["layers"]:
                shares = [100 * line["layers"][name] for line in trace.lines]
                axes.plot(at, shares, color=PARTS[part_of(name)], linewidth=0.8, alpha=0.7)
            totals = [100 * line["total"] for line in trace.lines]
            axes.plot(at, totals, color="black", linewidth=1.6)
            axes.set_title(named(row), fontsize=8, loc="left")
            axes.set_xlim(0, 100)
            axes.set_ylim(-3, 103)
            axes.tick_params(labelsize=7)
            clean(axes)
        figure.supxlabel("training, %", fontsize=8)
        figure.supylabel("WgtC, %", fontsize=8)
        for part, colour in PARTS.items():
            if part in parts:
                panels[0].plot([], [], color=colour, label=part)
        panels[0].plot([], [], color="black", linewidth=1.6, label="all weights")
        figure.legend(loc="outside upper left", ncols=4, fontsize=7, frameon=False)
        return svg(figure, "share of weights that have converged over training")


def part_of(name: str) -> str:
    """The part of the network that a parameter is in, a key of `PARTS`.

    >>> part_of("encoder_fc.weight"), part_of("embedding.weight"), part_of("output.weight")
    ('encoder', 'prediction network', 'joint network')
    """
    first = name.partition(".")[0]
    if first.startswith("encoder"):
        return "encoder"
    return "prediction network" if first.startswith(("predictor", "embedding")) else "joint network"


def slope_plot(rows: Sequence[tuple[Row, Trace]]) -> str:
    """Fig. 2 with the median θ of each row: the regularizer's derivative and the squared distance's, by α."""
    with matplotlib.rc_context({"text.parse_math": False}):
        figure, panels = _panels(len(rows), 1.8)
        for axes, (row, trace) in zip(panels, rows, strict=True):
            theta = float(np.median(trace.thetas))
            w, ours, squared = slopes(theta)
            for level in range(-math.floor(TABLES), math.floor(TABLES) + 1):
                axes.axvline(level / theta, color="#cccccc", linewidth=0.8, linestyle=":")
            axes.plot(w, squared, color=GREY, linewidth=1, linestyle="--")
            axes.plot(w, ours, color=METHODS["ACosR"][0], linewidth=1.5)
            axes.set_title(f"{named(row)}: {_theta_label(trace.thetas)}", fontsize=7, loc="left")
            axes.set_xlim(w[0], w[-1])
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.tick_params(labelsize=7)
            clean(axes)
            axes.grid(False)
        figure.supxlabel("w; dotted: levels", fontsize=8)
        figure.supylabel("slope / α", fontsize=8)
        panels[0].plot([], [], color=METHODS["ACosR"][0], label="-|cos(π θ w)|")
        panels[0].plot([], [], color=GREY, linestyle="--", label="(π θ)² |w - q(w)|² / 2")
        figure.legend(loc="outside upper left", ncols=2, fontsize=7, frameon=False)
        return svg(figure, "derivative of the regularizer over the weight")


def slopes(theta: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Weights around zero, eq. 7 with α = 1, and the squared distance's slope, which agrees on levels.

    Half way between levels, where both leap, a NaN breaks the curves.
    """
    places = torch.linspace(-TABLES, TABLES, 521, dtype=torch.float64)
    w = places / theta
    ours, squared = absolute_cosine_slope(w, theta), math.pi**2 * theta * offset(w, theta)
    leaps = torch.isclose(offset(w, theta).abs(), torch.tensor(0.5, dtype=torch.float64))
    ours, squared = (slope.masked_fill(leaps, math.nan) for slope in (ours, squared))
    return w.numpy(), ours.numpy(), squared.numpy()


def _theta_label(thetas: NDArray[np.float64]) -> str:
    """One θ, or the median and the range of a table's.

    >>> _theta_label(np.array([128.0, 128.0])), _theta_label(np.array([20.0, 31.5, 90.0]))
    ('θ = 128', 'θ = 31.5 (20 to 90)')
    """
    low, middle, high = np.min(thetas), np.median(thetas), np.max(thetas)
    return f"θ = {middle:.3g}" + ("" if np.isclose(low, high) else f" ({low:.3g} to {high:.3g})")


def levels_plot(row: Row, levels: Levels) -> str:
    """Fig. 4: histograms from the start of training, on top, to its end, each scaled to its highest bin."""
    seen = np.abs(levels.edges) <= VIEW + 1e-9
    edges, bins = levels.edges[seen], np.flatnonzero(seen)[:-1]
    colours = colormaps["viridis_r"](np.linspace(0.15, 0.95, len(levels.progress)))
    with matplotlib.rc_context({"text.parse_math": False}):
        figure, panels = _panels(len(levels.layers), 2.2)
        for k, (axes, name) in enumerate(zip(panels, levels.layers, strict=True)):
            for at, counts in enumerate(levels.counts[:, k][:, bins]):
                base = len(levels.progress) - 1 - at
                heights = base + 0.85 * counts / max(1, counts.max())
                axes.stairs(heights, edges, baseline=base, fill=True, color=colours[at])
            axes.set_title(layer_label(name), fontsize=8, loc="left")
            _among_levels(axes, levels.progress)
            if k % 2:
                axes.tick_params(labelleft=False)
        figure.supxlabel("θ w: levels are whole numbers", fontsize=8)
        figure.supylabel("training, %", fontsize=8)
        return svg(figure, f"weights among the levels over training, {row['name']}")


def _among_levels(axes: Axes, progress: NDArray[np.float64]) -> None:
    """Levels along x, moments of training up the side."""
    axes.set_xlim(-VIEW, VIEW)
    axes.set_ylim(-0.1, len(progress))
    axes.set_xticks(range(-math.floor(VIEW), math.floor(VIEW) + 1))
    axes.set_yticks(range(len(progress)), [f"{100 * share:.0f}" for share in progress[::-1]])
    axes.tick_params(labelsize=7, length=0)
    clean(axes)
    axes.spines[["left"]].set_visible(False)
    axes.grid(False, axis="y")


def _panels(n: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with n panels, two beside each other."""
    across = min(2, n)
    down = -(-n // across)
    figure = Figure(figsize=(WIDE if across > 1 else 3.4, 0.5 + height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.remove()
    return figure, list(grid[:n])
