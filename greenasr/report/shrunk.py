"""What a person sees of a finished search: one page, one table for the terminal.

DIR/answer.json, <job>/*.jsonl, costs-*/costs.json, *.packed  ─▶  table.md, table.json, report.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from greenasr.data.files import read_json
from greenasr.report import page
from greenasr.report.changed_words import changes
from greenasr.report.facts import Facts
from greenasr.report.shrunk_plots import plots
from greenasr.score.scored import Scored, read_scored

FORMAT = "greenasr shrunk 2"
MOST = 25  # lines of changed words
COSTS = {"hessian": "Hessian plan", "kl": "KL plan", "divergence": "divergence plan"}
KINDS = {"static": "int8, static", "int8": "int8 a row", "float32": "float32"}  # the cheapest first
WAYS = {
    "none": "post-training",
    "brief": "brief training",
    "bp": "BP",
    "acosr": "ACosR",
    "admm": "ADMM",
    "ttq": "TTQ",
}
Value = Mapping[str, Any]


def read(run: Path) -> dict[str, Any]:
    """The answer of a run; ValueError where there is none, or one of another version."""
    if not (run / "answer.json").exists():
        raise ValueError(f"{run}: no answer.json: give the folder of a finished `greenasr shrink`.")
    value = dict(read_json(run / "answer.json"))
    if value.get("format") != FORMAT:
        raise ValueError(
            f"{run}/answer.json: is '{value.get('format')}', this greenasr reads '{FORMAT}': give the "
            "`greenasr shrink` command again."
        )
    return value


def write(run: Path) -> None:
    """``table.json``, ``table.md`` and ``report.html`` in the run folder."""
    value = read(run)
    page.write(run, value, contents(value, run), plots(value, run), facts_of(value))


def contents(value: Value, run: Path) -> page.Page:
    """Tables and words."""
    sheets = [models_sheet(value)]
    if value["smallest"]:
        sheets += words_sheets(value, run)
    if (run / "system" / "answer.json").exists():
        sheets.append(system_sheet(read_json(run / "system" / "answer.json")))
    if heard := [row for row in value["models"] if row.get("kinds")]:
        sheets.append(activations_sheet(heard))
    sheets += [parts_sheet(value), times_sheet(value)]
    note = " ".join(value["notes"])
    return page.Page("The smallest model that loses no words", value["sentence"], sheets, note)


def label(row: Value) -> str:
    """A model by how it was made.

    >>> label({"cost": "kl", "estimator": "bp", "bits": 3.26})
    'KL plan, BP, 3.3 bits'
    """
    n = len(row.get("dims") or ())
    cut = f", {n} bottleneck{'s' * (n > 1)} cut" if n else ""
    return f"{COSTS.get(row['cost'], row['cost'])}, {WAYS[row['estimator']]}, {row['bits']:.1f} bits{cut}"


def size(n: float) -> str:
    """Bytes in MB, in kB below a tenth of one.

    >>> size(1_880_000), size(848)
    ('1.88 MB', '0.85 kB')
    """
    return f"{n / 1e6:.2f} MB" if n >= 1e5 else f"{n / 1e3:.2f} kB"


def rate(found: Value | None) -> str:
    """WER with its interval."""
    return "–" if found is None else f"{found['wer']:.2f} ({found['ci95'][0]:.2f} to {found['ci95'][1]:.2f})"


def models_sheet(value: Value) -> page.Sheet:
    """Every model that was made, the full one first."""
    full = value["full"]
    rows = [
        {
            "model": "full precision",
            "activations": "float32",
            "file": size(full["bytes"]),
            "smaller": "1.0x",
            "WER dev": f"{full['dev']['wer']:.2f}",
            "WER test (95 %)": rate(full["test"]),
            "difference (95 %)": "–",
            "MAPSSWE p": "–",
            "verdict": "–",
        }
    ]
    for row in sorted(value["models"], key=lambda row: -row["bytes"]):
        against = row.get("against")
        low, high = against["ci95"] if against else (0, 0)
        rows.append(
            {
                "model": label(row) + (" ★" if row["name"] == value["smallest"] else ""),
                "activations": KINDS[row["activations"]],
                "file": size(row["bytes"]),
                "smaller": f"{row['ratio']:.1f}x",
                "WER dev": f"{row['dev']['wer']:.2f}",
                "WER test (95 %)": rate(row.get("test")),
                "difference (95 %)": f"{against['difference']:+.2f} ({low:+.2f} to {high:+.2f})"
                if against
                else "–",
                "MAPSSWE p": f"{against['mapsswe_p']:.3f}" if against else "–",
                "verdict": row.get("verdict")
                or ("not tested" if row["passes_dev"] else "loses words on dev"),
            }
        )
    margin = value["question"]["max_wer_increase"]
    asked = (
        f"Non-inferior: a loss of {margin:g} points is ruled out, one-sided, at "
        f"{value['question']['alpha']:g}, Holm over the {value['looked']} models ever scored on test. "
        if margin is not None
        else "No loss was named that has to be ruled out: not worse is what MAPSSWE does not call worse. "
    )
    note = (
        f"★ the answer. {asked}Intervals resample speakers. dev steered the search, so its figures are too "
        "good; test was scored at the end alone."
    )
    return page.Sheet("Models", rows, note)


def words_sheets(value: Value, run: Path) -> list[page.Sheet]:
    """Errors by kind, and the words that changed, on test."""
    name = value["smallest"]
    row = next(row for row in value["models"] if row["name"] == name)
    before, after = value["full"]["test"], row["test"]
    kinds = {"sub": "substitutions", "del": "deletions", "ins": "insertions"}
    rows = [
        {
            "errors on test": word,
            "full precision": f"{before[key]:,}",
            "smallest": f"{after[key]:,}",
            "change": f"{after[key] - before[key]:+,}",
        }
        for key, word in kinds.items()
    ]
    sheets = [page.Sheet("Errors before and after", rows, f"Of {before['words']:,} words.")]
    full, small = (scored(run, each) for each in ("full", row.get("file", f"models/{name}")))
    if all(each.ref for each in full if each.errors.n_ref):
        found = changes(full, small)
        lines = [
            *lines_of("lost", found.lost),
            *lines_of("won", found.won),
            *lines_of("wrong either way", found.other),
        ]
        lines.sort(key=lambda line: -int(line["times"]))
        note = (
            f"{found.lost.total()} words were right and are wrong, {found.won.total()} were wrong and are "
            f"right, {found.other.total()} are wrong in another way; {found.utterances:,} of {len(full):,} "
            f"utterances changed. The {min(MOST, len(lines))} most frequent of {len(lines)}."
        )
        if lines:
            sheets.append(page.Sheet("Words that changed on test", lines[:MOST], note))
    return sheets


def scored(run: Path, name: str) -> list[Scored]:
    """A model's words of test."""
    return read_scored(run / "test" / name / "test.jsonl")


