"""Eq. 12 of MPLM on networks small enough to add up by hand."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.allocate import allocate
from greenasr.compress.candidates import Trained
from greenasr.compress.choice import Choice, Price
from greenasr.compress.clusters import make_clusters, span_key
from greenasr.compress.fit import Training, fit_
from greenasr.compress.quantizers import Uniform
from greenasr.compress.search import Search
from greenasr.roles import Cluster, Span

WIDTHS = (1, 2, 4, 8)
SETTINGS = Training(epochs=40, lr=0.05, warmup=0.02, final=0.1, leg=20)


class Twin(nn.Module):
    """Two layers in parallel on the same input, an embedding tied to the output beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.sensitive = nn.Linear(8, 8)
        self.robust = nn.Linear(8, 8)
        self.embedding = nn.Embedding(6, 8)
        self.output = nn.Linear(8, 6)
        self.output.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        return torch.as_tensor(self.output(10 * self.sensitive(x) + 0.01 * self.robust(x)))


class Match:
    """Squared distance to the float network's outputs."""

    def __init__(self, teacher: nn.Module):
        self.ids = torch.arange(6)
        with torch.no_grad():
            self.outputs: Tensor = teacher(self.ids)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return torch.as_tensor((model(batch) - self.outputs).square().mean())

    def batches(self, split: str, seed: int = 0) -> Iterator[Tensor]:
        for _ in range(5):
            yield self.ids

    def n_batches(self, split: str) -> int:
        return 5


def twin() -> Twin:
    torch.manual_seed(0)
    return Twin()


def candidates(model: nn.Module, clusters: tuple[Cluster, ...]) -> Trained:
    parameters = dict(model.named_parameters())
    spans = [span for cluster in clusters for span in cluster.spans]
    return {
        bits: {
            span_key(s): Uniform(bits).project(parameters[s.name].detach()[s.start : s.stop]).dequantize()
            for s in spans
        }
        for bits in WIDTHS
    }


def prepared(**options: float) -> tuple[Twin, Search]:
    model = twin()
    clusters = make_clusters(model, bands={"embedding.weight": [2]})
    return model, Search(clusters, candidates(model, clusters), **options)


