"""GREEN's Tables 1, 2 and 3 as rows of text, the paper's figures beside ours, for Markdown and HTML alike.

The value is that of `pipeline.green.table`: ``title``, ``rows``, ``parts``, ``seeds``, and ``systems`` where
a row was rescored or adapted.  What is missing is a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from greenasr.report import green_paper
from greenasr.report.green_paper import parsed, quoted, quoted_system
from greenasr.report.heard import heard_by
from greenasr.report.language_models import DASH, FLOATS, MB, bits_label, number, worded
from greenasr.report.page import Sheet

Row = Mapping[str, Any]
PLANS = {"hessian": "Hessian", "kl": "KL", "search": "search"}
FITS = {"none": "post-training", "bp": "BP", "acosr": "QAT (ACosR)", "admm": "ADMM", "ttq": "TTQ"}
SEARCHES = {"pipegumbel": "PipeGumbel", "gumbel": "Gumbel DARTS", "darts": "DARTS"}

NOTE1 = """Full-precision networks: bottlenecks set by hand, and found by search. `*`: significantly other
than the manual network, MAPSSWE at 0.05 on all words, for most seeds; "increase" says in which direction."""
NOTE2 = """`*` and `†`: **no** significant difference to the searched and to the manual full-precision
network, as the paper marks its rows; on few words that proves little, so "increase" gives the difference to
the full-precision network that the row began from, its 95 % interval over speakers, and "worse" or "better"
where MAPSSWE at 0.05 sees one for most seeds. "changed": utterances whose words differ from that network's,
mean of seeds. MB (1e6 bytes) of the packed file. RTF in thousandths, of one CPU core, network + search; the
paper's of one V100, network alone."""
NOTE3 = """Recogniser and language model as one system: MB and ratio of both files, against the
full-precision pair; the n-gram of the decoding graph is in all and counted in none. `*` significantly worse,
`†` significantly better than the full-precision system. LHUC adapts without transcripts, in two passes."""
NOTE = """WER in percent, mean ± standard deviation over seeds. "all" pools {words:,} words of {what},
where a row has run on all of them, of the seeds that have most. The paper's figures are of Switchboard
(300 hours, 1536-wide networks): compare ratios and differences."""


def general_note(value: Mapping[str, Any]) -> str:
    """What holds for every table: means, words, and whose the paper's figures are."""
    what = "the test sets"
    if len(value.get("parts") or ()) > 1:
        what += " and of every fold of training speakers, recognised by models that never heard them"
    return NOTE.format(words=max(row["words"] for row in value["rows"]), what=what) + heard_by(value)


def headline(value: Mapping[str, Any]) -> str:
    """The result in a sentence: the smallest file that is not significantly worse than full precision."""
    return smallest(value, lambda row: against(row, "float"), named)


def smallest(
    value: Mapping[str, Any],
    compared: Callable[[Row], Mapping[str, Any] | None],
    name: Callable[[Row], str],
) -> str:
    """The smallest file that ``compared`` to full precision has no significant increase, in a sentence.

    Rows that have not recognised all words of the full-precision one yet are left out.
    """
    full = next((row for row in value["rows"] if row["name"] == "float"), None)
    held = [
        (row["ratio"], row, found)
        for row in value["rows"]
        if full
        and row["words"] == full["words"]
        and row["ratio"]
        and (found := compared(row))
        and found["mark"] != "*"
    ]
    if not full or not held:
        return "No compressed recogniser is without a significant increase yet."
    ratio, row, found = max(held, key=lambda each: each[0])
    low, high = found["ci95"]
    return (
        f"The smallest recogniser without a significant increase is {name(row)}: {ratio:.1f} times smaller, "
        f"{row['pooled'][0]:.2f} % WER where full precision has {full['pooled'][0]:.2f} % "
        f"(difference {found['difference']:+.2f}, 95 % interval {low:+.2f} to {high:+.2f})."
    )


