"""`greenasr shrink`: the smallest packed model whose words are as good."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from greenasr.cli.progress import bars, show
from greenasr.cli.report import print_table
from greenasr.compress.fit import Training
from greenasr.data.files import check_writable
from greenasr.report import shrunk
from greenasr.runtime import format as packed_format
from greenasr.shrinking.board import Board
from greenasr.shrinking.recognisers import Hearing, recogniser
from greenasr.shrinking.settings import Question, Space
from greenasr.shrinking.shrink import SETTINGS
from greenasr.shrinking.shrink import shrink as search
from greenasr.shrinking.system import System, parts_of
from greenasr.shrinking.texts import language_model
from greenasr.tasks.networks import ACOUSTIC_MODELS, CTC_MODELS, LANGUAGE_MODELS, TRANSDUCERS

T = TypeVar("T")
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
RECOGNISERS = ACOUSTIC_MODELS | TRANSDUCERS | CTC_MODELS


def shrink(
    model: Annotated[Path, typer.Argument(help="A packed float model: recogniser or language model.")],
    train: Annotated[Path, typer.Option(help="Cuts (a text for a language model) that training sees.")],
    dev: Annotated[Path, typer.Option(help="Cuts that steer the search.")],
    test: Annotated[Path, typer.Option(help="Cuts that judge it, scored once, at the end.")],
    out: Annotated[Path, typer.Option(help="Run folder, for smallest.packed and report.html.")],
    lm: Annotated[Path | None, typer.Option(help="An ARPA file, which a hybrid hears with.")] = None,
    rescore: Annotated[
        Path | None,
        typer.Option(help="A finished search of a language model, which shares one budget with this hybrid."),
    ] = None,
    max_wer_increase: Annotated[
        float | None, typer.Option(help="Points of WER that may be lost: such a loss must be ruled out.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(help="Instead: the best model whose file has at most so many bytes.")
    ] = None,
    time: Annotated[
        str, typer.Option(help="No training begins that ends later: 90m, 2h; 0 trains none.")
    ] = "",
    costs: Annotated[str, typer.Option(help="What makes plans: hessian, kl, divergence.")] = "hessian,kl",
    widths: Annotated[str, typer.Option(help="Widths that plans choose from.")] = "2,3,4,6,8",
    estimators: Annotated[str, typer.Option(help="Ways of training, in this order: bp, acosr, admm.")] = "bp",
    epochs: Annotated[float, typer.Option(help="Passes over the training cuts, for every model.")] = 4,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 5e-4,
    teach: Annotated[
        float | None,
        typer.Option(help="Share of the loss that the full model teaches, 0 to 1; as is usual for its kind."),
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Dropout of training; as is usual for its kind.")
    ] = None,
    activations: Annotated[
        str,
        typer.Option(help="Numbers that maps multiply: int8 (row by row), static, float32; auto: by dev."),
    ] = "auto",
    by: Annotated[str, typer.Option(help="A width by matrix, block or layer.")] = "matrix",
    step: Annotated[str, typer.Option(help="A step per row, cluster or group:N.")] = "row",
    trainings: Annotated[
        int, typer.Option(help="Sizes of which models are trained, at most; -1: as many as --finer takes.")
    ] = 2,
    finer: Annotated[float, typer.Option(help="Ratio of sizes at which bisection stops.")] = 1.15,
    keep: Annotated[int, typer.Option(help="Plans of a size that are trained, best proxies first.")] = 1,
    frames: Annotated[int, typer.Option(help="Frames of a batch of speech.")] = 10_000,
    speeds: Annotated[str, typer.Option(help="Speeds at which training cuts are heard.")] = "1.0",
    beam: Annotated[float | None, typer.Option(help="Width of the search for words.")] = None,
    acoustic_scale: Annotated[float, typer.Option(help="Weight of a hybrid's network.")] = 1.0,
    word_penalty: Annotated[float, typer.Option(help="Cost a word of a hybrid.")] = 0.0,
    label_reward: Annotated[
        float | None, typer.Option(help="Nats that a transducer gains a label, by default its recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of batches and probes.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes that take features.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    worker: Annotated[
        bool, typer.Option("--worker", help="Share the work of the same command in the same folder.")
    ] = False,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Go on though the sets share utterances.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the smallest model that loses no words, and show the evidence.

    Plans are made once and bisected on bytes, first without training, then with it; dev steers, test is
    heard at the end. A killed run goes on; another question to the same folder trains only what is missing.

    Example: greenasr shrink model.packed --train train.cuts.jsonl.gz --dev dev.cuts.jsonl.gz
    --test test.cuts.jsonl.gz --max-wer-increase 0.5 --out runs/small
    """
    space = Space(
        costs=tuple(costs.split(",")), widths=_numbers("--widths", widths, int), keep=keep,
        estimators=tuple(estimators.split(",")), by=by, step=step, finer=finer, seed=seed,
        teach=teach, dropout=dropout, activations=activations,
        training=Training(epochs=epochs, lr=lr, weight_decay=0.0),
    )  # fmt: skip
    question = Question(
        max_wer_increase, seconds(time), max_bytes, trainings=None if trainings == -1 else trainings
    )
    check_writable(out / SETTINGS)
    if rescore is not None:
        parts_of(rescore)
    kind, sets = packed_format.read(model).model, {"train": train, "dev": dev, "test": test}
    network: Any
    task: Any
    package: Any
    with bars() as tell:
        if kind in LANGUAGE_MODELS:
            if lm is not None or rescore is not None:
                raise ValueError(f"{model}: is a language model itself: leave --lm and --rescore out.")
            network, task, package = language_model(model, sets)
        elif kind in RECOGNISERS:
            hearing = Hearing(
                frames, speeds=_numbers("--speeds", speeds, float), beam=beam, acoustic_scale=acoustic_scale,
                word_penalty=word_penalty, label_reward=label_reward,
            )  # fmt: skip
            if rescore is not None and kind not in ACOUSTIC_MODELS:
                raise ValueError(f"{model}: a {kind} gives no lists to reorder: leave --rescore out.")
            network, task, package = recogniser(kind, model, sets, Board(out, tell), lm, hearing, jobs)
        else:
            raise ValueError(
                f"{model}: a '{kind}' is no recogniser: choose {', '.join(RECOGNISERS)}, or an LM."
            )
        found = search(
            network, task, out, space=space, question=question, package=package, allow_overlap=allow_overlap,
            worker=worker, device=device, tell=tell,
        )  # fmt: skip
        if rescore is not None and found is not None and lm is not None:
            System(task, package, Board(out, tell), rescore, lm, question, activations).run()
    if found is None:
        show({"out": str(out), "worker": True}, as_json, f"{out}: nothing left to do for a worker")
        return
    shrunk.write(out)
    result = {"model": str(found.path) if found.path else None, **found.answer}
    if as_json:
        show(result, True, "")
    else:
        print_table(out)


def seconds(text: str) -> float:
    """A length of time; nothing is for ever.

    >>> seconds("90m"), seconds("2h"), seconds("0"), seconds("")
    (5400.0, 7200.0, 0.0, inf)
    """
    if not text:
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None:
        raise ValueError(f"--time {text}: expected a number with s, m, h or d, as 90m or 2h.")
    return float(found[1]) * UNITS[found[2]]


def _numbers(option: str, text: str, kind: Callable[[str], T]) -> tuple[T, ...]:
    try:
        return tuple(kind(each) for each in text.split(","))
    except ValueError:
        raise ValueError(f"{option} {text}: expected numbers with commas between them.") from None
