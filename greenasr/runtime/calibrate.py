"""Steps of static activations: every map's, from what it multiplied while the network heard speech.

    E(s) = Σ_x e(x),   e = min(x², s²/12) for |x| <= 127 s,   (|x| - 127 s)² beyond;     s = argmin E

s²/12 is the mean squared error of rounding to even levels (Widrow 1956), x² that of a number that becomes 0.
The largest |x| alone (`Seen.largest` / 127) wastes levels on a few large numbers; which of the two loses
less is measured in `benchmarks/activations.py`.

Numbers are counted by their first 14 bits, sign, exponent and 5 of the fraction: whatever their size, they
are known to 3 %, in 64 kB a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime import engine
from greenasr.runtime.activations import MOST, SMALLEST, Rounding
from greenasr.runtime.format import Packed
from greenasr.runtime.pointwise import Floats
from greenasr.runtime.weights import Weights

T = TypeVar("T")
Counts = NDArray[np.int64]
SHIFT = 18  # bits of a float32 that are not counted
BINS = 1 << (31 - SHIFT)
FINITE = 0x7F800000 >> SHIFT  # bins below hold numbers
CENTRES = ((np.arange(FINITE, dtype=np.uint32) << SHIFT) + (1 << (SHIFT - 1))).view(np.float32)


class Seen:
    """How often which size of numbers came by."""

    def __init__(self) -> None:
        self.counts, self.largest = np.zeros(BINS, np.int64), 0.0

    def __call__(self, x: Floats) -> None:
        """Count |x| of all x; NaN and infinity are left out."""
        sizes = np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint32) & 0x7FFFFFFF
        self.counts += np.bincount(sizes >> SHIFT, minlength=BINS)
        finite = sizes[sizes < 0x7F800000]
        if len(finite):
            self.largest = max(self.largest, float(finite.max().view(np.float32)))

    def quantile(self, share: float) -> float:
        """The size that ``share`` of the numbers do not exceed, to 3 %; at most the largest."""
        running = np.cumsum(self.counts[:FINITE])
        at = int(np.searchsorted(running, share * running[-1]))
        return min(float(CENTRES[at]), self.largest)


def expected_error(step: float, sizes: Floats, counts: Counts) -> float:
    """E(step) of numbers of ``sizes`` (B,), of each as many as ``counts``."""
    x = sizes.astype(np.float64)
    within = np.minimum(x**2, step**2 / 12)
    return float(np.where(x <= MOST * step, within, (x - MOST * step) ** 2) @ counts)


def least_error_step(seen: Seen) -> float:
    """The step of least expected error, to 4 %: from the largest number / 127 down."""
    used = np.flatnonzero(seen.counts[:FINITE])
    sizes, counts = CENTRES[used], seen.counts[used]
    steps = seen.largest / MOST * 0.96 ** np.arange(160)  # down to 1.5e-3 of it
    return float(min(steps, key=lambda step: expected_error(step, sizes, counts)))


def largest_step(seen: Seen) -> float:
    """The step at which nothing that was seen is clipped."""
    return seen.largest / MOST


def calibrated(
    packed: Packed, hear: Callable[[engine.Network], T], step_of: Callable[[Seen], float] = least_error_step
) -> tuple[Rounding, T]:
    """Static steps for a packed model, and what ``hear`` gave of its network, with float32 activations.

    Raises ValueError where no map is of few bits, or ``hear`` did not use one.
    """
    seen: dict[str, Seen] = {}
    weights = Weights(packed, "float32", lambda name, x: seen.setdefault(name, Seen())(x))
    network = engine.FAMILIES[packed.model](packed.config, weights)
    result = hear(network)
    if not weights.watched:
        raise ValueError("no map of the model is of few bits: there is nothing to round by static steps.")
    if unused := sorted(weights.watched - seen.keys()):
        raise ValueError(f"'{unused[0]}' multiplied nothing while it was watched: let it hear speech.")
    return Rounding("static", steps_of(seen, step_of)), result


def steps_of(seen: Mapping[str, Seen], step_of: Callable[[Seen], float]) -> dict[str, float]:
    """A step for every map, of four digits; 1 where all it saw is 0."""
    found = {name: step_of(each) if each.largest > MOST * SMALLEST else 1.0 for name, each in seen.items()}
    return {name: float(f"{step:.4g}") for name, step in found.items()}
