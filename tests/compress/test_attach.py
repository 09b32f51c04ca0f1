"""What is attached acts at every site of a weight and leaves no trace."""

import copy

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.attach import Grid, attach_, detach_, make_grids, replaced, settle_, sites
from greenasr.compress.clusters import make_clusters
from greenasr.compress.quantizers import Uniform
from greenasr.models.transformer_lm import TransformerConfig, TransformerLM
from greenasr.roles import BitMap

IDS = torch.arange(6)[None]


def network() -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(TransformerConfig(vocab=20, layers=1, dim=8, heads=2, hidden=12, context=10)).eval()


class Times(nn.Module):
    """The weight times a trained number."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.factor


def test_sites_are_all_uses_of_a_parameter() -> None:
    model = network()
    assert sites(model, model.embedding.weight) == [(model.embedding, "weight"), (model.output, "weight")]
    assert sites(model, model.output.bias) == [(model.output, "bias")]
    assert sites(model, torch.zeros(1)) == []


def test_a_tied_weight_changes_at_both_sites_and_stays_one_parameter() -> None:
    model, plain = network(), network()
    n_parameters = sum(p.numel() for p in model.parameters())
    attach_(model, {"embedding.weight": Times(0.5)})
    assert torch.equal(model.embedding.weight, 0.5 * plain.embedding.weight)
    assert torch.equal(model.output.weight, 0.5 * plain.output.weight)
    assert sum(p.numel() for p in model.parameters()) == n_parameters + 1
    model.output(model(IDS)[0]).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.shape == (20, 8)]
    assert len(gradients) == 1 and gradients[0] is not None and gradients[0].abs().sum() > 0


def test_detaching_gives_back_the_network_as_it_was() -> None:
    model, plain = network(), network()
    weight = model.embedding.weight
    attach_(model, {name: Times(0.5) for name in ("embedding.weight", "layers.0.w1.weight")})
    detach_(model)
    assert model.embedding.weight is weight and model.output.weight is weight
    for (a, x), (b, y) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert a == b and torch.equal(x, y)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]


def test_replaced_values_hold_inside_the_block_alone() -> None:
    model, plain = network(), network()
    with (
        pytest.raises(RuntimeError, match="inside"),
        replaced(model, {"embedding.weight": torch.ones(20, 8)}),
    ):
        assert (model.output.weight == 1).all() and (model.embedding.weight == 1).all()
        raise RuntimeError("inside")
    for x, y in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("step", ["cluster", "row", "group:4"])
def test_a_grid_projects_every_span_on_its_own_table(step: str) -> None:
    weight = network().embedding.weight.detach()
    grid = Grid(weight, [(5, 20, 1), (0, 5, 4)], step)  # in any order
    parts = [Uniform(4, step).project(weight[:5]), Uniform(1, step).project(weight[5:])]
    assert torch.equal(grid.project(weight), torch.cat([p.dequantize() for p in parts]))
    for ours, theirs in zip(grid.quantized(weight), parts, strict=True):
        assert torch.equal(ours.codes, theirs.codes) and torch.equal(ours.step, theirs.step)
    assert len(dict(grid.named_buffers())) == 2


def test_a_grid_of_a_convolution_keeps_its_shape() -> None:
    weight = torch.randn(6, 4, 3)
    grid = Grid(weight, [(0, 6, 2)], "row")
    torch.testing.assert_close(
        grid.project(weight).flatten(1), Uniform(2, "row").project(weight.flatten(1)).dequantize()
    )
    assert grid.project(weight).shape == weight.shape


def test_refitting_follows_the_weights_and_never_raises_the_error() -> None:
    weight = torch.randn(10, 8)
    grid = Grid(weight, [(0, 10, 2)], "cluster")
    moved = 1.3 * weight + 0.1 * torch.randn(10, 8)
    before = (moved - grid.project(moved)).norm()
    for _ in range(5):
        grid.refit_(moved)
    assert (moved - grid.project(moved)).norm() < before
    assert not grid.project(moved.requires_grad_()).requires_grad


@pytest.mark.parametrize("spans", [[(0, 5, 2)], [(0, 5, 2), (4, 10, 2)], [(0, 5, 2), (6, 10, 2)]])
def test_spans_that_leave_or_repeat_rows_are_refused(spans: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="do not cover the 10 rows of a weight exactly once"):
        Grid(torch.randn(10, 8), spans, "cluster")


def test_settling_returns_codes_and_steps_of_exactly_what_it_leaves() -> None:
    model = network()
    clusters = make_clusters(model, bands={"embedding.weight": [5]})
    bit_map = BitMap(clusters, {c.name: (1, 2, 3, 4, 8)[i % 5] for i, c in enumerate(clusters)})
    before = copy.deepcopy(model)
    quantized = settle_(model, make_grids(model, bit_map))
    parameters = dict(model.named_parameters())
    assert set(quantized) == {f"{s.name}[{s.start}:{s.stop}]" for c in clusters for s in c.spans}
    for key, q in quantized.items():
        name, _, rows = key.partition("[")
        start, stop = map(int, rows[:-1].split(":"))
        assert torch.equal(parameters[name].detach()[start:stop], q.dequantize())
    for name, parameter in before.named_parameters():
        assert torch.equal(parameter, parameters[name]) == (parameter.dim() == 1)