def sheets(value: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[Sheet]:
    """Tables 1, 2 and, where a system was rescored or adapted, 3."""
    found = [
        Sheet("Table 1: bottlenecks", table1(value, recipe), NOTE1),
        Sheet("Table 2: quantized recognisers", table2(value), NOTE2),
    ]
    if value.get("systems"):
        found.append(Sheet("Table 3: with language model and adaptation", table3(value), NOTE3))
    return [sheet for sheet in found if sheet.rows]


def table1(value: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[dict[str, str]]:
    """GREEN's Table 1: method, η, bottlenecks, WER of each set and all, parameters."""
    sets, quoted_sets, rows = sets_of(value), sets_quoted(value), []
    manual = next((row for row in value["rows"] if row["name"] == "float"), None)
    search = recipe.get("search") or {}
    for row in (row for row in value["rows"] if is_full(row)):
        theirs, found = quoted(row["name"]), against(row, "float")
        cells = {"system": label(row), "η": DASH if row is manual else penalty(search)}
        cells["bottlenecks"] = " ".join(map(str, row["bottlenecks"]))
        cells |= of_sets(row, sets, quoted_sets)
        cells["all"] = spread(row["pooled"]) + ("*" if found and found["mark"] else "")
        cells["increase"] = increase(found)
        cells["paper WER"] = number(theirs.average if theirs else None, 1)
        cells["params M"] = number(row["parameters"] / 1e6, 2)
        cells["paper M"] = number(green_paper.PARAMETERS.get(row["name"], 0) / 1e6 or None, 1)
        cells["fewer"] = share(row["parameters"], manual and manual["parameters"])
        cells["paper fewer"] = share(green_paper.PARAMETERS.get(row["name"]), green_paper.PARAMETERS["float"])
        rows.append(cells)
    return rows


def table2(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """GREEN's Table 2: plan and estimation, bits, WER of each set and all, size, ratio, RTF of every row."""
    sets, quoted_sets, rows = sets_of(value), sets_quoted(value), []
    for row in value["rows"]:
        theirs = quoted(row["name"])
        parent = against(row, "float") if is_full(row) else against(row, "compact") or against(row, "float")
        cells = {"system": label(row), "bits": bits_label(row["bits"])}
        cells |= of_sets(row, sets, quoted_sets)
        cells["all"] = spread(row["pooled"]) + same_marks(row)
        cells["paper WER"] = DASH if theirs is None else f"{theirs.average:.1f}{theirs.marks}"
        cells["MB"] = number(row["bytes"] / MB, 3)
        cells["paper MB"] = number(theirs.mb if theirs else None, 1)
        cells["ratio"] = number(row["ratio"], 1, "x")
        cells["paper ratio"] = number(theirs.ratio if theirs else None, 1, "x")
        cells["RTF /1000"] = f"{1000 * row['rtf_network']:.2f} + {1000 * row['rtf_search']:.2f}"
        cells["paper RTF"] = number(theirs.rtf if theirs else None, 3)
        cells["increase"] = increase(parent)
        cells["changed"] = changed(parent)
        cells["paper system"] = DASH if theirs is None else str(theirs.system)
        rows.append(cells)
    return rows


def table3(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """GREEN's Table 3: recogniser, language model, adaptation; WER of each set, size and ratio of both."""
    systems = value["systems"]
    sets = list(dict.fromkeys(name for system in systems for name in system["sets"]))
    biggest = green_paper.TABLE3["float", False][2]
    with_words = any("bits" in system for system in systems)
    rows = []
    for system in systems:
        theirs = quoted_system(system)
        cells = {"system": str(system["name"])}
        if with_words:
            acoustic, lm = system.get("bits") or (None, None)
            cells |= {"AM bits": bits_label(acoustic), "LM bits": bits_label(lm)}
        for name in sets:
            scored = system["sets"].get(name) or {}
            cells[name] = number(scored.get("wer"), 2, scored.get("mark") or "")
        cells["all"] = spread(system.get("pooled")) + (system.get("mark") or "")
        found = (system.get("against") or {}).get("unadapted") or (system.get("against") or {}).get("full")
        cells["increase"] = increase(found)
        cells["paper Hub5'00"] = DASH if theirs is None else f"{theirs[1][0]:.1f} / {theirs[1][1]:.1f}"
        cells["MB"] = number(system["bytes"] / MB if system.get("bytes") else None, 3)
        cells["paper MB"] = number(theirs[2] if theirs else None, 1)
        cells["ratio"] = number(system.get("ratio"), 1, "x")
        cells["paper ratio"] = number(biggest / theirs[2] if theirs else None, 1, "x")
        cells["note"] = note(system)
        rows.append(cells)
    return rows


def note(system: Mapping[str, Any]) -> str:
    """A system's own note, and what "increase" is held against where that is not the full-precision one."""
    found = [str(system["note"])] if system.get("note") else []
    if system.get("parameters_a_speaker"):
        found.append(f"{system['parameters_a_speaker']:,} parameters a speaker")
    if (system.get("against") or {}).get("unadapted"):
        found.append("increase over itself unadapted")
    return "; ".join(found) or DASH


def label(row: Row) -> str:
    """A row's plan and estimation in words; `named` adds the bits.

    >>> label({"name": "kl-4-acosr"}), label({"name": "bp-2"}), label({"name": "float"})
    ('KL plan, QAT (ACosR)', 'uniform, BP', 'manual')
    >>> label({"name": "bp-2-float32"})
    'uniform, BP, float32 activations'
    """
    plan, fit, _ = parsed(row["name"])
    if plan == "float":
        return "manual"
    if plan == "compact":
        words = str(row.get("method") or "searched").removesuffix(" bottlenecks")
        return SEARCHES.get(words, words)
    floats = f", {worded(FLOATS)}" if row["name"].endswith(f"-{FLOATS}") else ""
    return f"{PLANS[plan]} plan, {FITS[fit]}{floats}" if plan in PLANS else f"uniform, {FITS[fit]}{floats}"


def named(row: Row) -> str:
    """`label` and the bits of a compressed row.

    >>> named({"name": "kl-4-acosr", "bits": 3.96}), named({"name": "bp-2", "bits": 2})
    ('KL plan, QAT (ACosR), 4.0 bits', 'uniform, BP, 2 bits')
    """
    bits = "" if is_full(row) else f", {bits_label(row['bits'])} bit{'' if row['bits'] == 1 else 's'}"
    return label(row) + bits


def is_full(row: Row) -> bool:
    """Whether the row's network is of full precision."""
    return parsed(row["name"])[2] == 32


def of_sets(row: Row, sets: Sequence[str], quoted_sets: Sequence[str]) -> dict[str, str]:
    """WER of every set, the paper's beside it where the recipe's rows name the set in ``paper``."""
    cells = {}
    for name in sets:
        cells[name] = spread(row["wer"].get(name))
        if name in quoted_sets:
            cells[f"paper {name}"] = number((row.get("paper") or {}).get(name), 1)
    return cells


def sets_quoted(value: Mapping[str, Any]) -> list[str]:
    """Names of the test sets that the paper has figures of, by the rows' ``paper``."""
    named = {key for row in value["rows"] for key in row.get("paper") or {}}
    return [name for name in sets_of(value) if name in named]


def sets_of(value: Mapping[str, Any]) -> list[str]:
    """Names of the test sets, in order of appearance."""
    return list(dict.fromkeys(name for row in value["rows"] for name in row["wer"]))


def against(row: Row, reference: str) -> Mapping[str, Any] | None:
    """The comparison with a full-precision row, None where there is none."""
    found: Mapping[str, Any] | None = (row.get("against") or {}).get(reference)
    return found


def same_marks(row: Row) -> str:
    """``*`` and ``†`` where MAPSSWE sees no difference to the searched and the manual network."""
    pairs = [("float", "†")] if is_full(row) else [("compact", "*"), ("float", "†")]
    if row["name"] == "float":
        return ""
    return "".join(mark for name, mark in pairs if (found := against(row, name)) and not found["mark"])


def increase(found: Mapping[str, Any] | None) -> str:
    """A pooled difference in points, its interval, and the verdict of MAPSSWE where it has one.

    >>> increase({"difference": 1.234, "ci95": [0.5, 2.0], "mark": "*"})
    '+1.23 (+0.50 to +2.00), worse'
    """
    if not found:
        return DASH
    low, high = found["ci95"]
    verdict = {"*": ", worse", "†": ", better"}.get(found["mark"], "")
    return f"{found['difference']:+.2f} ({low:+.2f} to {high:+.2f}){verdict}"


def changed(found: Mapping[str, Any] | None) -> str:
    """Utterances whose best words differ, mean over seeds."""
    counts = [test["changed"] for test in (found or {}).get("seeds", {}).values()]
    return number(sum(counts) / len(counts), 0) if counts else DASH


def penalty(search: Mapping[str, Any]) -> str:
    """The search's η, or the share of the parameters that it is steered to."""
    if search.get("target"):
        return f"for {100 * search['target']:.0f} %"
    return f"{search['eta']:g}" if "eta" in search else DASH


def share(parameters: float | None, of: float | None) -> str:
    """How many percent fewer, a dash for none."""
    return f"{100 * (1 - parameters / of):.0f} %" if parameters and of and parameters < of else DASH


def spread(found: Any) -> str:
    """Mean ± deviation, the latter where there is more than one seed; a plain number as it is."""
    if found is None:
        return DASH
    if isinstance(found, int | float):
        return f"{found:.2f}"
    mean, deviation, n = found
    return f"{mean:.2f} ± {deviation:.2f}" if n > 1 else f"{mean:.2f}"
