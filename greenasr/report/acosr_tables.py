"""ACosR's Tables 3 and 4 as rows of text, the paper's figures beside ours, for Markdown and HTML alike.

The value is that of `pipeline.transducer_table.table`; what is missing is a dash.  The paper's figures stand
in the recipe's rows, in percent; a figure is one number, or one of each test set:

    paper = { fp = 8.68, wer = 8.70, wgtc = 99.3 }
    paper = { degradation = { frequent = -2.01, appliances = -3.23 }, wgtc = 99.4 }

``fp`` is the paper's floating-point WER, where the row "float" does not have it as its ``wer``;
``degradation`` is what the paper prints where it prints no WER, 100 (wer - fp) / fp where it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from greenasr.report.green_tables import changed, increase, sets_of, smallest, spread, table3
from greenasr.report.heard import heard_by
from greenasr.report.language_models import DASH, MB, bits_label, number, worded
from greenasr.report.page import Sheet

Row = Mapping[str, Any]
FITS = {"none": "post-training", "bp": "BP", "acosr": "ACosR", "admm": "ADMM", "ttq": "TTQ"}

NOTE = """WER in percent of each test set, mean ± standard deviation over seeds; "rel. %" is its change
relative to full precision, of means. `*` significantly worse, `†` significantly better than full precision,
MAPSSWE at 0.05, for most seeds. WgtC: weights within 1e-6 of a level when ACosR ends, before the rest is
projected. MB (1e6 bytes) of the packed file. RTF: seconds of one CPU core for a second of speech."""
NOTE_ALL = """All test sets pooled. "interval" is the 95 % interval over speakers of the first seed,
"difference" that to full precision in points with its 95 % interval, and "worse" or "better" where MAPSSWE
at 0.05 sees one for most seeds; "changed": utterances with other words than full precision's, mean."""
NOTE_NGRAM = """The same lists, put into a new order by an n-gram of the training text whose weight was found
on speech that is not tested on; marks and "rel. %" against full precision rescored in the same way."""
NOTE_LAYERS = """Percent of a layer's weights within 1e-6 of a level when ACosR ends, mean over seeds."""
NOTE_SYSTEMS = """Recogniser and language model as one system: MB and ratio of both files, against the
full-precision pair. `*` significantly worse, `†` significantly better than it."""
PAPERS = """The paper's figures are of its own speech (23,000 hours of requests, or Librispeech's 960) and
60M-parameter networks: compare degradations and WgtC, not WER."""


def general_note(value: Mapping[str, Any]) -> str:
    """What holds for every table: words, folds, and whose the paper's figures are."""
    words = max(row["words"] for row in value["rows"])
    folds = ""
    if len(value.get("parts") or ()) > 1:
        folds = """ "folds" are training speakers, each recognised by networks that never heard them."""
    papers = f" {PAPERS}" if any(row.get("paper") for row in value["rows"]) else ""
    return f"Every row recognised {words:,} words.{folds}{papers}{heard_by(value)}"


def headline(value: Mapping[str, Any]) -> str:
    """What each uniform ACosR row of ours costs at worst, how many weights converged; the smallest file."""
    found = [_cost(value, row) for row in value["rows"] if row["method"] == "ACosR" and row["degradation"]]
    return " ".join([*found, smallest(value, lambda row: row["against"], named)])


def _cost(value: Mapping[str, Any], row: Row) -> str:
    """A row's worst test set, in a sentence."""
    changes = [(change, name) for name, change in row["degradation"].items() if change is not None]
    if not changes:
        return f"{named(row)}: full precision makes no errors to compare with."
    worst, name = max(changes)
    theirs = [each for key in ["", *sets_of(value)] if (each := paper_change(value, row, key)) is not None]
    quoted = f" (the paper: {max(theirs):+.2f} %)" if theirs else ""
    worse = [key for key, mark in row["marks"].items() if mark == "*"]
    where = f"significant on {', '.join(worse)}" if worse else "significant on none"
    converged = f"; {percent(row['wgtc']['total'])} % of its weights converged" if row["wgtc"] else ""
    return f"{named(row)}: at worst {worst:+.2f} % relative, on {name}{quoted}, {where}{converged}."


