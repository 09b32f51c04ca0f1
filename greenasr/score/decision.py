"""May a smaller system take another's place?  What its errors on the same utterances can show.

    θ = WER(small) - WER(full) = 100 Σ x_i / Σ w_i       x_i more errors, w_i words of speaker i
    r_i = x_i - θ w_i / 100,   se = 100 / Σw · √(n / (n-1) Σ r_i² + c)        ratio estimate, linearised

*Worse* is what MAPSSWE says, two-sided (`significance`).  *Non-inferior* is tested apart, since "no
difference shown" proves nothing on a small set: H0 is θ >= margin, and is given up where

    p = max( P*(t* <= t), Φ(t) ) < α,     t = (θ - margin) / se,     t* = (θ* - θ) / se*

with stars over draws of whole speakers with replacement: the bootstrap-t (Efron and Tibshirani 1993,
*An Introduction to the Bootstrap*, §12.5), speakers as in Bisani and Ney 2004.  c = (ln α / z_{1-α})² at
α = 0.05 is the rule of three (Hanley and Lippman-Hand 1983): where no word changed the bound on the loss
is 3 words, not none.

With several systems tested on one set, p of non-inferiority is adjusted by Holm 1979 for all that were ever
looked at.  MAPSSWE is not adjusted: that would make it slower to call a system worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.score.errors import by_speaker, knows_speakers, paired_ci95, wer
from greenasr.score.scored import Scored
from greenasr.score.significance import (
    NORMAL,
    Mapsswe,
    mapsswe_of_differences,
    mapsswe_of_ops,
    smallest_detectable,
)

ALPHA = 0.05
RULE_OF_THREE = (math.log(ALPHA) / NORMAL.inv_cdf(1 - ALPHA)) ** 2
LOSSLESS = 0.02  # share of full precision's errors: a loss that could hide there is too large for the word
Floats = NDArray[np.float64]
NOT_WORSE, WORSE, SHOWN, UNDECIDED = "not worse", "worse", "non-inferior", "undecided"


@dataclass(frozen=True)
class Loss:
    """θ in points of WER, its standard error, one-sided 95 % upper bound, and p of H0: θ >= margin."""

    difference: float
    se: float
    upper: float
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """A small system against the full one on the same utterances; rates in percent, the rest in points.

    ``detectable`` is the smallest true loss that the tests would have found four times in five.
    """

    wer_full: float
    wer: float
    difference: float
    ci95: tuple[float, float]
    upper: float
    p_loss: float | None
    mapsswe_p: float
    worse: bool
    better: bool
    detectable: float
    changed: int
    words: int
    units: int

    def within(self, margin: float | None) -> bool:
        """Whether no more words than ``margin`` points are seen to be lost; always without a margin."""
        return margin is None or self.difference <= margin

    @property
    def may_say_lossless(self) -> bool:
        """Whether no loss of over 2 % of the full system's errors could have hidden."""
        return not self.worse and self.detectable <= LOSSLESS * self.wer_full

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"may_say_lossless": self.may_say_lossless}


def loss_by_units(
    more: Floats, words: Floats, margin: float | None, *, seed: int = 0, draws: int = 2000
) -> Loss:
    """The file's head for units (n,): errors more than the full system's, and reference words.

    >>> none = loss_by_units(np.zeros(30), np.full(30, 100.0), 0.1)
    >>> round(none.upper * 3000 / 100, 2), round(none.p, 3)      # the rule of three: 3 words of 3,000
    (3.0, 0.05)
    """
    n, total = len(more), words.sum()
    if n < 2:
        raise ValueError(
            f"found {n} speaker or utterance to draw from, expected at least 2: give a larger set."
        )
    theta, se = _ratio(more, words)
    pick = np.random.default_rng(seed).integers(n, size=(draws, n))
    drawn = pick[words[pick].sum(1) > 0]
    thetas, errors = _ratio(more[drawn], words[drawn])
    t_star = (thetas - theta) / errors
    reach = max(-float(np.quantile(t_star, ALPHA)), NORMAL.inv_cdf(1 - ALPHA))
    upper = float(theta + reach * se)
    if margin is None:
        return Loss(float(theta), float(se), upper, None)
    t = float((theta - margin) / se)
    share = (1 + int((t_star <= t).sum())) / (1 + len(t_star))
    assert total > 0
    return Loss(float(theta), float(se), upper, max(share, NORMAL.cdf(t)))


