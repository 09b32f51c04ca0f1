"""TTQ against the paper's equations written out."""

import pytest
import torch
from torch import nn

from greenasr.compress.clusters import make_clusters
from greenasr.compress.quantizers import Uniform
from greenasr.compress.ttq import TrainedTernary, _Ternarize, ternary_codes
from greenasr.roles import BitMap


def linear(rows=6, cols=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(cols, rows, bias=False))


def plan(model, bits=2, step="cluster"):
    return BitMap.uniform(make_clusters(model), bits, step)


def test_codes_are_those_of_eq_6_and_9():
    w = torch.randn(500, generator=torch.Generator().manual_seed(1))
    delta = 0.05 * w.abs().max()
    slow = [1 if x > delta else -1 if x < -delta else 0 for x in w]
    assert ternary_codes(w, 0.05).tolist() == slow


def test_gradients_are_eq_7_and_8():
    gen = torch.Generator().manual_seed(2)
    w = torch.randn(40, generator=gen).requires_grad_()
    positive, negative = torch.tensor(0.7, requires_grad=True), torch.tensor(0.4, requires_grad=True)
    pull = torch.randn(40, generator=gen)
    out = _Ternarize.apply(w, positive, negative, 0.3)
    codes = ternary_codes(w.detach(), 0.3).tolist()
    assert set(codes) == {-1, 0, 1}
    assert out.tolist() == pytest.approx([{1: 0.7, 0: 0.0, -1: -0.4}[c] for c in codes])
    out.backward(pull)
    assert w.grad.tolist() == pytest.approx(
        [g * {1: 0.7, 0: 1.0, -1: 0.4}[c] for g, c in zip(pull.tolist(), codes, strict=True)]
    )
    pairs = list(zip(pull.tolist(), codes, strict=True))
    assert float(positive.grad) == pytest.approx(sum(g for g, c in pairs if c > 0), rel=1e-5)
    assert float(negative.grad) == pytest.approx(-sum(g for g, c in pairs if c < 0), rel=1e-5)


@pytest.mark.parametrize("step", ["cluster", "row", "group:4"])
def test_without_training_levels_are_the_means_of_what_they_stand_for(step):
    model = linear()
    before = model[0].weight.detach().clone()
    compressor = TrainedTernary(plan(model, step=step))
    compressor.prepare_(model)
    (found,) = compressor.finish_(model).values()
    shape = {"cluster": (1, 48), "row": (6, 8), "group:4": (12, 4)}[step]
    tables, codes = before.view(shape), found.codes.view(shape)
    for row, code, up, down in zip(
        tables, codes, found.step.flatten(), found.negative.flatten(), strict=True
    ):
        assert code.tolist() == ternary_codes(row, 0.05).tolist()
        for level, sign in ((up, 1), (down, -1)):
            if (code == sign).any():
                assert float(level) == pytest.approx(float(row[code == sign].abs().mean()), rel=1e-5)
    assert torch.equal(found.dequantize(), model[0].weight.detach())


def test_two_levels_fit_a_skewed_matrix_that_one_step_cannot():
    """Targets of a network with levels 3 and -1: the learned levels find them."""
    model, teacher = linear(4, 16), linear(4, 16)
    gen = torch.Generator().manual_seed(3)
    truth = torch.randn(4, 16, generator=gen)
    with torch.no_grad():
        teacher[0].weight.copy_(torch.where(truth > 0.5, 3.0, torch.where(truth < -0.5, -1.0, 0.0)))
        model[0].weight.copy_(truth.where(truth.abs() > 0.5, 0.0))
    compressor = TrainedTernary(plan(model))
    compressor.prepare_(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for i in range(300):
        x = torch.randn(64, 16, generator=gen)
        loss = (model(x) - teacher(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        compressor.after_step_(model, i / 300)
    (found,) = compressor.finish_(model).values()
    assert float(found.step) == pytest.approx(3, rel=0.05)
    assert float(found.negative) == pytest.approx(1, rel=0.05)


def test_other_widths_of_a_plan_are_projected_as_ever():
    model = linear()
    before = model[0].weight.detach().clone()
    compressor = TrainedTernary(plan(model, bits=4))
    compressor.prepare_(model)
    assert [name for name, _ in model.named_parameters()] == ["0.parametrizations.weight.original"]
    (found,) = compressor.finish_(model).values()
    assert found.negative is None
    torch.testing.assert_close(model[0].weight.detach(), Uniform(4).project(before).dequantize())


def test_levels_stay_positive():
    model = linear()
    compressor = TrainedTernary(plan(model))
    compressor.prepare_(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "levels" in name:
                p.fill_(-1)
    compressor.after_step_(model, 0.5)
    (found,) = compressor.finish_(model).values()
    assert float(found.step) > 0 and float(found.negative) > 0


def test_thresholds_without_a_level_are_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1"):
        TrainedTernary(plan(linear()), share=1.0)
