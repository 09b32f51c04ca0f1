"""How our plots look: a colour and a marker for every method, faint grids, labels that cover nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# Colours of Okabe and Ito, which readers with colour-blindness tell apart; one marker each as well.
METHODS = {
    "full precision": ("#000000", "*"),
    "BP uniform": ("#E69F00", "o"),
    "ADMM": ("#0072B2", "s"),
    "Hessian plan": ("#009E73", "D"),
    "search plan": ("#CC79A7", "^"),
    "KL plan": ("#D55E00", "v"),
    "ACosR": ("#56B4E9", "P"),
    "post-training": ("#999999", "X"),
}
OTHER = ("#666666", "h")
GREY = "#777777"
SAMPLES = np.linspace(0, 1, 24)
NICE = {"x": (1, 2, 5), "y": (1, 1.5, 2, 3, 5, 7)}  # where a log axis has its figures
WIDE = 5.0  # inches: as wide as a phone can show without making the letters small


def style(name: str) -> tuple[str, str]:
    """Colour and marker of a label, by the method that it begins with."""
    return next((look for method, look in METHODS.items() if name.startswith(method)), OTHER)


def clean(axes: Axes) -> None:
    """No box, faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def log_axis(axes: Axes, axis: str, *span: float) -> None:
    """A log axis, "x" or "y", over ``span`` with plain figures."""
    limits, which = (min(span), max(span)), getattr(axes, f"{axis}axis")
    getattr(axes, f"set_{axis}scale")("log")
    getattr(axes, f"set_{axis}lim")(*limits)
    which.set_major_locator(FixedLocator([n * 10.0**e for e in range(-4, 5) for n in NICE[axis]]))
    which.set_minor_locator(NullLocator())
    which.set_major_formatter(FuncFormatter(lambda found, _: f"{found:g}"))


def svg(figure: Figure, words: str) -> str:
    """A figure as an SVG element that says ``words`` to who cannot see it; nothing in it points outside it.

    Ids are those of ``words``: figures of one page need different ones.
    """
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": words, "text.parse_math": False}):
        figure.savefig(buffer, format="svg", metadata=none, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text)  # a page in HTML needs no namespaces
    prefix = re.sub(r"\W+", "-", words)
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\1{prefix}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1)


def place_labels(
    axes: Axes, labels: Sequence[tuple[float, float, str, str, float]], lines: Sequence[np.ndarray]
) -> None:
    """Write (x, y, text, colour, size) beside its point, where it covers no text, point or line if it can.

    ``lines`` are curves as (points, 2) arrays of data coordinates.  Greedy: the first label chooses first.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise TypeError("axes without a figure have no place for labels")
    figure.draw_without_rendering()
    dot = figure.dpi / 72  # one typographic point in pixels
    room = axes.get_window_extent()
    points = [axes.transData.transform(line) for line in lines]
    taken = [(*(xy - 6 * dot), *(xy + 6 * dot)) for line in points for xy in line]
    ink = [
        line[i] + (line[i + 1] - line[i]) * t
        for line in points
        for i in range(len(line) - 1)
        for t in SAMPLES
    ]
    for x, y, text, colour, size in labels:
        width, height = 0.62 * size * len(text) * dot, 1.2 * size * dot
        px, py = axes.transData.transform((x, y))
        choices = []
        for reach in (10, 14, 20, 28, 38, 50):
            for angle in np.pi / 6 * np.arange(12):
                dx, dy = np.cos(angle), np.sin(angle)
                cx = px + dx * (reach * dot + width / 2)
                cy = py + dy * (reach * dot + height / 2)
                box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
                hits = sum(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)
                crossed = sum(box[0] < qx < box[2] and box[1] < qy < box[3] for qx, qy in ink)
                outside = box[0] < room.x0 or box[2] > room.x1 or box[1] < room.y0 or box[3] > room.y1
                choices.append((500 * outside + 100 * hits + 10 * crossed + reach, (cx - px, cy - py), box))
        _, (cx, cy), box = min(choices)
        taken.append(box)
        axes.annotate(
            text,
            (x, y),
            xytext=(cx / dot, cy / dot),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=colour,
        )
