"""What networks compute number by number, in NumPy: gates, norms, softmax; float32 in, float32 out.

    σ(x)      = ½ + ½ tanh(x / 2)                          overflows for no x
    gelu(x)   = x Φ(x) = ½ x (1 + erf(x / √2))
    layer_norm(x) = (x - mean) / √(var + ε) · gain + bias
    erf(x)    ≈ 1 - (a₁ k + … + a₅ k⁵) e^(-x²),  k = 1 / (1 + p x),  x >= 0      |error| <= 1.5e-7

The last is Abramowitz and Stegun 1964, 7.1.26.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_P = np.float32(0.3275911)
_A = [np.float32(a) for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)]
_HALF = np.float32(0.5)


def sigmoid(x: Floats) -> Floats:
    """The logistic function.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0], np.float32)).tolist()
    [0.0, 0.5, 1.0]
    """
    return _HALF + _HALF * np.tanh(_HALF * x)


def erf(x: Floats) -> Floats:
    """The error function, to 5e-7."""
    away = np.abs(x)
    k = 1 / (1 + _P * away)
    series = np.zeros_like(k)
    for a in _A:
        series = (series + a) * k
    found: Floats = np.copysign(1 - series * np.exp(-(np.minimum(away, np.float32(9)) ** 2)), x)
    return found


def gelu(x: Floats) -> Floats:
    """The Gaussian error linear unit, with erf and not its tanh approximation."""
    return _HALF * x * (1 + erf(x * np.float32(0.5**0.5)))


def layer_norm(x: Floats, gain: Floats, bias: Floats, eps: float = 1e-5) -> Floats:
    """Zero mean and unit variance over the last axis, then gain and bias, (…, D) -> (…, D)."""
    centred = x - x.mean(-1, keepdims=True)
    var = np.einsum("...d,...d->...", centred, centred)[..., None] / np.float32(x.shape[-1])
    found: Floats = centred / np.sqrt(var + np.float32(eps)) * gain + bias
    return found


def softmax(x: Floats) -> Floats:
    """Shares that sum to one over the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    found: Floats = powers / powers.sum(-1, keepdims=True)
    return found


def log_softmax(x: Floats) -> Floats:
    """The logarithm of `softmax`."""
    away = x - x.max(-1, keepdims=True)
    found: Floats = away - np.log(np.exp(away).sum(-1, keepdims=True))
    return found
