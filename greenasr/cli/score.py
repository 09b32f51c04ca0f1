"""`greenasr score`: words wrong, how sure that is, and which of two systems is better."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from greenasr.data.files import write_atomic
from greenasr.score.errors import (
    Errors,
    bootstrap_ci95,
    by_speaker,
    knows_speakers,
    to_jsonl,
    wer,
    wer_by_speaker,
)
from greenasr.score.formats import Aligned, Settings, normalisation, score_files, with_speakers
from greenasr.score.network import Rules
from greenasr.score.significance import (
    difference_ci95,
    mapsswe_of_ops,
    mcnemar,
    signed_pairs,
    smallest_detectable,
    wilcoxon,
)

SYSTEMS = {"a": "hyp", "b": "against", None: None}
TESTS = {
    "mapsswe": "MAPSSWE, word errors by segment",
    "mcnemar": "McNemar, utterances all right",
    "signed_pairs": "signed pairs, WER by speaker",
    "wilcoxon": "Wilcoxon, WER by speaker",
}


def score(
    ref: Annotated[Path, typer.Argument(help="References: trn, Kaldi text, JSON lines or stm.")],
    hyp: Annotated[Path, typer.Argument(help="Hypotheses: the same, ctm for an stm, or sclite's sgml.")],
    against: Annotated[
        Path | None, typer.Option(help="Hypotheses of a second system: test whether the two differ.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    format: Annotated[
        str | None, typer.Option(help="trn, kaldi, jsonl, stm, ctm or sgml; guessed when left out.")
    ] = None,
    speakers: Annotated[
        str, typer.Option(help="auto, none, spu_id (id up to - or _), wsj (3 letters), or an utt2spk file.")
    ] = "auto",
    by_speaker: Annotated[bool, typer.Option("--by-speaker", help="One row a speaker.")] = False,
    ignore_case: Annotated[
        bool | None, typer.Option("--ignore-case/--case", help="Default: ignored in trn, stm, ctm only.")
    ] = None,
    language: Annotated[str, typer.Option(help='"tr" or "az": Turkish case of i.')] = "",
    fragments: Annotated[
        bool, typer.Option("--fragments", "-F", help="A fragment fi- is right for find.")
    ] = False,
    optional: Annotated[
        bool, typer.Option("--optional", "-D", help="Words in (parentheses) may be left out.")
    ] = False,
    chars: Annotated[bool, typer.Option("--chars", help="Score characters instead of words.")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="A reference without hypothesis counts as deleted.")
    ] = False,
    errors: Annotated[
        Path | None, typer.Option(help="Write the counts of every utterance there as JSON lines.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap interval.")] = 0,
) -> None:
    """Count substitutions, deletions and insertions as NIST's sclite does; compare two systems.

    Example: greenasr score ref.trn ours.trn --against theirs.trn
    """
    if language not in ("", "tr", "az"):
        raise ValueError(f"--language {language}: expected tr or az, or leave it out.")
    settings = Settings(
        ignore_case=ignore_case,
        language=language,
        rules=Rules(optional=optional, fragments=fragments),
        chars=chars,
        allow_missing=allow_missing,
    )
    first = with_speakers(score_files(ref, hyp, format, settings), speakers)
    counts = [a.errors for a in first]
    result = summary(counts, seed) | {"normalisation": normalisation(ref, hyp, format, settings)}
    if against is not None:
        second = with_speakers(score_files(ref, against, format, settings), speakers)
        result |= comparison(first, second, seed, str(against))
    if errors is not None:
        write_atomic(errors, to_jsonl(counts))
    if json:
        if by_speaker:
            result["speakers"] = wer_by_speaker(counts)
        print(json_format.dumps(result, ensure_ascii=False))
    else:
        show(result, counts if by_speaker else [], hyp, against)


def summary(errors: list[Errors], seed: int = 0) -> dict[str, Any]:
    """WER in percent, the counts behind it and its 95 % interval."""
    return {
        "wer": wer(errors),
        "sub": sum(e.n_sub for e in errors),
        "del": sum(e.n_del for e in errors),
        "ins": sum(e.n_ins for e in errors),
        "ref_words": sum(e.n_ref for e in errors),
        "utterances": len(errors),
        "wrong_utterances": sum(e.total > 0 for e in errors),
        "ci95": list(bootstrap_ci95(errors, seed)),
        "ci95_over": "speakers" if knows_speakers(errors) else "utterances",
    }


def comparison(
    first: list[Aligned], second: list[Aligned], seed: int = 0, name: str = "--against"
) -> dict[str, Any]:
    """The second system's figures and every test of the difference, first minus second."""
    other = {a.utt_id: a for a in second}
    if set(other) != {a.utt_id for a in first}:
        odd = sorted(set(other) ^ {a.utt_id for a in first})[0]
        raise ValueError(
            f"{name}: utterance '{odd}' is in one system only, expected the same in both. "
            "Score both against the same references."
        )
    paths = [a.ops for a in first], [other[a.utt_id].ops for a in first]
    counts = [a.errors for a in first], [other[a.utt_id].errors for a in first]
    words = sum(e.n_ref for e in counts[0])
    test = mapsswe_of_ops(*paths)
    result: dict[str, Any] = {
        "against": summary(counts[1], seed),
        "difference": wer(counts[0]) - wer(counts[1]),
        "difference_ci95": list(difference_ci95(test, words)),
        "smallest_detectable": smallest_detectable(test.segments, test.std, words),
        "mapsswe": named(test),
        "mcnemar": named(mcnemar(*paths)),
        "signed_pairs": None,
        "wilcoxon": None,
    }
    if all(e.speaker is not None for e in counts[0]):
        rates = wer_by_speaker(counts[0]), wer_by_speaker(counts[1])
        result["signed_pairs"] = named(signed_pairs(*rates))
        result["wilcoxon"] = named(wilcoxon(*rates))
    return result


