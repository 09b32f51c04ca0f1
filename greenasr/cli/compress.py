"""`greenasr compress`: train a model onto a bit map and pack it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.progress import bars, show
from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training
from greenasr.data.files import digest
from greenasr.data.text import read_sentences
from greenasr.models.dropout import set_dropout_
from greenasr.pipeline import lm, together
from greenasr.pipeline.models import load
from greenasr.pipeline.plans import read_bit_map
from greenasr.pipeline.run import claimed
from greenasr.roles import BitMap


def compress(
    model: Annotated[Path, typer.Argument(help="A packed float model, from `greenasr train`.")],
    text: Annotated[Path, typer.Argument(help="Training text, one sentence a line.")],
    out: Annotated[Path, typer.Option(help="Folder for model.packed, log.jsonl and checkpoints.")],
    bit_map: Annotated[Path | None, typer.Option(help="A plan, from `greenasr allocate`.")] = None,
    bits: Annotated[int | None, typer.Option(help="One width for every cluster instead of a plan.")] = None,
    method: Annotated[str, typer.Option(help=f"{', '.join(COMPRESSORS)}; none is post-training.")] = "bp",
    step: Annotated[str, typer.Option(help="With --bits: a step per cluster, row or group:N.")] = "cluster",
    epochs: Annotated[float, typer.Option(help="Passes over the text.")] = 3,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 5e-4,
    teacher: Annotated[
        Path | None, typer.Option(help="A packed model whose softmax joins the targets.")
    ] = None,
    share: Annotated[float, typer.Option(help="The teacher's share of the targets, up to 1.")] = 0.5,
    dropout: Annotated[float | None, typer.Option(help="Another dropout than the float model's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of order and dropout.")] = 0,
    dev: Annotated[Path | None, typer.Option(help="Text to report perplexity on.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a float model onto low-bit grids and write it as a packed file of its real size.

    Example: greenasr compress runs/lm/model.packed ptb.train.txt --bit-map plan.json --out runs/lm2
    """
    if (bit_map is None) == (bits is None):
        raise ValueError("give either --bit-map FILE or --bits N, not both and not neither.")
    lm.check_device(device)
    saved = load(model)
    if dropout is not None:
        set_dropout_(saved.model, dropout)
    if bit_map is not None:
        plan = read_bit_map(bit_map, saved.model)
    else:
        plan = BitMap.uniform(make_clusters(saved.model), bits or 0, step)
    texts = {"train": read_sentences(text)} | ({"dev": read_sentences(dev)} if dev else {})
    task = lm.task_of(saved, texts)
    training = Training(epochs=0 if method == "none" else epochs, lr=lr, weight_decay=0.0, seed=seed)
    settings: dict[str, object] = {"model": digest(model), "text": digest(text), "plan": plan.to_json()}
    settings |= {"method": method, "dropout": dropout, "teacher": teacher and [digest(teacher), share]}
    if teacher is not None:
        task = lm.taught(task, teacher, share, saved, device)
    with claimed(out, {**settings, "training": asdict(training)}), bars() as tell:
        path = out / "model.packed"
        if not together.said(path.exists()):
            together.together(out, lambda folder: lm.compress_onto(
                folder, saved, task, plan, method, training, device=device,
                on_step=lambda done, of, loss: tell(method, done, of, f"loss {loss:.3f}"),
            ))  # fmt: skip
        if not together.first():
            return
        (out / "checkpoint.pt").unlink(missing_ok=True)
        size = path.stat().st_size
        result: dict[str, object] = {"model": str(path), "average_bits": plan.average_bits, "bytes": size}
        result["ratio"] = model.stat().st_size / size
        if dev:
            result["ppl_dev"] = task.evaluate(load(path).model, "dev", tell.of("dev perplexity"))["ppl"]
    note = f", perplexity {result['ppl_dev']:.2f} on {dev}" if dev else ""
    show(
        result,
        as_json,
        f"{path}: {plan.average_bits:.2f} bits, {size:,} bytes, {result['ratio']:.1f}x smaller{note}",
    )
