"""Networks of torch behind the interface of the runtime's: NumPy arrays in and out, state as values.

What searches and recognisers ask of a network they ask of either engine alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from greenasr.models.rnnt import Rnnt
from greenasr.models.tdnnf import Tdnnf

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
PredictorState = tuple[tuple[Floats, Floats], ...]


class TdnnfOnArrays:
    """A TDNN-F that hears one utterance at a time."""

    def __init__(self, model: Tdnnf):
        self.model, self.ivector_dim = model.eval(), model.config.ivector_dim

    @torch.inference_mode()
    def logits(self, feats: Floats, ivectors: Floats | None = None) -> NDArray[np.float32]:
        """Features (T, F), i-vector (I,) or one a frame (T, I) -> logits of pdfs (T', C)."""
        device = self.model.output.weight.device
        vectors = None if ivectors is None else _tensor(ivectors, device)[None]
        found, _ = self.model(_tensor(feats, device)[None], None, vectors)
        return _array(found[0].float())


class RnntOnArrays:
    """A transducer as `decode.transducer` searches with it, in evaluation mode: no dropout."""

    def __init__(self, model: Rnnt):
        self.model = model

    @property
    def frames_joined(self) -> int:
        """Feature frames in one encoder frame."""
        return self.model.config.frames_joined

    @torch.inference_mode()
    def encode(self, feats: Floats, feat_lens: Ints | None = None) -> tuple[Floats, Ints]:
        """Whole utterances (N, T, F), (N,) -> (N, T', J), (N,)."""
        lens = None if feat_lens is None else torch.from_numpy(np.asarray(feat_lens))
        enc, enc_lens = self.model.encode(_tensor(feats, self._device), lens)
        return _array(enc), _array(enc_lens)

    @torch.inference_mode()
    def step_encoder(self, chunk: Floats, state: Any = None, last: bool = False) -> tuple[Floats, Any]:
        """The next frames of streams (N, T, F) -> the encoder frames that they complete, (N, T', J)."""
        enc, state = self.model.step_encoder(_tensor(chunk, self._device), state, last)
        return _array(enc), state

    @torch.inference_mode()
    def step_predictor(
        self, labels: Ints, state: PredictorState | None = None
    ) -> tuple[Floats, PredictorState]:
        """The last label of hypotheses (N,) and the state before it -> (N, J) and the state after it."""
        device = self._device
        past = None
        if state is not None:
            past = tuple((_tensor(h, device), _tensor(c, device)) for h, c in state)
        pred, after = self.model.step_predictor(_tensor(labels, device), past)
        return _array(pred), tuple((_array(h), _array(c)) for h, c in after)

    @torch.inference_mode()
    def joint(self, enc: Floats, pred: Floats) -> Floats:
        """Logits (…, V) of (…, J) and (…, J), which broadcast."""
        return _array(self.model.joint(_tensor(enc, self._device), _tensor(pred, self._device)).float())

    @property
    def _device(self) -> torch.device:
        return self.model.encoder_fc.weight.device


def _tensor(values: NDArray[Any], device: torch.device) -> Tensor:
    single = values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values
    return torch.from_numpy(np.ascontiguousarray(single)).to(device)


def _array(values: Tensor) -> NDArray[Any]:
    return values.cpu().numpy()


class LogitsOnArrays:
    """A network of features alone, one utterance at a time: QuartzNet, MatchboxNet."""

    def __init__(self, model: nn.Module):
        self.model = model.eval()

    @property
    def stride(self) -> int:
        """Feature frames in one output frame."""
        config: Any = self.model.config
        return int(config.stride)

    @torch.inference_mode()
    def logits(self, feats: Floats) -> NDArray[np.float32]:
        """Features (T, F) -> logits (T', C), or (C,) of a whole clip."""
        device = next(self.model.parameters()).device
        found = self.model(_tensor(feats, device)[None])
        return _array((found[0] if isinstance(found, tuple) else found)[0].float())


class LanguageModelOnArrays:
    """A language model as the runtime's are asked."""

    def __init__(self, model: Any):
        self.model = model.eval()

    @torch.inference_mode()
    def hidden(self, ids: Ints, state: Any = None) -> tuple[Floats, Any]:
        """(N, T) -> hidden (N, T, D) and the state for the tokens that follow."""
        hidden, state = self.model(_tensor(ids, self.model.output.weight.device), state)
        return _array(hidden.float()), state

    @torch.inference_mode()
    def logits(self, hidden: Floats) -> Floats:
        """(…, D) -> (…, V)."""
        return _array(self.model.output(_tensor(hidden, self.model.output.weight.device)).float())


def on_arrays(model: nn.Module) -> Any:
    """Any network of torch behind the runtime's interface."""
    if isinstance(model, Tdnnf):
        return TdnnfOnArrays(model)
    if isinstance(model, Rnnt):
        return RnntOnArrays(model)
    return LanguageModelOnArrays(model) if hasattr(model, "embedding") else LogitsOnArrays(model)
