"""Divergences against their definitions."""

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from greenasr.ops.divergence import gated_kl, kl


def test_kl_equals_its_definition() -> None:
    p, q = torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Categorical(logits=p), Categorical(logits=q)).mean()
    torch.testing.assert_close(kl(p.log_softmax(-1), q.log_softmax(-1)), expected)


def test_classes_of_no_probability_add_nothing() -> None:
    p = torch.tensor([[1.0, 0.0]]).log()
    assert kl(p, p).item() == 0.0
    assert kl(p, torch.tensor([[0.5, 0.5]]).log()).item() == pytest.approx(0.6931, abs=1e-4)


def test_gated_kl_equals_its_definition_on_both_sides_of_the_series() -> None:
    a = torch.linspace(-6, 6, 49, dtype=torch.float64)[:, None]
    b = a + torch.cat([-torch.logspace(-3, 1, 40), torch.logspace(-3, 1, 40)]).double()
    p, q = a.sigmoid(), b.sigmoid()
    definition = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(gated_kl(a, b), definition, rtol=2e-5, atol=1e-16)
    torch.testing.assert_close(
        gated_kl(a, b),
        kl_divergence(Bernoulli(logits=a.expand_as(b)), Bernoulli(logits=b)),
        rtol=2e-5,
        atol=1e-15,
    )


def test_single_precision_keeps_its_digits_for_small_moves() -> None:
    a = torch.linspace(-4, 4, 33)
    b = a + 1e-4
    exact = gated_kl(a.double(), b.double())
    torch.testing.assert_close(gated_kl(a, b).double(), exact, rtol=1e-2, atol=0)


def test_gated_kl_is_never_negative_and_zero_only_without_a_move() -> None:
    a, b = 30 * torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    assert (gated_kl(a, b) >= 0).all()
    assert (gated_kl(a, a) == 0).all()
    assert torch.isfinite(gated_kl(torch.tensor([-200.0, 200.0]), torch.tensor([200.0, -200.0]))).all()
