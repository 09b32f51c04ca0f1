"""Does the runtime compute here what torch computed where the model was packed?

    x = inputs that follow from the network's settings alone: frac((i + 1) φ), a Weyl sequence, φ = 0.618…
    d = max |runtime(x) - torch(x)| / rms(torch(x))            by kind of activations
    refused where d of some of the outputs here is above `allowed` (d as measured when packed)

The packed file holds the measured differences and a few of torch's outputs.  `load` runs the network once on
x: a machine, a compiler or a library that computes something else is found before the first word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime.pointwise import Floats, log_softmax

FORMAT = "greenasr self test 1"
KEPT = 16  # outputs in the file
FRAMES, TOKENS = 24, 8
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class SelfTest:
    """``KEPT`` of torch's outputs, and how far the runtime was from all of them by kind of activations."""

    values: tuple[float, ...]
    rms: float
    difference: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": FORMAT,
            "values": list(self.values),
            "rms": self.rms,
            "difference": dict(self.difference),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SelfTest:
        """Read what `to_json` wrote; ValueError for anything else."""
        try:
            if value["format"] != FORMAT:
                raise ValueError(f"its self test is not '{FORMAT}'")
            found = cls(
                tuple(float(v) for v in value["values"]),
                float(value["rms"]),
                {str(name): float(d) for name, d in value["difference"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its self test is not whole ({error!r})") from error
        numbers = (*found.values, found.rms, *found.difference.values())
        if not 1 <= len(found.values) <= KEPT or not np.isfinite(numbers).all() or found.rms < 0:
            raise ValueError("its self test is not of finite numbers")
        return found


def measure(expected: Floats, found: Mapping[str, Floats]) -> SelfTest | None:
    """Torch's outputs (n,) and the runtime's by kind of activations; None where torch's are not finite."""
    if not np.isfinite(expected).all():
        return None
    rms = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    values = tuple(float(f"{v:.6g}") for v in expected[kept(len(expected))])
    return SelfTest(values, rms, {name: distance(each, expected, rms) for name, each in found.items()})


def distance(found: Floats, expected: Any, rms: float) -> float:
    """Max |found - expected| / rms, rounded to three digits; infinite where it is not a number."""
    away = float(np.abs(found - np.asarray(expected)).max()) / max(rms, 1e-12)
    return float(f"{away:.3g}") if np.isfinite(away) else float("inf")


def allowed(measured: float) -> float:
    """How far outputs may be from torch's: another order of sums may move an activation by a level.

    >>> allowed(0.0), allowed(0.03)
    (0.001, 0.061)
    """
    return 2 * measured + 1e-3


def verify(kind: str, config: Mapping[str, Any], network: Any, test: SelfTest, activations: str) -> None:
    """ValueError where the network is further from torch's outputs than when it was packed."""
    with np.errstate(all="ignore"):
        found = outputs(kind, config, network)
    away = distance(found[kept(len(found))], test.values, test.rms)
    limit = allowed(test.difference.get(activations, 0.0))
    if not away <= limit:
        raise ValueError(
            f"the self test failed: with {activations} activations outputs are {away:.3g} of their size away "
            f"from those it was packed with, at most {limit:.3g} is expected: build greenasr anew, choose "
            "other kernels with GREENASR_ISA=portable, or pack the model again"
        )


def kept(n: int) -> NDArray[np.int64]:
    """Places of the outputs that the file holds, even over all n."""
    return np.unique(np.linspace(0, n - 1, min(n, KEPT)).round().astype(np.int64))


def outputs(kind: str, config: Mapping[str, Any], network: Any) -> Floats:
    """All outputs for the inputs of a network's settings, (n,); the network is the runtime's or its like."""
    if kind in ("transformer", "lstm"):
        tokens = min(TOKENS, int(config.get("context", TOKENS)))
        ids = (uniform(tokens) * int(config["vocab"])).astype(np.int64)[None]
        hidden, _ = network.hidden(ids)
        return log_softmax(network.logits(hidden)).reshape(-1)
    feats = normal((FRAMES, int(config["feat_dim"])))
    if kind == "rnnt":
        enc, _ = network.encode(feats[None])
        labels = (uniform(TOKENS) * int(config["vocab"])).astype(np.int64)
        pred, state = network.step_predictor(labels)
        pred, _ = network.step_predictor(labels[::-1].copy(), state)
        return log_softmax(network.joint(enc[0, :, None], pred[None])).reshape(-1)
    if kind == "tdnnf" and int(config.get("ivector_dim", 0)):
        found: Floats = network.logits(feats, normal((int(config["ivector_dim"]),)))
    else:
        found = network.logits(feats)
    return found.reshape(-1)


def uniform(n: int) -> NDArray[np.float64]:
    """The Weyl sequence in [0, 1), (n,)."""
    return np.modf(np.arange(1, n + 1) * GOLDEN)[0]


def normal(shape: tuple[int, ...]) -> Floats:
    """Numbers of mean 0 and variance 1 of the same sequence, as features have them."""
    size = int(np.prod(shape))
    return (np.sqrt(12.0) * (uniform(size) - 0.5)).reshape(shape).astype(np.float32)
