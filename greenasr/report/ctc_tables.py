"""The ternary paper's tables as rows of text, its figures beside ours, for Markdown and HTML alike.

The value is that of `pipeline.ctc_table.table`; what is missing is a dash.  The paper's figures stand in the
recipe's rows:

    paper = { parameters = 9, wer = { test-clean = 4.93, test-other = 14.21 } }        millions, percent
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from greenasr.report import acosr_tables
from greenasr.report.acosr_tables import paper_figure
from greenasr.report.green_tables import changed, increase, sets_of, smallest, spread, table3
from greenasr.report.heard import heard_by
from greenasr.report.language_models import DASH, MB, bits_label, number
from greenasr.report.page import Sheet

Row = Mapping[str, Any]

NOTE = """WER in percent of each test set, mean ± standard deviation over seeds, of the network alone and,
"+ graph", of words searched in the lexicon and n-gram; `*` significantly worse, `†` significantly better
than the row "float", MAPSSWE at 0.05, for most seeds. t: expected share of zeros among generated ternary
weights. params: trained parameters in millions, which is what the paper counts; generated weights are not
stored. MB (1e6 bytes) of the packed file. RTF: seconds of one CPU core for a second of speech."""
NOTE_ALL = """All test sets pooled, the network alone. "interval" is the 95 % interval over speakers of the
first seed; "difference" that to the row "float", or for a compressed row to the one that it began from, in
points with its 95 % interval; "to dense" the same to the ternary network with the lowest t; "worse" or
"better" where MAPSSWE at 0.05 sees one for most seeds; "changed": utterances with other words, mean."""
NOTE_COMPRESSED = (
    """As above; "rel. %" is the change of WER relative to full precision of the same network."""
)
NOTE_RESCORED = """The network's own lists, put into a new order by the n-gram at weights found on speech that
is not tested on; marks against the row "float" rescored in the same way."""


def general_note(value: Mapping[str, Any]) -> str:
    """What holds for every table: words and folds."""
    words = max(row["words"] for row in value["rows"])
    folds = ""
    if len(value.get("parts") or ()) > 1:
        folds = """ "folds" are training speakers, each recognised by networks that never heard them."""
    return f"Rows recognised up to {words:,} words.{folds}{heard_by(value)}"


def headline(value: Mapping[str, Any]) -> str:
    """What each ternary network costs beside the floating-point ones, and the smallest compressed file."""
    made = [row for row in value["rows"] if row["bits"] == 32]
    full = [row for row in made if row["threshold"] is None]
    found = [_beside(row, full) for row in made if row["threshold"] is not None]
    held = [row for row in value["rows"] if row["bits"] < 32]
    last = [smallest(value, lambda row: row["against"], named)] if held else []
    return " ".join([*(each for each in found if each), *last]) or "Only floating-point networks so far."


def _beside(row: Row, full: Sequence[Row]) -> str:
    """A ternary network and the smallest floating-point one that is no worse, in a sentence."""
    wer, size = row["pooled"][0], row["parameters"] / 1e6
    same = [other for other in full if other["words"] == row["words"]]
    as_good = [other for other in same if other["pooled"][0] <= wer]
    if not same:
        return ""
    said = f"{named(row)}: {wer:.2f} % WER with {size:.2f}M parameters"
    if not as_good:
        return f"{said}, better than every floating-point network here."
    least = min(as_good, key=lambda other: other["parameters"])
    return (
        f"{said}; the smallest floating-point network that is no worse, {named(least)}, has "
        f"{least['parameters'] / 1e6:.2f}M and {least['pooled'][0]:.2f} %."
    )


def sheets(value: Mapping[str, Any]) -> list[Sheet]:
    """Networks, compressed networks, all sets together, lists rescored, language models: those there are."""
    found = [
        Sheet("Networks: floating point and random ternary", network_table(value), NOTE),
        Sheet("Compressed networks", compressed_table(value), NOTE_COMPRESSED),
        Sheet("All test sets together", pooled_table(value), NOTE_ALL),
        Sheet("Lists rescored by the n-gram", acosr_tables.rescored_table(named_rows(value)), NOTE_RESCORED),
        Sheet("With language model", systems_table(value), acosr_tables.NOTE_SYSTEMS),
    ]
    return [sheet for sheet in found if sheet.rows]


def network_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """The paper's Tables 2 and 3: each network's parameters, t, and WER of each set."""
    rows = [row for row in value["rows"] if row["bits"] == 32]
    sets = sets_of(value)
    quoted = [name for name in sets if any(paper_figure(row, "wer", name) is not None for row in rows)]
    sizes = any(paper_figure(row, "parameters", "") is not None for row in rows)
    lines = []
    for row in rows:
        cells = {"network": row["shape"], "weights": weights(row), "skips": row["skips"]}
        cells["params M"] = number(row["parameters"] / 1e6, 3)
        if sizes:
            cells["paper M"] = number(paper_figure(row, "parameters", ""), 0)
        cells |= _wers(row, sets)
        cells |= {f"paper {name}": number(paper_figure(row, "wer", name), 2) for name in quoted}
        cells |= {"MB": number(row["bytes"] / MB, 3), "RTF": number(row["rtf"], 4)}
        cells["training s"] = number(row["seconds_train"], 0)
        lines.append(cells)
    return lines


def _wers(row: Row, sets: Sequence[str]) -> dict[str, str]:
    """WER of each set with its mark, of the network alone and in the graph."""
    cells = {}
    for name in sets:
        cells[name] = spread(row["wer"].get(name)) + row["marks"].get(name, "")
        graph = row["graph"] or {"wer": {}, "marks": {}}
        cells[f"{name} + graph"] = spread(graph["wer"].get(name)) + graph["marks"].get(name, "")
    return cells


def compressed_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of fewer bits: WER of each set and its change, sizes; none without one."""
    sets, lines = sets_of(value), []
    full = {row["name"]: row for row in value["rows"]}
    for row in (row for row in value["rows"] if row["bits"] < 32):
        cells = {"system": named(row), "bits": bits_label(row["bits"])}
        start = full.get(row["start"])
        for name in sets:
            cells |= _wers(row, [name])
            cells[f"{name} rel. %"] = _change(row, start, name)
        cells |= {"MB": number(row["bytes"] / MB, 3), "ratio": number(row["ratio"], 1, "x")}
        cells["RTF"] = number(row["rtf"], 4)
        lines.append(cells)
    return lines


