"""Eq. 1 to 3 of GREEN on networks whose right bottlenecks are known."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.bottleneck import BottleneckSearch, Part, nested, pipe_gumbel_, shrink
from greenasr.compress.fit import Training, fit_
from greenasr.compress.none import NoCompression
from greenasr.compress.upkeep import Upkeep
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig, semi_orthogonal_step_
from greenasr.ops.semi_orthogonal import deviation

DIMS = (1, 2, 4, 8, 12)
RANKS = {"one": 2, "two": 8, "three": 4}
WEIGHTS = Training(epochs=60, lr=0.03, weight_decay=0, leg=100)
CHOICES = Training(epochs=40, lr=0.1, weight_decay=0, warmup=0.0, final=0.3, leg=50)
SHORT = (replace(WEIGHTS, epochs=10, leg=10), replace(CHOICES, epochs=8, leg=10))


class Factored(nn.Module):
    """Three factored maps of the same input, side by side."""

    def __init__(self, width: int = DIMS[-1]):
        super().__init__()
        self.first = nn.ModuleDict({name: nn.Linear(16, width, bias=False) for name in RANKS})
        self.second = nn.ModuleDict({name: nn.Linear(width, 16) for name in RANKS})

    def bottlenecks(self) -> dict[str, tuple[str, str, int]]:
        width = self.first["one"].out_features
        return {name: (f"first.{name}.weight", f"second.{name}.weight", width) for name in RANKS}

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.second[name](self.first[name](x)) for name in RANKS], -1)


class Planted:
    """Targets are maps of known rank with equal singular values, and noise."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, 200, 16, generator=generator)
        turns = [torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q for _ in RANKS]
        y = torch.cat([x @ q[:, :r] @ q[:r] for q, r in zip(turns, RANKS.values(), strict=True)], -1)
        self.data = list(zip(x, y + 0.1 * torch.randn(y.shape, generator=generator), strict=True))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return torch.as_tensor((model(batch[0]) - batch[1]).square().mean())

    def batches(self, split: str, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.data[3:] * 3 if split == "heldout" else self.data[:3]

    def n_batches(self, split: str) -> int:
        return 3


def pipe_gumbel(
    run: Path | None = None, settings: tuple[Training, Training] = (WEIGHTS, CHOICES), **options: object
) -> tuple[Factored, BottleneckSearch]:
    torch.manual_seed(0)
    model, task = Factored(), Planted()
    options = {"eta": 100.0} | options
    held = Part(task, "heldout")
    search = pipe_gumbel_(model, model.bottlenecks(), DIMS, task, held, settings, run=run, **options)
    return model, search


def test_pipe_gumbel_finds_the_planted_bottlenecks() -> None:
    _, search = pipe_gumbel()
    assert search.best() == RANKS


@pytest.mark.parametrize("weighting", ["softmax", "gumbel"])
def test_both_darts_train_weights_and_choices_together(weighting: str) -> None:
    torch.manual_seed(0)
    model = Factored()
    search = BottleneckSearch(model.bottlenecks(), DIMS, weighting, eta=100.0)
    before = model.first["one"].weight.detach().clone()
    fit_(model, Planted(), search, Training(epochs=100, lr=0.03, weight_decay=0, leg=100))
    assert not torch.equal(model.first["one"].weight, before)
    assert all(max(weights) > 0.3 for weights in search.weights().values())
    if (
        weighting == "gumbel"
    ):  # softmax takes 1 everywhere: its mixture needs no choice, weights make up for λ
        assert search.best()["one"] < search.best()["three"] < search.best()["two"]


def test_a_target_is_met_and_the_price_of_a_million_parameters_grows_until_it_is() -> None:
    target = 48 + 32 * sum(RANKS.values())  # biases, and what the planted ranks need
    _, search = pipe_gumbel(eta=1.0, target_params=target)
    assert search.expected_params() == pytest.approx(target, rel=0.05)
    assert search._price.base > 1


def test_the_mixture_is_the_weighted_sum_of_the_candidates_outputs() -> None:
    torch.manual_seed(0)
    model, x = Factored(), torch.randn(5, 16)
    search = BottleneckSearch(model.bottlenecks(), DIMS, "gumbel", frozen=True)
    a, b, bias = model.first["two"].weight, model.second["two"].weight, model.second["two"].bias
    search.prepare_(model)
    shares = search._choices["two"]()
    expected = sum(s * (x @ a[:d].T @ b[:, :d].T) for s, d in zip(shares, DIMS, strict=True)) + bias
    torch.testing.assert_close(model(x)[:, 16:32], expected)


def test_the_penalty_is_the_second_term_of_equation_3() -> None:
    model = Factored()
    search = BottleneckSearch(model.bottlenecks(), DIMS, "gumbel", eta=0.3)
    search.prepare_(model)
    slow = sum(
        0.3 * share * 32 * dim / 1e6
        for choice in search._choices.values()
        for share, dim in zip(choice().tolist(), DIMS, strict=True)
    )
    assert float(torch.as_tensor(search.penalty(model)).detach()) == pytest.approx(slow)
    assert search.expected_params() == pytest.approx(48 + 3 * 32 * sum(DIMS) / len(DIMS))


def tdnnf(width: int = 8, **changes: object) -> Tdnnf:
    torch.manual_seed(0)
    config = {"feat_dim": 5, "n_pdfs": 7, "layers": 5, "dim": 16, "bottleneck": width, "prefinal": 6}
    model = Tdnnf(TdnnfConfig(**{**config, **changes}))
    nn.init.normal_(model.output.weight)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(2, 30, 5))
    return model