def set_logits(search: Search, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for choice in search._choices.values():
            choice.logits.copy_(torch.randn(len(WIDTHS), generator=generator))


def test_choice_weights_sum_to_one_and_begin_equal() -> None:
    model, search = prepared()
    search.prepare_(model)
    assert all(weights == [0.25] * 4 for weights in search.weights().values())
    set_logits(search)
    for weights in search.weights().values():
        assert sum(weights) == pytest.approx(1)


def test_the_penalty_is_the_second_term_of_equation_12() -> None:
    model, search = prepared(beta=0.3)
    search.prepare_(model)
    set_logits(search)
    slow = 0.0
    for weights in search.weights().values():
        for share, bits in zip(weights, WIDTHS, strict=True):
            slow += share * math.sqrt(bits)
    assert float(search.penalty(model).detach()) == pytest.approx(0.3 * slow)


def test_a_layer_of_the_super_network_adds_up_its_candidates_outputs() -> None:
    model, search = prepared()
    search.prepare_(model)
    set_logits(search)
    x, key = torch.randn(3, 8), "sensitive.weight[0:8]"
    outputs = [nn.functional.linear(x, search.trained[bits][key], model.sensitive.bias) for bits in WIDTHS]
    shares = search.weights()["sensitive.weight"]
    expected = sum(share * output for share, output in zip(shares, outputs, strict=True))
    torch.testing.assert_close(model.sensitive(x), expected)
    assert torch.equal(model.embedding.weight, model.output.weight)
    for rows in ("[0:2]", "[2:6]"):  # the embedding's bands choose apart
        shares = search.weights()[f"embedding.weight{rows}"]
        values = [search.trained[bits][f"embedding.weight{rows}"] for bits in WIDTHS]
        expected = sum(share * value for share, value in zip(shares, values, strict=True))
        torch.testing.assert_close(
            model.output.weight[:2] if rows == "[0:2]" else model.output.weight[2:], expected
        )


def test_only_the_choices_are_trained_and_the_gradient_is_that_of_the_logits() -> None:
    model, search = prepared()
    search.prepare_(model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(trainable) == len(search.clusters)
    assert sum(p.numel() for p in trainable) == len(WIDTHS) * len(search.clusters)


def test_afterwards_the_model_is_as_it_was_bit_for_bit() -> None:
    model, search = prepared(target_bits=3.0)
    names = [name for name, _ in model.named_parameters()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.robust.bias.requires_grad_(False)
    search.others = [{n: torch.full_like(p, i) for n, p in model.named_parameters()} for i in (1, 2)]
    search.prepare_(model)
    assert torch.equal(model.sensitive.bias, torch.full((8,), 1.5))  # the mean of the trained models' biases
    search.finish_(model)
    assert fit_(model, Match(twin()), search, SETTINGS) == {}
    assert [name for name, _ in model.named_parameters()] == names
    assert model.output.weight is model.embedding.weight
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["robust.bias"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_sensitive_cluster_is_given_more_bits() -> None:
    model, search = prepared(beta=0.02)
    fit_(model, Match(twin()), search, SETTINGS)
    best = search.best()
    assert best["sensitive.weight"] >= 4 > 2 >= best["robust.weight"]
    costs = search.costs()
    assert costs.method == "search"
    for name, bits in best.items():
        assert min(costs.costs[name], key=lambda b: costs.costs[name][b]) == bits
        assert sum(math.exp(-cost) for cost in costs.costs[name].values()) == pytest.approx(1)
    assert search.best_map("row").bits == best and search.best_map("row").step == "row"


def test_a_larger_beta_never_buys_more_bits() -> None:
    found = []
    for beta in (0.001, 1.0, 100.0):
        model, search = prepared(beta=beta)
        fit_(model, Match(twin()), search, SETTINGS)
        found.append(search.expected_bits())
    assert found[0] > found[1] > found[2] and found[2] < 1.3


@pytest.mark.parametrize("target", [1.5, 2.0, 4.0])
def test_beta_follows_until_the_expected_bits_are_the_target(target: float) -> None:
    model, search = prepared(target_bits=target)
    fit_(model, Match(twin()), search, SETTINGS)
    assert search.expected_bits() == pytest.approx(target, rel=0.05)


def test_a_target_is_met_from_both_sides_where_the_loss_says_nothing() -> None:
    class Nothing(Match):
        def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
            return 0 * super().loss(model, batch)

    for target in (3.0, 6.0):  # all widths at once have 3.75
        model, search = prepared(target_bits=target)
        fit_(model, Nothing(twin()), search, SETTINGS)
        assert search.expected_bits() == pytest.approx(target, rel=0.05)


def test_a_target_is_spent_on_those_that_lean_least_to_few_bits() -> None:
    """Four clusters of one size all lean to 2 bits; at 3 bits the two of greatest λ of 4 bits get them.

    8 bits are so unlikely that two clusters at 4 are likelier than one at 8, though 8 are cheaper a bit.
    """
    clusters = tuple(Cluster(name, (Span(name, 0, 10, 1),)) for name in "abcd")
    leaning = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.3}  # log of the odds of 4 bits against 2, less
    for target, wide in ((3.0, "ac"), (2.5, "a"), (2.0, ""), (4.0, "abcd")):
        search = Search(clusters, {2: {}, 4: {}, 8: {}}, target_bits=target)
        search._price = Price(0.01, target)
        for name, less in leaning.items():
            search._choices[name] = Choice(3)
            search._choices[name].logits.data = torch.tensor([0.0, -less, -1.2])
        plan = allocate(search.costs(), average_bits=target)
        assert plan.bits == {name: 4 if name in wide else 2 for name in "abcd"}
        assert search.best() == dict.fromkeys("abcd", 2)


def test_blocks_choose_as_one() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))
    clusters = (Cluster("0", tuple(s for c in make_clusters(model) for s in c.spans)),)
    search = Search(clusters, candidates(model, clusters))
    search.prepare_(model)
    set_logits(search)
    assert len([p for p in model.parameters() if p.requires_grad]) == 1
    shares = search.weights()["0"]
    for i, layer in enumerate(model[0]):
        values = [search.trained[bits][f"0.{i}.weight[0:8]"] for bits in WIDTHS]
        torch.testing.assert_close(layer.weight, sum(a * v for a, v in zip(shares, values, strict=True)))


def test_a_search_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    def stop(step: int, total: int, mean: float) -> None:
        if step == 47:
            raise KeyboardInterrupt

    model, whole = prepared(target_bits=2.5)
    fit_(model, Match(twin()), whole, SETTINGS)
    model, cut = prepared(target_bits=2.5)
    with pytest.raises(KeyboardInterrupt):
        fit_(model, Match(twin()), cut, SETTINGS, run=tmp_path, on_step=stop)
    model, resumed = prepared(target_bits=2.5)
    fit_(model, Match(twin()), resumed, SETTINGS, run=tmp_path)
    assert resumed.weights() == whole.weights()
    assert resumed.costs() == whole.costs()


def test_a_search_that_cannot_be_made_is_refused() -> None:
    model = twin()
    clusters = make_clusters(model)
    trained = candidates(model, clusters)
    with pytest.raises(ValueError, match="at least two widths, got 1"):
        Search(clusters, {2: trained[2]})
    with pytest.raises(ValueError, match="target_bits 9 is not within the candidates' 1 to 8"):
        Search(clusters, trained, target_bits=9)
    with pytest.raises(ValueError, match="beta must be positive"):
        Search(clusters, trained, beta=-1)
    lacking = {bits: {k: v for k, v in trained[bits].items() if "robust" not in k} for bits in WIDTHS}
    with pytest.raises(ValueError, match=r"must give robust.weight\[0:8\]"):
        Search(clusters, lacking).prepare_(model)
    with pytest.raises(ValueError, match="do not all have sensitive.bias"):
        Search(clusters, trained, others=[{}]).prepare_(model)
