"""What a person sees of a table of keyword models: TERNARY's Table 1, compressed rows, and Fig. 3.

The value is that of `pipeline.keywords_table.table`.  The paper's figures stand in the recipe's rows:

    paper = { accuracy = 97.41, parameters = 77 }        percent, thousands
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greenasr.report import facts, page
from greenasr.report.acosr_tables import FITS, layer_label
from greenasr.report.ctc_plots import parameters_plot
from greenasr.report.ctc_tables import configuration, named, weights
from greenasr.report.drawing import style
from greenasr.report.green_tables import changed, increase, smallest, spread
from greenasr.report.heard import heard_by
from greenasr.report.language_models import DASH, bits_label, is_mixed, number
from greenasr.report.page import Sheet
from greenasr.report.row_plots import bits_plot, size_plot

Row = Mapping[str, Any]
KB = 1e3

NOTE_NETWORKS = """Error rate in percent of clips, mean ± standard deviation over seeds; "difference" is to
the floating-point network in points, with its 95 % interval over speakers, and "worse" or "better" where
matched pairs of clips at 0.05 say so for most seeds. p: exact permutation test on the seeds' error rates. K:
thousand trained parameters; generated weights are neither trained nor stored. kB (1e3 bytes) of the file."""
NOTE_COMPRESSED = """Every row begins from the network named and is held against it: "difference" as above.
kB and ratio are of files on disk, with features and words in them; "changed" counts clips with another word,
mean over seeds. RTF: seconds of one CPU core for a second of sound, network alone."""


def write(value: Mapping[str, Any], run: Path) -> None:
    """``table.json``, ``table.md`` and ``report.html`` in the run folder, which holds ``recipe.json``."""
    recipe = page.recipe_of(run)
    page.write(run, value, contents(value), plots(value), facts_of(value, recipe))


def contents(value: Mapping[str, Any]) -> page.Page:
    """Tables and words."""
    if not value["rows"]:
        return page.Page(value["title"])
    found = [
        Sheet("Networks", networks_table(value), NOTE_NETWORKS),
        Sheet("Compressed", compressed_table(value), NOTE_COMPRESSED),
    ]
    return page.Page(value["title"], headline(value), [sheet for sheet in found if sheet.rows], note(value))


def headline(value: Mapping[str, Any]) -> str:
    """What ternary networks do to the floating-point one's errors; the smallest file that loses nothing."""
    full = next((row for row in value["rows"] if row["name"] == "float"), None)
    if full is None:
        return page.Page.lead
    networks = [row for row in value["rows"] if row["start"] is None]
    found = [_sentence(row, full) for row in networks if row["threshold"] is not None and row["against"]]
    if len(networks) < len(value["rows"]):
        found.append(smallest(value, lambda row: row["parent"], named))
    return " ".join(found) or f"{named(full)}: {full['pooled'][0]:.2f} % errors."


def _sentence(row: Row, full: Row) -> str:
    against = row["against"]
    low, high = against["ci95"]
    seeds = len(row["rates"])
    p = f", p = {against['seeds_p']:.3f} over {seeds} seeds" if seeds > 1 else ""
    return (
        f"{named(row)}: {row['pooled'][0]:.2f} % errors with {row['parameters'] / 1e3:.0f}K trained "
        f"parameters where {named(full)} has {full['pooled'][0]:.2f} % with {full['parameters'] / 1e3:.0f}K "
        f"(difference {against['difference']:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}{p})."
    )


def note(value: Mapping[str, Any]) -> str:
    """How many clips, of what kind, and whose the paper's figures are."""
    found = [
        f"Every network classified {max(row['words'] for row in value['rows']):,} clips of test speakers."
    ]
    counts = value.get("clips") or {}
    odd = [
        f"{split}: " + ", ".join(f"{n:,} {what}" for what, n in counted.items() if n)
        for split, counted in counts.items()
    ]
    if odd:
        found.append(
            f"Clips, and how many are shorter or longer than a second: {'; '.join(odd)}. What is shorter "
            "than networks hear is continued by its own background, of what is longer they hear the loudest "
            "stretch."
        )
    if any(row.get("paper") for row in value["rows"]):
        found.append("The paper's figures are of Google Speech Commands v1, 65,000 clips, 200 epochs.")
    return " ".join(found) + heard_by(value)


