"""How often a loss on the margin is ruled out: the error rate of `score.decision`, nominally 5 %.

    python benchmarks/non_inferiority.py

Speaker i of w_i words loses Poisson((0.01 + θ) w_i g_i) and wins Poisson(0.01 w_i g_i), g_i gamma of mean 1;
θ is the margin, 0.5 points; the smaller the shape of the gamma the more speakers differ.
"""

from __future__ import annotations

import numpy as np

from greenasr.score.decision import ALPHA, loss_by_units

MARGIN = 0.5  # points of WER
SETS = 3000


def ruled_out(speakers: int, shape: float, sets: int = SETS, seed: int = 1) -> float:
    """Share of simulated test sets on which a loss of the margin is ruled out."""
    rng, found = np.random.default_rng(seed), 0
    for k in range(sets):
        words = rng.integers(75, 300, speakers).astype(float)
        own = rng.gamma(shape, 1 / shape, speakers)
        worse = rng.poisson((0.01 + MARGIN / 100) * words * own)
        better = rng.poisson(0.01 * words * own)
        p = loss_by_units((worse - better).astype(float), words, MARGIN, draws=400, seed=k).p
        found += p is not None and p < ALPHA
    return found / sets


if __name__ == "__main__":
    for shape in (2.0, 8.0, 1e6):
        rates = ", ".join(f"{n} speakers {100 * ruled_out(n, shape):.1f} %" for n in (20, 40, 84))
        print(f"gamma of shape {shape:g}: {rates}")