def _ratio(more: Floats, words: Floats) -> tuple[Any, Any]:
    """θ and se over the last axis, (…, n) -> (…)."""
    n, total = more.shape[-1], words.sum(-1)
    theta = 100 * more.sum(-1) / total
    residuals = more - np.asarray(theta)[..., None] / 100 * words
    return theta, 100 / total * np.sqrt(n / (n - 1) * np.square(residuals).sum(-1) + RULE_OF_THREE)


def holm(ps: Sequence[float], looked: int | None = None) -> list[float]:
    """P adjusted for how many were looked at, Holm 1979; ``looked`` may count more than are given.

        p_(j) -> max_{k <= j} min(1, (m - k + 1) p_(k))

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    m = max(len(ps), looked or 0)
    adjusted, highest = [1.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (m - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def detectable_loss(se: float, alpha: float = ALPHA, power: float = 0.8) -> float:
    """The true loss that a one-sided test at ``alpha`` finds with chance ``power``: (z_{1-α} + z_power) se.

    >>> round(detectable_loss(1.0), 2)
    2.49
    """
    return (NORMAL.inv_cdf(1 - alpha) + NORMAL.inv_cdf(power)) * se


def units_of(full: Sequence[Scored], small: Sequence[Scored]) -> tuple[Floats, Floats]:
    """Errors more and reference words by speaker, else utterance, (n,) each; ValueError for other sets."""
    if [(a.errors.utt_id, a.errors.n_ref) for a in full] != [
        (b.errors.utt_id, b.errors.n_ref) for b in small
    ]:
        raise ValueError("two systems are compared utterance by utterance: score both on the same set.")
    one, two = [a.errors for a in full], [b.errors for b in small]
    groups = [by_speaker(x).values() if knows_speakers(one) else [[e] for e in x] for x in (one, two)]
    more = [sum(e.total for e in b) - sum(e.total for e in a) for a, b in zip(*groups, strict=True)]
    words = [sum(e.n_ref for e in a) for a in groups[0]]
    return np.array(more, np.float64), np.array(words, np.float64)


def matched_pairs(full: Sequence[Scored], small: Sequence[Scored]) -> Mapsswe:
    """MAPSSWE of two systems, A the full one; utterances are the segments where alignments are not known."""
    if all(row.path or not (row.errors.n_ref or row.errors.total) for row in (*full, *small)):
        return mapsswe_of_ops([a.path for a in full], [b.path for b in small], ALPHA)
    pairs = [(a.errors.total, b.errors.total) for a, b in zip(full, small, strict=True)]
    return mapsswe_of_differences([a - b for a, b in pairs if a or b], ALPHA)


def compare(
    full: Sequence[Scored], small: Sequence[Scored], margin: float | None = None, seed: int = 0
) -> Comparison:
    """Everything that the two systems' errors show; ``margin`` in points of WER."""
    more, words = units_of(full, small)
    loss, test = loss_by_units(more, words, margin, seed=seed), matched_pairs(full, small)
    one, two = [a.errors for a in full], [b.errors for b in small]
    total = int(words.sum())
    seen = smallest_detectable(test.segments, test.std, total, power=0.8)
    return Comparison(
        wer_full=wer(one),
        wer=wer(two),
        difference=loss.difference,
        ci95=paired_ci95(one, two, seed),
        upper=loss.upper,
        p_loss=loss.p,
        mapsswe_p=test.p,
        worse=test.better == "a",
        better=test.better == "b",
        detectable=max(seen, detectable_loss(loss.se)),
        changed=sum(a.hyp != b.hyp or a.errors != b.errors for a, b in zip(full, small, strict=True)),
        words=total,
        units=len(words),
    )


def decide(
    found: Mapping[str, Comparison], margin: float | None, *, alpha: float = ALPHA, looked: int | None = None
) -> dict[str, dict[str, Any]]:
    """Name -> verdict and adjusted p.

    Without a margin a system is "worse" or "not worse", as in the papers.  With one it is "non-inferior"
    where the adjusted p is under ``alpha`` and MAPSSWE does not call it worse, "worse" where MAPSSWE does,
    else "undecided": the set is too small.
    """
    if margin is None:
        return {name: {"verdict": WORSE if c.worse else NOT_WORSE, "p": None} for name, c in found.items()}
    adjusted = holm([1.0 if c.p_loss is None else c.p_loss for c in found.values()], looked)
    out = {}
    for (name, c), p in zip(found.items(), adjusted, strict=True):
        verdict = WORSE if c.worse else SHOWN if p < alpha else UNDECIDED
        out[name] = {"verdict": verdict, "p": p}
    return out
