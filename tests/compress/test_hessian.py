"""Eq. 10 of MPLM on losses whose Hessian is known."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.clusters import make_clusters, span_key
from greenasr.compress.hessian import hessian_costs
from greenasr.compress.quantizers import Uniform
from greenasr.data.batches import TokenBatch
from greenasr.data.text import Vocabulary
from greenasr.models.transformer_lm import TransformerConfig, TransformerLM
from greenasr.roles import Cluster, CostTable, Span
from greenasr.tasks.language_model import LanguageModel


class Quadratic:
    """loss = ½ Σ_layer bend_layer Σ_o ‖W_o‖² row_o: a diagonal Hessian, known in every entry."""

    def __init__(self, sign: float = 1.0):
        self.sign = sign

    def loss(self, model: nn.Module, batch: float, *, twice_differentiable: bool = False) -> Tensor:
        assert twice_differentiable and not model.training
        total = torch.zeros(())
        for bend, parameter in enumerate(model.parameters(), 1):
            rows = torch.arange(1.0, len(parameter) + 1)
            total = total + 0.5 * bend * batch * (rows[:, None] * parameter.flatten(1) ** 2).sum()
        return self.sign * total

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        yield 1.0

    def n_batches(self, split: str) -> int:
        return 1

    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:
        return {}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Conv1d(2, 4, 3, bias=False))


def costs(model: nn.Module, clusters: tuple[Cluster, ...], **options: Any) -> CostTable:
    task = options.pop("task", Quadratic())
    batches = options.pop("batches", [1.0, 3.0])
    generator = torch.Generator().manual_seed(0)
    return hessian_costs(model, task, batches, clusters, [1, 2, 8], generator=generator, **options)


def test_costs_are_the_mean_trace_times_the_squared_projection_error() -> None:
    model = network()
    table = costs(model, make_clusters(model))
    for bend, (name, weight) in enumerate(model.named_parameters(), 1):
        mean_trace = 2 * bend * (1 + 2 + 3 + 4) / 4  # the batches' factors 1 and 3 average to 2
        flat = weight.detach().flatten(1)
        for bits in (1, 2, 8):
            error = (Uniform(bits).project(flat).dequantize() - flat).square().sum()
            assert table.costs[name][bits] == pytest.approx(mean_trace * float(error), rel=1e-5)
    assert table.details["probes"] == 16 and table.details["clamped"] == []
    assert CostTable.from_json(table.to_json()).costs == {k: dict(v) for k, v in table.costs.items()}


def test_bands_and_blocks_share_one_product() -> None:
    model = network()
    band = Cluster("mixed", (Span("0.weight", 1, 3, 3), Span("1.weight", 0, 1, 6)))
    rest = Cluster("rest", (Span("0.weight", 0, 1, 3),))
    table = costs(model, (band, rest))
    assert table.details["traces"]["mixed"] == pytest.approx(2 * ((2 + 3) * 3 + 2 * 1 * 6))
    assert table.details["mean_traces"]["mixed"] == pytest.approx(2 * ((2 + 3) * 3 + 2 * 1 * 6) / 12)
    assert table.details["traces"]["rest"] == pytest.approx(2 * 1 * 3)


def test_traces_of_a_tied_transformer_equal_the_exact_hessian_within_their_standard_errors() -> None:
    ids = torch.randint(0, 5, (3, 5))
    model = TransformerLM(
        TransformerConfig(vocab=5, layers=1, dim=4, heads=2, hidden=6, context=4, dropout=0.3)
    )
    vocabulary = Vocabulary(("<eos>", "<unk>", "a", "b", "c"))
    task, batch = LanguageModel(vocabulary, {}), TokenBatch(ids[:, :-1], ids[:, 1:])
    clusters = make_clusters(model, bands={"embedding.weight": [2]})
    table = costs(model, clusters, task=task, batches=[batch], tolerance=0.0, min_probes=400, max_probes=400)
    parameters = {name: weight for name, weight in model.named_parameters() if weight.dim() == 2}
    loss = task.loss(model.eval(), batch, twice_differentiable=True)
    first = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    rows = {}
    for (name, weight), grad in zip(parameters.items(), first, strict=True):
        columns = [torch.autograd.grad(g, weight, retain_graph=True)[0].flatten() for g in grad.flatten()]
        rows[name] = torch.stack(columns).diagonal().view(weight.shape).sum(1)
    assert [len(cluster.spans) for cluster in clusters] == [1] * len(parameters) + [1]
    for cluster in clusters:
        (span,) = cluster.spans
        exact = float(rows[span.name][span.start : span.stop].sum())
        estimate, error = (table.details[key][cluster.name] for key in ("traces", "standard_errors"))
        assert abs(estimate - exact) < 4 * error + 1e-6, cluster.name


def test_a_finer_step_costs_no_more() -> None:
    model = network()
    clusters = make_clusters(model)
    cluster, row = costs(model, clusters), costs(model, clusters, step="row")
    for name in row.costs:
        assert row.costs[name][2] < cluster.costs[name][2]


def test_trained_candidates_replace_the_projection() -> None:
    model = network()
    clusters = make_clusters(model)
    spans = [span for cluster in clusters for span in cluster.spans]
    weights = dict(model.named_parameters())
    trained = {
        bits: {span_key(s): weights[s.name].detach().flatten(1) + 1.0 / bits for s in spans}
        for bits in (1, 2, 8)
    }
    table = costs(model, clusters, trained=trained)
    assert table.costs["0.weight"][2] == pytest.approx(5.0 * 12 / 4, rel=1e-5)
    with pytest.raises(ValueError, match=r"no trained candidate has 8 bits, there is 1, 2"):
        costs(model, clusters, trained={bits: trained[bits] for bits in (1, 2)})
    del trained[1]["0.weight[0:4]"]
    with pytest.raises(ValueError, match=r"must give 0.weight\[0:4\] as \(4, 3\), but lacks it"):
        costs(model, clusters, trained=trained)


def test_negative_curvature_is_clamped_and_reported() -> None:
    model = network()
    table = costs(model, make_clusters(model), task=Quadratic(sign=-1.0))
    assert table.details["clamped"] == ["0.weight", "1.weight"]
    assert "below their standard error" in table.details["warning"]
    assert all(cost > 0 for row in table.costs.values() for cost in row.values())
    assert table.details["traces"]["0.weight"] < 0


def test_the_model_is_left_as_it_was() -> None:
    model = network().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    costs(model, make_clusters(model))
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_clusters_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="does not have: 7.weight"):
        costs(network(), (Cluster("lost", (Span("7.weight", 0, 1, 3),)),))
    with pytest.raises(ValueError, match="no cluster"):
        costs(network(), ())
    with pytest.raises(ValueError, match="no batch"):
        costs(network(), make_clusters(network()), batches=[])
