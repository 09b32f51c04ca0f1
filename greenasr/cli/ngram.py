"""`greenasr ngram`: a Kneser-Ney n-gram model of a text, as an ARPA file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from greenasr.cli.progress import bars, show
from greenasr.data.files import check_writable
from greenasr.data.text import check_covers, read_sentences
from greenasr.decode.arpa import write_arpa
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.ngram import perplexity
from greenasr.decode.prune import prune_entropy


def ngram(
    text: Annotated[Path, typer.Argument(help="Text, one sentence a line.")],
    out: Annotated[Path, typer.Option(help="The ARPA file to write; .gz compresses.")],
    order: Annotated[int, typer.Option(help="Longest n-grams, 1 to 5.")] = 4,
    prune: Annotated[
        str, typer.Option(help="Drop n-grams seen at most so often, by order: '0 0 1' keeps 1- and 2-grams.")
    ] = "0",
    entropy_prune: Annotated[
        float, typer.Option(help="Drop n-grams worth less relative perplexity, e.g. 1e-8; 0 keeps all.")
    ] = 0.0,
    vocab: Annotated[
        Path | None, typer.Option(help="Words of the model, separated by spaces or lines; others are <unk>.")
    ] = None,
    dev: Annotated[Path | None, typer.Option(help="Print the perplexity of this text.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Estimate an n-gram model by interpolated modified Kneser-Ney.

    Example: greenasr ngram train.txt --out lm.arpa.gz --order 4 --prune '0 0 1' --dev valid.txt
    """
    start = time.perf_counter()
    try:
        thresholds = [int(count) for count in prune.replace(",", " ").split()]
    except ValueError:
        raise ValueError(f"--prune {prune}: expected whole counts, for example '0 0 1'") from None
    check_writable(out)
    steps = ["read", "estimate", *(["prune"] if entropy_prune else []), "write", *(["score"] if dev else [])]
    with bars() as tell:

        def now(step: str) -> None:
            tell("n-gram", steps.index(step), len(steps), step)

        now("read")
        sentences = read_sentences(text)
        words = None if vocab is None else [word for line in read_sentences(vocab) for word in line]
        if vocab is not None:
            check_covers(frozenset(words or ()), vocab, sentences, share=0.9)
        now("estimate")
        try:
            estimate = kneser_ney(sentences, order, thresholds, words)
        except ValueError as error:
            raise ValueError(f"{text}: {error}") from error
        lm = estimate.lm
        if entropy_prune:
            now("prune")
            lm = prune_entropy(lm, estimate.text_counts, entropy_prune)
        now("write")
        write_arpa(lm, out)
        result: dict[str, Any] = {
            "arpa": str(out),
            "counts": list(lm.counts),
            "discounts": [list(d[1:]) for d in estimate.discounts],
            "sentences": len(sentences),
        }
        note = ""
        if dev is not None:
            now("score")
            of_dev = read_sentences(dev)
            unknown = sum(word not in lm.ids for sentence in of_dev for word in sentence)
            tokens = sum(len(sentence) for sentence in of_dev)
            result |= {
                "dev": str(dev),
                "perplexity": perplexity(lm.score(of_dev)),
                "unknown": unknown / tokens,
            }
            share = 100 * unknown / tokens
            note = f"; {dev}: perplexity {result['perplexity']:.2f}, {share:.2f} % unknown words"
        tell("n-gram", len(steps), len(steps), "")
    result["seconds"] = time.perf_counter() - start
    show(result, as_json, f"{out}: {' + '.join(f'{count:,}' for count in lm.counts)} n-grams{note}")
