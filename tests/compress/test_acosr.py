"""ACosR's two forms against autograd, its tables, and WgtC."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.acosr import Acosr
from greenasr.compress.attach import Grid
from greenasr.compress.clusters import make_clusters
from greenasr.compress.fit import Training, fit_
from greenasr.compress.levels import BLOCK, AbsoluteCosines, hold_, pull_, tables, wgtc
from greenasr.compress.quantizers import Uniform
from greenasr.ops.periodic import absolute_cosine
from greenasr.roles import BitMap


class Teacher:
    """Outputs of a random layer, to be matched."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(3)
        self.x = torch.randn(10, 64, 8, generator=g)
        self.w = 0.3 * torch.randn(8, 6, generator=g)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return torch.as_tensor((model(batch) - batch @ self.w).square().mean())

    def batches(self, split: str, seed: int = 0) -> Iterator[Tensor]:
        yield from self.x

    def n_batches(self, split: str) -> int:
        return len(self.x)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 6, bias=False)


def plan(model: nn.Module, bits: int, step: str = "cluster") -> BitMap:
    return BitMap.uniform(make_clusters(model), bits, step)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("steps", ["cluster", "row", "group:4"])
def test_the_pull_is_a_gradient_step_of_the_regularizer(bits: int, steps: str) -> None:
    """W -= α ∂(-|cos(π θ w)|)/∂w with α = κ (s / π)², θ = 1 / s, the cosine shifted for ±step alone."""
    weight = 0.3 * torch.randn(6, 8, dtype=torch.float64)
    step = Uniform(bits, steps).project(weight).step
    rows = weight.view(6, 2, 4) if step.dim() == 3 else weight
    inside = rows.clamp(-max(1, 2 ** (bits - 1) - 1) * step, max(1, 2 ** (bits - 1) - 1) * step)
    rows = inside.clone().requires_grad_()
    spacing = step * (2 if bits == 1 else 1)
    shifted = rows - (step if bits == 1 else 0)
    (slope,) = torch.autograd.grad(-absolute_cosine(shifted, 1 / spacing).sum(), rows)
    expected = inside - 0.2 * (spacing / math.pi) ** 2 * slope
    pull_(inside, step, bits, 0.2)
    torch.testing.assert_close(inside, expected)


def test_near_a_level_a_weight_loses_the_share_kappa_of_its_distance() -> None:
    weight = torch.tensor([[0.5 + 1e-4, -1.0 - 1e-4, 1e-4]], dtype=torch.float64)
    pull_(weight, torch.tensor(0.5, dtype=torch.float64), 3, 0.25)
    expected = torch.tensor([[0.5 + 0.75e-4, -1.0 - 0.75e-4, 0.75e-4]], dtype=torch.float64)
    torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-10)


def test_beyond_the_last_level_the_pull_stays_at_its_crest() -> None:
    weight = torch.tensor([[5.0, 50.0, -5.0]])
    pull_(weight, torch.tensor(1.0), 2, 0.5)
    assert weight.tolist() == [pytest.approx([5 - 0.5 / math.pi, 50 - 0.5 / math.pi, -5 + 0.5 / math.pi])]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_levels_attract_until_every_weight_has_converged(bits: int) -> None:
    weight = 0.3 * torch.randn(6, 8)
    step = Uniform(bits).project(weight).step
    nearest = Uniform(bits).on(weight, step).dequantize()
    assert wgtc(weight, step, bits) < 0.1
    for _ in range(200):
        pull_(weight, step, bits, 0.5)
    assert wgtc(weight, step, bits) == 1.0
    torch.testing.assert_close(weight, nearest, rtol=1e-5, atol=1e-6)


def test_wgtc_counts_weights_within_the_tolerance_of_a_level_of_the_table() -> None:
    step = torch.tensor(0.25)
    weight = torch.tensor([[0.0, 0.25, -0.25 + 5e-7, 0.5, 0.25 + 2e-6, 0.1, -0.75, 0.75]])
    assert wgtc(weight, step, 2) == 3 / 8  # ternary: levels -0.25, 0, 0.25
    assert wgtc(weight, step, 3) == 6 / 8  # seven levels
    assert wgtc(weight, step, 1) == 2 / 8  # no zero
    assert wgtc(weight, step, 2, tolerance=1e-5) == 4 / 8
    rows = torch.tensor([[0.5, 0.2], [0.2, 0.2]])
    assert wgtc(rows, torch.tensor([[0.5], [0.2]]), 2) == 3 / 4


