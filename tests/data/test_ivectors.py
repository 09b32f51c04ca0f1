"""I-vectors are posterior means of a Gaussian model, and EM finds a subspace that was planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from greenasr.data.feature_store import FeatureStore
from greenasr.data.features import Features
from greenasr.data.ivector_training import em_step, gather, train_ivectors
from greenasr.data.ivectors import IVectorExtractor, IVectorSettings, load_vectors, save_vectors, vectors_of
from greenasr.data.ubm import Ubm

C, F, D = 3, 4, 2
PLAIN = IVectorSettings(dim=D, gaussians=C, posterior_scale=1.0)


def model(full: bool = False, settings: IVectorSettings = PLAIN, apart: float = 60.0) -> IVectorExtractor:
    """Gaussians so far apart that every frame has one owner, hence a linear Gaussian model."""
    root = torch.randn(C, F, F).double()
    covs = root @ root.mT + 0.3 * torch.eye(F) if full else 0.3 + torch.rand(C, F).double()
    means = apart * torch.eye(C, F).double()
    ubm = Ubm(torch.full((C,), 1 / C).double(), means, covs)
    return IVectorExtractor(settings, ubm, means + 0.1, covs * 0.9, torch.randn(C, F, D).double())


def utterance(of: IVectorExtractor, w: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Frames (T, F) that the model would say with factors ``w`` (D,), and their owners, (T,)."""
    owner = torch.randint(C, (frames,))
    covs = of.covs if of.covs.dim() == 3 else torch.diag_embed(of.covs)
    centre = of.means + of.loadings @ w
    return MultivariateNormal(centre[owner], covs[owner]).sample(), owner


