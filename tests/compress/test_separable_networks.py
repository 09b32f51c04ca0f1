"""Every compressor and every cost on QuartzNet and MatchboxNet, floating and on top of ternary blocks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from greenasr.compress.allocate import allocate
from greenasr.compress.clusters import make_clusters, span_key
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training, fit_
from greenasr.compress.hessian import hessian_costs
from greenasr.compress.kl import kl_costs
from greenasr.compress.quantizers import Uniform
from greenasr.compress.search import Search
from greenasr.models.ternary import Ternary
from greenasr.roles import BitMap
from greenasr.runtime import engine
from greenasr.runtime.pack import pack, unpack
from greenasr.tasks.networks import build

TERNARY = {"threshold": 0.5, "seed": 1}
NETWORKS = {
    "quartznet": {"feat_dim": 4, "vocab": 3, "blocks": 1, "repeat": 2, "width": 4, "kernels": [5]},
    "matchboxnet": {"feat_dim": 4, "classes": 3, "blocks": 1, "width": 4, "edge": 6, "kernels": [5]},
}
both = pytest.mark.parametrize("name", NETWORKS)
ternary_or_not = pytest.mark.parametrize("ternary", [None, TERNARY], ids=["floating", "ternary"])


class Loudest:
    """Which of three channels is loudest, of every frame or of the whole."""

    def __init__(self) -> None:
        gen = torch.Generator().manual_seed(0)
        self.batch = []
        for _ in range(6):
            feats = torch.randn(8, 24, 4, generator=gen)
            labels = torch.randint(3, (8,), generator=gen)
            feats[torch.arange(8), :, labels] += 2
            self.batch.append((feats, torch.tensor([24] * 5 + [20, 17, 12]), labels))

    def loss(self, model: nn.Module, batch: Any, *, twice_differentiable: bool = False) -> Tensor:
        feats, lens, labels = batch
        out = model(feats, lens)
        if isinstance(out, tuple):
            logits, frames = out
            true = torch.arange(logits.shape[1]) < frames[:, None]
            return F.cross_entropy(logits[true], labels.repeat_interleave(frames))
        return F.cross_entropy(out, labels)

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        yield from self.batch

    def n_batches(self, split: str) -> int:
        return len(self.batch)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        with torch.no_grad():
            return {"loss": sum(float(self.loss(model.eval(), b)) for b in self.batch) / len(self.batch)}


def network(name: str, ternary: dict[str, Any] | None) -> nn.Module:
    torch.manual_seed(0)
    return build(name, NETWORKS[name] | {"ternary": ternary})


@both
@ternary_or_not
@pytest.mark.parametrize("method", COMPRESSORS)
def test_every_way_of_training_lowers_the_loss_and_its_result_is_packed(
    name: str, ternary: dict[str, Any] | None, method: str, tmp_path: Path
) -> None:
    model, task = network(name, ternary), Loudest()
    clusters = make_clusters(model)
    bit_map = BitMap(clusters, {c.name: (4, 2, 8)[i % 3] for i, c in enumerate(clusters)}, "row")
    before = task.evaluate(model, "train")["loss"]
    settings = Training(epochs=5, lr=0.02, leg=50)
    quantized = fit_(model, task, COMPRESSORS[method](bit_map), settings)
    after = task.evaluate(model, "train")["loss"]
    assert after < 0.8 * before
    pack(tmp_path / "m", name, model.to_config(), model.state_dict(), quantized, bit_map, {}, {})
    packed, state = unpack(tmp_path / "m")
    again = build(packed.model, packed.config)
    again.load_state_dict(state)
    feats = task.batch[0][0][:1]
    with torch.no_grad():
        out = again.eval()(feats)
    expected = (out[0] if isinstance(out, tuple) else out)[0].numpy()
    found = engine.load(tmp_path / "m", "float32").network.logits(feats[0].numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert task.evaluate(again, "train")["loss"] == pytest.approx(after, rel=0.05)  # norms are in bfloat16
    assert len(packed.seeds) == len([m for m in model.modules() if isinstance(m, Ternary)])


@both
def test_generated_weights_are_no_cluster(name: str) -> None:
    floating, ternary = (make_clusters(network(name, t)) for t in (None, TERNARY))
    gone = {c.name for c in floating} - {c.name for c in ternary}
    repeat = NETWORKS[name].get("repeat", 1)
    assert gone == {f"blocks.0.subs.{i}.pointwise.weight" for i in range(repeat)}


@both
@ternary_or_not
def test_costs_of_every_kind_fall_with_the_width_and_can_be_allocated(
    name: str, ternary: dict[str, Any] | None
) -> None:
    model, task = network(name, ternary), Loudest()
    fit_(model, task, COMPRESSORS["none"](BitMap((), {})), Training(epochs=4, lr=0.02, leg=50))
    clusters, widths = make_clusters(model), (2, 4, 8)
    weights = {key: value.detach().clone() for key, value in model.named_parameters()}
    tables = [
        kl_costs(model, task, task.batch[:2], clusters, widths),
        hessian_costs(
            model,
            task,
            task.batch[:2],
            clusters,
            widths,
            generator=torch.Generator().manual_seed(0),
            min_probes=4,
            max_probes=4,
        ),
    ]
    trained = {
        bits: {
            span_key(c.spans[0]): Uniform(bits).project(model.get_parameter(c.name).flatten(1)).dequantize()
            for c in clusters
        }
        for bits in widths
    }
    search = Search(clusters, trained, target_bits=4.0)
    fit_(model, task, search, Training(epochs=3, lr=0.05, leg=50))
    for table in (*tables, search.costs()):
        plan = allocate(table, average_bits=4.0)
        assert plan.average_bits <= 4.0
    for table in tables:
        for costs in table.costs.values():
            assert costs[2] > costs[4] > costs[8] >= 0
    assert all(torch.equal(value, weights[key]) for key, value in model.named_parameters())


@both
def test_second_derivatives_of_the_fast_path_are_those_of_torchs_modules(name: str) -> None:
    """The Hessian times a vector, with layers as they are and, for a listening hook, run as torch modules."""
    model, task = network(name, None).double().eval(), Loudest()
    feats, lens, labels = task.batch[0]
    batch = (feats.double(), lens, labels)
    parameters = [p for p in model.parameters() if p.dim() > 1]
    gen = torch.Generator().manual_seed(1)
    vector = [torch.randn(p.shape, generator=gen, dtype=p.dtype) for p in parameters]

    def product() -> list[Tensor]:
        grads = torch.autograd.grad(task.loss(model, batch), parameters, create_graph=True)
        dot = sum((g * v).sum() for g, v in zip(grads, vector, strict=True))
        return list(torch.autograd.grad(dot, parameters))

    fast = product()
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            module.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(product(), fast)
