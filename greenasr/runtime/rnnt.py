"""The recurrent transducer without torch (`models.rnnt`): encoder, prediction network, joint.

    f_t  = A LSTM(x_1 … x_t)            g_u  = B LSTM(E y_1 … E y_u)            z_tu = W tanh(f_t + g_u) + c

Graves 2012 (arXiv 1211.3711).  It offers what `decode.transducer` searches with.  All state is a value that
the caller holds, so any number of streams may share one network.
Shapes: N streams or hypotheses, T feature frames, F features, T' encoder frames, J joint width, V labels
and blank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime.lstm import LstmStack, StackState, State
from greenasr.runtime.pointwise import Floats
from greenasr.runtime.weights import Weights

Ids = NDArray[np.integer[Any]]
PredictorState = tuple[State, ...]


class Rnnt:
    """Encoder, prediction network and joint."""

    def __init__(self, config: Mapping[str, Any], weights: Weights):
        given, layers = tuple(config["reduction"]), int(config["encoder_layers"])
        for stack, n in (("encoder", layers), ("predictor", int(config["predictor_layers"]))):
            weights.shape(f"{stack}.layers.{n - 1}.input")  # before anything is made of their number
        self.reduction = given + (1,) * (layers - len(given))
        self.feat_dim, self.vocab = int(config["feat_dim"]), int(config["vocab"])
        if min(self.reduction, default=0) < 1:
            raise ValueError(f"a reduction of {self.reduction}: pack the model again.")
        for i, r in enumerate(self.reduction):
            width = int(config["encoder_dim"]) if i else self.feat_dim
            weights.check(f"encoder.layers.{i}.input", None, width * r)
        weights.check("embedding", self.vocab, int(config["embedding_dim"]))
        self.encoder = LstmStack(weights, "encoder", self.reduction)
        self.encoder_fc = weights.linear("encoder_fc")
        self.embedding = weights.rows("embedding.weight")
        self.predictor = LstmStack(weights, "predictor", (1,) * int(config["predictor_layers"]))
        self.predictor_fc = weights.linear("predictor_fc")
        self.output = weights.linear("output") if config["joint"] == "fc" else None

    @property
    def frames_joined(self) -> int:
        """Feature frames in one encoder frame."""
        return math.prod(self.reduction)

    def encode(self, feats: Floats, feat_lens: Ids | None = None) -> tuple[Floats, Ids]:
        """Whole utterances (N, T, F), lengths (N,) -> (N, T', J), lengths ceil(T / frames joined).

        Frames behind an utterance's end are 0.
        """
        n, frames = self._checked(feats).shape[:2]
        if feat_lens is None and n and frames:
            whole, _ = self.step_encoder(feats, None, last=True)
            return whole, np.full(n, whole.shape[1])
        lens = np.full(n, frames) if feat_lens is None else np.asarray(feat_lens)
        if lens.shape != (n,) or (n and not 0 <= lens.min() <= lens.max() <= frames):
            raise ValueError(f"lengths {lens.tolist()} do not fit {n} utterances padded to {frames} frames.")
        out_lens = -(-lens // self.frames_joined)
        found = np.zeros((n, -(-frames // self.frames_joined), self.encoder_fc.outputs), np.float32)
        for length in np.unique(lens[lens > 0]):  # one by one length: none reads another's padding
            rows = np.flatnonzero(lens == length)
            enc, _ = self.step_encoder(feats[rows, :length], None, last=True)
            found[rows, : enc.shape[1]] = enc
        return found, out_lens

    def step_encoder(
        self, chunk: Floats, state: StackState | None = None, last: bool = False
    ) -> tuple[Floats, StackState]:
        """The next frames of N streams (N, T, F), any number -> the encoder frames they complete, (N, T', J).

        A ``last`` chunk, of no frames if need be, fills the group of frames that has begun with zeros.
        """
        hidden, state = self.encoder(np.asarray(self._checked(chunk), np.float32), state, last)
        return self.encoder_fc(hidden), state

    def step_predictor(
        self, labels: Ids, state: PredictorState | None = None
    ) -> tuple[Floats, PredictorState]:
        """The last label of N hypotheses (N,) and the state before it -> (N, J) and the state after it."""
        past = None if state is None else StackState(state, (None,) * len(state))
        hidden, after = self.predictor(self.embedding(labels)[:, None], past)
        return self.predictor_fc(hidden[:, 0]), after.lstm

    def joint(self, enc: Floats, pred: Floats) -> Floats:
        """Logits (…, V) of (…, J) and (…, J), which broadcast."""
        both = enc + pred
        return both if self.output is None else self.output(np.tanh(both))

    def _checked(self, feats: Floats) -> Floats:
        if feats.ndim != 3 or feats.shape[2] != self.feat_dim:
            raise ValueError(f"features are {feats.shape}, the network reads (N, T, {self.feat_dim}).")
        return feats
