"""Per-word mixture of language models, its weights by expectation-maximization.

    p(w) = Σ_m λ_m p_m(w),    Σ_m λ_m = 1
    λ_m ← mean over words of  λ_m p_m(w) / Σ_k λ_k p_k(w)

The likelihood is concave in λ and never falls from one step to the next.  Jelinek and Mercer 1980;
MPLM §5 interpolates its neural models with a 4-gram this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.decode.ngram import Floats

Logprobs = NDArray[np.floating[Any]]


def interpolate(logprobs: Sequence[Logprobs], weights: Sequence[float] | Floats) -> Floats:
    """Logarithm of Σ_m λ_m exp(logprobs[m]) of every word, M x (L,) -> (L,), natural logarithms.

    >>> interpolate([np.log([0.5, 0.1]), np.log([0.1, 0.5])], [0.5, 0.5]).round(4).tolist()
    [-1.204, -1.204]
    """
    with np.errstate(divide="ignore"):
        parts: Floats = (
            np.stack([np.asarray(p, np.float64) for p in logprobs]) + np.log(np.asarray(weights))[:, None]
        )
    top = parts.max(axis=0)
    mixed: Floats = top + np.log(np.exp(parts - top).sum(axis=0))
    return mixed


def em_weights(logprobs: Sequence[Logprobs], tolerance: float = 1e-7, steps: int = 1000) -> Floats:
    """Weights of the best mixture of M models on a text of L words, M x (L,) -> (M,).

    Stops when the mean log-likelihood grows by less than ``tolerance`` in a step.
    """
    if len({len(p) for p in logprobs}) != 1 or not len(logprobs[0]):
        lengths = ", ".join(str(len(p)) for p in logprobs)
        raise ValueError(
            f"models give probabilities of {lengths or 'no'} words, they should give the same number, "
            "at least one. Score the same text with every model."
        )
    stacked = np.stack([np.asarray(p, np.float64) for p in logprobs])
    top = stacked.max(axis=0)
    if not np.isfinite(top).all():
        at = int(np.argmin(np.isfinite(top)))
        raise ValueError(f"no model gives word {at + 1} a probability above 0. Use models with <unk>.")
    probs = np.exp(stacked - top)
    weights = np.full(len(stacked), 1.0 / len(stacked))
    likelihood = -np.inf
    for _ in range(steps):
        mixed = weights @ probs
        before, likelihood = likelihood, float(np.log(mixed).mean())
        if likelihood - before < tolerance:
            break
        weights = weights * (probs / mixed).mean(axis=1)
    weights /= weights.sum()
    return weights
