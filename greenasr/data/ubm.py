"""Universal background model: one Gaussian mixture of all speech, by EM.

    log p(x) = log Σ_c w_c N(x; m_c, Σ_c)
    γ_tc     = w_c N(x_t; m_c, Σ_c) / p(x_t)
    w_c ∝ n_c = Σ_t γ_tc,   m_c = Σ_t γ_tc x_t / n_c,   Σ_c = Σ_t γ_tc x_t x_tᵀ / n_c - m_c m_cᵀ

Covariances are diagonal (C, F) or full (C, F, F).  Reynolds et al. 2000, "Speaker verification using adapted
Gaussian mixture models".  It says which sound a frame is, without words; i-vectors then say how this
speaker's version of each sound differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import log, pi

import torch
from torch import Tensor

CHUNK = 4_000_000  # numbers held at once while frames are scored
FLOOR = 0.01  # least (co)variance, as a share of that of all frames
FEWEST = 3.0  # frames a Gaussian must own to be moved, a dimension's worth for full covariances


@dataclass(frozen=True, eq=False)
class Ubm:
    """``weights`` (C,), ``means`` (C, F), ``covs`` (C, F) or (C, F, F); all float64."""

    weights: Tensor
    means: Tensor
    covs: Tensor

    @property
    def full(self) -> bool:
        """Whether covariances are full."""
        return self.covs.dim() == 3

    def __len__(self) -> int:
        """C, the number of Gaussians."""
        return len(self.weights)

    @cached_property
    def _whitening(self) -> tuple[Tensor, Tensor]:
        """A_c with A_c Σ_c A_cᵀ = I, (C, F) or (C, F, F), and log w_c - ½ log |2πΣ_c|, (C,)."""
        if self.full:
            lower = torch.linalg.cholesky(self.covs)
            half_logdet = lower.diagonal(dim1=1, dim2=2).log().sum(1)
            eye = torch.eye(self.means.shape[1], dtype=lower.dtype).expand_as(lower)
            white = torch.linalg.solve_triangular(lower, eye, upper=False)
        else:
            half_logdet, white = 0.5 * self.covs.log().sum(1), self.covs.rsqrt()
        return white, self.weights.log() - half_logdet - 0.5 * self.means.shape[1] * log(2 * pi)

    def _logprobs(self, feats: Tensor) -> Tensor:
        """Log w_c N(x_t; m_c, Σ_c), (T, F) -> (T, C), in the precision of ``feats``."""
        white, constant = (each.to(feats) for each in self._whitening)
        centre = self.means.mean(0)  # float32 then loses nothing to a large common mean
        x, m = feats - centre.to(feats), (self.means - centre).to(feats)
        if self.full:
            count, dim = m.shape
            shifted = torch.einsum("cij,cj->ci", white, m)
            y = x @ white.reshape(count * dim, dim).T - shifted.reshape(-1)
            return constant - 0.5 * y.view(-1, count, dim).square().sum(2)
        precision = white.square()
        linear = x @ (m * precision).T - 0.5 * x.square() @ precision.T
        return constant - 0.5 * (m.square() * precision).sum(1) + linear

    def posteriors(self, feats: Tensor) -> tuple[Tensor, Tensor]:
        """γ (T, C) and log p(x_t) (T,) of frames (T, F), natural logarithms."""
        if feats.dim() != 2 or feats.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"features are {tuple(feats.shape)}, the background model was made for "
                f"(T, {self.means.shape[1]}): use the features that it was trained on."
            )
        per_frame = len(self) * (self.means.shape[1] if self.full else 1)
        scores = torch.cat([self._logprobs(each) for each in _chunks(feats, per_frame)])
        total = scores.logsumexp(1)
        return (scores - total[:, None]).exp(), total


def moments(ubm: Ubm, feats: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Σ γ (C,), Σ γ x (C, F), Σ γ x² (C, F) or Σ γ x xᵀ (C, F, F), in float64, and Σ log p(x)."""
    count, first, second = (torch.zeros_like(each) for each in (ubm.weights, ubm.means, ubm.covs))
    total = 0.0
    per_frame = max(len(ubm), feats.shape[1] ** 2) if ubm.full else len(ubm)
    for each in _chunks(feats, per_frame):
        gamma, logprob = ubm.posteriors(each)
        gamma, x = gamma.double(), each.double()
        powers = torch.einsum("ti,tj->tij", x, x).flatten(1) if ubm.full else x.square()
        count += gamma.sum(0)
        first += gamma.T @ x
        second += (gamma.T @ powers).view_as(second)
        total += float(logprob.double().sum())
    return count, first, second, total


