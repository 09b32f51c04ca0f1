"""The background model is a mixture density, and EM raises its likelihood."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from greenasr.data import ubm as module
from greenasr.data.ubm import Ubm, em_step, floored, moments, train_ubm


def some_ubm(full: bool, count: int = 4, dim: int = 3) -> Ubm:
    root = torch.randn(count, dim, dim).double()
    covs = root @ root.mT + 0.2 * torch.eye(dim) if full else 0.2 + torch.rand(count, dim).double()
    return Ubm(torch.rand(count).double().softmax(0), 5 + torch.randn(count, dim).double(), covs)


def density(ubm: Ubm) -> MixtureSameFamily:
    covs = ubm.covs if ubm.full else torch.diag_embed(ubm.covs)
    return MixtureSameFamily(Categorical(ubm.weights), MultivariateNormal(ubm.means, covs))


@pytest.mark.parametrize("full", [False, True])
def test_posteriors_and_likelihood_are_those_of_the_mixture(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ubm, feats = some_ubm(full), 5 + torch.randn(50, 3).double()
    mixture = density(ubm)
    joint = mixture.component_distribution.log_prob(feats[:, None]) + ubm.weights.log()
    for chunk in (module.CHUNK, 40):
        monkeypatch.setattr(module, "CHUNK", chunk)
        gamma, logprob = ubm.posteriors(feats)
        torch.testing.assert_close(logprob, mixture.log_prob(feats))
        torch.testing.assert_close(gamma, joint.softmax(1))
        gamma, logprob = ubm.posteriors(feats.float())
        torch.testing.assert_close(logprob.double(), mixture.log_prob(feats), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("full", [False, True])
def test_moments_are_sums_over_frames(full: bool) -> None:
    ubm, feats = some_ubm(full), 5 + torch.randn(30, 3).double()
    gamma, logprob = ubm.posteriors(feats)
    count, first, second, total = moments(ubm, feats)
    slow = [sum(gamma[t, c] * torch.outer(feats[t], feats[t]) for t in range(30)) for c in range(4)]
    torch.testing.assert_close(count, gamma.sum(0))
    torch.testing.assert_close(first, gamma.T @ feats)
    squares = torch.stack([torch.as_tensor(each) for each in slow])
    torch.testing.assert_close(second, squares if full else squares.diagonal(dim1=1, dim2=2))
    assert total == pytest.approx(float(logprob.sum()))


@pytest.mark.parametrize("full", [False, True])
def test_em_never_lowers_the_likelihood(full: bool) -> None:
    feats = density(some_ubm(True)).sample((600,))
    ubm = some_ubm(full)
    reached = []
    for _ in range(15):
        ubm, logprob = em_step(ubm, feats, torch.zeros(3) + 1e-9)
        reached.append(logprob)
    assert all(later >= earlier - 1e-10 for earlier, later in zip(reached, reached[1:], strict=False))
    assert reached[-1] > reached[0] + 0.1
    assert float(ubm.weights.sum()) == pytest.approx(1)


def test_one_gaussian_is_the_mean_and_covariance_of_the_frames() -> None:
    feats = torch.randn(200, 3) @ torch.randn(3, 3) + 4
    ubm = train_ubm(feats, 1, torch.Generator(), full=True, iterations=2)
    torch.testing.assert_close(ubm.means[0], feats.double().mean(0))
    torch.testing.assert_close(ubm.covs[0], feats.double().T.cov(correction=0), atol=1e-6, rtol=1e-4)


def test_training_finds_planted_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    feats = (centres[:, None] + torch.randn(3, 400, 2)).reshape(-1, 2)
    told: list[int] = []
    ubm = train_ubm(
        feats,
        6,
        torch.Generator().manual_seed(1),
        iterations=15,
        progress=lambda done, of, _: told.append(done),
    )
    assert told == list(range(1, 16))
    owner = torch.cdist(ubm.means, centres.double()).argmin(1)
    shares = torch.zeros(3, dtype=torch.float64).index_add_(0, owner, ubm.weights)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3).double(), atol=0.05, rtol=0)


@pytest.mark.parametrize("full", [False, True])
def test_frames_that_are_all_alike_give_a_floored_and_finite_model(full: bool) -> None:
    feats = torch.cat([torch.ones(60, 2), torch.randn(60, 2)])
    ubm = train_ubm(feats, 3, torch.Generator().manual_seed(0), full=full, iterations=10)
    gamma, logprob = ubm.posteriors(feats)
    assert torch.isfinite(gamma).all() and torch.isfinite(logprob).all()


def test_flooring_raises_what_is_below_in_every_direction_and_leaves_the_rest() -> None:
    root = torch.randn(5, 4, 4).double()
    covs = root @ root.mT
    floor = torch.tensor([0.5, 1.0, 2.0, 0.1]).double()
    found = floored(covs, floor)
    assert torch.linalg.eigvalsh(found - torch.diag(floor)).min() > -1e-9
    torch.testing.assert_close(floored(covs + torch.diag(floor), floor), covs + torch.diag(floor))


def test_too_few_frames_nan_and_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match="19 frames for 2 Gaussians"):
        train_ubm(torch.randn(19, 3), 2, torch.Generator())
    with pytest.raises(ValueError, match="not finite"):
        train_ubm(torch.full((50, 3), torch.nan), 2, torch.Generator())
    with pytest.raises(ValueError, match=r"\(9, 5\), the background model was made for \(T, 3\)"):
        some_ubm(False).posteriors(torch.randn(9, 5))