def _change(row: Row, start: Row | None, name: str) -> str:
    """Relative change of a set's WER to the row that this one began from."""
    if start is None or name not in start["wer"] or name not in row["wer"] or not start["wer"][name][0]:
        return DASH
    return f"{100 * (row['wer'][name][0] / start['wer'][name][0] - 1):+.2f}"


def pooled_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """WER of all words, its interval, and the differences to the row begun from and to dense ternary."""
    dense = any(row["against_dense"] for row in value["rows"])
    return [
        {
            "system": named(row),
            "all words": spread(row["pooled"]),
            "interval": " to ".join(number(bound, 2) for bound in row["ci95"]),
            "difference": increase(row["against"]),
            **({"to dense": increase(row["against_dense"])} if dense else {}),
            "changed": changed(row["against"]),
            "words": f"{row['words']:,}",
        }
        for row in value["rows"]
    ]


def systems_table(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """Recognisers with the language models that rescored them; none without one."""
    if not value.get("systems"):
        return []
    return [{key: text for key, text in line.items() if "paper" not in key} for line in table3(value)]


def named_rows(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with rows whose method says which network they have, as tables of others take it."""
    rows = [{**row, "method": named(row), "fit": None, "name": ""} for row in value["rows"]]
    return {**value, "rows": rows}


def weights(row: Row) -> str:
    """What a network's 1x1 convolutions are made of.

    >>> weights({"threshold": 0.9, "structured": False}), weights({"threshold": None, "structured": False})
    ('ternary, t = 0.9', 'floating point')
    """
    if row["threshold"] is None:
        return "floating point"
    return "ternary, 2 of 4" if row["structured"] else f"ternary, t = {row['threshold']:g}"


def configuration(row: Row) -> str:
    """A network's shape and skips, whatever its weights.

    >>> configuration({"shape": "5x3x64", "skips": "identity"})
    '5x3x64, identity skips'
    """
    return row["shape"] + ("" if row["skips"] == "trained" else f", {row['skips']} skips")


def named(row: Row) -> str:
    """A row in words: its network, and how it was compressed.

    >>> network = {"shape": "5x3x64", "skips": "trained", "threshold": 0.9, "structured": False}
    >>> named({**network, "name": "rt", "bits": 32})
    '5x3x64, ternary, t = 0.9'
    >>> row = {"name": "rt-bp-4", "start": "rt", "method": "BP uniform", "fit": None, "bits": 4.0}
    >>> named({**network, **row})
    '5x3x64, ternary, t = 0.9: BP, 4 bits'
    """
    network = f"{configuration(row)}, {weights(row)}"
    if row["bits"] == 32:
        return network
    short = {**row, "name": str(row["name"]).removeprefix(f"{row['start']}-")}
    return f"{network}: {acosr_tables.named(short)}"