def test_the_papers_table_has_spacing_one_over_theta_everywhere() -> None:
    model = layer()
    acosr = Acosr(plan(model, 8), theta=2.0**7)
    quantized = fit_(model, Teacher(), acosr, Training(epochs=5, lr=0.01))
    assert all((q.step == 2.0**-7).all() for q in quantized.values())
    assert torch.equal((model.weight * 2**7).round(), model.weight * 2**7)


def test_the_coupled_penalty_is_equations_5_and_6_over_all_weights() -> None:
    model = nn.Sequential(layer(), nn.Linear(6, 3))
    acosr = Acosr(plan(model, 6), theta=2.0**5, coupled=True, straight_through=False)
    acosr.prepare_(model)
    weights = [w for w in model[0].weight.flatten().tolist() + model[1].weight.flatten().tolist()]
    slow = -0.005 * sum(abs(math.cos(math.pi * 2**5 * w)) for w in weights)
    penalty = acosr.penalty(model)
    assert isinstance(penalty, Tensor)
    assert float(penalty.detach()) == pytest.approx(slow, rel=1e-4)
    penalty.backward()
    gradients = [p.grad for p in model.parameters() if p.dim() == 2]
    assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


def trained(**options: float | bool) -> tuple[float, float, float]:
    """Loss after projection, WgtC and the mean distance from the grid, in steps, both before it."""
    model, task = layer(), Teacher()
    acosr = Acosr(plan(model, 4), **options)  # type: ignore[arg-type]
    far: list[float] = []

    def watch(step: int, total: int, mean: float) -> None:
        (grid,) = acosr._grids.values()
        weight = acosr._weights["weight"]
        far.append(float(((weight - grid.project(weight)) / grid.step_0).detach().abs().mean()))

    fit_(model, task, acosr, Training(epochs=40, lr=0.02, weight_decay=0.0), on_step=watch)
    return float(task.loss(model, task.x[0]).detach()), acosr.converged, far[-1]


@pytest.mark.parametrize("straight_through", [False, True])
def test_decoupled_all_weights_converge_and_the_task_is_learned(straight_through: bool) -> None:
    loss, converged, far = trained(straight_through=straight_through)
    assert loss < 0.02 and converged == 1.0 and far < 1e-4


def test_coupled_weights_lie_nearer_to_the_grid_than_without() -> None:
    loss, _, far = trained(coupled=True, straight_through=False, alpha=3e-4)
    _, _, far_without = trained(coupled=True, straight_through=False, alpha=1e-9)
    assert loss < 0.02 and far < 0.8 * far_without


@pytest.mark.parametrize("coupled", [False, True])
def test_the_loss_is_taken_at_the_grid_of_the_weights_as_they_are(coupled: bool) -> None:
    """A fused optimizer moves weights without a new version: nothing may be kept from before the step."""
    model, task = layer(), Teacher()
    acosr = Acosr(plan(model, 4), coupled=coupled, freeze=0.3)
    stale: list[int] = []

    def watch(step: int, total: int, mean: float) -> None:
        (grid,) = acosr._grids.values()
        if not torch.allclose(model.weight, grid.project(acosr._weights["weight"]), atol=1e-6):
            stale.append(step)

    fit_(model, task, acosr, Training(epochs=3, lr=0.05), on_step=watch)
    assert not stale


