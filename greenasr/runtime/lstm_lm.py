"""The LSTM language model without torch (`models.lstm_lm`): embedding, LSTM layers, output layer.

Shapes: N hypotheses, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime import lstm
from greenasr.runtime.pointwise import Floats
from greenasr.runtime.weights import Weights

State = tuple[lstm.State, ...]


class LstmLm:
    """Token ids to hidden vectors; `logits` turns those into scores of the vocabulary."""

    def __init__(self, config: Mapping[str, Any], weights: Weights):
        self.vocab = int(config["vocab"])
        weights.check("embedding", self.vocab, int(config["dim"]))
        self.embedding = weights.rows("embedding.weight")
        self.layers = [lstm.LstmLayer(weights, f"layers.{i}") for i in range(int(config["layers"]))]
        self.output = weights.linear("output")

    def hidden(self, ids: NDArray[np.integer[Any]], state: State | None = None) -> tuple[Floats, State]:
        """(N, T) -> hidden (N, T, D) and the state for the tokens that follow."""
        return lstm.through(self.layers, self.embedding(ids), state)

    def logits(self, hidden: Floats) -> Floats:
        """(…, D) -> (…, V)."""
        return self.output(hidden)
