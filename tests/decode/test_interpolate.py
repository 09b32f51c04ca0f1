"""Mixtures of language models and their weights."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.decode.interpolate import em_weights, interpolate


def models(count: int, words: int = 400) -> list[np.ndarray]:
    draw = np.random.default_rng(count)
    return [np.log(draw.beta(0.5, 2 + m, words)) for m in range(count)]


def test_weights_of_two_models_are_those_of_a_grid_search() -> None:
    logprobs = models(2)
    grid = np.linspace(0, 1, 2001)
    likelihood = [interpolate(logprobs, [share, 1 - share]).sum() for share in grid]
    assert em_weights(logprobs, tolerance=1e-12)[0] == pytest.approx(grid[np.argmax(likelihood)], abs=1e-3)


def test_weights_of_three_models_are_no_worse_than_any_of_a_grid() -> None:
    logprobs = models(3)
    weights = em_weights(logprobs, tolerance=1e-12)
    best = interpolate(logprobs, list(weights)).mean()
    for a in range(21):
        for b in range(21 - a):
            assert interpolate(logprobs, [a / 20, b / 20, (20 - a - b) / 20]).mean() <= best + 1e-7
    assert weights.sum() == pytest.approx(1)


def test_the_likelihood_never_falls() -> None:
    logprobs = models(4)
    means = [interpolate(logprobs, list(em_weights(logprobs, 0.0, steps))).mean() for steps in range(1, 30)]
    assert (np.diff(means) >= -1e-12).all()


def test_a_model_that_is_always_better_gets_everything() -> None:
    good = np.full(50, np.log(0.9))
    assert em_weights([good, good - 3])[0] == pytest.approx(1, abs=1e-4)


def test_a_mixture_of_one_is_the_model_and_zero_weight_is_no_model() -> None:
    a, b = models(2)
    np.testing.assert_allclose(interpolate([a], [1.0]), a)
    np.testing.assert_allclose(interpolate([a, b], [1.0, 0.0]), a)


def test_what_cannot_be_mixed_is_named() -> None:
    with pytest.raises(ValueError, match="probabilities of 3, 2 words"):
        em_weights([np.zeros(3), np.zeros(2)])
    with pytest.raises(ValueError, match="no model gives word 2"):
        em_weights([np.array([-1.0, -np.inf]), np.array([-1.0, -np.inf])])
