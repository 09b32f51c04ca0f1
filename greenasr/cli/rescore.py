"""`greenasr rescore`: order N-best lists anew with a neural LM, an n-gram and tuned weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.progress import bars, show
from greenasr.data.files import check_writable, read_json, write_json
from greenasr.decode import rescore as rescoring
from greenasr.decode.arpa import read_arpa
from greenasr.decode.interpolate import Logprobs
from greenasr.decode.nbest import read_kaldi_nbest, read_nbest, write_nbest
from greenasr.pipeline import engines
from greenasr.pipeline.engines import Engine


def rescore(
    nbest: Annotated[
        Path, typer.Argument(help="JSON lines `id, ref, hyps, scores`, or Kaldi text `utt-N words`.")
    ],
    out: Annotated[Path, typer.Option(help="The rescored lists, as JSON lines.")],
    lm: Annotated[Path | None, typer.Option(help="A packed language model.")] = None,
    ngram: Annotated[Path | None, typer.Option(help="An ARPA file, .gz too.")] = None,
    scores: Annotated[Path | None, typer.Option(help="Kaldi text: a file of `utt-N score`.")] = None,
    refs: Annotated[Path | None, typer.Option(help="Kaldi text: a file of `utt words`.")] = None,
    first_pass: Annotated[str, typer.Option(help="scores, or rank where lists have none.")] = "scores",
    mix: Annotated[bool, typer.Option(help="Interpolate the two models word by word, weight by EM.")] = False,
    weights: Annotated[Path | None, typer.Option(help="Weights of an earlier run instead of tuning.")] = None,
    guard: Annotated[bool, typer.Option(help="Leave the first pass alone unless dev shows a gain.")] = True,
    engine: Annotated[Engine, typer.Option(help="What runs the neural model.")] = "runtime",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tune weights on the dev half of the utterances, rescore all, report WER on the held-out half.

    Writes OUT and, beside it, OUT.weights.json for later runs.

    Example: greenasr rescore dev.jsonl --lm runs/lm2/model.packed --ngram lm.arpa.gz --out rescored.jsonl
    """
    if lm is None and ngram is None:
        raise ValueError("nothing to rescore with: give --lm MODEL, --ngram ARPA, or both.")
    check_writable(out)
    if nbest.suffix in (".jsonl", ".json"):
        lists = read_nbest(nbest, first_pass, need_ref=weights is None)
    elif refs is None and weights is None:
        raise ValueError(
            f"{nbest}: no references to tune on: give --refs FILE, or --weights of an earlier run."
        )
    else:
        lists = read_kaldi_nbest(nbest, scores, refs, first_pass)
    engines.check_engine(engine)
    scorer = engines.language_model(lm, engine) if lm is not None else None
    arpa = read_arpa(ngram) if ngram is not None else None
    with bars() as tell:

        def logprobs(sentences: list[list[str]]) -> Sequence[Logprobs]:
            assert scorer is not None
            return scorer.hypothesis_logprobs(sentences, tell.of("neural LM"))

        found = rescoring.run(
            lists,
            arpa,
            None if scorer is None else logprobs,
            mix=mix,
            guard=guard,
            weights=None if weights is None else read_weights(weights),
            tell=tell,
        )
    write_nbest(out, found.nbest)
    result = found.to_json()
    write_json(out.with_name(out.name + ".weights.json"), result)
    if found.heldout.first:
        before, after = found.heldout.wer
        line = f"{out}: held-out WER {before:.2f} -> {after:.2f} on {len(found.heldout.first)} utterances"
    else:
        line = f"{out}: {len(found.nbest)} lists in their new order, no references to count errors against"
    if not found.kept:
        line += "; no gain on dev, the first pass was left alone"
    show({"out": str(out), **result}, as_json, line)


def read_weights(path: Path) -> dict[str, float]:
    """The weights that an earlier run wrote; ValueError that names the file when it holds none."""
    value = read_json(path)
    weights = value.get("weights") if isinstance(value, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(w, int | float) for w in weights.values()):
        raise ValueError(
            f"{path}: no 'weights' in it: give OUT.weights.json of an earlier `greenasr rescore`"
        )
    return {name: float(weight) for name, weight in weights.items()}