@pytest.mark.parametrize("dim", [2, 5, 8])
def test_a_shrunk_network_equals_the_super_network_with_that_choice(dim: int) -> None:
    model, feats = tdnnf().eval(), torch.randn(2, 20, 5)
    search = BottleneckSearch(model.bottlenecks(), (2, 5, 8), "softmax")
    search.prepare_(model)
    with torch.no_grad():
        for choice in search._choices.values():
            choice.logits[(2, 5, 8).index(dim)] = 200.0
    super_network = model(feats)[0]
    search.finish_(model)
    small = shrink(model, search.best())
    assert search.best() == dict.fromkeys(model.bottlenecks(), dim)
    torch.testing.assert_close(small(feats)[0], super_network, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) == pytest.approx(search.expected_params())
    at_random = shrink(model, search.best(), inherit=False)
    assert at_random.config == small.config and not torch.equal(at_random(feats)[0], small(feats)[0])


def test_layers_may_differ_and_those_not_named_stay() -> None:
    model = tdnnf()
    dims = {"layers.0": 3, "layers.3": 5}
    small = shrink(model, dims)
    assert small.config.bottleneck == (3, 8, 8, 5, 8) and small.training
    state = nested(model.state_dict(), model.bottlenecks(), dims)
    assert torch.equal(state["layers.0.linear.weight"][3:], model.layers[0].linear.weight[8:11])
    assert torch.equal(state["layers.0.affine.weight"][:, 3:], model.layers[0].affine.weight[:, 8:11])
    assert torch.equal(
        state["layers.3.linear.weight"], model.layers[3].linear.weight[:5]
    )  # stride 0: one tap


class Frames:
    """Random features and targets for the TDNN-F."""

    def loss(self, model: Tdnnf, batch: Tensor) -> Tensor:
        chain, xent, _ = model.with_xent(batch)
        return -(chain.log_softmax(-1) + xent.log_softmax(-1))[..., 0].mean()

    def batches(self, split: str, seed: int = 0) -> Iterator[Tensor]:
        yield from torch.randn(4, 2, 20, 5, generator=torch.Generator().manual_seed(seed))

    def n_batches(self, split: str) -> int:
        return 4