def stacked(of: IVectorExtractor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All frames as one Gaussian vector: its mean (TF,), loadings (TF, D) and noise covariance (TF, TF)."""
    covs = of.covs if of.covs.dim() == 3 else torch.diag_embed(of.covs)
    noise = torch.block_diag(*covs[owner])
    return of.means[owner].flatten(), of.loadings[owner].reshape(-1, D), noise


@pytest.mark.parametrize("full", [False, True])
def test_the_ivector_is_the_posterior_mean_of_a_dense_gaussian(full: bool) -> None:
    of = model(full)
    feats, owner = utterance(of, torch.randn(D).double(), 12)
    mean, load, noise = stacked(of, owner)
    gain = load.T @ torch.linalg.inv(load @ load.T + noise)
    found, precision, _ = of.posterior(of.stats(feats))
    torch.testing.assert_close(found[0], gain @ (feats.flatten() - mean))
    torch.testing.assert_close(torch.linalg.inv(precision[0]), torch.eye(D).double() - gain @ load)
    np.testing.assert_allclose(of(feats), found[0].numpy(), rtol=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_the_likelihood_is_that_of_a_dense_gaussian(full: bool) -> None:
    of = model(full)
    said = [utterance(of, torch.randn(D).double(), frames) for frames in (5, 9, 1)]
    dense = 0.0
    for feats, owner in said:
        mean, load, noise = stacked(of, owner)
        dense += float(MultivariateNormal(mean, load @ load.T + noise).log_prob(feats.flatten()))
    stats, second = gather(of, [feats for feats, _ in said])
    assert em_step(of, stats, second, torch.full((F,), 1e-9))[1] == pytest.approx(dense)


@pytest.mark.parametrize("full", [False, True])
def test_em_never_lowers_the_likelihood(full: bool) -> None:
    true = model(full, apart=2.0)
    said = [utterance(true, 1 + torch.randn(D).double(), 20)[0] for _ in range(40)]
    of = replace_loadings(true, 0.1 * torch.randn(C, F, D).double())
    stats, second = gather(of, said)
    reached = []
    for _ in range(12):
        of, logprob = em_step(of, stats, second, torch.full((F,), 1e-9))
        reached.append(logprob)
    assert all(later >= earlier - 1e-7 for earlier, later in zip(reached, reached[1:], strict=False))
    assert reached[-1] > reached[0] + 10


def replace_loadings(of: IVectorExtractor, loadings: Tensor) -> IVectorExtractor:
    return IVectorExtractor(of.settings, of.ubm, of.means, of.covs, loadings)


def test_minimum_divergence_makes_the_factors_standard_over_the_training_set() -> None:
    true = model()
    said = [utterance(true, 2 + 3 * torch.randn(D).double(), 200)[0] for _ in range(60)]
    of = replace_loadings(true, torch.randn(C, F, D).double())
    stats, second = gather(of, said)
    for _ in range(30):
        of, _ = em_step(of, stats, second, torch.full((F,), 1e-9))
    factors = of.posterior(stats)[0]
    torch.testing.assert_close(factors.mean(0), torch.zeros(D).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(factors.T.cov(), torch.eye(D).double(), atol=0.1, rtol=0)


@pytest.mark.parametrize("full", [False, True])
def test_training_recovers_a_planted_subspace_of_speakers(full: bool) -> None:
    true = model(full, apart=8.0)
    factors = torch.randn(150, D).double()
    said = [utterance(true, w, 60)[0].float().numpy() for w in factors]
    settings = replace(PLAIN, full=full, ubm_iterations=10, iterations=12)
    told: list[tuple[str, float]] = []
    found = train_ivectors(
        said,
        settings,
        torch.Generator().manual_seed(3),
        lambda stage, done, of, logprob: told.append((stage, logprob)),
    )
    climbed = [logprob for stage, logprob in told if stage == "loadings"]
    assert len(climbed) == 12 and min(np.diff(climbed)) > -1e-9
    order = torch.cdist(true.means, found.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    planted, learnt = (
        torch.linalg.qr(load.flatten(0, 1))[0] for load in (true.loadings, found.loadings[order])
    )
    cosines = torch.linalg.svdvals(planted.T @ learnt)
    assert cosines.min() > 0.97
    vectors = torch.from_numpy(np.stack([found(feats) for feats in said])).double()
    rotated = vectors @ torch.linalg.lstsq(vectors, factors).solution
    assert float((factors - rotated).square().sum() / factors.square().sum()) < 0.05


def test_speakers_are_sums_of_their_utterances() -> None:
    of = model(apart=2.0)
    one, two, other = (utterance(of, torch.randn(D).double(), frames)[0] for frames in (7, 11, 5))
    stats, _ = gather(of, [one, other, two])
    speakers = of.extract(stats.grouped([0, 1, 0]))
    np.testing.assert_allclose(speakers[0], of(torch.cat([one, two])), rtol=1e-5)
    np.testing.assert_allclose(speakers[1], of(other), rtol=1e-5)


def test_vectors_of_a_store_are_by_utterance_or_of_all_that_its_speaker_said(tmp_path: Path) -> None:
    of = model(apart=2.0)
    said = [utterance(of, torch.randn(D).double(), frames)[0].float().numpy() for frames in (7, 11, 5)]
    frames = np.array([len(feats) for feats in said])
    means = np.stack([feats.mean(0) for feats in said])
    store = FeatureStore(
        tmp_path,
        Features(),
        ("a", "b", "c"),
        ("ann", "bob", "ann"),
        ("", "", ""),
        frames,
        np.concatenate(said),
        means,
    )
    alone, shared = vectors_of(of, store), vectors_of(of, store, "speaker")
    assert list(alone) == list(shared) == ["a", "b", "c"]
    np.testing.assert_array_equal(alone["b"], of(said[1]))
    np.testing.assert_allclose(shared["a"], of(np.concatenate([said[0], said[2]])), rtol=1e-4)
    np.testing.assert_array_equal(shared["a"], shared["c"])
    np.testing.assert_array_equal(shared["b"], alone["b"])
    with pytest.raises(ValueError, match="i-vectors by 'word': expected 'utterance' or 'speaker'"):
        vectors_of(of, store, "word")  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [1, 2, 10, 11, 20, 21, 34])
def test_online_vectors_are_offline_vectors_of_the_past(frames: int) -> None:
    of = model(apart=2.0, settings=replace(PLAIN, posterior_scale=0.1, max_count=2.0))
    feats, earlier = (utterance(of, torch.randn(D).double(), n)[0] for n in (frames, 15))
    found = of.online(feats)
    assert found.shape == (-(-frames // 10), D)
    for row, vector in enumerate(found):
        np.testing.assert_allclose(vector, of(feats[: 10 * row + 1]), rtol=1e-4, atol=1e-6)
    future = feats.clone()
    future[frames // 2 :] += 7
    past = (frames // 2 - 1) // 10 + 1 if frames > 1 else 0
    np.testing.assert_array_equal(of.online(future)[:past], found[:past])
    carried = of.online(feats, before=of.stats(earlier))
    np.testing.assert_allclose(carried[-1], of(torch.cat([earlier, feats[: 10 * len(found) - 9]])), rtol=1e-4)


def test_less_evidence_is_nearer_to_the_prior() -> None:
    of = model()
    feats, _ = utterance(of, torch.full((D,), 2.0).double(), 50)
    scaled = IVectorExtractor(replace(PLAIN, posterior_scale=0.1), of.ubm, of.means, of.covs, of.loadings)
    capped = IVectorExtractor(replace(PLAIN, max_count=5.0), of.ubm, of.means, of.covs, of.loadings)
    assert np.linalg.norm(scaled(feats)) < np.linalg.norm(of(feats))
    np.testing.assert_allclose(capped(feats), scaled(feats), rtol=1e-5)


def test_extractors_and_vectors_survive_their_files(tmp_path: Path) -> None:
    of = model(full=True)
    feats, _ = utterance(of, torch.randn(D).double(), 9)
    of.save(tmp_path / "ivectors.npz")
    again = IVectorExtractor.load(tmp_path / "ivectors.npz")
    assert again.settings == of.settings
    np.testing.assert_array_equal(again(feats), of(feats))
    vectors = {"u1": of(feats), "u2": -of(feats)}
    save_vectors(tmp_path / "vectors.npz", vectors)
    back = load_vectors(tmp_path / "vectors.npz")
    assert list(back) == ["u1", "u2"] and np.array_equal(back["u2"], vectors["u2"])
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["ivectors.npz", "vectors.npz"]


def test_wrong_files_and_settings_are_refused(tmp_path: Path) -> None:
    save_vectors(tmp_path / "vectors.npz", {"u1": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="vectors.npz: not an i-vector extractor"):
        IVectorExtractor.load(tmp_path / "vectors.npz")
    model().save(tmp_path / "ivectors.npz")
    with pytest.raises(ValueError, match="ivectors.npz: not a file of i-vectors"):
        load_vectors(tmp_path / "ivectors.npz")
    for content in (b"", b"hello", (tmp_path / "ivectors.npz").read_bytes()[:300]):
        (tmp_path / "cut.npz").write_bytes(content)
        with pytest.raises(ValueError, match="cut.npz: not an npz file, or cut short"):
            IVectorExtractor.load(tmp_path / "cut.npz")
    with pytest.raises(ValueError, match="sizes and iterations are 1 or more"):
        IVectorSettings(dim=0)
    with pytest.raises(ValueError, match="posterior_scale lies in 0 … 1"):
        IVectorSettings(posterior_scale=0)
    with pytest.raises(ValueError, match="1 utterances to train i-vectors on"):
        train_ivectors([np.zeros((50, F), np.float32)], PLAIN, torch.Generator())
