"""Hutchinson against Hessians small enough to write down."""

import json
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from greenasr.ops import curvature


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_network() -> tuple[dict[str, Tensor], Callable[[], Tensor]]:
    torch.manual_seed(1)
    x, y = torch.randn(12, 3, dtype=torch.float64), torch.randint(0, 3, (12,))
    weights = {
        "w1": torch.randn(4, 3, dtype=torch.float64, requires_grad=True),
        "w2": torch.randn(3, 4, dtype=torch.float64, requires_grad=True),
    }

    def loss() -> Tensor:
        return nn.functional.cross_entropy((x @ weights["w1"].T).tanh() @ weights["w2"].T, y)

    return weights, loss


BLOCKS: dict[str, curvature.Block] = {
    "bottom": [("w1", 0, 4)],
    "ends": [("w1", 0, 1), ("w2", 2, 3)],
    "top": [("w2", 0, 2)],
}


def exact_hessian(loss: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    """Row by row, the gradient of every entry of the gradient, (n, n)."""
    at = weight.detach().clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(at), at, create_graph=True)
    return torch.stack(
        [torch.autograd.grad(entry, at, retain_graph=True)[0].flatten() for entry in first.flatten()]
    )


def exact_traces() -> Tensor:
    weights, _ = small_network()
    torch.manual_seed(1)
    x, y = torch.randn(12, 3, dtype=torch.float64), torch.randint(0, 3, (12,))

    def loss(flat: Tensor) -> Tensor:
        w1, w2 = flat[:12].view(4, 3), flat[12:].view(3, 4)
        return nn.functional.cross_entropy((x @ w1.T).tanh() @ w2.T, y)

    flat = torch.cat([weight.detach().flatten() for weight in weights.values()])
    diagonal = exact_hessian(loss, flat).diagonal()
    d1, d2 = diagonal[:12].view(4, 3).sum(1), diagonal[12:].view(3, 4).sum(1)
    return torch.stack([d1.sum(), d1[0] + d2[2], d2[:2].sum()])


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_every_block_trace_equals_the_exact_hessian_within_its_standard_error(
    kind: curvature.ProbeKind,
) -> None:
    weights, loss = small_network()
    traces = curvature.hutchinson(
        [loss], weights, BLOCKS, generator(), kind=kind, tolerance=0.0, min_probes=2000, max_probes=2000
    )
    off = (traces.mean - exact_traces()).abs() / traces.standard_error
    assert traces.probes == 2000
    assert (off < 3).all()


def test_all_sign_vectors_together_give_the_exact_trace() -> None:
    weight = torch.randn(2, 3, dtype=torch.float64, generator=generator()).requires_grad_()
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6)
    loss = (weight.sin().prod() + (weight.sum() ** 4)) / 7
    rows = curvature.hessian_quadratic_forms(loss, {"w": weight}, ({"w": z.view(2, 3)} for z in signs))
    mean = torch.stack([row["w"] for row in rows]).mean(0)
    exact = exact_hessian(lambda w: (w.sin().prod() + (w.sum() ** 4)) / 7, weight)
    torch.testing.assert_close(mean, exact.diagonal().view(2, 3).sum(1))


def test_hutchinson_is_exact_in_one_draw_for_a_diagonal_hessian() -> None:
    weight = torch.randn(3, 5, generator=generator()).requires_grad_()
    z = curvature.draw_probe({"w": weight}, generator())
    (rows,) = curvature.hessian_quadratic_forms((weight**4).sum(), {"w": weight}, [z])
    torch.testing.assert_close(rows["w"].float(), (12 * weight.detach() ** 2).sum(1))


def test_a_loss_linear_in_the_weights_has_no_curvature() -> None:
    weight = torch.ones(2, 2, requires_grad=True)
    z = curvature.draw_probe({"w": weight}, generator())
    (rows,) = curvature.hessian_quadratic_forms(weight.sum(), {"w": weight}, [z])
    assert rows["w"].tolist() == [0.0, 0.0]


def test_the_graph_of_one_backward_serves_many_probes() -> None:
    weights, loss = small_network()
    probes = [curvature.draw_probe(weights, generator(seed)) for seed in range(3)]
    together = list(curvature.hessian_quadratic_forms(loss(), weights, probes))
    for probe, rows in zip(probes, together, strict=True):
        (alone,) = curvature.hessian_quadratic_forms(loss(), weights, [probe])
        torch.testing.assert_close(rows, alone)


