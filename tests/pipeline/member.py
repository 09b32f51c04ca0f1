"""Every kind of training in miniature, by one process or by those that torchrun started.

torchrun --nproc-per-node 2 member.py OUT        OUT/<rank>.pt: {case: {name: tensor}}
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from greenasr.compress import shared
from greenasr.compress.acosr import Acosr
from greenasr.compress.admm import Admm
from greenasr.compress.bottleneck import BottleneckSearch, Part, pipe_gumbel_
from greenasr.compress.bp import BackPropagation
from greenasr.compress.clusters import make_clusters, span_key
from greenasr.compress.fit import Training, fit_
from greenasr.compress.none import NoCompression
from greenasr.compress.search import Search
from greenasr.compress.upkeep import Upkeep
from greenasr.data.feature_store import FeatureStore
from greenasr.data.features import Features
from greenasr.data.speech_batches import SpeechBatch
from greenasr.data.text import Vocabulary, WordPieces, stream
from greenasr.decode.chain_graphs import denominator_graph, numerator_graph
from greenasr.decode.context import PdfMap
from greenasr.decode.phone_lm import estimate
from greenasr.models.quartznet import QuartzNet, QuartzNetConfig
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig, semi_orthogonal_step_
from greenasr.pipeline import together
from greenasr.roles import BitMap
from greenasr.tasks.chain import Chain
from greenasr.tasks.ctc import Ctc
from greenasr.tasks.language_model import LanguageModel
from greenasr.tasks.networks import build
from greenasr.tasks.transducer import Transduction

TRAINING = Training(epochs=5, lr=5e-3, leg=4, weight_decay=0.01)
TEXTS = {"u1": "ab ba", "u2": "ba", "u3": "", "u4": "c ab c", "u5": "ab"}
PHONES = ("SIL", "a", "b", "c")
State = dict[str, Tensor]


def language_model() -> tuple[LanguageModel, nn.Module]:
    """An LSTM on windows, whose last batch has one row."""
    sentences = [["a", "b", "a"], ["c"], ["b", "b", "c", "a", "d"], ["d", "a"]] * 5
    tokenizer = Vocabulary.from_sentences(sentences)
    ids, _ = stream(sentences, tokenizer)
    task = LanguageModel(tokenizer, {"train": ids}, {}, 8, 3, 3, bf16=False)
    torch.manual_seed(0)
    return task, build("lstm", {"vocab": tokenizer.size, "layers": 1, "dim": 8, "dropout": 0.0})


def store() -> FeatureStore:
    """Every letter is some frames in a direction of its own."""
    draw = np.random.default_rng(0)
    means = {letter: 2 * draw.normal(0, 1, 5) for letter in "abc _"}
    feats = [
        np.concatenate([means[letter] + 0.3 * draw.normal(0, 1, (9 + k, 5)) for letter in f"_{text}_"])
        for k, text in enumerate(TEXTS.values())
    ]
    lens = np.array([len(each) for each in feats])
    return FeatureStore(
        Path("."), Features(bins=5, cmvn="none"), tuple(TEXTS), ("ann",) * 5, tuple(TEXTS.values()), lens,
        np.concatenate(feats).astype(np.float32), np.zeros((5, 5), np.float32),
    )  # fmt: skip


def transducer() -> tuple[Transduction, nn.Module]:
    """Letters, with the encoder's own loss."""
    letters = WordPieces.train([text.split() for text in TEXTS.values()], 20, kind="char")
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "predictor_layers": 1, "embedding_dim": 4, "joint_dim": 8, "dropout": 0.0}
    config: Any = {**sizes, "encoder_dim": 8, "predictor_dim": 8}
    task = Transduction({"train": store()}, letters, frames=200, ctc=0.3)
    return task, Rnnt(RnntConfig(5, letters.size + 1, **config))


def ctc() -> tuple[Ctc, nn.Module]:
    """The same letters by a separable network."""
    letters = WordPieces.train([text.split() for text in TEXTS.values()], 20, kind="char")
    torch.manual_seed(0)
    shape: Any = {
        "blocks": 1,
        "repeat": 2,
        "width": 16,
        "kernels": (5,),
        "widths": (16,),
        "epilogue": (16, 24),
    }
    config = QuartzNetConfig(5, letters.size + 1, **shape)
    return Ctc({"train": store()}, letters, frames=200), QuartzNet(config)


class FineChain(Chain):
    """In float64: where a unit's norm takes back its bias, Adam makes steps of what rounding leaves."""

    def batches(self, split: str, seed: int = 0) -> Iterator[SpeechBatch]:
        for batch in super().batches(split, seed):
            yield replace(batch, feats=batch.feats.double())


