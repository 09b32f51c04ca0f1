"""Plots of a search: the front, bits and sensitivity of every layer, weights against their levels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from greenasr.data.files import read_json
from greenasr.report.drawing import GREY, WIDE, clean, log_axis, svg
from greenasr.runtime import format as packed_format
from greenasr.runtime.format import PackedSpan

MB = 1e6
PANELS = 6  # layers whose weights are shown
GREEN, ORANGE, BLUE = "#009E73", "#E69F00", "#0072B2"
Value = Mapping[str, Any]
Row = Mapping[str, Any]


def plots(value: Value, run: Path) -> list[tuple[str, str]]:
    """(title, SVG) of everything that there are figures for."""
    found = [("Words wrong against the size of the file", front_plot(value))]
    row = next((row for row in value["models"] if row["name"] == value["smallest"]), None)
    if row is not None:
        costs = read_json(run / f"costs-{row['cost']}" / "costs.json")
        found.append(("Bits and sensitivity of every layer", layers_plot(row, costs)))
        packed = packed_format.read(run / "models" / row["name"] / "model.packed")
        full = packed_format.read(run / "full" / "model.packed")
        found.append(("Weights against their levels", levels_plot(packed, full.weights())))
    return found


def front_plot(value: Value) -> str:
    """WER against megabytes: on top test with 95 % intervals, of the finalists; below dev, of every model."""
    full, rows = value["full"], value["models"]
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDE, 5.2), layout="constrained")
        test, dev = figure.subplots(2, 1, sharex=True)
        sizes = np.array([full["bytes"], *(row["bytes"] for row in rows)]) / MB
        log_axis(dev, "x", sizes.min() * 0.8, sizes.max() * 1.25)
        tested = [row for row in rows if row.get("test")]
        for row in (full, *tested):
            chosen = row.get("name") == value["smallest"] is not None
            colour = "black" if row is full else BLUE
            test.vlines(row["bytes"] / MB, *row["test"]["ci95"], color=colour, linewidth=1)
            marker, large = ("*", 11) if row is full else ("D", 8) if chosen else ("s", 5)
            test.plot(row["bytes"] / MB, row["test"]["wer"], marker, color=colour, markersize=large)
        for trained, colour, word in ((True, GREEN, "trained"), (False, ORANGE, "not trained")):
            some = [row for row in rows if (row["estimator"] != "none") == trained]
            if some:
                x, y = [row["bytes"] / MB for row in some], [row["dev"]["wer"] for row in some]
                dev.plot(x, y, "o", color=colour, markersize=5, label=word)
        front = np.array([(row["bytes"] / MB, row["dev"]["wer"]) for row in rows if row["front"]])
        dev.plot(*front.T, color=GREY, linewidth=0.8, linestyle=":", label="front")
        dev.plot(
            full["bytes"] / MB, full["dev"]["wer"], "*", color="black", markersize=11, label="full precision"
        )
        for axes, split in ((test, "test"), (dev, "dev")):
            axes.axhline(full[split]["wer"], color="black", linewidth=0.6, linestyle="--", alpha=0.6)
            axes.set_ylabel(f"words wrong on {split}, %", fontsize=8)
            axes.tick_params(labelsize=7)
            clean(axes)
        test.set_title("bars: 95 % intervals; diamond: the answer", fontsize=7, loc="left", color=GREY)
        dev.set_xlabel("file, MB (log scale)", fontsize=8)
        dev.legend(fontsize=7, frameon=False)
        return svg(figure, "words wrong against the size of the file")


def layers_plot(row: Row, costs: Value) -> str:
    """Bits of every cluster, first on top, beside what its narrowest width would cost."""
    clusters = costs["clusters"]
    names = [each["name"] for each in clusters]
    bits = [row["plan"].get(name, 16) for name in names]
    narrow = np.array([max(each["costs"][min(each["costs"], key=int)], 0.0) for each in clusters])
    narrow = narrow / max(narrow.max(), 1e-30)
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDE, 1.1 + 0.17 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
        places = np.arange(len(names))
        left.barh(places, bits, color=GREEN, height=0.75)
        for place, width in zip(places, bits, strict=True):
            left.text(width + 0.1, place, str(width), va="center", fontsize=6)
        left.set_yticks(places, [short(name) for name in names], fontsize=6)
        left.set_ylim(len(names) - 0.4, -0.6)
        left.set_xlim(0, max(bits) + 1)
        left.set_xlabel("bits", fontsize=8)
        low = max(narrow[narrow > 0].min(initial=1.0), 1e-6)
        right.barh(places, np.maximum(narrow, low / 2) - low / 4, color=ORANGE, height=0.75, left=low / 4)
        log_axis(right, "x", low / 4, 2.0)
        right.xaxis.set_major_locator(FixedLocator([10.0**e for e in range(-6, 1)]))
        width = min(next(iter(clusters))["costs"], key=int)
        right.set_xlabel(f"{costs['method']} cost at {width} bits, largest = 1", fontsize=8)
        for axes in (left, right):
            axes.tick_params(labelsize=6, length=0)
            clean(axes)
            axes.grid(False, axis="y")
        return svg(figure, "bits and sensitivity of every layer")


def short(name: str, most: int = 30) -> str:
    """The end of a long name.

    >>> short("encoder.layers.0.attention.query.weight", 12)
    '…uery.weight'
    """
    return name if len(name) <= most else "…" + name[-most + 1 :]


def levels_plot(packed: packed_format.Packed, full: Mapping[str, NDArray[Any]]) -> str:
    """Full-precision weights in units of their step, and how often each level is used; the largest layers."""
    spans = sorted(packed.spans.values(), key=lambda span: -span.numel)[:PANELS]
    across = min(2, len(spans))
    down = -(-len(spans) // across)
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDE, 0.6 + 1.35 * down), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for axes, span in zip(grid, spans, strict=False):
            places, codes = _places(span, full[span.name]), span.codes()
            reach = max(1.5, float(np.abs(codes).max()) + 0.5)
            edges = np.linspace(-reach, reach, 121)
            counts = np.histogram(places, edges)[0] / places.size
            axes.stairs(counts / counts.max(), edges, fill=True, color="#cfd8d3")
            levels, times = np.unique(codes, return_counts=True)
            axes.vlines(levels, 0, times / times.max(), color=GREEN, linewidth=2 if len(levels) < 20 else 0.8)
            axes.set_title(f"{short(span.name)}: {span.bits} bits", fontsize=6, loc="left")
            axes.tick_params(labelsize=6, labelleft=False, length=0)
            clean(axes)
            axes.grid(False)
        for axes in grid[len(spans) :]:
            axes.remove()
        figure.supxlabel("weight / step; grey: full precision, green: levels in use", fontsize=7)
        return svg(figure, "weights against their levels")


def _places(span: PackedSpan, weight: NDArray[Any]) -> NDArray[np.float64]:
    """Full-precision weights of a span in units of its steps, flat."""
    rows = weight.reshape(len(weight), -1)[span.start : span.stop].astype(np.float64)
    step = np.maximum(span.step.astype(np.float64), 1e-30)
    if step.ndim == 3:
        rows = rows.reshape(len(rows), step.shape[1], -1)
    found: NDArray[np.float64] = (rows / step).ravel()
    return found