def lines_of(kind: str, found: Counter[tuple[str, str, str]]) -> list[dict[str, str]]:
    """Lines of the table of changed words."""
    return [
        {
            "reference": ref,
            "full precision": one or "–",
            "smallest": two or "–",
            "what": kind,
            "times": str(n),
        }
        for (ref, one, two), n in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    ]


def system_sheet(value: Value) -> page.Sheet:
    """Pairs of a recogniser and a language model under one budget."""
    rows = [
        {
            "recogniser": row["recogniser"],
            "language model": row["lm"] + (" ★" if row["name"] == value["smallest"] else ""),
            "files": f"{size(row['bytes_recogniser'])} + {size(row['bytes_lm'])}",
            "smaller": f"{row['ratio']:.1f}x",
            "WER dev": f"{row['dev']['wer']:.2f}",
            "WER test": f"{row['test']['wer']:.2f}" if row.get("test") else "–",
            "verdict": row.get("verdict") or ("not tested" if row["passes_dev"] else "loses words on dev"),
        }
        for row in sorted(value["pairs"], key=lambda row: -row["bytes"])
    ]
    full = value["full"]
    note = (
        f"{value['sentence']} Both in full precision: {size(full['bytes'])}, WER {full['dev']['wer']:.2f} on "
        f"dev, {full['test']['wer']:.2f} on test. Weights of rescoring were tuned with these on dev."
    )
    return page.Sheet("One budget for recogniser and language model", rows, note)