def sheets(value: Mapping[str, Any]) -> list[Sheet]:
    """Tables 3 and 4, all sets together, lists rescored, WgtC of every layer: those that there are."""
    found = [
        Sheet("Tables 3 and 4: WER, degradation, convergence", main_table(value), NOTE),
        Sheet("All test sets together", pooled_table(value), NOTE_ALL),
        Sheet("Lists rescored by the n-gram", rescored_table(value), NOTE_NGRAM),
        Sheet("WgtC of every layer, %", layers_table(value), NOTE_LAYERS),
        Sheet("With language model", systems_table(value), NOTE_SYSTEMS),
    ]
    return [sheet for sheet in found if sheet.rows]


def main_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """The paper's Tables 3 and 4: WER and relative degradation of each set, WgtC; size, ratio and RTF."""
    sets, rows = sets_of(value), value["rows"]
    quoted = {
        key: [name for name in ("", *sets) if any(of(value, row, name) is not None for row in rows)]
        for key, of in (("wer", paper_wer), ("change", paper_change))
    }
    converges = any(paper_figure(row, "wgtc", "") is not None for row in rows)
    lines = []
    for row in rows:
        cells = {"system": label(row), "bits": bits_label(row["bits"])}
        for name in sets:
            cells[name] = spread(row["wer"].get(name))
            cells[f"{name} rel. %"] = relative(row, name)
            cells |= _quoted(value, row, name, quoted)
        cells |= _quoted(value, row, "", quoted)
        cells["WgtC %"] = percent(row["wgtc"]["total"] if row["wgtc"] else None)
        if converges:
            cells["paper WgtC %"] = number(paper_figure(row, "wgtc", ""), 1)
        cells["MB"] = number(row["bytes"] / MB, 3)
        cells["ratio"] = number(row["ratio"], 1, "x")
        cells["RTF"] = number(row["rtf"], 4)
        lines.append(cells)
    return lines