def floored(covs: Tensor, floor: Tensor) -> Tensor:
    """Covariances (C, F) or (C, F, F) that are nowhere below the variances ``floor`` (F,).

    Full ones have the eigenvalues of D^-½ Σ D^-½, D = diag(floor), raised to 1.

    >>> floored(torch.tensor([[4.0, 0.1]]), torch.ones(2)).tolist()
    [[4.0, 1.0]]
    """
    if covs.dim() == 2:
        return torch.maximum(covs, floor)
    root = floor.sqrt()
    values, vectors = torch.linalg.eigh(covs / root / root[:, None])
    if bool((values >= 1).all()):
        return covs
    raised = (vectors * values.clamp(min=1)[:, None]) @ vectors.mT
    return raised * root * root[:, None]


def em_step(ubm: Ubm, feats: Tensor, floor: Tensor) -> tuple[Ubm, float]:
    """One step of EM on frames (T, F), and the mean log p(x) before it.

    A Gaussian that owns hardly any frame keeps its mean and covariance.  The likelihood never falls
    as long as no covariance is raised to the floor.
    """
    count, first, second, total = moments(ubm, feats)
    fed = count > (feats.shape[1] if ubm.full else FEWEST)
    n = torch.where(fed, count, 1)[:, None]
    means = torch.where(fed[:, None], first / n, ubm.means)
    if ubm.full:
        covs = second / n[:, None] - means[:, :, None] * means[:, None]
        covs = torch.where(fed[:, None, None], floored(covs, floor), ubm.covs)
    else:
        covs = torch.where(fed[:, None], floored(second / n - means.square(), floor), ubm.covs)
    weights = count.clamp(min=1e-6) / count.clamp(min=1e-6).sum()
    return Ubm(weights, means, covs), total / len(feats)


def train_ubm(
    feats: Tensor,
    gaussians: int,
    generator: torch.Generator,
    *,
    full: bool = False,
    iterations: int = 20,
    progress: Callable[[int, int, float], None] | None = None,
) -> Ubm:
    """A mixture of ``gaussians`` of frames (T, F), from as many random frames with the variance of all.

    ``full`` covariances start from the diagonal ones and get four more steps.  ``progress`` (done, of, mean
    log p(x) before the step).  Raises ValueError for too few frames or values that are not finite.
    """
    if gaussians < 1 or len(feats) < 10 * gaussians:
        raise ValueError(
            f"{len(feats):,} frames for {gaussians} Gaussians: at least one Gaussian and ten frames each are "
            "needed; take fewer Gaussians or more speech."
        )
    if not bool(torch.isfinite(feats).all()):
        raise ValueError("features for the background model are not finite: extract them again.")
    variance = torch.var(feats.double(), 0, correction=0).clamp(min=1e-6)
    start = feats[torch.randperm(len(feats), generator=generator)[:gaussians]].double()
    ubm = Ubm(torch.full((gaussians,), 1 / gaussians).double(), start, variance.expand_as(start).clone())
    steps = iterations + (4 if full else 0)
    for step in range(steps):
        if step == iterations:
            ubm = Ubm(ubm.weights, ubm.means, torch.diag_embed(ubm.covs))
        ubm, logprob = em_step(ubm, feats, FLOOR * variance)
        if progress is not None:
            progress(step + 1, steps, logprob)
    return ubm


def _chunks(feats: Tensor, per_frame: int) -> Iterator[Tensor]:
    """Stretches of frames so short that ``per_frame`` numbers each stay within `CHUNK`."""
    yield from feats.split(max(1, CHUNK // per_frame))
