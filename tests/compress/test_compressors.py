"""What every compressor promises; a line in COMPRESSORS is what adds it here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from greenasr.compress.attach import sites
from greenasr.compress.bp import BackPropagation
from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training, fit_
from greenasr.data.text import EOS, UNK, Vocabulary
from greenasr.models.transformer_lm import TransformerConfig, TransformerLM
from greenasr.roles import BitMap, Compressor
from greenasr.tasks.language_model import LanguageModel

VOCAB = 20
WIDTHS = [1, 2, 4]
SETTINGS = Training(epochs=2, lr=3e-3, warmup=0.1, leg=8)
Make = Callable[[BitMap], Compressor]
every_compressor = pytest.mark.parametrize("make", COMPRESSORS.values(), ids=COMPRESSORS)


def task() -> LanguageModel:
    """A stream in which every token nearly fixes the next."""
    rng = np.random.default_rng(0)
    ids, at = [], 0
    for _ in range(16 * 8 * 12 + 10):
        at = (3 * at + 1 + int(rng.integers(2))) % VOCAB
        ids.append(at)
    words = (EOS, UNK, *(f"w{i}" for i in range(VOCAB - 2)))
    text = np.array(ids, dtype=np.int32)
    splits = {"train": text, "dev": text[:200], "test": text[-200:]}
    return LanguageModel(Vocabulary(words), splits, length=8, batch=16, stride=4, bf16=False)


def network(tied: bool = True, dropout: float = 0.1) -> TransformerLM:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"dim": 8, "heads": 2, "hidden": 16, "context": 16}
    return TransformerLM(TransformerConfig(vocab=VOCAB, layers=1, dropout=dropout, tied=tied, **shape))


def plan(model: nn.Module, step: str = "cluster") -> BitMap:
    clusters = make_clusters(model, bands={"embedding.weight": [5]})
    bits = {c.name: WIDTHS[i % len(WIDTHS)] for i, c in enumerate(clusters)}
    return BitMap(clusters, bits, step)


def loss(model: nn.Module) -> float:
    return float(np.log(task().evaluate(model, "dev")["ppl"]))


def float_model(epochs: float = 6) -> TransformerLM:
    model = network()
    fit_(model, task(), COMPRESSORS["none"](BitMap((), {})), Training(epochs=epochs, lr=1e-2, leg=50))
    return model


@every_compressor
def test_training_lowers_the_loss_of_the_quantized_model(make: Make) -> None:
    untrained = network(dropout=0.0)
    COMPRESSORS["none"](plan(untrained)).finish_(untrained)
    model = network(dropout=0.0)
    fit_(model, task(), make(plan(model)), Training(epochs=6, lr=1e-2, warmup=0.1, leg=50))
    assert loss(model) < loss(untrained) - 0.1


@every_compressor
@pytest.mark.parametrize("step", ["cluster", "row", "group:4"])
def test_after_finish_every_weight_is_its_code_times_its_step(make: Make, step: str) -> None:
    model = network()
    names = [name for name, _ in model.named_parameters()]
    state = list(model.state_dict())
    kinds = [type(module) for module in model.modules()]
    bit_map = plan(model, step)
    quantized = fit_(model, task(), make(bit_map), SETTINGS)
    assert [name for name, _ in model.named_parameters()] == names
    assert list(model.state_dict()) == state
    assert [type(module) for module in model.modules()] == kinds
    parameters, seen = dict(model.named_parameters()), 0
    for cluster in bit_map.clusters:
        largest = max(1, 2 ** (bit_map.bits[cluster.name] - 1) - 1)
        for span in cluster.spans:
            q = quantized[f"{span.name}[{span.start}:{span.stop}]"]
            rows = parameters[span.name].detach().flatten(1)[span.start : span.stop]
            assert torch.equal(q.dequantize(), rows)
            assert torch.equal(q.codes, q.codes.round()) and float(q.codes.abs().max()) <= largest
            assert bit_map.bits[cluster.name] != 1 or bool((q.codes != 0).all())
            assert not q.step.requires_grad and not rows.requires_grad
            seen += 1
    assert seen == len(quantized)


class Stop(Exception):
    """The run is killed."""


@every_compressor
@pytest.mark.parametrize("at", [9, 17])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(make: Make, at: int, tmp_path: Path) -> None:
    def stop(step: int, total: int, mean: float) -> None:
        if step == at:
            raise Stop

    whole = network()
    expected = fit_(whole, task(), make(plan(whole)), SETTINGS, run=tmp_path / "whole")
    first = network()
    with pytest.raises(Stop):
        fit_(first, task(), make(plan(first)), SETTINGS, run=tmp_path / "cut", on_step=stop)
    second = network()
    seen: list[int] = []
    got = fit_(
        second,
        task(),
        make(plan(second)),
        SETTINGS,
        run=tmp_path / "cut",
        on_step=lambda step, total, mean: seen.append(step),
    )
    assert seen[0] == at // SETTINGS.leg * SETTINGS.leg + 1
    for (name, a), (_, b) in zip(whole.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    for key, q in expected.items():
        assert torch.equal(q.codes, got[key].codes) and torch.equal(q.step, got[key].step)


def own_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The network's own, without those that a compressor adds to its parametrizations."""
    named = model.named_parameters()
    return [p for name, p in named if ".parametrizations." not in name or name.endswith(".original")]


@every_compressor
def test_a_tied_weight_is_quantized_at_both_sites_and_counted_once(make: Make) -> None:
    model = network()
    bit_map = plan(model)
    compressor = make(bit_map)
    assert sum(c.numel for c in bit_map.clusters) == sum(p.numel() for p in model.parameters() if p.dim() > 1)
    compressor.prepare_(model)
    assert torch.equal(model.output.weight, model.embedding.weight)
    assert len({id(p) for p in own_parameters(model)}) == len(list(network().parameters()))
    compressor.finish_(model)
    assert model.output.weight is model.embedding.weight
    assert len(sites(model, model.embedding.weight)) == 2
    assert len(model.embedding.weight[5:].unique()) <= 3  # the second cluster has two bits


@pytest.mark.parametrize("make", [COMPRESSORS[name] for name in COMPRESSORS if name != "ttq"])
def test_without_training_it_is_the_projection(make: Make) -> None:
    model, projected = network(), network()
    fit_(model, task(), make(plan(model)), Training(epochs=0))
    COMPRESSORS["none"](plan(projected)).finish_(projected)
    for a, b in zip(model.parameters(), projected.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_bp_keeps_its_steps_after_the_freeze() -> None:
    model = network()
    bp = BackPropagation(plan(model), freeze=0.5)
    steps: list[float] = []

    def watch(step: int, total: int, mean: float) -> None:
        steps.append(sum(float(b.sum()) for site in bp._sites.values() for b in site.grid.buffers()))

    fit_(model, task(), bp, SETTINGS, on_step=watch)
    moved = [a != b for a, b in zip(steps, steps[1:], strict=False)]
    first_kept = moved.index(False)
    assert first_kept == pytest.approx(len(steps) / 2, abs=2) and not any(moved[first_kept:])
