"""`greenasr perplexity`: how well a model, alone or with an n-gram, predicts a text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from greenasr.cli.progress import bars, show
from greenasr.data.text import read_sentences
from greenasr.decode.arpa import read_arpa
from greenasr.decode.interpolate import Logprobs, em_weights, interpolate
from greenasr.pipeline import lm
from greenasr.pipeline.models import load


def perplexity(
    model: Annotated[Path, typer.Argument(help="A packed model.")],
    text: Annotated[Path, typer.Argument(help="Text, one sentence a line.")],
    ngram: Annotated[
        Path | None, typer.Option(help="An ARPA file to interpolate with, word by word.")
    ] = None,
    dev: Annotated[
        Path | None, typer.Option(help="Text on which the interpolation weight is tuned by EM.")
    ] = None,
    weight: Annotated[float | None, typer.Option(help="The model's weight, instead of --dev.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Perplexity per word, ends of sentences counted; with --ngram also of the interpolated model.

    Example: greenasr perplexity runs/lm/model.packed ptb.test.txt --ngram lm.arpa.gz --dev ptb.valid.txt
    """
    if ngram is not None and (dev is None) == (weight is None):
        raise ValueError("--ngram needs either --dev TEXT to tune the model's weight on or --weight W.")
    if ngram is None and (dev is not None or weight is not None):
        raise ValueError(
            "--dev and --weight are for interpolation: give --ngram ARPA too, or leave them out."
        )
    if weight is not None and not 0 <= weight <= 1:
        raise ValueError(f"--weight {weight:g}: the model's share, expected 0 to 1.")
    other = None if ngram is None else read_arpa(ngram)
    saved = load(model)
    texts = {"test": read_sentences(text)} | ({"dev": read_sentences(dev)} if dev else {})
    task = lm.task_of(saved, texts)
    began = time.perf_counter()
    with bars() as tell:
        logprobs = {split: task.word_logprobs(saved.model, split, tell.of(split)) for split in texts}
    seconds = time.perf_counter() - began
    result = {"ppl": lm.perplexity(logprobs["test"]), "words": len(logprobs["test"]), "seconds": seconds}
    if other is not None:
        pairs: dict[str, list[Logprobs]] = {
            s: [p, np.concatenate(other.score(texts[s]))] for s, p in logprobs.items()
        }
        weights = em_weights(pairs["dev"]) if weight is None else np.array([weight, 1 - weight])
        result["ppl_ngram"] = lm.perplexity(pairs["test"][1])
        result["ppl_interpolated"] = lm.perplexity(interpolate(pairs["test"], weights))
        result["lm_weight"] = float(weights[0])
    line = f"perplexity {result['ppl']:.2f} over {result['words']:,} words in {seconds:.1f} s"
    if other is not None:
        line += f"; with the n-gram ({result['ppl_ngram']:.2f} alone) {result['ppl_interpolated']:.2f}"
        line += f" at weight {result['lm_weight']:.3f}"
    show(result, as_json, line)