def _quoted(
    value: Mapping[str, Any], row: Row, name: str, quoted: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The paper's cells of a set, where any row has them; "" is no set in particular."""
    cells = {}
    if name in quoted["wer"]:
        cells[f"paper {name or 'WER'}"] = number(paper_wer(value, row, name), 2)
    if name in quoted["change"]:
        change = paper_change(value, row, name)
        cells[f"paper {name} rel. %".replace("  ", " ")] = DASH if change is None else f"{change:+.2f}"
    return cells


def pooled_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """WER of all words, its interval, and the difference to full precision with its own."""
    return [
        {
            "system": label(row),
            "bits": bits_label(row["bits"]),
            "all words": spread(row["pooled"]),
            "interval": " to ".join(number(bound, 2) for bound in row["ci95"]),
            "difference": increase(row["against"]),
            "changed": changed(row["against"]),
            "params M": number(row["parameters"] / 1e6, 2),
            "training s": number(row["seconds_train"], 0),
        }
        for row in value["rows"]
    ]


def rescored_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """WER of each set before and after rescoring, and the degradation after it; none without a list."""
    sets, lines = sets_of(value), []
    for row in (row for row in value["rows"] if row["rescored"]):
        cells = {"system": label(row), "bits": bits_label(row["bits"])}
        for name in sets:
            cells[name] = spread(row["wer"].get(name))
            cells[f"{name} + n-gram"] = spread(row["rescored"]["wer"].get(name))
            cells[f"{name} rel. %"] = relative(row["rescored"], name)
        lines.append(cells)
    return lines


def layers_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """WgtC of every layer, a column a row of the table that ACosR trained; none without one."""
    rows = [row for row in value["rows"] if row["wgtc"]]
    layers = dict.fromkeys(name for row in rows for name in row["wgtc"]["layers"])
    lines = [
        {"layer": layer_label(layer)}
        | {named(row): percent(row["wgtc"]["layers"].get(layer)) for row in rows}
        for layer in layers
    ]
    total = {"layer": "all"} | {named(row): percent(row["wgtc"]["total"]) for row in rows}
    return [*lines, total] if lines else []


def systems_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """Recognisers with the language models that rescored them; none without one."""
    if not value.get("systems"):
        return []
    return [
        {key: text for key, text in line.items() if not key.startswith("paper")} for line in table3(value)
    ]


def label(row: Row) -> str:
    """A row in words, with what its folder's name adds; `named` adds the bits.

    >>> label({"name": "acosr-8-published", "method": "ACosR, as published", "fit": None})
    'ACosR, as published'
    >>> label({"name": "hessian-4-acosr", "method": "Hessian plan", "fit": "acosr"})
    'Hessian plan, ACosR'
    >>> label({"name": "bp-2-row", "method": "BP uniform", "fit": None})
    'BP, row'
    >>> label({"name": "acosr-8-float32", "method": "ACosR", "fit": None})
    'ACosR, float32 activations'
    """
    words = [row["method"].removesuffix(" uniform")] + ([FITS[row["fit"]]] if row["fit"] else [])
    said = {row["fit"], "published"}
    tail = [part for part in str(row["name"]).split("-")[1:] if part not in said]
    return ", ".join(words + [worded(part) for part in tail if not part.replace(".", "").isdigit()])


def named(row: Row) -> str:
    """`label`, and of a compressed row the bits.

    >>> named({"name": "acosr-8", "method": "ACosR", "fit": None, "bits": 8})
    'ACosR, 8 bits'
    """
    bits = row["bits"]
    return label(row) if bits == 32 else f"{label(row)}, {bits_label(bits)} bit{'' if bits == 1 else 's'}"


def layer_label(name: str) -> str:
    """A parameter without what all have.

    >>> layer_label("encoder.layers.0.input.weight")
    'encoder 0 input'
    """
    return name.removesuffix(".weight").replace(".layers.", " ").replace(".", " ").replace("_", " ")


def relative(figures: Mapping[str, Any], name: str) -> str:
    """Relative degradation of a set with its mark.

    >>> relative({"degradation": {"far": 1.234}, "marks": {"far": "*"}}, "far")
    '+1.23*'
    """
    change = figures["degradation"].get(name)
    return DASH if change is None else f"{change:+.2f}{figures['marks'].get(name, '')}"


def percent(share: float | None) -> str:
    """A share in percent, never rounded up to all.

    >>> percent(0.99612), percent(0.999999), percent(1.0), percent(None)
    ('99.61', '99.99', '100', '–')
    """
    if share is None or share == 1:
        return DASH if share is None else "100"
    return f"{min(100 * share, 99.99):.2f}"


def paper_figure(row: Row, key: str, name: str) -> float | None:
    """The paper's figure of a set, or with name "" the one that is of no set in particular."""
    found = (row.get("paper") or {}).get(key)
    if isinstance(found, Mapping):
        return found.get(name)
    return None if name else found


def paper_wer(value: Mapping[str, Any], row: Row, name: str) -> float | None:
    """The paper's WER of a set; in the row "float" also the one that other rows have as ``fp``."""
    found = paper_figure(row, "wer", name)
    if found is not None or row["name"] != "float":
        return found
    others = (paper_figure(each, "fp", name) for each in value["rows"])
    return next((each for each in others if each is not None), None)


def paper_change(value: Mapping[str, Any], row: Row, name: str) -> float | None:
    """The paper's relative degradation of a set in percent, as printed or from its WERs; none of "float"."""
    if row["name"] == "float":
        return None
    if (printed := paper_figure(row, "degradation", name)) is not None:
        return printed
    mine, base = paper_figure(row, "wer", name), paper_figure(row, "fp", name)
    if base is None:
        base = next((paper_wer(value, r, name) for r in value["rows"] if r["name"] == "float"), None)
    return 100 * (mine - base) / base if mine is not None and base else None
