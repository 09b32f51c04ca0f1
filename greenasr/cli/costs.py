"""`greenasr costs`: what every width would cost in every cluster."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from greenasr.cli.progress import bars, show
from greenasr.compress.clusters import make_clusters
from greenasr.compress.fit import Training
from greenasr.data.files import check_writable, digest, write_json
from greenasr.data.text import read_sentences
from greenasr.pipeline import lm, together
from greenasr.pipeline.models import load, span_weights
from greenasr.pipeline.run import claimed


def costs(
    model: Annotated[Path, typer.Argument(help="A packed float model, from `greenasr train`.")],
    text: Annotated[Path, typer.Argument(help="Training text, one sentence a line.")],
    out: Annotated[Path, typer.Option(help="The cost table to write, as JSON.")],
    method: Annotated[str, typer.Option(help="hessian, kl or search.")] = "hessian",
    widths: Annotated[str, typer.Option(help="Candidate widths.")] = "1,2,3,4,6,8",
    by: Annotated[str, typer.Option(help="A cluster is a matrix or a block.")] = "matrix",
    band: Annotated[list[str], typer.Option(help="Cut a weight's rows: embedding.weight=500,3000.")] = [],
    trained: Annotated[list[str], typer.Option(help="A trained uniform model: 2=lm2/model.packed.")] = [],
    step: Annotated[str, typer.Option(help="A step per cluster, row or group:N.")] = "cluster",
    batches: Annotated[int, typer.Option(help="Batches of the text to measure on.")] = 8,
    tolerance: Annotated[
        float, typer.Option(help="hessian: relative standard error at which probing stops.")
    ] = 0.05,
    max_probes: Annotated[int, typer.Option(help="hessian: probes at most.")] = 256,
    bits: Annotated[
        float, typer.Option(help="search: the average bits that its penalty is steered to.")
    ] = 2.0,
    epochs: Annotated[float, typer.Option(help="search: passes over the text.")] = 0.3,
    lr: Annotated[float, typer.Option(help="search: learning rate of the choice weights.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of batches and probes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure quantization sensitivity: Hessian traces, output divergence or a super-network's choices.

    Example: greenasr costs runs/lm/model.packed train.txt --band embedding.weight=500,3000 --out costs.json
    """
    try:
        wanted = [int(width) for width in widths.split(",")]
        bands = {name: [int(cut) for cut in cuts.split(",")] for name, cuts in (b.split("=") for b in band)}
        files = {int(width): Path(file) for width, file in (t.split("=", 1) for t in trained)}
    except ValueError as error:
        raise ValueError(
            f"cannot read an option ({error}): expected "
            "--widths 1,2,4 --band embedding.weight=500,3000 --trained 2=FILE"
        ) from None
    if method == "search" and not files:
        raise ValueError(
            "search needs models trained at uniform widths: give --trained 2=FILE --trained 4=FILE."
        )
    check_writable(out)
    saved = load(model)
    models = {width: span_weights(file) for width, file in files.items()}
    clusters = make_clusters(saved.model, by, bands)
    task = lm.task_of(saved, {"train": read_sentences(text)})
    folder = out.with_name(f"{out.name}.{method}")
    inputs: dict[str, Any] = {"model": digest(model), "text": digest(text), "by": by, "band": band}
    inputs |= {"trained": {str(width): digest(file) for width, file in files.items()}, "seed": seed}
    with bars() as tell:
        if method == "search":
            training = Training(epochs=epochs, lr=lr, weight_decay=0.0, warmup=0.0, seed=seed)
            with claimed(folder, {**inputs, "bits": bits, "training": asdict(training)}):
                table, _ = together.together(folder, lambda place: lm.search_plan(
                    place, saved, task, clusters, models, bits, training, step,
                    on_step=lambda done, of, loss: tell("search", done, of, f"loss {loss:.3f}"),
                ))  # fmt: skip
        elif together.first():
            probing = {"step": step, "batches": batches, "tolerance": tolerance, "max_probes": max_probes}
            with claimed(folder, {**inputs, **probing, "widths": wanted}):
                table = lm.measure_costs(
                    method, saved.model, task, clusters, wanted, step=step, n_batches=batches,
                    tolerance=tolerance, max_probes=max_probes, seed=seed, trained=models or None,
                    kept=folder / "probes.json", tell=lambda done, of, note: tell(method, done, of, note),
                )  # fmt: skip
    if not together.first():
        return
    write_json(out, table.to_json())
    if method == "search":
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    else:
        shutil.rmtree(folder)
    warning = table.details.get("warning")
    result = {"costs": str(out), "method": method, "clusters": len(clusters), "details": dict(table.details)}
    show(
        result,
        as_json,
        f"{out}: {method} costs of {len(clusters)} clusters{'; ' + warning if warning else ''}",
    )