def chain(dropout: float = 0.0) -> tuple[Chain, nn.Module]:
    """Batches of one to three utterances; u3 has no alignment, and is a batch of its own or its share."""
    feats = store()
    prons = {u: [((letter,),) for letter in text.replace(" ", "")] for u, text in TEXTS.items()}
    pdfs = PdfMap.left_biphone(PHONES, {(0, 1): 20, (2, 1): 20, (1, 2): 20, (0, 3): 3, (1, 3): 20}, 10)
    phone_lm = estimate(list(prons.values()), PHONES)
    draw = np.random.default_rng(1)
    targets = {
        u: draw.integers(0, pdfs.n_pdfs, -(-int(n) // 3)).astype(np.int32)
        for u, n in zip(feats.ids, feats.frames, strict=True)
        if u != "u3"
    }
    graphs = {u: numerator_graph(each, phone_lm, pdfs) for u, each in prons.items()}
    denominator = denominator_graph(phone_lm, pdfs)
    task = FineChain({"train": feats, "dev": feats}, denominator, graphs, targets, frames=180)
    torch.manual_seed(0)
    shape: Any = {"layers": 2, "dim": 16, "bottleneck": 4, "prefinal": 8, "strides": (1, 3)}
    model = Tdnnf(TdnnfConfig(feat_dim=5, n_pdfs=pdfs.n_pdfs, dropout=dropout, **shape))
    for head in (model.output, model.output_xent):
        assert head is not None
        nn.init.normal_(head.weight, std=0.3)
    return task, model.double()


TASKS: dict[str, Callable[[], tuple[Any, nn.Module]]] = {
    "lm": language_model, "chain": chain, "transducer": transducer, "ctc": ctc
}  # fmt: skip
METHODS = {"bp": BackPropagation, "admm": Admm, "acosr": Acosr}
TASK_OF = {"bp": "chain", "admm": "lm", "acosr": "transducer"}


def trained(make: Callable[[], tuple[Any, nn.Module]], method: str) -> State:
    """The weights and buffers that a method leads to."""
    task, model = make()
    chosen: Any = NoCompression()
    if method in METHODS:
        chosen = METHODS[method](BitMap.uniform(make_clusters(model), 4))
    elif isinstance(model, Tdnnf):
        chosen = Upkeep(NoCompression(), semi_orthogonal_step_, 2)
    fit_(model, task, chosen, TRAINING)
    return dict(model.state_dict())


def bit_search() -> State:
    """Choices between the weights of two uniform models, by Gumbel's chance."""
    task, model = language_model()
    clusters = make_clusters(model)
    weights = dict(model.named_parameters())
    models = {
        bits: {
            span_key(s): (weights[s.name].detach().flatten(1)[s.start : s.stop] * 2**bits).round() / 2**bits
            for cluster in clusters
            for s in cluster.spans
        }
        for bits in (2, 4)
    }
    search = Search(clusters, models, target_bits=3.0, weighting="gumbel")
    fit_(model, task, search, TRAINING)
    return {name: torch.tensor(share) for name, share in search.weights().items()}


def bottlenecks(weighting: str) -> State:
    """Searched dimensions, and the super-network that they were searched in."""
    task, model = chain()
    assert isinstance(model, Tdnnf)
    if weighting == "pipegumbel":
        stages = (TRAINING, replace(TRAINING, lr=0.05))
        found = pipe_gumbel_(model, model.bottlenecks(), (2, 4), task, Part(task, "dev"), stages)
    else:
        found = BottleneckSearch(model.bottlenecks(), (2, 4), weighting)
        fit_(model, task, found, TRAINING)
    shares = {name: torch.tensor(share) for name, share in found.weights().items()}
    return {**model.state_dict(), **shares}


def cases() -> dict[str, State]:
    """Everything that is trained."""
    found = {f"{name} float": trained(make, "float") for name, make in TASKS.items()}
    found |= {f"{TASK_OF[how]} {how}": trained(TASKS[TASK_OF[how]], how) for how in METHODS}
    found["search of bits"] = bit_search()
    found |= {f"search by {how}": bottlenecks(how) for how in ("gumbel", "pipegumbel")}
    found["dropout"] = trained(lambda: chain(dropout=0.3), "float")
    return found


class Stop(Exception):
    """Training is stopped."""


def stopped(folder: Path) -> None:
    """A language model's training that ends in the middle, and leaves its checkpoint."""

    def stop(step: int, of: int, loss: float) -> None:
        if step == 6:
            raise Stop

    task, model = language_model()
    with contextlib.suppress(Stop):
        fit_(model, task, NoCompression(), TRAINING, run=folder, on_step=stop)


def resumed(folder: Path) -> State:
    """The weights that it leads to when it goes on."""
    task, model = language_model()
    assert (folder / "checkpoint.pt").exists()
    fit_(model, task, NoCompression(), TRAINING, run=folder)
    return dict(model.state_dict())


def work(out: Path) -> dict[str, State]:
    """All cases; a training that one process began, and one for it to end."""
    stopped(out / "begun by two")
    return {**cases(), "begun by one": resumed(out / "begun by one")}


def killed_at(step: int) -> None:
    """Let this process be killed at the end of a step, instead of summing gradients."""
    summing, steps = shared.sum_gradients_, count(1)

    def sum_gradients_(model: nn.Module, loss: Tensor) -> Tensor:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return summing(model, loss)

    shared.sum_gradients_ = sum_gradients_


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, rank = Path(sys.argv[1]), os.environ["RANK"]
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        together.begin()
        torch.save(together.together(out / "work", work), out / f"{rank}.pt")
        if rank == "1":
            killed_at(12)
    import_module("greenasr.cli.app").main(sys.argv[2:])
