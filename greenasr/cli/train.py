"""`greenasr train`: a float language model from text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.progress import bars, show
from greenasr.compress.fit import Training
from greenasr.data.files import digest
from greenasr.data.text import read_sentences
from greenasr.pipeline import lm, together
from greenasr.pipeline.models import load
from greenasr.pipeline.recipe import Windows
from greenasr.pipeline.run import claimed


def train(
    text: Annotated[Path, typer.Argument(help="Training text, one sentence a line.")],
    out: Annotated[Path, typer.Option(help="Folder for model.packed, log.jsonl and checkpoints.")],
    dev: Annotated[Path | None, typer.Option(help="Text to report perplexity on.")] = None,
    network: Annotated[str, typer.Option(help="transformer or lstm.")] = "transformer",
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 3,
    dim: Annotated[int, typer.Option(help="Width of the hidden vectors.")] = 192,
    heads: Annotated[int, typer.Option(help="Attention heads (transformer).")] = 4,
    hidden: Annotated[int, typer.Option(help="Width of the feed-forward blocks (transformer).")] = 768,
    dropout: Annotated[float, typer.Option(help="Share of values dropped in training.")] = 0.1,
    untied: Annotated[bool, typer.Option(help="An output layer of its own beside the embedding.")] = False,
    tokenizer: Annotated[str, typer.Option(help="words or pieces.")] = "words",
    vocab: Annotated[int, typer.Option(help="Largest number of words or pieces.")] = 10_000,
    words: Annotated[Path | None, typer.Option(help="A word list instead, most frequent first.")] = None,
    length: Annotated[int, typer.Option(help="Tokens a window.")] = 64,
    batch: Annotated[int, typer.Option(help="Windows a step.")] = 16,
    by_sentence: Annotated[
        bool, typer.Option(help="Every sentence alone, as rescoring scores them.")
    ] = False,
    epochs: Annotated[float, typer.Option(help="Passes over the text.")] = 8,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 1.5e-3,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and dropout.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a Transformer or LSTM language model; a killed run goes on when the command is repeated.

    Example: greenasr train ptb.train.txt --dev ptb.valid.txt --out runs/lm --epochs 8
    """
    lm.check_device(device)
    sentences = read_sentences(text)
    texts = {"train": sentences} | ({"dev": read_sentences(dev)} if dev else {})
    made = lm.make_tokenizer(tokenizer, vocab, sentences, words)
    windows = Windows(length, batch, length // 2, by_sentence)
    shape = {"network": network, "layers": layers, "dim": dim, "dropout": dropout, "tied": not untied}
    if network == "transformer":
        shape |= {"heads": heads, "hidden": hidden}
    training = Training(epochs=epochs, lr=lr, seed=seed)
    settings = {"text": digest(text), "tokenizer": [tokenizer, made.size], "windows": asdict(windows)}
    task = lm.make_task(made, windows, texts)
    with claimed(out, {**settings, "network": shape, "training": asdict(training)}), bars() as tell:
        path = out / "model.packed"
        if not together.said(path.exists()):
            together.together(out, lambda folder: lm.train_float(
                folder, made, task, windows, shape, training, device=device,
                on_step=lambda step, of, loss: tell("train", step, of, f"loss {loss:.3f}"),
            ))  # fmt: skip
        if not together.first():
            return
        (out / "checkpoint.pt").unlink(missing_ok=True)
        result: dict[str, object] = {"model": str(path), "bytes": path.stat().st_size}
        if dev:
            result["ppl_dev"] = task.evaluate(load(path).model, "dev", tell.of("dev perplexity"))["ppl"]
    note = f", perplexity {result['ppl_dev']:.2f} on {dev}" if dev else ""
    show(result, as_json, f"{path}: {path.stat().st_size:,} bytes{note}")