def test_the_standard_error_is_the_spread_of_repeated_estimates() -> None:
    weights, loss = small_network()
    runs = [
        curvature.hutchinson(
            [loss, loss], weights, BLOCKS, generator(seed), tolerance=0.0, min_probes=32, max_probes=32
        )
        for seed in range(150)
    ]
    spread = torch.stack([run.mean for run in runs]).std(0)
    claimed = torch.stack([run.standard_error for run in runs]).square().mean(0).sqrt()
    torch.testing.assert_close(claimed, spread, rtol=0.2, atol=0)


def test_the_standard_error_is_the_closed_form_of_a_stratified_mean() -> None:
    draws = torch.tensor([[[1.0], [3.0]], [[10.0], [10.0]]], dtype=torch.float64)
    traces = curvature.Traces(("a",), draws)
    assert traces.mean.item() == 6.0
    assert traces.standard_error.item() == pytest.approx((2.0 / 2 / 4) ** 0.5)  # s² = 2 and 0, K = B = 2


def test_signs_vary_less_than_gaussian_probes() -> None:
    weights, loss = small_network()
    spread = [
        curvature.hutchinson(
            [loss], weights, BLOCKS, generator(), kind=kind, tolerance=0.0, min_probes=500, max_probes=500
        ).standard_error.sum()
        for kind in ("rademacher", "gaussian")
    ]
    assert spread[0] < spread[1]


def test_probes_are_added_until_the_error_is_under_the_tolerance() -> None:
    weights, loss = small_network()
    seen: list[tuple[int, float]] = []
    traces = curvature.hutchinson(
        [loss, loss],
        weights,
        BLOCKS,
        generator(),
        tolerance=0.2,
        progress=lambda n, excess: seen.append((n, excess)),
    )
    assert traces.excess() <= 0.2 < seen[0][1]
    assert seen[-1] == (traces.probes, traces.excess())
    assert all(excess > 0.2 for _, excess in seen[:-1])


def test_the_number_of_probes_never_passes_the_limit() -> None:
    weights, loss = small_network()
    traces = curvature.hutchinson([loss] * 3, weights, BLOCKS, generator(), tolerance=1e-6, max_probes=50)
    assert traces.probes == 48


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_probing_that_was_stopped_after_any_loss_goes_on_to_the_same_estimates(stop: int) -> None:
    torch.manual_seed(3)
    w = torch.randn(3, 4, requires_grad=True)
    losses = [lambda k=k: (w @ w.T).pow(2).sum() * (k + 1) + w.pow(4).sum() for k in range(3)]
    blocks = {"top": [("w", 0, 2)], "rest": [("w", 2, 3)]}
    settings = {"tolerance": 0.01, "min_probes": 6, "max_probes": 60}

    def probe(begun: curvature.Probing | None, keep: Any) -> Any:
        return curvature.hutchinson(
            losses, {"w": w}, blocks, generator(5), **settings, begun=begun, keep=keep
        )

    kept: list[dict[str, Any]] = []
    whole = probe(None, lambda probing: kept.append(probing.to_json()))
    assert len(kept) > stop
    resumed = probe(curvature.Probing.from_json(json.loads(json.dumps(kept[stop]))), None)
    assert torch.equal(whole.draws, resumed.draws)


def test_bad_input_is_named() -> None:
    weights, loss = small_network()
    unused = {**weights, "lost": torch.zeros(2, 2, requires_grad=True)}
    with pytest.raises(ValueError, match="does not depend on 'lost'"):
        curvature.hutchinson([loss], unused, BLOCKS, generator())
    with pytest.raises(ValueError, match="no batch"):
        curvature.hutchinson([], weights, BLOCKS, generator())
    with pytest.raises(ValueError, match="3 probes cannot give 2 batches"):
        curvature.hutchinson([loss, loss], weights, BLOCKS, generator(), max_probes=3)
    with pytest.raises(ValueError, match="not finite"):
        curvature.hutchinson([lambda: loss() * float("nan")], weights, BLOCKS, generator())
    with pytest.raises(ValueError, match="'cauchy' is unknown"):
        curvature.draw_probe(weights, generator(), cast(curvature.ProbeKind, "cauchy"))
