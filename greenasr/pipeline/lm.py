"""The stages of one language model: train, measure costs, train onto a plan, measure what came out.

Commands and tables call the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from greenasr.compress.allocate import allocate
from greenasr.compress.candidates import Trained
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import OnStep, Training, fit_
from greenasr.compress.hessian import hessian_costs
from greenasr.compress.kl import kl_costs
from greenasr.compress.none import NoCompression
from greenasr.compress.search import Search
from greenasr.data.files import read_json, write_json
from greenasr.data.text import Tokenizer, Vocabulary, WordPieces, Words, check_covers, stream
from greenasr.decode.interpolate import em_weights, interpolate
from greenasr.decode.ngram import NGram
from greenasr.ops.curvature import Probing
from greenasr.pipeline import together
from greenasr.pipeline.models import Opened, Saved, load, save
from greenasr.pipeline.recipe import Windows
from greenasr.roles import BitMap, Cluster, CostTable, Task
from greenasr.runtime.activations import Rounding
from greenasr.score import perplexity as score
from greenasr.tasks.language_model import LanguageModel
from greenasr.tasks.networks import build

Texts = Mapping[str, Sequence[Words]]
Tell = Callable[[int, int, str], None]


def make_tokenizer(
    kind: str, size: int, sentences: Sequence[Words], words: str | Path | None = None
) -> Tokenizer:
    """The word list in the file ``words``, or words, pieces or letters of the text, ``size`` at most."""
    if words is not None:
        vocabulary = Vocabulary.from_file(words)
        check_covers(vocabulary, words, sentences)
        return vocabulary
    if kind == "words":
        return Vocabulary.from_sentences(sentences, size)
    if kind in ("pieces", "letters"):
        return WordPieces.train(sentences, size, kind="unigram" if kind == "pieces" else "char")
    raise ValueError(f"tokenizer '{kind}': choose words, pieces or letters.")


def make_task(tokenizer: Tokenizer, windows: Windows, texts: Texts) -> LanguageModel:
    """Texts by split as a task."""
    streams = {split: stream(sentences, tokenizer) for split, sentences in texts.items()}
    ends = {split: ends for split, (_, ends) in streams.items() if not ends.all()}
    ids = {split: ids for split, (ids, _) in streams.items()}
    return LanguageModel(
        tokenizer, ids, ends, windows.length, windows.batch, windows.stride, windows.by_sentence
    )


def task_of(saved: Saved, texts: Texts) -> LanguageModel:
    """The task that a saved model was trained for, on other texts."""
    return make_task(saved.tokenizer, Windows(**saved.recipe["windows"]), texts)


def check_device(name: str) -> None:
    """Refuse a device that cannot be used here, before anything is read."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        usable = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise ValueError(f"--device {name} cannot be used here: choose from {usable}") from None
    together.check_device(name)


