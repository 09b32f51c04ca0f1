"""Gaussian mixtures against the formula written out, and EM against what it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

from greenasr.models.gmm import Gmm, Moments, moments


def some_gmm(seed: int = 0, sizes: tuple[int, ...] = (2, 1, 3), dim: int = 4) -> Gmm:
    draw = np.random.default_rng(seed)
    pdf = np.repeat(np.arange(len(sizes)), sizes)
    weight = draw.uniform(0.2, 1, len(pdf))
    weight /= np.bincount(pdf, weight)[pdf]
    return Gmm(
        pdf, np.log(weight), 30 + draw.normal(0, 2, (len(pdf), dim)), draw.uniform(0.5, 2, (len(pdf), dim))
    )


def slow_logprob(gmm: Gmm, x: np.ndarray, pdf: int) -> float:
    total = 0.0
    for g in range(len(gmm.pdf)):
        if gmm.pdf[g] == pdf:
            p = math.exp(gmm.log_weight[g])
            for value, mean, var in zip(x, gmm.mean[g], gmm.var[g], strict=True):
                p *= math.exp(-((value - mean) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var)
            total += p
    return math.log(total)


def labelled(seed: int = 1, frames: int = 600, dim: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    pdf = draw.integers(0, 3, frames)
    hump = draw.integers(0, 3, frames)
    return (30 + 2 * pdf[:, None] + 3 * hump[:, None] + draw.normal(0, 1, (frames, dim))).astype(
        np.float32
    ), pdf


def test_logprobs_equal_the_formula_written_out() -> None:
    gmm = some_gmm()
    feats = np.random.default_rng(2).normal(30, 3, (5, 4)).astype(np.float32)
    slow = [[slow_logprob(gmm, x, c) for c in range(3)] for x in feats]
    np.testing.assert_allclose(gmm.logprobs(feats), slow, rtol=1e-5)


def test_logprobs_of_some_pdfs_are_columns_of_all() -> None:
    gmm = some_gmm()
    feats = np.random.default_rng(2).normal(30, 3, (5, 4)).astype(np.float32)
    np.testing.assert_allclose(
        gmm.logprobs(feats, np.array([2, 0])), gmm.logprobs(feats)[:, [2, 0]], rtol=1e-6
    )


def test_one_gaussian_a_class_has_the_mean_and_variance_of_its_frames() -> None:
    feats, pdf = labelled()
    gmm = Gmm.single(moments(feats, pdf, 4), np.full(4, 1e-3))
    for c in range(3):
        np.testing.assert_allclose(gmm.mean[c], feats[pdf == c].mean(0), rtol=1e-6)
        np.testing.assert_allclose(gmm.var[c], feats[pdf == c].var(0), rtol=1e-4)
    np.testing.assert_allclose(gmm.var[3], feats.var(0), rtol=1e-4)  # never seen: that of all frames


def test_em_never_lowers_the_likelihood() -> None:
    feats, pdf = labelled()
    gmm = some_gmm()
    found = []
    for _ in range(12):
        stats = gmm.statistics(feats, pdf)
        found.append(stats.logprob)
        gmm = gmm.updated(stats, np.full(4, 1e-6), min_count=0.0)
    assert (np.diff(found) > -1e-3).all()
    assert found[-1] > found[0] + 100


def test_statistics_add_up_and_hold_the_likelihood_of_the_frames() -> None:
    feats, pdf = labelled()
    gmm = some_gmm()
    whole = gmm.statistics(feats, pdf)
    parts = gmm.statistics(feats[:250], pdf[:250]) + gmm.statistics(feats[250:], pdf[250:])
    assert whole.logprob == pytest.approx(parts.logprob)
    np.testing.assert_allclose(whole.second, parts.second)
    np.testing.assert_allclose(np.add.reduceat(whole.count, gmm.first[:-1]), np.bincount(pdf))
    each = gmm.logprobs(feats)[np.arange(len(pdf)), pdf]
    assert whole.logprob == pytest.approx(each.sum(), rel=1e-5)


def test_mixing_up_reaches_its_target_and_em_gains_from_it() -> None:
    feats, pdf = labelled()
    floor = np.full(4, 1e-3)
    gmm = Gmm.single(moments(feats, pdf, 3), floor)
    alone = gmm.statistics(feats, pdf).logprob
    occupation = np.bincount(pdf).astype(float)
    mixed = gmm.mixed_up(9, occupation, np.random.default_rng(0))
    assert len(mixed.pdf) == 9 and (np.diff(mixed.pdf) >= 0).all()
    np.testing.assert_allclose(np.bincount(mixed.pdf, np.exp(mixed.log_weight)), 1)
    for _ in range(15):
        mixed = mixed.updated(mixed.statistics(feats, pdf), floor)
    assert mixed.statistics(feats, pdf).logprob > alone + 100


def test_mixing_up_stops_where_frames_are_few() -> None:
    gmm = Gmm.single(Moments(np.array([45.0, 10.0]), np.ones((2, 1)), np.full((2, 1), 99.0)), np.ones(1))
    mixed = gmm.mixed_up(50, np.array([45.0, 10.0]), np.random.default_rng(0), min_count=20)
    assert mixed.pdf.tolist() == [0, 0, 1]


def test_starved_gaussians_go_and_the_last_of_a_pdf_stays_as_it_was() -> None:
    gmm = some_gmm()
    count = np.array([50.0, 1.0, 0.0, 40.0, 2.0, 10.0])
    new = gmm.updated(
        Moments(count, gmm.mean * count[:, None], gmm.mean**2 * count[:, None]), np.full(4, 0.3)
    )
    assert new.pdf.tolist() == [0, 1, 2, 2]
    np.testing.assert_allclose(new.mean[1], gmm.mean[2])
    np.testing.assert_allclose(new.var[1], gmm.var[2])
    np.testing.assert_allclose(new.var[0], 0.3)  # the floor, where frames do not vary
    np.testing.assert_allclose(np.exp(new.log_weight), [1, 1, 0.8, 0.2])


def test_arrays_give_the_mixtures_back() -> None:
    gmm = some_gmm()
    again = Gmm.from_arrays(gmm.arrays())
    assert all((again.arrays()[name] == value).all() for name, value in gmm.arrays().items())


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features are \(5, 3\), .* \(T, 4\)"):
        some_gmm().logprobs(np.zeros((5, 3), np.float32))
    with pytest.raises(ValueError, match="no frames to make Gaussians of"):
        Gmm.single(Moments.zeros(2, 3), np.ones(3))
