"""The recurrent neural network transducer of Graves 2012 (arXiv 1211.3711), as ACosR §4.1 has it.

    f_t  = A LSTM(x_1 … x_t)                     encoder: 5 x LSTM-1024 and one fully connected layer
    g_u  = B LSTM(E y_1 … E y_u)                 prediction network: 2 x LSTM-1024 and one, y_0 = blank
    z_tu = W tanh(f_t + g_u) + c                 joint "fc";  joint "addition": z_tu = f_t + g_u
    p(k | t, u) = softmax(z_tu)_k                k = 0 is blank: go on to the next frame

Every frame of the encoder joins several feature frames (four: 40 ms).  The encoder reads the past alone,
so it runs on a stream, chunk by chunk, with the numbers of the whole utterance.

Shapes: N batch, T feature frames, F features, T' encoder frames, U labels, J joint width (V for
"addition"), V word pieces and blank.  Padding is neither read nor left in outputs: those are 0.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from greenasr.models.lstm import LstmStack, StackState, masked

BLANK = 0
JOINTS = ("fc", "addition")
PredictorState = tuple[tuple[Tensor, Tensor], ...]  # h and c of every layer, (N, D) each


@dataclass(frozen=True)
class RnntConfig:
    """Shape of the network; ``vocab`` counts the blank, sizes default to the paper's Setup 1.

    ``reduction`` is how many frames join into one before the first layer, the second, …, 1 where it names
    none.  ``joint_dim`` is the width at which "fc" adds; "addition" adds at the vocabulary's.  The paper
    gives neither it nor ``embedding_dim``: ours keep Setup 1 within its 56–60M parameters.
    """

    feat_dim: int
    vocab: int
    encoder_layers: int = 5
    encoder_dim: int = 1024
    reduction: tuple[int, ...] = (4,)
    predictor_layers: int = 2
    predictor_dim: int = 1024
    embedding_dim: int = 512
    joint: str = "fc"
    joint_dim: int = 512
    dropout: float = 0.3
    layer_norm: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built; give every encoder layer its reduction."""
        given = tuple(self.reduction)
        object.__setattr__(self, "reduction", given + (1,) * (self.encoder_layers - len(given)))
        if self.joint not in JOINTS:
            raise ValueError(f"joint is '{self.joint}', it should be {' or '.join(JOINTS)}.")
        if self.vocab < 2:
            raise ValueError(f"vocab is {self.vocab}, it should be the blank and at least one label: 2.")
        sizes = (self.feat_dim, self.encoder_layers, self.encoder_dim, self.joint_dim, self.embedding_dim)
        if min(*sizes, self.predictor_layers, self.predictor_dim, *self.reduction) < 1:
            raise ValueError(f"every size of the network must be at least 1, got {asdict(self)}.")
        if len(self.reduction) != self.encoder_layers:
            raise ValueError(
                f"reduction has {len(given)} entries for {self.encoder_layers} encoder layers: "
                "give at most one a layer."
            )

    @property
    def frames_joined(self) -> int:
        """Feature frames in one encoder frame."""
        return math.prod(self.reduction)

    @property
    def joint_width(self) -> int:
        """J, the width of encoder and prediction network outputs."""
        return self.joint_dim if self.joint == "fc" else self.vocab

    def to_json(self) -> dict[str, Any]:
        """A JSON value; ``RnntConfig(**value)`` reads it back."""
        return asdict(self) | {"reduction": list(self.reduction)}