def named(test: Any) -> dict[str, Any]:
    """A test's fields, with `better` as "hyp", "against" or None."""
    return asdict(test) | {"better": SYSTEMS[test.better]}


def show(result: dict[str, Any], errors: list[Errors], hyp: Path, against: Path | None) -> None:
    """The result as tables on stdout; ``errors`` not empty asks for a row a speaker."""
    console = Console()
    ours, theirs = hyp.name, against.name if against else ""
    if ours == theirs:
        ours, theirs = str(hyp), str(against)
    table = Table(caption=f"texts: {result['normalisation']}; interval over {result['ci95_over']}")
    for column in ("system", "WER %", "95 % interval", "sub", "del", "ins", "words", "utts"):
        table.add_column(
            column, justify="left" if column == "system" else "right", no_wrap=column != "system"
        )
    rows = [(ours, result)] + ([(theirs, result["against"])] if against else [])
    for name, row in rows:
        interval = f"{row['ci95'][0]:.2f} – {row['ci95'][1]:.2f}"
        numbers = (row[key] for key in ("sub", "del", "ins", "ref_words", "utterances"))
        table.add_row(name, f"{row['wer']:.2f}", interval, *map(str, numbers))
    console.print(table)
    if errors:
        console.print(speaker_table(errors))
    if against is None:
        return
    low, high = result["difference_ci95"]
    difference, smallest = result["difference"], result["smallest_detectable"]
    lines = [
        f"{ours} minus {theirs}: {difference:+.2f} points of WER, 95 % interval {low:+.2f} to {high:+.2f}",
        f"smallest difference this set can show: {smallest:.2f} points",
    ]
    verdict = {"hyp": f"{ours} is better", "against": f"{theirs} is better", None: "no difference shown"}
    for key, title in TESTS.items():
        if test := result[key]:
            p = f"p = {test['p']:.4f}" if test["p"] >= 0.0001 else "p < 0.0001"
            few = " (fewer than 30 segments: take p as rough)" if test.get("segments", 30) < 30 else ""
            lines.append(f"{title}: {p}, {verdict[test['better']]}{few}")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def speaker_table(errors: list[Errors]) -> Table:
    """One row a speaker."""
    table = Table()
    for column in ("speaker", "WER %", "sub", "del", "ins", "words", "utterances"):
        table.add_column(column, justify="left" if column == "speaker" else "right")
    for name, group in by_speaker(errors).items():
        n_ref = sum(e.n_ref for e in group)
        rate = f"{wer(group):.2f}" if n_ref else "–"
        counts = (sum(e.n_sub for e in group), sum(e.n_del for e in group), sum(e.n_ins for e in group))
        table.add_row(name, rate, *map(str, (*counts, n_ref, len(group))))
    return table