def networks_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """TERNARY's Table 1 with the test that the paper lacks."""
    rows = [row for row in value["rows"] if row["start"] is None]
    quoted = any(row.get("paper") for row in rows)
    lines = []
    for row in rows:
        cells = {"network": configuration(row), "weights": weights(row)}
        cells |= {"params K": number(row["parameters"] / 1e3, 1)}
        paper = row.get("paper") or {}
        if quoted:
            cells["paper K"] = number(paper.get("parameters"), 0)
        cells["accuracy"] = spread([100 - row["pooled"][0], *row["pooled"][1:]])
        if quoted:
            cells["paper accuracy"] = number(paper.get("accuracy"), 2)
        cells["error"] = spread(row["pooled"])
        cells["difference"] = increase(row["against"])
        cells["p"] = _p(row["against"])
        cells["kB"] = number(row["bytes"] / KB, 1)
        cells["training s"] = number(row["seconds_train"], 0)
        cells["RTF"] = number(row["rtf"], 4)
        lines.append(cells)
    return lines


def compressed_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every compressed row against the network that it began from."""
    by_name = {row["name"]: row for row in value["rows"]}
    lines = []
    for row in (row for row in value["rows"] if row["start"] is not None):
        start, found = by_name.get(row["start"]), row["parent"]
        lines.append(
            {
                "network": f"{configuration(row)}, {weights(row)}",
                "method": method(row),
                "bits": bits_label(row["bits"]),
                "error": spread(row["pooled"]),
                "difference": increase(found),
                "p": _p(found),
                "changed": changed(found),
                "kB": number(row["bytes"] / KB, 1),
                "ratio": number(start["bytes"] / row["bytes"], 1, "x") if start else DASH,
                "RTF": number(row["rtf"], 4),
            }
        )
    return lines


def _p(found: Mapping[str, Any] | None) -> str:
    """Of the seeds' error rates; of one seed nothing follows."""
    return number(found["seeds_p"], 3) if found and len(found["seeds"]) > 1 else DASH


def method(row: Row) -> str:
    """How a compressed row was made.

    >>> method({"method": "KL plan", "fit": "bp"}), method({"method": "BP uniform", "fit": None})
    ('KL plan, BP', 'BP')
    """
    words = str(row["method"]).removesuffix(" uniform")
    return f"{words}, {FITS[row['fit']]}" if row["fit"] else words


def plots(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plots that there are figures for: (title, SVG)."""
    networks = [row for row in value["rows"] if row["start"] is None]
    if not networks:
        return []
    errors = "error rate, % of clips"
    found = [("Fig. 3: error against parameters", parameters_plot(networks, errors, 1e3))]
    if len(networks) < len(value["rows"]):
        look = size_plot(value["rows"], named, lambda row: style(row["method"]), errors)
        found.append(("Error against the size of the file", look))
    if mixed := [row for row in value["rows"] if is_mixed(row)]:
        found.append(("Bits of every layer", bits_plot(mixed, named, layer_label)))
    return found


def facts_of(value: Mapping[str, Any], recipe: Mapping[str, Any]) -> facts.Facts:
    """What was measured and how; what the recipe does not tell is left out."""
    if not value["rows"]:
        return []
    found, full = facts.speech(value, recipe), value["rows"][0]
    if value.get("classes"):
        labels = recipe.get("labels") or {}
        more = ", and one class for no word" if labels.get("background") else ""
        found.append(("Words", f"{value['classes']}{more}"))
    if task := recipe.get("task"):
        above = f", nothing above {task['band']:g} Hz" if task["band"] else ""
        found.append(("Clips", f"{task['frames'] / 100:g} s, a frame every {10 * task['every']} ms{above}"))
        if task["generated"]:
            found.append(("Trained on too", f"{task['generated']:g} hours of generated commands"))
        noise = "the corpus's recordings" if value.get("recorded_noise") else "generated, white, pink, brown"
        low, high = task["snr"]
        found.append(
            (
                "Changes in training",
                f"moved by up to {10 * task['every'] * task['shift']} ms, {100 * task['noise']:.0f} % with "
                f"noise ({noise}) at {low:g} to {high:g} dB, SpecAugment",
            )
        )
    if training := recipe.get("train"):
        found.append(
            (
                "Training",
                f"cross-entropy, AdamW at {training['lr']:g} with warm-up and cosine, {training['epochs']:g} "
                f"epochs, {full['seconds_train']:.0f} s for {named(full)}",
            )
        )
    return found + facts.quantization(recipe) + facts.FIGURES
