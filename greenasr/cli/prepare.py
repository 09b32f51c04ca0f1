"""`greenasr prepare`: a corpus of any format as checked cuts, texts and a lexicon."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from greenasr.cli.progress import bars, err, out, show
from greenasr.data.corpora import READERS, heard, read_corpus, save_cuts, speaker, words
from greenasr.data.files import check_writable, write_atomic, write_json
from greenasr.data.lexicon import SPELLED, Lexicon, graphemes, read_lexicon, read_phones
from greenasr.data.text import check_covers

if TYPE_CHECKING:
    from lhotse import CutSet

HELD_OUT = re.compile(r"(dev|valid|test|eval|rt-?\d)", re.I)  # splits whose words are not to be known
SHOWN = 10


def prepare(
    source: Annotated[Path, typer.Argument(help="A corpus: its folder, or its manifest.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for cuts, texts and lexicon.json.")],
    kind: Annotated[str, typer.Option(help=f"{', '.join(READERS)}; guessed if not given.")] = "",
    splits: Annotated[str, typer.Option(help="Only these splits, comma-separated.")] = "",
    lexicon: Annotated[Path | None, typer.Option(help="A dictionary in the CMU format.")] = None,
    phones: Annotated[Path | None, typer.Option(help="The phones that it may use, one a line.")] = None,
    no_stress: Annotated[bool, typer.Option("--no-stress", help="AH0, AH1 and AH2 become AH.")] = False,
    grapheme: Annotated[
        bool, typer.Option("--grapheme", help="Spell words: those that the dictionary lacks, or all.")
    ] = False,
    mix: Annotated[bool, typer.Option("--mix", help="Mix stereo files down instead of refusing.")] = False,
    drop_bad: Annotated[
        bool, typer.Option("--drop-bad", help="Leave out utterances that cannot be used, and list them.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Read the headers of sound files, not every sample.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read a corpus, check it, and write SPLIT.cuts.jsonl.gz, text.SPLIT.txt and lexicon.json.

    Words without a pronunciation are listed with the nearest word that has one, in missing.tsv.

    Example: greenasr prepare data/an4 --lexicon data/an4/an4.dic --phones data/an4/an4.phone --out runs/an4
    """
    check_writable(out_dir / "lexicon.json")
    if phones is not None and lexicon is None:
        raise ValueError(f"--phones {phones} is for a dictionary: give one with --lexicon.")
    allowed = read_phones(phones) if phones else None
    said = read_lexicon(lexicon, allowed, stress=not no_stress) if lexicon else None
    bad: list[str] = []
    on_bad = (lambda error: bad.append(str(error))) if drop_bad else None
    wanted = [split.strip() for split in splits.split(",")] if splits else None
    with bars() as tell:
        corpus = read_corpus(
            source, kind or None, splits=wanted, mix=mix, on_bad=on_bad, progress=tell.of("headers")
        )
        if not trust:
            corpus = {split: heard(cuts, on_bad, tell.of(split)) for split, cuts in corpus.items()}
    if empty := [split for split, cuts in corpus.items() if not len(cuts)]:
        raise ValueError(f"{source}: no utterance of {empty[0]} can be used; the first: {bad[0]}")
    counts = {split: Counter(w for cut in cuts for w in words(cut)) for split, cuts in corpus.items()}
    total: Counter[str] = sum(counts.values(), Counter())
    if said and lexicon and not grapheme:
        check_covers(said.prons, lexicon, [list(total.elements())])
    made = pronounced(said, counts) if grapheme else said
    missing = made.missing(total.elements()) if made else []
    result: dict[str, Any] = {
        "out": str(out_dir),
        "splits": {split: figures(cuts, counts[split]) for split, cuts in corpus.items()},
        "dropped": len(bad),
        "missing": [[word, total[word], near] for word, near in missing],
    }
    if made:
        result["lexicon"] = {"words": len(made.words), "phones": len(made.phones)}
        write_json(out_dir / "lexicon.json", made.to_json())
        lines = ("\t".join(map(str, row)) + "\n" for row in (("word", "count", "near"), *result["missing"]))
        write_atomic(out_dir / "missing.tsv", "".join(lines))
    write_atomic(out_dir / "dropped.txt", "".join(line + "\n" for line in bad))
    for split, cuts in corpus.items():
        write_atomic(out_dir / f"text.{split}.txt", "".join(f"{' '.join(words(cut))}\n" for cut in cuts))
        save_cuts(out_dir / f"{split}.cuts.jsonl.gz", cuts)
    if not as_json:
        print_tables(result)
    for line in bad[:SHOWN]:
        err.print(f"left out: {line}", markup=False, highlight=False, soft_wrap=True)
    show(result, as_json, f"{out_dir}: {', '.join(f'{split}.cuts.jsonl.gz' for split in corpus)}")


def pronounced(lexicon: Lexicon | None, counts: dict[str, Counter[str]]) -> Lexicon:
    """The lexicon with all words spelled that it lacks; those heard in dev and test sets alone stay unknown.

    >>> pronounced(None, {"train": Counter(["on"]), "test": Counter(["off"])}).words
    ('on',)
    """
    open_splits = [split for split in counts if not HELD_OUT.match(split)] or list(counts)
    known = {word for split in open_splits for word in counts[split]}
    if lexicon is None:
        return graphemes(known)
    lacking = [word for word, _ in lexicon.missing(known)]
    return lexicon.extended(graphemes(lacking, SPELLED)) if lacking else lexicon


def figures(cuts: CutSet, counts: Counter[str]) -> dict[str, Any]:
    """Hours, utterances, speakers and words of a split."""
    return {
        "hours": sum(cut.duration for cut in cuts) / 3600,
        "utterances": len(cuts),
        "speakers": len({speaker(cut) for cut in cuts}),
        "words": counts.total(),
        "distinct_words": len(counts),
    }


def print_tables(result: dict[str, Any]) -> None:
    """The splits, the lexicon and the first missing words, for people."""
    table = Table()
    for column in ("split", "hours", "utterances", "speakers", "words", "distinct"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, row in result["splits"].items():
        hours, *numbers = row.values()
        table.add_row(split, f"{hours:.2f}", *(f"{n:,}" for n in numbers))
    out.print(table)
    lines = []
    if result["dropped"]:
        lines.append(f"{result['dropped']:,} utterances left out, listed in dropped.txt")
    if made := result.get("lexicon"):
        lines.append(f"lexicon: {made['words']:,} words, {made['phones']} phones")
    if missing := result["missing"]:
        lines.append(f"{len(missing):,} words without a pronunciation, listed in missing.tsv:")
        lines += [
            f"  {word} ({n:,} times){f', near {near}' if near else ''}" for word, n, near in missing[:SHOWN]
        ]
    if lines:
        out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
