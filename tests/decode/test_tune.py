"""Error rate training against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.decode.tune import Lists, gains_on_unseen, line_errors, line_search, tune, z_of_gain

Some = tuple[list[np.ndarray], list[np.ndarray]]


def random_lists(seed: int, count: int = 40, features: int = 3) -> Some:
    """Lists of one to six hypotheses, some with equal features."""
    draw = np.random.default_rng(seed)
    f = [draw.normal(size=(draw.integers(1, 7), features)).round(1) for _ in range(count)]
    return f, [draw.integers(0, 5, len(x)).astype(float) for x in f]


def planted_lists(weights: list[float], seed: int = 0, count: int = 300) -> Some:
    """Lists whose only hypothesis without errors is the best under the weights."""
    draw = np.random.default_rng(seed)
    f = [draw.normal(size=(5, len(weights))) for _ in range(count)]
    return f, [(np.arange(5) != np.argmax(x @ weights)).astype(float) for x in f]


@pytest.mark.parametrize("seed", range(5))
def test_errors_along_a_line_equal_those_of_a_dense_grid(seed: int) -> None:
    lists = Lists.of(*random_lists(seed))
    draw = np.random.default_rng(seed + 100)
    weights, direction = draw.normal(size=3), draw.normal(size=3)
    corners, totals = line_errors(lists, weights, direction)
    assert len(totals) == len(corners) + 1 and (np.diff(corners) > 0).all()
    for gamma in np.linspace(-20, 20, 2001):
        if np.abs(corners - gamma).min() > 1e-6:
            at = int(np.searchsorted(corners, gamma))
            assert lists.total(weights + gamma * direction) == totals[at]


@pytest.mark.parametrize("seed", range(5))
def test_line_search_is_as_good_as_a_dense_grid(seed: int) -> None:
    lists = Lists.of(*random_lists(seed))
    draw = np.random.default_rng(seed + 200)
    weights, direction = draw.normal(size=3), draw.normal(size=3)
    gamma, fewest = line_search(lists, weights, direction)
    assert lists.total(weights + gamma * direction) == fewest
    assert fewest <= min(lists.total(weights + g * direction) for g in np.linspace(-30, 30, 3001))


def test_line_search_stays_above_the_lowest_weights() -> None:
    for seed in range(20):
        lists = Lists.of(*random_lists(seed))
        weights, direction = np.array([1.0, 0.2, 0.0]), np.array([0.0, -1.0, 0.5])
        lowest = np.array([-np.inf, 0.0, 0.0])
        gamma, fewest = line_search(lists, weights, direction, lowest)
        moved = weights + gamma * direction
        assert (moved >= lowest - 1e-12).all()
        grid = [g for g in np.linspace(-5, 5, 1001) if (weights + g * direction >= lowest).all()]
        assert fewest <= min(lists.total(weights + g * direction) for g in grid)


def test_planted_weights_are_found() -> None:
    features, errors = planted_lists([1.0, 0.5, -2.0])
    found = tune(features, errors)
    assert found[0] == 1
    np.testing.assert_allclose(found, [1.0, 0.5, -2.0], rtol=0.15)
    assert Lists.of(features, errors).total(found) == 0


@pytest.mark.parametrize("seed", range(5))
def test_tuning_is_never_worse_than_the_first_pass_and_repeats(seed: int) -> None:
    features, errors = random_lists(seed)
    lists = Lists.of(features, errors)
    found = tune(features, errors, seed=seed)
    assert lists.total(found) <= lists.total(np.array([1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(found, tune(features, errors, seed=seed))


def test_weights_do_not_move_without_gain() -> None:
    features, _ = random_lists(0)
    errors = [np.ones(len(f)) for f in features]
    np.testing.assert_array_equal(tune(features, errors), [1.0, 0.0, 0.0])


def test_a_feature_that_never_differs_keeps_no_weight() -> None:
    features, errors = planted_lists([1.0, 0.5])
    constant = [np.hstack([f, np.full((len(f), 1), 3.0)]) for f in features]
    assert tune(constant, errors)[2] == 0


def test_weights_do_not_fall_below_the_lowest() -> None:
    features, errors = planted_lists([1.0, -0.5, -2.0])
    assert (tune(features, errors, lowest=[-np.inf, -np.inf, 0.0])[2:] >= 0).all()


def test_gains_on_unseen_lists_show_signal_and_not_chance() -> None:
    assert z_of_gain(gains_on_unseen(*planted_lists([1.0, 1.0, 1.0]))) > 3
    assert all(z_of_gain(gains_on_unseen(*random_lists(seed, 100))) < 2 for seed in range(3))
    assert z_of_gain(np.zeros(4)) == 0


def test_lists_that_do_not_match_are_named() -> None:
    with pytest.raises(ValueError, match="0 lists of features"):
        tune([], [])