def test_the_frozen_stage_leaves_the_network_as_it_was_batch_statistics_included() -> None:
    model = tdnnf()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    search = BottleneckSearch(model.bottlenecks(), (2, 8), frozen=True)
    fit_(model, Frames(), search, Training(epochs=2, lr=0.1))
    assert [name for name, _ in model.named_parameters()] == names
    assert all(p.requires_grad for p in model.parameters())
    assert list(model.state_dict()) == list(before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert any(len(set(weights)) > 1 for weights in search.weights().values())


def test_the_semi_orthogonal_constraint_holds_while_the_super_network_trains() -> None:
    model = tdnnf()
    search = BottleneckSearch(model.bottlenecks(), (2, 5, 8), "uniform")
    fit_(model, Frames(), Upkeep(search, semi_orthogonal_step_, every=1), Training(epochs=10, lr=3e-3))
    assert deviation(model.layers[3].linear.weight) < 0.05
    assert "upkeep_steps" not in model.state_dict()


def stopper(at: int, of: int) -> object:
    def stop(step: int, total: int, mean: float) -> None:
        if (step, total) == (at, of):
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(("at", "of"), [(17, 30), (13, 24)])
def test_a_search_that_was_stopped_in_either_stage_ends_as_one_that_was_not(
    at: int, of: int, tmp_path: Path
) -> None:
    _, whole = pipe_gumbel(None, SHORT)
    with pytest.raises(KeyboardInterrupt):
        pipe_gumbel(tmp_path, SHORT, on_step=stopper(at, of))
    _, resumed = pipe_gumbel(tmp_path, SHORT)
    assert resumed.weights() == whole.weights()


def test_upkeep_keeps_its_beat_when_a_run_is_resumed(tmp_path: Path) -> None:
    settings = Training(epochs=10, leg=5)

    def run(folder: Path | None, at: int = 0) -> dict[str, Tensor]:
        model = tdnnf()
        keep = Upkeep(NoCompression(), semi_orthogonal_step_, every=3)
        fit_(model, Frames(), keep, settings, run=folder, on_step=stopper(at, 40))
        return model.state_dict()

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 18)
    for name, value in run(tmp_path).items():
        assert torch.equal(value, whole[name]), name


def test_candidates_that_the_layers_cannot_hold_are_refused() -> None:
    factors = Factored().bottlenecks()
    for dims in ((4,), (8, 4), (4, 4), (0, 4), (4, 13)):
        with pytest.raises(ValueError, match="candidates of one must be at least two numbers"):
            BottleneckSearch(factors, dims)
    with pytest.raises(ValueError, match="no candidates for two: dims has one"):
        BottleneckSearch(factors, {"one": (2, 4)})
    with pytest.raises(ValueError, match="eta must be positive"):
        BottleneckSearch(factors, DIMS, eta=-1)
    with pytest.raises(ValueError, match="no factored layer"):
        BottleneckSearch({}, DIMS)
    with pytest.raises(ValueError, match="out of reach: the candidates give 144 to 1200 parameters"):
        BottleneckSearch(factors, DIMS, target_params=5000).prepare_(Factored())


def test_a_size_gives_the_likeliest_network_of_at_most_that_many_parameters() -> None:
    model = Factored()
    search = BottleneckSearch(model.bottlenecks(), DIMS, "gumbel", frozen=True, eta=0.0)
    outside = sum(p.numel() for p in model.parameters()) - 3 * 12 * 32
    search.prepare_(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for choice in search._choices.values():
            choice.logits.copy_(torch.randn(len(DIMS), generator=generator) + torch.arange(len(DIMS)))
    shares = search.weights()
    for limit in (outside + 3 * 32, outside + 400, outside + 700, outside + 3 * 12 * 32):
        fitting = [
            plan
            for plan in itertools.product(range(len(DIMS)), repeat=3)
            if outside + sum(32 * DIMS[i] for i in plan) <= limit
        ]
        likelihood = [
            math.prod(shares[name][i] for name, i in zip(RANKS, plan, strict=True)) for plan in fitting
        ]
        best = fitting[max(range(len(fitting)), key=likelihood.__getitem__)]
        assert search.best(limit) == {name: DIMS[i] for name, i in zip(RANKS, best, strict=True)}
    with pytest.raises(ValueError, match="the smallest options take"):
        search.best(outside)
