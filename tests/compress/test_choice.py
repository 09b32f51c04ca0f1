"""Weightings of candidates: eq. 2 of GREEN by its limits, one draw a step, and the price's target."""

import math

import pytest
import torch

from greenasr.compress.choice import WEIGHTINGS, Choice, Price


def choice(weighting: str, **options: tuple[float, float]) -> Choice:
    torch.manual_seed(0)
    made = Choice(4, weighting, **options)
    with torch.no_grad():
        made.logits.copy_(torch.tensor([0.1, 0.4, 0.2, 0.3]).log())
    return made


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_weights_sum_to_one_and_stay_through_a_step(weighting: str) -> None:
    made = choice(weighting)
    first = made().detach()
    assert float(first.sum()) == pytest.approx(1) and torch.equal(made(), first)
    torch.testing.assert_close(made.shares(), torch.tensor([0.1, 0.4, 0.2, 0.3]).double())
    made.after_step_(0.5)
    assert torch.equal(made(), first) == (weighting == "softmax")


def test_the_coldest_gumbel_weights_are_one_hot_draws_from_the_softmax() -> None:
    made = choice("gumbel", temperature=(0.01, 0.01))
    total = torch.zeros(4)
    for _ in range(2000):
        weights = made().detach()
        total += weights
        made.after_step_(0.0)
    assert float(weights.max()) > 0.99
    torch.testing.assert_close(total / 2000, torch.tensor([0.1, 0.4, 0.2, 0.3]), atol=0.04, rtol=0)


def test_the_temperature_falls_geometrically() -> None:
    made = choice("gumbel", temperature=(1.0, 0.01))
    for progress, temperature in ((0.0, 1.0), (0.5, 0.1), (1.0, 0.01)):
        made.after_step_(progress)
        assert float(made.get_buffer("temperature")) == pytest.approx(temperature)


def test_uniform_draws_do_not_look_at_the_logits_and_nothing_trains_them() -> None:
    made = choice("uniform")
    count = torch.zeros(4)
    for _ in range(2000):
        count += made()
        made.after_step_(0.0)
    torch.testing.assert_close(count / 2000, torch.full((4,), 0.25), atol=0.04, rtol=0)
    assert set(made().tolist()) == {0.0, 1.0} and not made.logits.requires_grad


def test_a_price_rises_while_too_much_is_bought_and_becomes_a_reward_while_too_little() -> None:
    price = Price(0.5, target=100)
    assert price.value(100) == pytest.approx(0.5) and price.value(50) < 0 < 0.5 < price.value(200)
    price.follow_(150, 0.1)
    assert price.base == pytest.approx(0.5 * math.sinh(1 + 2) / math.sinh(1))  # 40 (150 / 100 - 1) 0.1
    price.follow_(50, 0.3)
    assert price.base == pytest.approx(0.5 * math.sinh(1 + 2 - 4) / math.sinh(1))
    price.follow_(10_000, 0.9)
    assert math.isfinite(price.value(10_000))
    fixed = Price(0.5)
    fixed.follow_(150, 0.1)
    assert fixed.value(150) == 0.5 and Price(0.0).value(1) == 0


def test_what_cannot_be_weighted_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown weighting 'sparse': choose softmax or gumbel or uniform"):
        Choice(2, "sparse")
    with pytest.raises(ValueError, match="stays positive"):
        Choice(2, "gumbel", (1.0, 0.0))
