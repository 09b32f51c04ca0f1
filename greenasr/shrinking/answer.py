"""From what a run has found to its answer: the front, who may face the test, the smallest, and a sentence.

``answer.json`` holds every figure of it; a page is made of it elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from greenasr.score.decision import ALPHA, LOSSLESS, SHOWN, UNDECIDED, WORSE, Comparison, decide
from greenasr.shrinking.activations import shipped
from greenasr.shrinking.search import Search
from greenasr.shrinking.settings import Question
from greenasr.shrinking.works import BRIEF, UNTRAINED

FORMAT = "greenasr shrunk 2"
SEARCHED = ("costs", "proxies", "briefs", "untrained", "trained", "activations")
KINDS = {  # of work, by the first part of a job's name
    "features": "data",
    "parts": "proxies",
    "plans": "proxies",
    "wide": "untrained",
    **{name: name for name in ("full", "test", "system", "activations")},
}
Row = dict[str, Any]


def models(search: Search) -> list[Row]:
    """Every finished model with its figures on dev."""
    full = search.board.done("full") or {}
    rows = []
    for path in sorted((search.board.run / "models").glob("*/result.json")):
        name = f"models/{path.parent.name}"
        found = search.board.done(name) or {}
        if "failed" in found:
            continue
        against = search.against_full(name, "dev")
        rows.append(
            {
                "name": path.parent.name,
                **{key: found[key] for key in ("cost", "estimator", "bits", "bytes", "plan", "dev")},
                "dims": found.get("dims", {}),
                "activations": found.get("activations", "float32"),
                "file": name,
                "ratio": full["bytes"] / found["bytes"],
                "dev_against": against.to_json(),
                "passes_dev": search.passes(name),
                "seconds": found["seconds"],
            }
        )
    return rows


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Smallest first; ``front`` says that no smaller one has as few errors on dev."""
    best, found = float("inf"), []
    for row in sorted(rows, key=lambda row: (row["bytes"], row["dev"]["wer"], row["name"])):
        found.append({**row, "front": row["dev"]["wer"] < best})
        best = min(best, row["dev"]["wer"])
    return found


def finalists(
    rows: Sequence[Row], question: Question, ship: Callable[[Row, Sequence[Row]], Row | None]
) -> list[Row]:
    """Who faces the test: of those that pass on dev the smallest, or the best one of a size.

    ``ship`` gives a model the activations that it ships with, or None where it may not with any; it takes the
    models that were found before.
    """
    limit, found = question.max_bytes, list[Row]()
    if limit is not None:
        within = [row for row in rows if row["bytes"] <= limit]
        likely = sorted(within, key=lambda row: (row["dev"]["wer"], row["bytes"], row["name"]))
    else:
        likely = [row for row in rows if row["passes_dev"]]
    for row in likely:
        if len(found) < (1 if limit is not None else question.finalists) and (ready := ship(row, found)):
            found.append(ready)
    return found


def answer(search: Search, notes: Sequence[str]) -> Row:
    """Score the finalists on test and say which is the smallest that may take the full model's place."""
    question = search.question
    rows = ranked(models(search))
    final = finalists(rows, question, lambda row, found: shipped(search, row, bool(found)))
    ready = {row["name"]: row for row in final}
    rows = ranked(ready.get(row["name"], row) for row in rows)
    files = {row["name"]: row["file"] for row in rows}
    chosen = [row["name"] for row in rows if row["name"] in ready]
    search.score_on_test([files[name] for name in chosen])
    margin, looked = question.max_wer_increase, search.looked()
    tested = {name: search.against_full(files[name], "test") for name in chosen}
    verdicts = decide(tested, margin, looked=looked)
    for row in rows:
        if (name := row["name"]) in tested:
            result = search.board.done(f"test/{files[name]}") or {}
            row |= {"test": result["test"], "against": tested[name].to_json(), **verdicts[name]}
    good = [name for name in chosen if verdicts[name]["verdict"] != WORSE]
    shown = [name for name in good if verdicts[name]["verdict"] == SHOWN]
    likely = [name for name in good if tested[name].within(margin)]
    smallest = next(iter(shown or likely), None)
    full = {**(search.board.done("full") or {}), "test": (search.board.done("test/full") or {})["test"]}
    value: Row = {
        "format": FORMAT,
        "space": search.space.to_json(),
        "question": {"max_wer_increase": margin, "max_bytes": question.max_bytes, "alpha": ALPHA},
        "full": full,
        "models": rows,
        "parts": search.board.done("parts"),
        "smallest": smallest,
        "looked": looked,
        "notes": [*notes, *_notes(search, full)],
        "seconds": seconds(search),
        "effort": effort(search),
    }
    found = None if smallest is None else tested[smallest]
    picked = next((row for row in rows if row["name"] == smallest), None)
    value["sentence"] = sentence(full, picked, found, margin, looked)
    return value


