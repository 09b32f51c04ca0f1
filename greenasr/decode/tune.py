"""Minimum error rate training: log-linear weights that make the fewest errors on a set of N-best lists.

    best(u; w) = argmax_j  w · f(u, j)                    the hypothesis that a list shows
    E(w)       = Σ_u errors(u, best(u; w))                 what is minimised

Along a line w + γ d every hypothesis scores a + γ b, a list's best is the upper envelope of those lines,
and E is constant between its corners: sorting the corners of all lists gives the exact minimum over γ.
Lines are tried along every weight and along random directions until none helps, from the first pass alone
and from random starts.  Och 2003, "Minimum error rate training in statistical machine translation", §4–5;
rescoring weights with it: e.g. MPLM §5.  Feature 0, the first pass, keeps weight 1, which loses nothing
but weights of 0 or below for it, since only the ratios count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from greenasr.decode.ngram import Bools, Floats

TINY = 1e-6  # of an error: less is no improvement
Progress = Callable[[int, int], None]  # done, of
NARROW = 1e-7  # an interval of γ shorter than this times |γ| is a rounding error


@dataclass(frozen=True, eq=False)
class Lists:
    """Lists as padded arrays: ``features`` (U, H, K), ``errors`` (U, H); padding has ``valid`` False."""

    features: Floats
    errors: Floats
    valid: Bools

    @classmethod
    def of(cls, features: Sequence[Floats], errors: Sequence[Floats]) -> Lists:
        """Pad lists of (H_u, K) features and (H_u,) error counts."""
        if not features or len(features) != len(errors):
            raise ValueError(
                f"{len(features)} lists of features and {len(errors)} of errors, expected the same number, "
                "at least one. Tune on lists that have references."
            )
        shape = len(features), max(len(f) for f in features), features[0].shape[1]
        padded, wrong, valid = np.zeros(shape), np.zeros(shape[:2]), np.zeros(shape[:2], bool)
        for u, (f, e) in enumerate(zip(features, errors, strict=True)):
            padded[u, : len(f)], wrong[u, : len(e)], valid[u, : len(f)] = f, e, True
        return cls(padded, wrong, valid)

    def best(self, weights: Floats) -> npt.NDArray[np.int64]:
        """Index of the best hypothesis of every list, the earlier one of equals, (U,)."""
        totals: Floats = np.where(self.valid, self.features @ weights, -np.inf)
        return totals.argmax(axis=1)

    def total(self, weights: Floats) -> float:
        """E(w): errors of the best hypotheses together."""
        return float(np.take_along_axis(self.errors, self.best(weights)[:, None], 1).sum())


def line_errors(lists: Lists, weights: Floats, direction: Floats) -> tuple[Floats, Floats]:
    """E(w + γ d) as a step function: corners γ_1 < … < γ_B, (B,), and the errors around them, (B + 1,)."""
    a = np.where(lists.valid, lists.features @ weights, -np.inf)
    b = np.where(lists.valid, lists.features @ direction, np.inf)
    steepest_down = np.where(b == b.min(axis=1, keepdims=True), a, -np.inf)
    now = steepest_down.argmax(axis=1)
    b = np.where(lists.valid, b, -np.inf)
    base = float(np.take_along_axis(lists.errors, now[:, None], 1).sum())
    corners, changes = [], []
    left = np.arange(len(a))
    while len(left):
        here = np.arange(len(left))
        steeper = b - b[here, now][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where(steeper > 0, (a[here, now][:, None] - a) / steeper, np.inf)
        gamma = crossing.min(axis=1)
        after = np.where(crossing == gamma[:, None], b, -np.inf).argmax(axis=1)
        more = np.isfinite(gamma)
        corners.append(gamma[more])
        changes.append((lists.errors[left, after] - lists.errors[left, now])[more])
        left, a, b, now = left[more], a[more], b[more], after[more]
    where, change = np.concatenate(corners), np.concatenate(changes)
    order = np.argsort(where, kind="stable")
    where, totals = where[order], base + np.concatenate([[0], np.cumsum(change[order])])
    last = np.append(where[1:] != where[:-1], True)[: len(where)]  # of equal corners only the last counts
    return where[last], np.concatenate([totals[:1], totals[1:][last]])


def line_search(
    lists: Lists, weights: Floats, direction: Floats, lowest: Floats | None = None
) -> tuple[float, float]:
    """γ of the fewest errors and their number; 0 if none is better, else the middle of the widest interval.

    ``lowest`` (K,) are the smallest weights allowed; ``weights`` must be allowed.
    """
    corners, totals = line_errors(lists, weights, direction)
    current = lists.total(weights)
    if not len(corners):
        return 0.0, current
    margin = max(1e-3, 0.1 * (corners[-1] - corners[0]))
    edges = np.concatenate([[corners[0] - margin], corners, [corners[-1] + margin]])
    if lowest is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds = (lowest - weights) / direction
        least = np.max(bounds[direction > 0], initial=-np.inf)
        most = np.min(bounds[direction < 0], initial=np.inf)
        edges = np.clip(edges, min(least, 0.0), max(most, 0.0))
    width, middle = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    width[[0, -1]] /= 2  # how far these go is not known
    real = width > NARROW * np.maximum(1, np.abs(middle))
    totals = np.where(real, totals, np.inf)
    if totals.min() > current - TINY:
        return 0.0, current
    at = int(np.where(totals < totals.min() + TINY, width, 0).argmax())
    return float(middle[at]), float(totals[at])


def tune(
    features: Sequence[Floats],
    errors: Sequence[Floats],
    lowest: Sequence[float] | None = None,
    starts: int = 8,
    directions: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Floats:
    """Weights (K,) of the fewest errors found, ``weights[0]`` being 1; never more errors than (1, 0, …, 0).

    ``features`` holds (H_u, K) and ``errors`` (H_u,) for each list, first-pass order; ``lowest`` (K,)
    are the smallest weights allowed, 0 or below (e.g. 0 for a language model), by default none.  Of weights
    with equally few errors those win that lie nearest to the first pass alone, measured in feature spreads.
    """
    lists = Lists.of(features, errors)
    k = lists.features.shape[2]
    generator = np.random.default_rng(seed)
    least = np.full(k, -np.inf) if lowest is None else np.asarray(lowest, np.float64)
    centred = np.concatenate([f - f.mean(axis=0) for f in features])
    spread = np.sqrt((centred**2).mean(axis=0))
    scale = np.where(spread > 0, max(spread[0], 1e-9) / np.where(spread > 0, spread, 1), 0.0)
    alone = np.zeros(k)
    alone[0] = 1.0
    best = (lists.total(alone), 0.0, alone)
    for start in range(starts):
        weights = alone.copy()
        if start:
            weights[1:] = scale[1:] * generator.normal(size=k - 1) * 10 ** generator.uniform(-1, 1)
            weights = np.where(least == 0, np.abs(weights), np.maximum(weights, least))
        found = lists.total(weights)
        while True:
            lines = [scale * np.eye(k)[i] for i in range(1, k) if scale[i] > 0]
            for _ in range(directions if k > 2 else 0):
                line = scale * generator.normal(size=k)
                line[0] = 0.0
                lines.append(line)
            tries = [(line_search(lists, weights, line, least), line) for line in lines]
            (gamma, _), line = min(tries, key=lambda t: t[0][1], default=((0.0, found), alone))
            moved = weights + gamma * line
            if lists.total(moved) > found - TINY:
                break
            weights, found = moved, lists.total(moved)
        length = float(np.linalg.norm(weights[1:] / np.where(scale[1:] > 0, scale[1:], 1)))
        best = min(best, (found, length, weights), key=lambda b: b[:2])
        if progress is not None:
            progress(start + 1, starts)
    return best[2]


def gains_on_unseen(
    features: Sequence[Floats],
    errors: Sequence[Floats],
    lowest: Sequence[float] | None = None,
    folds: int = 5,
    starts: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Floats:
    """Errors saved against the first pass on each list by weights tuned without its fold, (U,).

    A few hundred short lists can be fitted by chance: the errors that tuning saves where it looks say little,
    those that it saves where it does not look decide whether to use it.
    """
    saved = np.zeros(len(features))
    for fold in range(folds):
        seen = [u for u in range(len(features)) if u % folds != fold]
        unseen = [u for u in range(len(features)) if u % folds == fold]
        if seen and unseen:
            weights = tune(
                [features[u] for u in seen], [errors[u] for u in seen], lowest, starts=starts, seed=seed
            )
            for u in unseen:
                saved[u] = errors[u][0] - errors[u][int(np.argmax(features[u] @ weights))]
        if progress is not None:
            progress(fold + 1, folds)
    return saved


def z_of_gain(saved: Floats) -> float:
    """Sum over its standard error of errors saved on independent lists; 0 when none is saved or lost.

    >>> z_of_gain(np.array([1.0, 0.0, 1.0, 0.0]))
    2.0
    """
    spread = float(saved.std()) * len(saved) ** 0.5
    return float(saved.sum()) / spread if spread > 0 else 0.0
