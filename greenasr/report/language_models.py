"""What a person sees of a finished table: Markdown in the papers' layouts, and three plots.

    table.json ─▶ table.md, sizes.png (PPL against megabytes), bits.png, traces.png

The value is plain JSON: ``title``, ``model``, ``rows``, ``clusters`` (names in network order) and ``traces``
(cluster -> [trace, standard error]).  A row has ``method``, ``name`` (its folder, "bp-2-bands"), ``bits``,
``ppl_test``, ``relative`` (to full precision), ``bytes``, ``ratio``; where known ``ppl_dev``, ``ppl_4gram``,
``seconds_train``, ``seconds_eval``, ``plan`` (cluster -> bits), ``rescoring`` (set -> ``wer``, ``ci95``,
``mark``) and ``paper`` (``ppl``, ``mb``, ``ratio``).  What is missing or null is shown as a dash.  MB = 1e6
bytes, as the papers count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from greenasr.data.files import atomic, write_atomic, write_json
from greenasr.report.drawing import GREY, METHODS, clean, place_labels, style

MB = 1e6
DASH = "–"
FLOATS = "float32"  # ends the name of a row whose activations are
Table = Mapping[str, Any]
Row = Mapping[str, Any]


def number(value: float | None, digits: int, suffix: str = "") -> str:
    """A figure, or a dash for None.

    >>> number(56.824, 2), number(None, 2), number(13.25, 1, "x")
    ('56.82', '–', '13.2x')
    """
    return DASH if value is None else f"{value:.{digits}f}{suffix}"


def bits_label(bits: float | None) -> str:
    """Whole widths without a point, averages with one decimal.

    >>> bits_label(2), bits_label(2.0), bits_label(1.94), bits_label(2.04)
    ('2', '2', '1.9', '2.0')
    """
    if bits is None:
        return DASH
    return f"{bits:.0f}" if bits == int(bits) else f"{bits:.1f}"


def row_bits(row: Row) -> str:
    """`bits_label`, with one decimal always where the width is an average over clusters."""
    bits = row.get("bits")
    return f"{bits:.1f}" if bits is not None and is_mixed(row) else bits_label(bits)


def is_mixed(row: Row) -> bool:
    """Whether the row's clusters have widths of their own."""
    return len(set((row.get("plan") or {}).values())) > 1


def label(row: Row) -> str:
    """The method and what its folder's name adds behind the width: how it was fitted, bands, steps.

    >>> label({"method": "Hessian plan", "name": "hessian-2-admm"})
    'Hessian plan, admm'
    >>> label({"method": "BP uniform", "name": "bp-4-float32"})
    'BP uniform, float32 activations'
    """
    return ", ".join([row["method"], *map(worded, str(row.get("name", "")).split("-")[2:])])


def worded(part: str) -> str:
    """A part of a row's name in words."""
    return f"{part} activations" if part == FLOATS else part


def megabytes(row: Row) -> float | None:
    """Size of the row's file in MB, None when there is no file yet."""
    return row["bytes"] / MB if row.get("bytes") is not None else None


def size_label(row: Row) -> str:
    """Megabytes with two decimals, three below 1 MB, so that small models can be told apart.

    >>> size_label({"bytes": 44_270}), size_label({"bytes": 6_500_000}), size_label({})
    ('0.044', '6.50', '–')
    """
    size = megabytes(row)
    return number(size, 2 if size is None or size >= 1 else 3)


def paper(row: Row, key: str) -> float | None:
    """The paper's figure of this row, None when it has none."""
    return (row.get("paper") or {}).get(key)


