"""Deltas and cepstra against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.tasks.gmm_feats import Frontend, add_deltas, cepstra


def test_deltas_equal_the_sum_over_the_window() -> None:
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)

    def slope(y: np.ndarray) -> np.ndarray:
        at = [[min(max(t + k, 0), 8) for k in range(-2, 3)] for t in range(9)]
        return np.array([sum(k * y[i] for k, i in zip(range(-2, 3), row, strict=True)) / 10 for row in at])

    np.testing.assert_allclose(add_deltas(x), np.hstack([x, slope(x), slope(slope(x))]), atol=1e-6)


def test_a_constant_has_no_slope_and_deltas_0_change_nothing() -> None:
    x = np.full((5, 2), 3, np.float32)
    np.testing.assert_allclose(add_deltas(x)[:, 2:], 0, atol=1e-6)
    np.testing.assert_array_equal(add_deltas(x, order=0), x)


def test_all_cepstra_are_a_rotation_of_the_energies() -> None:
    x = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    np.testing.assert_allclose(cepstra(x, 20) @ cepstra(x, 20).T, x @ x.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(cepstra(x, 5), cepstra(x, 20)[:, :5], rtol=1e-5)


def test_the_frontend_takes_cepstra_or_makes_them() -> None:
    x = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    np.testing.assert_array_equal(Frontend()(x), add_deltas(x[:, :13]))
    np.testing.assert_allclose(Frontend("fbank")(x)[:, :13], cepstra(x, 13))
    np.testing.assert_array_equal(Frontend(cepstra=0, deltas=0)(x), x)
    with pytest.raises(ValueError, match=r"features are \(6, 5\), \(T, 13\) and more are needed"):
        Frontend()(x[:, :5])
