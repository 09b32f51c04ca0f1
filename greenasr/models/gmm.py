"""Diagonal-covariance Gaussian mixtures of all pdfs, as one table of Gaussians sorted by pdf.

    log p(x | pdf) = log Σ_{g of pdf} exp( c_g + (μ_g/σ²_g)·x - ½ (1/σ²_g)·x² )
    c_g            = log w_g - ½ Σ_d (log 2πσ²_gd + μ²_gd / σ²_gd)
    EM             w_g ∝ n_g,  μ_g = Σ γ x / n_g,  σ²_g = max(Σ γ x² / n_g - μ²_g, floor)

γ is a Gaussian's share of a frame among those of the frame's own pdf.  One matrix product scores all
Gaussians; sums over a mixture are `numpy.ufunc.reduceat` along the sorted table.  Dempster et al. 1977;
mixing up by splitting the heaviest Gaussian, with occupation^0.25 sharing them out, as in Young et al.,
"The HTK Book", §10.6, and Kaldi's gmm-init and gmm-est.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Feats = npt.NDArray[np.float32]

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted count (K,), sum of x (K, F) and sum of x² (K, F) of K classes, and Σ log p of the frames."""

    count: Floats
    first: Floats
    second: Floats
    logprob: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of frames."""
        return Moments(
            self.count + other.count,
            self.first + other.first,
            self.second + other.second,
            self.logprob + other.logprob,
        )

    @classmethod
    def zeros(cls, classes: int, dim: int) -> Moments:
        """The moments of no frames, (K,), (K, F), (K, F)."""
        return cls(np.zeros(classes), np.zeros((classes, dim)), np.zeros((classes, dim)))


def moments(feats: Feats, label: npt.NDArray[np.integer], classes: int) -> Moments:
    """Moments of labelled frames, (T, F) and labels (T,) below K -> K classes.

    >>> found = moments(np.array([[1.0], [2.0], [4.0]], np.float32), np.array([1, 0, 1]), 2)
    >>> found.count.tolist(), found.first.tolist(), found.second.tolist()
    ([1.0, 2.0], [[2.0], [5.0]], [[4.0], [17.0]])
    """
    total = Moments.zeros(classes, feats.shape[1])
    if len(label):
        order = np.argsort(label, kind="stable")
        seen, start = np.unique(label[order], return_index=True)
        frames = feats[order].astype(np.float64)
        total.count[seen] = np.diff(start, append=len(label))
        total.first[seen] = np.add.reduceat(frames, start, axis=0)
        total.second[seen] = np.add.reduceat(frames * frames, start, axis=0)
    return total


@dataclass(frozen=True, eq=False)
class Gmm:
    """G Gaussians of C pdfs: owner ``pdf`` (G,) ascending, ``log_weight`` (G,), ``mean``, ``var`` (G, F)."""

    pdf: Ints
    log_weight: Floats
    mean: Floats
    var: Floats

    @classmethod
    def single(cls, found: Moments, floor: Floats) -> Gmm:
        """One Gaussian a class by maximum likelihood; a class without frames gets those of all.

        >>> found = Moments(np.array([2.0, 0.0]), np.array([[2.0], [0]]), np.array([[10.0], [0]]))
        >>> Gmm.single(found, np.array([0.1])).var.tolist()
        [[4.0], [4.0]]
        """
        if not found.count.sum() > 0:
            raise ValueError(
                "no frames to make Gaussians of. Give at least one utterance with its transcript."
            )
        empty = (found.count <= 0)[:, None]
        count = np.where(empty, found.count.sum(), found.count[:, None])
        mean = np.where(empty, found.first.sum(0), found.first) / count
        var = np.where(empty, found.second.sum(0), found.second) / count - mean**2
        classes = len(found.count)
        return cls(np.arange(classes), np.zeros(classes), mean, np.maximum(var, floor))

    @property
    def n_pdfs(self) -> int:
        """C, the number of mixtures."""
        return int(self.pdf[-1]) + 1

    @cached_property
    def first(self) -> Ints:
        """Row of each pdf's first Gaussian, and G, (C + 1,)."""
        return np.searchsorted(self.pdf, np.arange(self.n_pdfs + 1))

    @cached_property
    def _centre(self) -> Floats:
        """Where features are measured from, (F,): float32 then loses nothing to a large mean."""
        return self.mean.mean(0).astype(np.float32).astype(np.float64)

    @cached_property
    def _constant(self) -> Floats:
        mean = self.mean - self._centre
        return self.log_weight - 0.5 * (LOG_2PI + np.log(self.var) + mean**2 / self.var).sum(1)

    @cached_property
    def _linear(self) -> Floats:
        """Weights on (x, x²), (G, 2F)."""
        precision = 1 / self.var
        return np.hstack([(self.mean - self._centre) * precision, -0.5 * precision])

    @cached_property
    def _single_linear(self) -> Feats:
        return self._linear.astype(np.float32)

    def _check(self, feats: Feats) -> None:
        if feats.ndim != 2 or feats.shape[1] != self.mean.shape[1]:
            raise ValueError(
                f"features are {feats.shape}, the mixtures were made for (T, {self.mean.shape[1]}). "
                "Use the features that the mixtures were trained on."
            )

    def logprobs(self, feats: Feats, pdfs: Ints | None = None) -> Feats:
        """Natural log p(x_t | pdf), (T, F) -> (T, C), or (T, len(pdfs)) for the pdfs asked for."""
        self._check(feats)
        counts = np.diff(self.first)
        if pdfs is None:
            rows = np.arange(len(self.pdf))
        else:
            counts = counts[pdfs]
            ends = np.cumsum(counts)
            rows = np.arange(ends[-1]) + np.repeat(self.first[pdfs] - (ends - counts), counts)
        start = np.cumsum(counts) - counts
        x = (feats - self._centre.astype(np.float32)).T
        each = self._single_linear[rows] @ np.vstack([x, x * x])
        each += self._constant[rows, None].astype(np.float32)
        top = np.maximum.reduceat(each, start, axis=0)
        each -= np.repeat(top, counts, axis=0)
        np.exp(each, out=each)
        return (top + np.log(np.add.reduceat(each, start, axis=0))).T

    def statistics(self, feats: Feats, pdf: npt.NDArray[np.integer]) -> Moments:
        """E-step: moments of every Gaussian from frames (T, F) and the pdf of each, (T,)."""
        self._check(feats)
        total = Moments.zeros(len(self.pdf), feats.shape[1])
        order = np.argsort(pdf, kind="stable")
        frames = feats[order].astype(np.float64)
        centred = frames - self._centre
        powers = np.hstack([centred, centred * centred])
        seen, start = np.unique(pdf[order], return_index=True)
        logprob = 0.0
        for c, low, high in zip(seen, start, [*start[1:], len(pdf)], strict=True):
            mixture = slice(self.first[c], self.first[c + 1])
            each = powers[low:high] @ self._linear[mixture].T + self._constant[mixture]
            top = each.max(1, keepdims=True)
            share = np.exp(each - top)
            norm = share.sum(1, keepdims=True)
            logprob += float((top + np.log(norm)).sum())
            share /= norm
            x = frames[low:high]
            total.count[mixture] = share.sum(0)
            total.first[mixture] = share.T @ x
            total.second[mixture] = share.T @ (x * x)
        return Moments(total.count, total.first, total.second, logprob)

    def updated(self, found: Moments, floor: Floats, min_count: float = 3.0) -> Gmm:
        """M-step, with variances of at least ``floor`` (F,).

        A Gaussian of fewer than ``min_count`` frames is dropped; the heaviest of each pdf stays, and keeps
        its old mean and variance where it too has fewer.
        """
        heaviest = np.zeros(len(self.pdf), bool)
        order = np.lexsort((-found.count, self.pdf))
        heaviest[order[self.first[:-1]]] = True
        fed = found.count >= max(min_count, 1e-8)
        keep = fed | heaviest
        count = np.where(fed, found.count, 1.0)[:, None]
        mean = np.where(fed[:, None], found.first / count, self.mean)
        var = np.where(fed[:, None], np.maximum(found.second / count - mean**2, floor), self.var)
        weight = np.where(fed, found.count, 1e-8)[keep]
        pdf = self.pdf[keep]
        total = np.bincount(pdf, weight, self.n_pdfs)
        return Gmm(pdf, np.log(weight / total[pdf]), mean[keep], var[keep])

    def mixed_up(
        self,
        target: int,
        occupation: Floats,
        generator: np.random.Generator,
        power: float = 0.25,
        min_count: float = 20.0,
        spread: float = 0.1,
    ) -> Gmm:
        """Split Gaussians until there are ``target``, or until each has fewer than ``min_count`` frames.

        The next split goes to the pdf with the largest ``occupation``^power (C,) a Gaussian, there to the
        heaviest Gaussian: μ ± ``spread`` σ z with z standard normal, half the weight each.
        """
        size = np.diff(self.first)
        queue = [
            (-(occupation[c] ** power) / size[c], c)
            for c in range(self.n_pdfs)
            if occupation[c] >= min_count * (size[c] + 1)
        ]
        heapq.heapify(queue)
        wanted = size.copy()
        for _ in range(target - len(self.pdf)):
            if not queue:
                break
            c = heapq.heappop(queue)[1]
            wanted[c] += 1
            if occupation[c] >= min_count * (wanted[c] + 1):
                heapq.heappush(queue, (-(occupation[c] ** power) / wanted[c], c))
        added: list[Gmm] = []
        log_weight, mean = self.log_weight.copy(), self.mean.copy()
        for c in map(int, np.flatnonzero(wanted > size)):
            rows = slice(self.first[c], self.first[c + 1])
            weights, means, variances = list(log_weight[rows]), list(mean[rows]), list(self.var[rows])
            while len(weights) < wanted[c]:
                g = int(np.argmax(weights))
                shift = spread * np.sqrt(variances[g]) * generator.standard_normal(self.mean.shape[1])
                weights[g] -= np.log(2)
                weights.append(weights[g])
                means.append(means[g] - shift)
                means[g] = means[g] + shift
                variances.append(variances[g])
            log_weight[rows], mean[rows] = weights[: size[c]], means[: size[c]]
            new = np.full(wanted[c] - size[c], c)
            added.append(Gmm(new, *(np.array(v[size[c] :]) for v in (weights, means, variances))))
        pdf = np.concatenate([self.pdf, *(new.pdf for new in added)])
        order = np.argsort(pdf, kind="stable")
        return Gmm(
            pdf[order],
            np.concatenate([log_weight, *(new.log_weight for new in added)])[order],
            np.concatenate([mean, *(new.mean for new in added)])[order],
            np.concatenate([self.var, *(new.var for new in added)])[order],
        )

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for `numpy.savez`; `from_arrays` reads them back exactly."""
        return {"pdf": self.pdf, "log_weight": self.log_weight, "mean": self.mean, "var": self.var}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Gmm:
        """The mixtures that `arrays` gave."""
        return cls(
            arrays["pdf"].astype(np.int64),
            *(arrays[name].astype(np.float64) for name in ("log_weight", "mean", "var")),
        )