def sentence(
    full: Mapping[str, Any], row: Mapping[str, Any] | None, found: Comparison | None, margin: float | None,
    looked: int,
) -> str:  # fmt: skip
    """What was found, how sure that is, and what could have been seen at all."""
    if row is None or found is None:
        few = ", or its words are too few to tell" if margin is not None else ""
        return f"No smaller model may take the full one's place: the {looked} tried on test lose words{few}."
    size = f"{row['bytes']:,} bytes where the full model has {full['bytes']:,}"
    low, high = found.ci95
    parts = [
        f"{row['ratio']:.1f} times smaller, {size}: {found.wer:.2f} % of words wrong on test where the full "
        f"model has {found.wer_full:.2f} %, {found.difference:+.2f} points (95 % interval {low:+.2f} to "
        f"{high:+.2f}); MAPSSWE does not call it worse (p = {found.mapsswe_p:.2g})."
    ]
    if row.get("verdict") == SHOWN:
        parts.append(
            f"A loss of {margin:g} points is ruled out (p = {row['p']:.2g}, Holm over {looked} models)."
        )
    elif row.get("verdict") == UNDECIDED:
        parts.append(
            f"That it loses less than {margin:g} points is not shown (p = {row['p']:.2g}, Holm over {looked} "
            f"models): it may be {found.upper:.2f} points, and {found.words:,} words are too few to tell."
        )
    share = f" ({100 * found.detectable / found.wer_full:.0f} % of the errors)" if found.wer_full else ""
    parts.append(
        f"A true loss of {found.detectable:.2f} points{share} would have been found four times in five"
        + (
            ": lossless, as far as this set can tell."
            if found.may_say_lossless
            else f"; to say lossless it would have to be {100 * LOSSLESS:.0f} % or less."
        )
    )
    return " ".join(parts)


def _notes(search: Search, full: Mapping[str, Any]) -> list[str]:
    """What a reader should know of the model and of the costs."""
    notes = []
    for method in search.space.costs:
        result = search.board.done(f"costs-{method}") or {}
        if why := result.get("unavailable"):
            notes.append(f"{method} costs could not be measured and were left out: {why}")
        elif warning := result.get("warning"):
            notes.append(f"{method} costs: {warning}")
    for path in sorted((search.board.run / "models").glob("*/result.json")):
        if why := (search.board.done(f"models/{path.parent.name}") or {}).get("failed"):
            notes.append(f"{path.parent.name} could not be trained: {why}")
    if search.kept:
        names, widest = ", ".join(f"'{name}'" for name in search.kept), max(search.space.widths)
        stay = "stay" if len(search.kept) > 1 else "stays"
        notes.append(f"Rounding everything to {widest} bits loses words: {names} {stay} in 16 bits.")
    kept = sum(full["kept"].values())
    if kept > 0.05 * full["parameters"]:
        largest = max(full["kept"], key=lambda name: full["kept"][name])
        notes.append(
            f"{100 * kept / full['parameters']:.0f} % of the parameters are in no linear, embedding or "
            f"convolution layer and stay in 16 bits, the most in '{largest}'."
        )
    return notes


def effort(search: Search) -> Row | None:
    """How many times the longest training with its scoring the search took; None where none was trained.

    In seconds of processors, which other programs on the machine change little; in seconds on another device.
    The search is costs, proxies and models; whoever trains one model also needs features and its test.
    """
    measure = "seconds_cpu" if search.device == "cpu" else "seconds"
    found = seconds(search, measure)
    trained = [
        float((search.board.done(f"models/{path.parent.name}") or {})[measure])
        for path in search.board.run.glob("models/*/result.json")
        if path.parent.name.rpartition("-")[2] not in (UNTRAINED, BRIEF)
    ]
    if not trained:
        return None
    one = max(trained)
    looked = sum(found[kind] for kind in SEARCHED)
    return {
        "measure": measure,
        "by_kind": found,
        "one": one,
        "trainings": len(trained),
        "search": looked / one,
        "all": sum(found.values()) / one,
    }


def seconds(search: Search, measure: str = "seconds") -> dict[str, float]:
    """Seconds of finished work by kind: costs, proxies, models without and with training, test."""
    kinds = (
        "data",
        "full",
        "costs",
        "proxies",
        "briefs",
        "untrained",
        "trained",
        "activations",
        "test",
        "system",
    )
    found, run = dict.fromkeys(kinds, 0.0), search.board.run
    for path in sorted(run.glob("**/result.json")):
        name = path.parent.relative_to(run).as_posix()
        first = name.partition("/")[0]
        kind = KINDS.get(first, "data" if first.startswith("graph-") else "costs")
        if first == "models":
            kind = {UNTRAINED: "untrained", BRIEF: "briefs"}.get(name.rpartition("-")[2], "trained")
        found[kind] += float((search.board.done(name) or {})[measure])
    return found
