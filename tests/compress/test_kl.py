"""Eq. 7 of GREEN by brute force: quantize one cluster, run again, compare what its layers put out."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.attach import replaced
from greenasr.compress.candidates import quantized_weights
from greenasr.compress.clusters import make_clusters, weights
from greenasr.compress.kl import kl_costs
from greenasr.roles import Cluster, CostTable, Span

WIDTHS = [1, 2, 4, 16]


class Network(nn.Module):
    """Token ids through an embedding, two convolutions and a linear layer, output tied to the embedding."""

    def __init__(self, tied: bool = False):
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.conv = nn.Conv1d(6, 4, 3, padding=1)
        self.grouped = nn.Conv1d(4, 6, 2, groups=2, bias=False)
        self.linear = nn.Linear(6, 6)
        self.output = nn.Linear(6, 9)
        if tied:
            self.output.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.grouped(self.conv(self.embedding(ids).transpose(1, 2)).tanh())
        return torch.as_tensor(self.output(self.linear(x.transpose(1, 2)).tanh()))


class Runs:
    """The smallest task: running the network on the batch is all that the estimate needs."""

    def loss(self, model: nn.Module, batch: Tensor, *, twice_differentiable: bool = False) -> Tensor:
        assert twice_differentiable and not model.training and not torch.is_grad_enabled()
        return torch.as_tensor(model(batch).logsumexp(-1).mean())

    def batches(self, split: str, seed: int = 0) -> Iterator[Tensor]:
        yield from ids()

    def n_batches(self, split: str) -> int:
        return 2

    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:
        return {}


def ids() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 9, (n, 7), generator=generator) for n in (2, 5)]


def network(tied: bool = False) -> Network:
    torch.manual_seed(0)
    return Network(tied)


def costs(model: nn.Module, clusters: tuple[Cluster, ...], **options: Any) -> CostTable:
    return kl_costs(model, Runs(), options.pop("batches", ids()), clusters, WIDTHS, **options)


def outputs(model: nn.Module, module: nn.Module) -> Tensor:
    """What the module puts out over all batches, (frames, O)."""
    kept: list[Tensor] = []
    units_last = not isinstance(module, nn.Conv1d)
    hook = module.register_forward_hook(lambda m, x, y: kept.append(y if units_last else y.transpose(1, 2)))
    with torch.no_grad():
        for batch in ids():
            model(batch)
    hook.remove()
    return torch.cat([y.reshape(-1, y.shape[-1]) for y in kept]).double()


def definition(a: Tensor, b: Tensor) -> float:
    """Σ_u p ln(p/q) + (1-p) ln((1-p)/(1-q)), averaged over frames."""
    p, q = a.sigmoid(), b.sigmoid()
    return float((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean())


def brute_force(model: nn.Module, cluster: Cluster, bits: int, module: nn.Module) -> float:
    floats = {span.name: weights(model)[span.name] for span in cluster.spans}
    before = outputs(model, module)
    with replaced(model, quantized_weights(floats, [cluster], bits)):
        return definition(before, outputs(model, module))


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_cluster_equals_its_definition_by_brute_force(bits: int) -> None:
    model = network().eval()
    clusters = make_clusters(
        model, bands={"output.weight": [2, 5], "embedding.weight": [4], "conv.weight": [1]}
    )
    table = costs(model, clusters)
    assert len(clusters) == 9
    for cluster in clusters:
        module = model.get_submodule(cluster.spans[0].name.removesuffix(".weight"))
        expected = brute_force(model, cluster, bits, module)
        assert table.costs[cluster.name][bits] == pytest.approx(expected, rel=2e-3, abs=1e-12)


def test_a_tied_weight_adds_up_over_its_sites() -> None:
    model = network(tied=True).eval()
    (tied,) = (cluster for cluster in make_clusters(model) if cluster.name == "embedding.weight")
    kept: list[Tensor] = []
    hook = model.output.register_forward_pre_hook(lambda m, x: kept.append(x[0].flatten(0, 1)))
    before = outputs(model, model.output)
    hook.remove()
    quantized = quantized_weights({"embedding.weight": model.embedding.weight}, [tied], 2)["embedding.weight"]
    with torch.no_grad():
        after = (torch.cat(kept) @ quantized.T + model.output.bias).double()
    expected = brute_force(model, tied, 2, model.embedding) + definition(before, after)
    assert costs(model, (tied,)).costs["embedding.weight"][2] == pytest.approx(expected, rel=1e-4)


def test_a_cluster_of_several_layers_adds_up_its_layers() -> None:
    model = network()
    alone = costs(model, make_clusters(model))
    both = Cluster(
        "both", tuple(c.spans[0] for c in alone.clusters if c.name in ("conv.weight", "linear.weight"))
    )
    for bits, cost in costs(model, (both,)).costs["both"].items():
        assert cost == pytest.approx(alone.costs["conv.weight"][bits] + alone.costs["linear.weight"][bits])


def test_more_bits_cost_less_down_to_sixteen() -> None:
    table = costs(network(), make_clusters(network()))
    for row in table.costs.values():
        assert row[1] > row[4] > row[16] > 0
    assert CostTable.from_json(table.to_json()).costs == {k: dict(v) for k, v in table.costs.items()}


def test_the_float_weight_as_candidate_costs_nothing() -> None:
    model = network()
    same = {name: weight.detach().flatten(1) for name, weight in weights(model).items()}
    trained = {bits: {f"{name}[0:{len(w)}]": w for name, w in same.items()} for bits in WIDTHS}
    table = costs(model, make_clusters(model), trained=trained)
    assert all(cost < 1e-10 for row in table.costs.values() for cost in row.values())


def test_the_model_is_left_as_it_was() -> None:
    model = network().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    costs(model, make_clusters(model))
    assert model.training and not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_bad_input_is_named() -> None:
    model = network()
    with pytest.raises(ValueError, match="does not have: 7.weight"):
        costs(model, (Cluster("lost", (Span("7.weight", 0, 1, 3),)),))
    with pytest.raises(ValueError, match="no batch"):
        costs(model, make_clusters(model), batches=[])
    model.spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="does not run the layer of 'spare.weight'"):
        costs(model, make_clusters(model))
