"""Training the loadings of i-vectors by EM, with minimum divergence.

    T_c = (Σ_u f_uc E[w_u]ᵀ) (Σ_u n_uc E[w_u w_uᵀ])⁻¹             over utterances u; symbols as in ivectors.py
    Σ_c = (S_c - T_c Σ_u E[w_u] f_ucᵀ) / Σ_u n_uc                 S_c: second moments around m_c
    m_c += T_c w̄,   T_c ← T_c P^½                                 so that w is N(0, I) over the training set
    log p(x | γ) = Σ_u (½ b_uᵀ E[w_u] - ½ log |L_u|) - ½ Σ_c (n_c log |2πΣ_c| + tr Σ_c⁻¹ S_c)

w̄ and P are the mean and covariance of w over utterances, b_u = L_u E[w_u].  Kenny et al. 2005, "Eigenvoice
modeling with sparse training data"; minimum divergence: Kenny et al. 2008, "A study of interspeaker
variability in speaker verification".  γ stay as the background model has them; the likelihood never falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import log, pi

import torch
from torch import Tensor

from greenasr.data.features import Feats
from greenasr.data.ivectors import ROWS, IVectorExtractor, IVectorSettings, Stats
from greenasr.data.ubm import FLOOR, floored, moments, train_ubm

Progress = Callable[[str, int, int, float], None]


def gather(model: IVectorExtractor, utterances: Sequence[Feats | Tensor]) -> tuple[Stats, Tensor]:
    """Statistics (U, C), (U, C, F), and Σ γ x xᵀ over all utterances, as the covariances; scaled."""
    counts, sums, second = [], [], torch.zeros_like(model.covs)
    for feats in utterances:
        count, first, square, _ = moments(model.ubm, torch.as_tensor(feats))
        counts.append(count)
        sums.append(first)
        second += square
    scale = model.settings.posterior_scale
    return Stats(torch.stack(counts) * scale, torch.stack(sums) * scale), second * scale


def centred_second(second: Tensor, stats: Stats, means: Tensor) -> Tensor:
    """S_c = Σ γ (x - m_c)(x - m_c)ᵀ from Σ γ x xᵀ, (C, F) -> (C, F) or the same full."""
    count, first = stats.counts.sum(0), stats.sums.sum(0)
    if second.dim() == 2:
        return second - 2 * first * means + count[:, None] * means.square()
    cross = first[:, :, None] * means[:, None]
    square = means[:, :, None] * means[:, None]
    return second - cross - cross.mT + count[:, None, None] * square


def _gain(mean: Tensor, precision: Tensor, linear: Tensor) -> float:
    """What w adds to the likelihood, Σ_u (½ b_uᵀ E[w_u] - ½ log |L_u|)."""
    return float(0.5 * (mean * linear).sum() - 0.5 * torch.linalg.slogdet(precision)[1].sum())


def _logprob_at_zero(model: IVectorExtractor, stats: Stats, second: Tensor) -> float:
    """Log p(x | γ, w = 0)."""
    count, dim = stats.counts.sum(0), model.means.shape[1]
    around = centred_second(second, stats, model.means)
    if model.covs.dim() == 3:
        logdet = torch.linalg.slogdet(model.covs)[1]
        trace = torch.linalg.solve(model.covs, around).diagonal(dim1=1, dim2=2).sum()
    else:
        logdet, trace = model.covs.log().sum(1), (around / model.covs).sum()
    return float(-0.5 * (count * (dim * log(2 * pi) + logdet)).sum() - 0.5 * trace)


def em_step(
    model: IVectorExtractor, stats: Stats, second: Tensor, floor: Tensor
) -> tuple[IVectorExtractor, float]:
    """One step on what `gather` gave, no variance below ``floor`` (F,), and log p(x | γ) before it.

    The likelihood never falls where no floor is met and ``max_count`` is 0.  A Gaussian that owns less than
    one (scaled) frame keeps what it has.
    """
    count, dim = stats.counts.sum(0), model.loadings.shape[2]
    outer = torch.zeros(len(count), dim * dim, dtype=torch.float64)  # Σ_u n_uc E[w wᵀ]
    cross = torch.zeros_like(model.loadings)  # Σ_u f_uc E[w]ᵀ
    logprob = _logprob_at_zero(model, stats, second)
    total, square = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64)
    for counts, sums in zip(stats.counts.split(ROWS), stats.sums.split(ROWS), strict=True):
        mean, precision, linear = model.posterior(Stats(counts, sums))
        logprob += _gain(mean, precision, linear)
        expected = torch.linalg.inv(precision) + mean[:, :, None] * mean[:, None]
        centred = sums - counts[:, :, None] * model.means
        outer += counts.T @ expected.flatten(1)
        cross += (centred.flatten(1).T @ mean).view_as(cross)
        total += mean.sum(0)
        square += expected.sum(0)
    fed = count > 1.0
    solvable = torch.where(fed[:, None, None], outer.view(-1, dim, dim), torch.eye(dim, dtype=outer.dtype))
    loadings = torch.linalg.solve(solvable, cross.mT).mT
    loadings = torch.where(fed[:, None, None], loadings, model.loadings)
    around = centred_second(second, stats, model.means)
    n = torch.where(fed, count, 1)
    if around.dim() == 3:
        explained = loadings @ cross.mT
        covs = floored((around - 0.5 * (explained + explained.mT)) / n[:, None, None], floor)
        covs = torch.where(fed[:, None, None], covs, model.covs)
    else:
        covs = floored((around - (loadings * cross).sum(2)) / n[:, None], floor)
        covs = torch.where(fed[:, None], covs, model.covs)
    centre = total / len(stats.counts)
    spread = torch.linalg.cholesky(square / len(stats.counts) - centre[:, None] * centre)
    means = model.means + loadings @ centre
    return IVectorExtractor(model.settings, model.ubm, means, covs, loadings @ spread), logprob


def train_ivectors(
    feats: Iterable[Feats],
    settings: IVectorSettings,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> IVectorExtractor:
    """Background model and loadings from utterances before CMVN, (T, F) each.

    The background model sees ``max_frames`` random frames.  Statistics of all utterances stay in memory,
    8 C (F + 1) bytes each: give some ten thousand of a large corpus, not all.  ``progress`` ("ubm" or
    "loadings", done, of, log-likelihood a frame before the step).
    """
    utterances = [torch.as_tensor(each) for each in feats]
    if len(utterances) < 2:
        raise ValueError(f"{len(utterances)} utterances to train i-vectors on: give at least two.")
    frames = torch.cat(utterances)
    pick = torch.randperm(len(frames), generator=generator)[: settings.max_frames]
    told = progress or (lambda stage, done, of, logprob: None)
    ubm = train_ubm(
        frames[pick.sort().values],
        settings.gaussians,
        generator,
        full=settings.full,
        iterations=settings.ubm_iterations,
        progress=lambda done, of, logprob: told("ubm", done, of, logprob),
    )
    del frames
    shape = (*ubm.means.shape, settings.dim)
    spread = (ubm.covs.diagonal(dim1=1, dim2=2) if ubm.full else ubm.covs).sqrt()[:, :, None]
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    model = IVectorExtractor(settings, ubm, ubm.means, ubm.covs, 0.1 * spread * noise)
    stats, second = gather(model, utterances)
    variance = (second if second.dim() == 2 else second.diagonal(dim1=1, dim2=2)).sum(0) / stats.counts.sum()
    variance = variance - (stats.sums.sum((0, 1)) / stats.counts.sum()).square()
    for step in range(settings.iterations):
        model, logprob = em_step(model, stats, second, FLOOR * variance)
        told("loadings", step + 1, settings.iterations, logprob / float(stats.counts.sum()))
    return model