def rescored(row: Row) -> Mapping[str, Mapping[str, Any]]:
    """Sets that the row rescored, each with its ``wer`` and, where known, ``ci95`` and ``mark``."""
    sets = row.get("rescoring") or {}
    return {name: value for name, value in sets.items() if isinstance(value, Mapping) and "wer" in value}


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns padded so that the text can be read as it is.

    >>> print(markdown(["method", "PPL"], [["ADMM", "56.8"]]))
    | method |  PPL |
    |:-------|-----:|
    | ADMM   | 56.8 |
    """
    cells = [list(header), *map(list, lines)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]

    def show(line: Sequence[str]) -> str:
        first, *rest = zip(line, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return "| " + " | ".join(padded) + " |"

    rule = "|:" + "-" * (widths[0] + 1) + "|" + "".join("-" * (width + 1) + ":|" for width in widths[1:])
    return "\n".join([show(cells[0]), rule, *map(show, cells[1:])])


def size_table(table: Table) -> str:
    """Table 2 of MPLM: width, perplexity, megabytes and ratio of every method, the paper's beside ours.

    "x full" is a perplexity divided by that of full precision, ours by ours and theirs by theirs.
    """
    theirs = next((paper(row, "ppl") for row in table["rows"] if row["method"] == "full precision"), None)
    columns: dict[str, list[str]] = {}

    def add(name: str, figure: Callable[[Row], str]) -> None:
        columns[name] = [figure(row) for row in table["rows"]]

    def relative(row: Row) -> float | None:
        ppl = paper(row, "ppl")
        return ppl / theirs if ppl and theirs else None

    with_paper = any(row.get("paper") for row in table["rows"])
    add("method", label)
    add("#bit", row_bits)
    add("PPL", lambda row: number(row.get("ppl_test"), 2))
    add("x full", lambda row: number(row.get("relative"), 3))
    if with_paper:
        add("paper PPL", lambda row: number(paper(row, "ppl"), 2))
        add("paper x full", lambda row: number(relative(row), 3))
    add("MB", size_label)
    if with_paper:
        add("paper MB", lambda row: number(paper(row, "mb"), 1))
    add("ratio", lambda row: number(row.get("ratio"), 1))
    if with_paper:
        add("paper ratio", lambda row: number(paper(row, "ratio"), 1))
    return markdown(list(columns), list(zip(*columns.values(), strict=True)))


def rescoring_table(table: Table) -> str:
    """Tables 1 and 3 of MPLM: adds perplexity with the 4-gram, WER of every set and evaluation time.

    A mark after a WER is the one its row carries; the recipe that made the row says what it means.
    """
    sets = list(dict.fromkeys(name for row in table["rows"] for name in rescored(row)))
    header = ["method", "#bit", "PPL", "+4gram", *(f"{name} WER" for name in sets), "MB", "ratio", "eval s"]
    lines = []
    for row in table["rows"]:
        line = [label(row), row_bits(row), number(row.get("ppl_test"), 2), number(row.get("ppl_4gram"), 2)]
        for name in sets:
            scored = rescored(row).get(name, {})
            line.append(number(scored.get("wer"), 2, scored.get("mark") or ""))
        line += [size_label(row), number(row.get("ratio"), 1), number(row.get("seconds_eval"), 2)]
        lines.append(line)
    return markdown(header, lines)


def interval_lines(table: Table) -> list[str]:
    """One line for every rescored set of every row: its WER and 95 % interval."""
    return [
        f"- {label(row)}, {row_bits(row)} bit, {name}: {number(scored.get('wer'), 2)} "
        f"[{number(scored['ci95'][0], 2)}, {number(scored['ci95'][1], 2)}]"
        for row in table["rows"]
        for name, scored in rescored(row).items()
        if scored.get("ci95")
    ]


def table_markdown(table: Table, plots: Sequence[str] = ()) -> str:
    """The whole of table.md: title, the tables that the rows have figures for, and the plots."""
    parts = [f"# {table['title']}", str(table.get("model", ""))]
    parts += [size_table(table), "PPL is of the test text; MB = 1e6 bytes of the file on disk."]
    if any(rescored(row) for row in table["rows"]):
        parts += ["## Rescored N-best lists", rescoring_table(table)]
        if intervals := interval_lines(table):
            parts += ["95 % intervals of WER:", "\n".join(intervals)]
    parts += [f"![{name.removesuffix('.png')}]({name})" for name in plots]
    return "\n\n".join(part for part in parts if part) + "\n"


def _save(figure: Figure, path: str | Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150, facecolor="white")


Point = tuple[float, float, str]  # MB, PPL, bits
Curves = Mapping[str, Sequence[Point]]


def _draw_curves(axes: Axes, curves: Curves, hollow: bool) -> None:
    """One curve a method; its name at its smallest file, the bits once for every size of file."""
    names, widths, lines = [], [], []
    sizes: list[float] = []
    for method, curve in curves.items():
        colour, marker = style(method)
        ordered = sorted(curve)
        line = np.array([point[:2] for point in ordered])
        lines.append(line)
        axes.plot(
            *line.T,
            color=colour,
            marker=marker,
            markersize=11 if marker == "*" else 7,
            markerfacecolor="white" if hollow else colour,
            linewidth=1.0,
            linestyle=":" if hollow else "-",
        )
        x, y, bits = ordered[0]
        name = f"{method}, {bits} bit" if len(ordered) == 1 and bits != "32" else method
        names.append((x, y, name, colour, 9.0))
        for x, y, bits in ordered if len(ordered) > 1 else []:
            if all(abs(np.log(x / other)) > 0.02 for other in sizes):
                widths.append((x, y, f"{bits} bit", GREY, 7.5))
                sizes.append(x)
    place_labels(axes, names + widths, lines)


def plot_sizes(table: Table, path: str | Path) -> None:
    """PPL against real megabytes, one colour and marker a method; the paper's points hollow beside ours.

    The two panels have the same axes when the paper's model is near ours in size and perplexity.
    """
    ours: dict[str, list[Point]] = {}
    theirs: dict[str, list[Point]] = {}
    for row in table["rows"]:
        if (size := megabytes(row)) and row.get("ppl_test"):
            ours.setdefault(label(row), []).append((size, row["ppl_test"], row_bits(row)))
        mb, ppl = paper(row, "mb"), paper(row, "ppl")
        if mb and ppl:
            theirs.setdefault(row["method"], []).append((mb, ppl, row_bits(row)))

    def spread(curves: Curves) -> np.ndarray:
        return np.log([point[:2] for curve in curves.values() for point in curve])

    panels = [("ours", ours), ("the paper", theirs)][: 2 if theirs else 1]
    near = bool(
        ours
        and theirs
        and (abs(np.median(spread(ours), 0) - np.median(spread(theirs), 0)) < (0.7, 0.15)).all()
    )
    figure = Figure(figsize=(1 + 5.6 * len(panels), 4.8), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=near, sharey=near)[0]
    for axes, (_, curves) in zip(grid, panels, strict=True):
        axes.set_xscale("log")
        axes.margins(x=0.22, y=0.12)
        for curve in curves.values():
            axes.plot(
                *np.array([point[:2] for point in curve]).T, linestyle=""
            )  # sets the limits, for both panels
        axes.xaxis.set_major_locator(FixedLocator([m * 10.0**e for e in range(-4, 5) for m in (1, 2, 5)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        clean(axes)
        axes.set_xlabel("file, MB (log scale)")
    for axes, (title, curves) in zip(grid, panels, strict=True):
        axes.set_title(title, fontsize=10, loc="left")
        _draw_curves(axes, curves, hollow=title != "ours")
    grid[0].set_ylabel("test PPL")
    figure.suptitle(str(table["title"]), fontsize=11)
    _save(figure, path)


def plot_bits(table: Table, path: str | Path) -> None:
    """Bits of every cluster in network order, first on top; one panel for every plan that is not uniform.

    A plan over other clusters than the table's (a search over whole matrices) has names of its own.
    """
    plans = [row for row in table["rows"] if is_mixed(row)]
    order = list(table["clusters"])
    named = [order if set(row["plan"]) <= set(order) else list(row["plan"]) for row in plans] or [order]
    same = all(names == named[0] for names in named)
    longest = max(map(len, named))
    width = 2.2 + 2.6 * len(named) if same else 4.4 * len(named)
    figure = Figure(figsize=(width, 1.2 + 0.2 * max(longest, 3)), layout="constrained")
    panels = figure.subplots(1, len(named), squeeze=False, sharey=same)[0]
    widest = max([bits for row in plans for bits in row["plan"].values()], default=1)
    for axes, row, names in zip(panels, plans, named, strict=False):
        bits = [row["plan"].get(name) for name in names]
        lengths = [np.log2(b) + 0.5 if b else 0 for b in bits]
        axes.barh(range(len(names)), lengths, color=style(row["method"])[0], height=0.72)
        for place, (length, b) in enumerate(zip(lengths, bits, strict=True)):
            axes.text(length + 0.08, place, bits_label(b), va="center", fontsize=7, color="#333333")
        axes.set_title(f"{label(row)}, {row_bits(row)} bits on average", fontsize=9, loc="left")
    for axes in panels:
        ticks = [b for b in (1, 2, 4, 8, 16, 32) if b <= widest]
        axes.set_xticks([np.log2(b) + 0.5 for b in ticks], [str(b) for b in ticks])
        axes.set_xlim(0, np.log2(widest) + 1)
        axes.set_xlabel("bits", fontsize=8)
        axes.tick_params(axis="both", labelsize=7, length=0)
        clean(axes)
        axes.grid(False, axis="y")
    for axes, names in zip(panels[:1] if same else panels, named, strict=False):
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    if not plans:
        panels[0].text(0.5, 0.5, "no mixed plan yet", transform=panels[0].transAxes, ha="center", color=GREY)
    _save(figure, path)


def plot_traces(table: Table, path: str | Path) -> None:
    """Hessian trace of every cluster in network order, ± one standard error, on a log axis.

    An estimate that is not above zero has no place there; it is written at the axis as text.
    """
    traces = table.get("traces") or {}
    clusters = [name for name in table["clusters"] if name in traces]
    figure = Figure(figsize=(6.4, 1.2 + 0.2 * max(3, len(clusters))), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    values = np.array([traces[name][:2] for name in clusters], dtype=float).reshape(-1, 2)
    above = values[:, 0] > 0
    if above.any():
        value, error = values[above].T
        low = np.minimum(error, 0.9 * value)  # the left end of a bar must stay above zero
        colour, _ = METHODS["Hessian plan"]
        axes.errorbar(
            value,
            np.flatnonzero(above),
            xerr=[low, error],
            fmt="o",
            ms=4,
            color=colour,
            ecolor=colour,
            capsize=2,
        )
        axes.set_xlim(value.min() / 2, (value + error).max() * 2)
    for place in np.flatnonzero(~above):
        text = f"  {values[place, 0]:.2g} ± {values[place, 1]:.2g}"
        axes.text(
            0, float(place), text, transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=GREY
        )
    axes.set_yticks(range(len(clusters)), clusters)
    axes.set_ylim(max(len(clusters), 1) - 0.4, -0.6)
    axes.tick_params(axis="both", labelsize=7)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("trace of the Hessian, ± one standard error", fontsize=8)
    clean(axes)
    _save(figure, path)


def write(table: Table, folder: str | Path) -> None:
    """Write table.json, table.md and the plots that the table has figures for into ``folder``."""
    folder = Path(folder)
    plots = {"sizes.png": plot_sizes}
    if any(is_mixed(row) for row in table["rows"]):
        plots["bits.png"] = plot_bits
    if table.get("traces"):
        plots["traces.png"] = plot_traces
    write_json(folder / "table.json", table)
    for name, plot in plots.items():
        plot(table, folder / name)
    write_atomic(folder / "table.md", table_markdown(table, list(plots)))