class Rnnt(nn.Module):
    """Encoder, prediction network and joint; what the loss and the searches need of them."""

    def __init__(self, config: RnntConfig):
        super().__init__()
        self.config = config
        c = config
        self.encoder = LstmStack(c.feat_dim, c.encoder_dim, c.reduction, c.dropout, c.layer_norm)
        self.encoder_fc = nn.Linear(c.encoder_dim, c.joint_width)
        self.embedding = nn.Embedding(c.vocab, c.embedding_dim)
        self.predictor = LstmStack(
            c.embedding_dim, c.predictor_dim, (1,) * c.predictor_layers, c.dropout, c.layer_norm
        )
        self.predictor_fc = nn.Linear(c.predictor_dim, c.joint_width)
        self.output = nn.Linear(c.joint_dim, c.vocab) if c.joint == "fc" else None
        for linear in (self.encoder_fc, self.predictor_fc, self.output):
            if linear is not None:
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
                nn.init.zeros_(linear.bias)
        nn.init.normal_(self.embedding.weight)

    def forward(
        self, feats: Tensor, feat_lens: Tensor | None, labels: Tensor, stepwise: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the loss reads: encoder (N, T', J), its lengths (N,), prediction network (N, U + 1, J).

        The logits (N, T', U + 1, V) are ``joint(enc[:, :, None], pred[:, None])``.  ``labels`` (N, U) are
        padded with 0.  ``stepwise`` serves forward hooks and second derivatives, see `models.lstm`.
        """
        enc, enc_lens = self.encode(feats, feat_lens, stepwise)
        return enc, enc_lens, self.predict(labels, stepwise)

    def encode(
        self, feats: Tensor, feat_lens: Tensor | None = None, stepwise: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Whole utterances (N, T, F), lengths (N,) -> (N, T', J), lengths ceil(T / frames joined).

        Raises ValueError for features of another width and for lengths outside 0 … T.
        """
        n, frames = self._checked(feats).shape[:2]
        if feat_lens is None:
            feat_lens = torch.full((n,), frames, device=feats.device)
        if feat_lens.shape != (n,) or (n and not 0 <= int(feat_lens.min()) <= int(feat_lens.max()) <= frames):
            raise ValueError(
                f"lengths {feat_lens.tolist()} do not fit {n} utterances padded to {frames} frames."
            )
        feat_lens = feat_lens.to(feats.device, torch.int64)
        hidden, _ = self.encoder(feats, feat_lens, stepwise=stepwise)
        r = self.config.frames_joined
        lens = (feat_lens + r - 1) // r
        return masked(self.encoder_fc(hidden), lens), lens

    def step_encoder(
        self, chunk: Tensor, state: StackState | None = None, last: bool = False
    ) -> tuple[Tensor, StackState]:
        """The next frames of N streams (N, T, F), any number -> the encoder frames they complete, (N, T', J).

        A ``last`` chunk, of no frames if need be, fills the group of frames that has begun with zeros.
        """
        hidden, state = self.encoder(self._checked(chunk), state=state, last=last)
        return self.encoder_fc(hidden), state

    def predict(self, labels: Tensor, stepwise: bool = False) -> Tensor:
        """(N, U) -> (N, U + 1, J): what the network expects after 0, 1, … U labels.

        Raises ValueError for labels that the vocabulary does not have.
        """
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.config.vocab:
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, the model's from 0 to "
                f"{self.config.vocab - 1}: use the tokenizer that the model was made for."
            )
        start = labels.new_full((labels.shape[0], 1), BLANK)
        hidden, _ = self.predictor(self.embedding(torch.cat((start, labels), 1)), stepwise=stepwise)
        pred: Tensor = self.predictor_fc(hidden)
        return pred

    def step_predictor(
        self, labels: Tensor, state: PredictorState | None = None
    ) -> tuple[Tensor, PredictorState]:
        """The last label of N hypotheses (N,) and the state before it -> (N, J) and the state after it.

        A hypothesis begins with the blank and no state.
        """
        past = None if state is None else StackState(state, (None,) * len(state))
        hidden, after = self.predictor(self.embedding(labels)[:, None], state=past)
        return self.predictor_fc(hidden[:, 0]), after.lstm

    def joint(self, enc: Tensor, pred: Tensor) -> Tensor:
        """Logits (…, V) of (…, J) and (…, J), which broadcast."""
        both = enc + pred
        return both if self.output is None else self.output(torch.tanh(both))

    def to_config(self) -> dict[str, Any]:
        """The configuration as plain data, for the packed file."""
        return self.config.to_json()

    def _checked(self, feats: Tensor) -> Tensor:
        if feats.dim() != 3 or feats.shape[2] != self.config.feat_dim:
            raise ValueError(
                f"features are {tuple(feats.shape)}, the network reads (N, T, {self.config.feat_dim})."
            )
        return feats
