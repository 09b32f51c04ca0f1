"""MatchboxNet without torch (`models.matchboxnet`): which word a clip is.

Majumdar and Ginsburg 2020 (arXiv 2004.08531).  Shapes: T frames, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from greenasr.runtime.pointwise import Floats
from greenasr.runtime.separable import Block, blocks_of, through
from greenasr.runtime.weights import Weights


class MatchboxNet:
    """Prologue, residual blocks, epilogue, the mean over time and the output layer."""

    def __init__(self, config: Mapping[str, Any], weights: Weights):
        self.feat_dim = int(config["feat_dim"])
        weights.check("prologue.subs.0.pointwise", None, self.feat_dim)
        self.blocks = [
            Block(weights, "prologue"),
            *blocks_of(config, weights),
            Block(weights, "epilogue.0", dilation=2),
            Block(weights, "epilogue.1"),
        ]
        self.output = weights.linear("output")

    def logits(self, feats: Floats) -> Floats:
        """(T, F) -> (C,), not normalised.  Raises ValueError for features of another width."""
        x = through(self.blocks, feats, self.feat_dim)
        return self.output(x.mean(0, keepdims=True))[0]