def test_rows_of_zeros_stay_finite_in_both_forms() -> None:
    for coupled in (False, True):
        model = layer()
        with torch.no_grad():
            model.weight[2] = 0
        acosr = Acosr(plan(model, 2, "row"), coupled=coupled)
        fit_(model, Teacher(), acosr, Training(epochs=2, lr=0.02))
        assert model.weight.isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"theta": 0.0}, "theta is 1 / the spacing of the levels and must be positive, got 0"),
        ({"begin": 0.5, "end": 0.1}, "begin and end must satisfy 0 < begin <= end <= 1, got 0.5 and 0.1"),
        ({"ramp": 2.0}, "ramp is a share of training and must be 0 to 1, got 2"),
        ({"alpha": -1.0}, "alpha must be positive, got -1"),
    ],
)
def test_settings_that_repel_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Acosr(plan(layer(), 2), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("steps", ["cluster", "row", "group:4"])
def test_the_coupled_slope_is_autograds_and_the_limit_of_differences(bits: int, steps: str) -> None:
    weight = (0.3 * torch.randn(6, 8, dtype=torch.float64)).requires_grad_()
    grid = Grid(weight, [(0, 2, bits), (2, 6, 4)], steps).double()
    (ours,) = torch.autograd.grad(-0.7 * AbsoluteCosines.apply(weight, grid), weight)

    def printed(w: Tensor) -> Tensor:
        """Eq. 6 table by table, the cosine shifted by a step for ±step alone."""
        total = torch.zeros((), dtype=torch.float64)
        for rows, step, b in tables(grid, w):
            shift, spacing = (step, 2 * step) if b == 1 else (0 * step, step)
            total = total + (math.pi * (rows - shift) / spacing).cos().abs().sum()
        return -0.7 * total

    (autograds,) = torch.autograd.grad(printed(weight), weight)
    torch.testing.assert_close(ours, autograds)
    value = -0.7 * AbsoluteCosines.apply(weight, grid)
    torch.testing.assert_close(value, printed(weight))
    h = 1e-6
    for i in range(0, 48, 7):
        nudge = torch.zeros(48, dtype=torch.float64)
        nudge[i] = h
        with torch.no_grad():
            ahead, behind = (printed(weight + sign * nudge.view(6, 8)) for sign in (1, -1))
        assert float((ahead - behind) / (2 * h)) == pytest.approx(float(ours.flatten()[i]), abs=1e-4)


def test_a_large_weight_is_worked_on_in_blocks_with_the_figures_of_the_whole() -> None:
    whole = 0.1 * torch.randn(700, 1000)
    assert whole.numel() > 2 * BLOCK
    step = torch.tensor(2.0**-7)
    r = whole / step - (whole / step).round()
    by_hand = whole - 0.3 * step / math.pi * (math.pi * r).sin()
    pulled, converged = whole.clone(), whole.clone()
    pull_(pulled, step, 8, 0.3)
    torch.testing.assert_close(pulled, by_hand, rtol=0, atol=1e-6)
    converged[:, ::4] = (whole / step).round()[:, ::4] * step
    assert wgtc(converged, step, 8) == pytest.approx(0.25, abs=1e-3)
    rows = step.expand(700, 1).contiguous()
    assert wgtc(converged, rows, 8) == wgtc(converged, step, 8)


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_weights_are_held_to_the_outermost_levels(bits: int) -> None:
    weight, step = torch.randn(6, 8), torch.full((6, 1), 0.2)
    edge = 0.2 * max(1, 2 ** (bits - 1) - 1)
    held, pulled, apart = weight.clone(), weight.clone(), weight.clone()
    hold_(held, step, bits)
    assert torch.equal(held, weight.clamp(-edge, edge))
    pull_(pulled, step, bits, 0.5, hold=True)
    hold_(apart, step, bits)
    pull_(apart, step, bits, 0.5)
    assert torch.equal(pulled, apart) and pulled.abs().max() <= edge


@pytest.mark.parametrize("theta", [None, 2.0**5])
def test_it_trains_onto_a_mixed_bit_map_with_a_theta_a_cluster(theta: float | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 6, bias=False))
    with torch.no_grad():
        model[1].weight *= 0.3
    clusters = make_clusters(model)
    mixed = BitMap(clusters, {"0.weight": 4, "1.weight": 8})
    acosr = Acosr(mixed, theta=theta)
    quantized = fit_(model, Teacher(), acosr, Training(epochs=30, lr=0.01, weight_decay=0.0))
    four, eight = quantized["0.weight[0:8]"], quantized["1.weight[0:6]"]
    assert acosr.converged > 0.9
    assert four.codes.abs().max() <= 7 < eight.codes.abs().max() <= 127
    assert (float(four.step) == float(eight.step)) == (theta is not None)
    for linear, q in zip(model, (four, eight), strict=True):
        torch.testing.assert_close(linear.weight.detach(), q.dequantize())
    shares = acosr.shares_converged()
    assert {name: n for name, (n, _) in shares.items()} == {"0.weight": 64, "1.weight": 48}


def penalty(acosr: Acosr, model: nn.Module) -> float:
    return float(torch.as_tensor(acosr.penalty(model)).detach())


def test_alpha_grows_from_nothing_over_its_ramp_and_goes_on_after_a_stop() -> None:
    model = layer()
    acosr = Acosr(plan(model, 6), theta=32.0, coupled=True, straight_through=False, ramp=0.5)
    acosr.prepare_(model)
    full = Acosr(plan(layer(), 6), theta=32.0, coupled=True, straight_through=False)
    full.prepare_(other := layer())
    other.load_state_dict(model.state_dict(), strict=False)
    found = [penalty(acosr, model)]
    for progress in (0.25, 0.5, 1.0):
        acosr.after_step_(model, progress)
        found.append(penalty(acosr, model) / penalty(full, other))
    assert found == [0.0, pytest.approx(0.5), pytest.approx(1.0), pytest.approx(1.0)]
    again = Acosr(plan(resumed := layer(), 6), theta=32.0, coupled=True, straight_through=False, ramp=0.5)
    again.prepare_(resumed)
    acosr.after_step_(model, 0.25)
    resumed.load_state_dict(model.state_dict())
    assert penalty(again, resumed) == penalty(acosr, model)