def activations_sheet(rows: Sequence[Value]) -> page.Sheet:
    """The words on dev by the numbers that maps multiply, of the models that were heard with several."""
    lines = []
    for row in sorted(rows, key=lambda row: -row["bytes"]):
        rates = {KINDS[k]: f"{row['kinds'][k]['dev']['wer']:.2f}" for k in KINDS if k in row["kinds"]}
        lines.append({"model": label(row), **rates, "ships with": KINDS[row["activations"]]})
    note = (
        "WER on dev of the packed file as it would ship. The first kind ships that passes on dev and is not "
        "worse by MAPSSWE than the one of fewest errors, static only with at most 2 % more errors than that."
    )
    return page.Sheet("Activations", lines, note)


def parts_sheet(value: Value) -> page.Sheet:
    """What rounding each part alone does, the most sensitive first."""
    parts = value["parts"]
    picked = next((row for row in value["models"] if row["name"] == value["smallest"]), None)
    rows = []
    for kind, word in (("weights", "weights"), ("rest", "never rounded")):
        for name, found in parts[kind].items():
            bits = picked["plan"].get(name, 16) if picked and kind == "weights" else 16
            rows.append(
                {
                    "part": name,
                    "what": word,
                    "parameters": f"{found['parameters']:,}",
                    "rounded to": f"{parts['bits'][kind]} bits",
                    parts["measure"]: f"{found['distance']:.2g}",
                    "in the answer": f"{bits} bits" if picked else "–",
                }
            )
    rows.sort(key=lambda row: -float(row[parts["measure"]]))
    note = (
        "Each part rounded alone, everything else in full precision; how far the outputs move, on one batch "
        "of dev. Weights stay in 16 bits where rounding them loses words even at the widest width."
    )
    return page.Sheet("What rounding does to each part", rows[:MOST], note)


def times_sheet(value: Value) -> page.Sheet:
    """Where the time went."""
    kinds = {
        "data": "features and graphs",
        "full": "the full model on dev",
        "costs": "costs, once for all budgets",
        "proxies": "plans, and what rounding to them does",
        "briefs": "brief trainings, and those models on dev",
        "untrained": "models without training, on dev",
        "trained": "training, and those models on dev",
        "activations": "the choice of activations, on dev",
        "test": "the finalists on test",
        "system": "pairs with a language model",
    }
    effort = value["effort"]
    cpu = effort["by_kind"] if effort and effort["measure"] == "seconds_cpu" else {}
    rows = [
        {"work": word, "seconds": f"{found:.1f}"} | ({"of a processor": f"{cpu[key]:.1f}"} if cpu else {})
        for key, word in kinds.items()
        if (found := value["seconds"].get(key))
    ]
    note = "Seconds of all workers together"
    if effort:
        note += f"; {effort_of(effort)}"
    return page.Sheet("Where the time went", rows, note + ".")


def effort_of(effort: Value) -> str:
    """What the search took, in trainings."""
    cpu = " of a processor" if effort["measure"] == "seconds_cpu" else ""
    return (
        f"the longest training with its scoring took {effort['one']:.1f} seconds{cpu}, the search (costs, "
        f"proxies, models) {effort['search']:.1f} times that, all with features and test {effort['all']:.1f}"
    )


def facts_of(value: Value) -> Facts:
    """What was searched over and how it was judged."""
    space, full, training = value["space"], value["full"], value["space"]["training"]
    kept = sum(full["kept"].values())
    widths, ways = ", ".join(map(str, space["widths"])), ", ".join(WAYS[e] for e in space["estimators"])
    torch = value["models"] and all(row["activations"] == "float32" for row in value["models"])
    heard = "torch, in float32" if torch else "packed files on the runtime"
    shape = f"a width by {space['by']}, a step by {space['step']}"
    return [
        (
            "Model",
            f"{full['parameters']:,} parameters, {full['quantizable']:,} quantized, {kept:,} in 16 bits",
        ),
        (
            "Plans",
            f"{', '.join(space['costs'])} costs over {widths} bits, {shape}; exact under a budget of bytes",
        ),
        (
            "Search",
            f"sizes to a ratio of {space['finer']:g}, first without training, then with it at the guessed "
            "edge; of a budget's plans the one that rounding moves least is trained",
        ),
        ("Training", f"{ways}: {training['epochs']:g} epochs, lr {training['lr']:g}"),
        (
            "Judged by",
            f"MAPSSWE, two-sided; loss by bootstrap-t over speakers; intervals 95 %; words of {heard}",
        ),
        ("Sizes", "bytes of the packed files on disk, MB = 1e6 bytes; nothing is a formula"),
    ]
