"""QuartzNet without torch (`models.quartznet`): features of an utterance to the logits of a CTC model.

Kriman et al. 2020 (arXiv 1910.10261).  Shapes: T frames, F features, T' = ceil(T / stride), C labels
and blank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from greenasr.runtime.pointwise import Floats
from greenasr.runtime.separable import Block, blocks_of, through
from greenasr.runtime.weights import Weights


class QuartzNet:
    """Prologue, residual blocks, epilogue and the output layer."""

    def __init__(self, config: Mapping[str, Any], weights: Weights):
        self.feat_dim, self.stride = int(config["feat_dim"]), int(config["stride"])
        weights.check("prologue.subs.0.pointwise", None, self.feat_dim)
        self.blocks = [
            Block(weights, "prologue", stride=self.stride),
            *blocks_of(config, weights),
            Block(weights, "epilogue.0", dilation=2),
            Block(weights, "epilogue.1"),
        ]
        self.output = weights.linear("output")

    def logits(self, feats: Floats) -> Floats:
        """(T, F) -> (T', C), not normalised.  Raises ValueError for features of another width."""
        return self.output(through(self.blocks, feats, self.feat_dim))
