"""Perplexity from summed log-probabilities.

    PPL = exp( -(1/n) Σ ln P(w_i | history) )

n counts every predicted token, the end of the sentence among them, and Σ must run over the same
tokens.  Figures over words and over word pieces, or with and without the sentence end, are different
figures: a table says which it has.
"""

from __future__ import annotations

import math


def perplexity(logprob: float, tokens: int) -> float:
    """PPL of ``tokens`` tokens whose natural log-probabilities sum to ``logprob``.

    >>> round(perplexity(-2 * math.log(50), 2), 6)
    50.0
    """
    if tokens < 1:
        raise ValueError(f"perplexity: found {tokens} tokens, expected at least 1. Is the text empty?")
    if not logprob <= 0:
        raise ValueError(
            f"perplexity: found a summed log-probability of {logprob}, expected at most 0. "
            "Are these logits instead of log-probabilities?"
        )
    mean = -logprob / tokens
    return math.exp(mean) if mean < 700 else math.inf