def train_float(
    folder: Path,
    tokenizer: Tokenizer,
    task: LanguageModel,
    windows: Windows,
    network: Mapping[str, Any],
    training: Training,
    *,
    start: nn.Module | None = None,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> Path:
    """Train a float model into ``folder/model.packed``; ``network`` is its kind and shape."""
    if start is None:
        torch.manual_seed(training.seed)
        config = {key: value for key, value in network.items() if key != "network"}
        kind = network.get("network", "transformer")
        if kind == "transformer":
            config.setdefault("context", windows.length)
        start = build(kind, {**config, "vocab": tokenizer.size})
    model = start.to(device)
    fit_(model, task, NoCompression(), training, run=folder, on_step=on_step)
    recipe = {"windows": asdict(windows), "training": asdict(training)}
    save(folder / "model.packed", model.cpu(), tokenizer, recipe)
    return folder / "model.packed"


def taught(
    task: LanguageModel, teacher: Path, share: float, pupil: Saved, device: str = "cpu"
) -> LanguageModel:
    """The task with ``share`` of its training targets from the model in a packed file.

    Raises ValueError when the teacher's tokenizer is not the pupil's, or the share is not in 0 to 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a teacher's share of the targets is {share:g}: choose above 0 and at most 1.")
    saved = load(teacher)
    if saved.tokenizer.to_json() != pupil.tokenizer.to_json():
        raise ValueError(
            f"{teacher}: the teacher has another vocabulary: give the model that this one came from."
        )
    model: Any = saved.model.to(device)
    return replace(task, teacher=model, share=share)


def compress_onto(
    folder: Path,
    saved: Saved,
    task: LanguageModel,
    bit_map: BitMap,
    method: str,
    training: Training,
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
    rounding: Rounding | None = None,
) -> Path:
    """Train a saved model onto a plan by ``method``, into ``folder/model.packed`` and ``bit_map.json``."""
    if method not in COMPRESSORS:
        raise ValueError(f"unknown method '{method}': choose from {', '.join(COMPRESSORS)}.")
    model = saved.model.to(device)
    quantized = fit_(model, task, COMPRESSORS[method](bit_map), training, run=folder, on_step=on_step)
    write_json(folder / "bit_map.json", bit_map.to_json())
    recipe = {**saved.recipe, "method": method, "training": asdict(training)}
    save(folder / "model.packed", model.cpu(), saved.tokenizer, recipe, quantized, bit_map, rounding)
    return folder / "model.packed"


def measure_costs(
    method: str,
    model: nn.Module,
    task: Task,
    clusters: tuple[Cluster, ...],
    widths: Sequence[int],
    *,
    step: str = "cluster",
    n_batches: int = 8,
    tolerance: float = 0.05,
    max_probes: int = 256,
    seed: int = 0,
    trained: Trained | None = None,
    kept: Path | None = None,
    tell: Tell = lambda done, of, note: None,
) -> CostTable:
    """Hessian or KL costs of every cluster and width on ``n_batches`` of the training split.

    Hessian probes go into the file ``kept`` as they are made; one that is there, of the same model and
    settings, is gone on from.
    """
    batches = list(islice(task.batches("train", seed=seed + 1), n_batches))
    if method == "kl":
        return kl_costs(
            model, task, batches, clusters, widths, step=step, trained=trained,
            progress=lambda n: tell(n, len(batches), "batches"),
        )  # fmt: skip
    if method != "hessian":
        raise ValueError(f"costs by '{method}': choose hessian, kl or search.")
    begun = Probing.from_json(read_json(kept)) if kept and kept.exists() else None
    return hessian_costs(
        model, task, batches, clusters, widths,
        generator=torch.Generator().manual_seed(seed), step=step, trained=trained, tolerance=tolerance,
        max_probes=max_probes, begun=begun,
        keep=(lambda probing: write_json(kept, probing.to_json())) if kept else None,
        progress=lambda n, error: tell(n, max_probes, f"standard error {100 * error:.1f} %"),
    )  # fmt: skip


def search_plan(
    folder: Path,
    saved: Saved,
    task: LanguageModel,
    clusters: tuple[Cluster, ...],
    trained: Trained,
    target_bits: float,
    training: Training,
    step: str = "cluster",
    on_step: OnStep | None = None,
) -> tuple[CostTable, BitMap]:
    """MPLM eq. 12: train choice weights over uniform models; their costs and the plan of ``target_bits``.

    The costs are -log of the choice weights: without a budget the cheapest plan is the 1-best of every
    cluster, as in the paper; the budget keeps a plan of blocks of unlike size on its target.
    """
    search = Search(clusters, trained, target_bits=target_bits)
    fit_(saved.model, task, search, training, run=folder, on_step=on_step)
    costs = search.costs()
    return costs, allocate(costs, average_bits=target_bits, step=step)


def measure(
    path: Path,
    task: LanguageModel,
    ngram: NGram | None,
    texts: Texts,
    device: str = "cpu",
    tell: Tell = lambda done, of, note: None,
) -> dict[str, Any]:
    """Perplexity on dev and test of the model in a packed file, alone and with an n-gram.

    The interpolation weight is tuned on dev by EM.
    """
    saved = load(path)
    model = saved.model.to(device)
    logprobs = {
        split: task.word_logprobs(model, split, _noted(tell, f"perplexity of {split}"))
        for split in ("dev", "test")
    }
    result: dict[str, Any] = {f"ppl_{split}": perplexity(p) for split, p in logprobs.items()}
    if ngram is not None:
        other = {split: np.concatenate(ngram.score(texts[split])) for split in logprobs}
        weights = em_weights([logprobs["dev"], other["dev"]])
        result["ppl_4gram"] = perplexity(interpolate([logprobs["test"], other["test"]], weights))
        result["lm_weight"] = float(weights[0])
    return result | describe(path, saved)


def describe(path: Path, saved: Opened) -> dict[str, Any]:
    """Size and plan of the model in a packed file."""
    plan = saved.bit_map
    return {
        "bytes": path.stat().st_size,
        "bits": 32 if plan is None else plan.average_bits,
        "plan": None if plan is None else dict(plan.bits),
        "parameters": sum(p.numel() for p in saved.model.parameters()),
    }


def teller(tell: Tell) -> OnStep:
    """Progress of training, with the perplexity of the step's batch."""
    return lambda step, total, loss: tell(step, total, f"ppl {math.exp(min(loss, 20)):.1f}")


def _noted(tell: Tell, note: str) -> Callable[[int, int], None]:
    return lambda done, of: tell(done, of, note)


def perplexity(logprobs: Any) -> float:
    """exp(-mean) of natural log-probabilities."""
    return score.perplexity(float(np.sum(logprobs, dtype=np.float64)), len(logprobs))
