"""End-to-end recognition by CTC: the loss of letters, word pieces or words, and searches over a split.

    L = Σ_n -ln p(y_n | x_n)  /  Σ_n (U_n + 1)                       nats a label, as in `tasks.transducer`

With a teacher, ``share`` s of the training loss is the divergence of the labels from the teacher's, frame by
frame, as in `tasks.chain`.

Utterances with fewer frames than their labels need have no alignment: `alignable_ids` says which remain, and
in a batch they count as 0.  Graves et al. 2006; `ops.ctc`.  Shapes: N batch, T frames, F features, T' output
frames, C labels and blank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from greenasr.data.augment import SpecAugment
from greenasr.data.feature_store import FeatureStore
from greenasr.data.speech_batches import SpeechBatch, speech_batches
from greenasr.data.text import Tokenizer
from greenasr.decode.transducer import BLANK
from greenasr.ops.ctc import ctc_loss
from greenasr.ops.divergence import kl
from greenasr.tasks.labels import check_outputs, padded_labels, with_room
from greenasr.tasks.speech import (
    count_batches,
    evaluating,
    frames_there,
    mean_loss,
    split_batches,
    store_of,
)

Progress = Callable[[int, int], None]  # done, of


class CtcModel(Protocol):
    """What the loss needs of a network; `models.quartznet.QuartzNet` has it."""

    config: Any
    training: bool

    def __call__(self, feats: Tensor, feat_lens: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, T, F), (N,) -> logits (N, T', C), and their lengths (N,)."""
        ...

    def parameters(self) -> Any:
        """The weights."""
        ...


@dataclass(frozen=True, eq=False)
class Ctc:
    """The task: features of each split, and the tokenizer that makes labels of their texts.

    ``ids`` limits a split's utterances, `alignable_ids` to those that can be said; ``frames`` is how many
    frames a batch has, padding included.
    """

    stores: Mapping[str, FeatureStore]
    tokenizer: Tokenizer
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    frames: int = 10_000
    augment: SpecAugment | None = None
    teacher: CtcModel | None = None
    share: float = 0.0

    def batches(self, split: str, seed: int = 0) -> Iterator[SpeechBatch]:
        """One pass over a split, order and masks by ``seed``; only "train" is masked."""
        return split_batches(self, split, seed)

    def n_batches(self, split: str) -> int:
        """How many batches a pass has, to within a few."""
        return count_batches(self, split)

    def loss(self, model: CtcModel, batch: SpeechBatch, *, twice_differentiable: bool = False) -> Tensor:
        """Mean loss of a label in nats, (); ValueError for a tokenizer of another size."""
        terms = self._terms(model, batch, twice_differentiable)
        return torch.stack([term for term, _ in terms]).sum() if len(terms) > 1 else terms[0][0]

    def means(self, model: CtcModel, batch: SpeechBatch) -> list[tuple[Tensor, int]]:
        """The terms of the loss, each with the number of labels, ends among them, or frames of its mean."""
        return self._terms(model, batch, False)

    def _terms(
        self, model: CtcModel, batch: SpeechBatch, twice_differentiable: bool
    ) -> list[tuple[Tensor, int]]:
        batch = batch.to(next(iter(model.parameters())).device)
        check_outputs(model.config.vocab, self.tokenizer)
        labels, lens = (each.to(batch.feats.device) for each in padded_labels(self.tokenizer, batch.texts))
        logits, frames = model(batch.feats, batch.feat_lens)
        logprobs = logits.float().log_softmax(2)
        losses = ctc_loss(
            logprobs, labels, frames, lens, blank=BLANK, twice_differentiable=twice_differentiable
        )
        n = int(lens.sum()) + len(lens)
        hard = losses.sum() / n
        if self.teacher is None or not model.training:
            return [(hard, n)]
        with torch.no_grad():
            taught = self.outputs(self.teacher, batch).log_softmax(1)
        own = logprobs[frames_there(logits, frames)]
        return [((1 - self.share) * hard, n), (self.share * kl(taught, own), len(own))]

    def outputs(self, model: CtcModel, batch: SpeechBatch) -> Tensor:
        """Logits of the labels at all frames that a batch has, (frames, C)."""
        batch = batch.to(next(iter(model.parameters())).device)
        logits, lens = model(batch.feats, batch.feat_lens)
        return logits[frames_there(logits, lens)].float()

    def evaluate(self, model: Any, split: str) -> dict[str, float]:
        """Mean loss of a split, weighted by utterances."""
        return {"loss": mean_loss(self, model, split)}

    def logprobs(
        self, model: Any, split: str, progress: Progress | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Log probabilities (T', C) of every utterance of a split, by id in the store's order."""
        store = store_of(self, split)
        chosen = list(self.ids.get(split, store.ids))
        found: dict[str, NDArray[np.float32]] = {}
        with evaluating(model) as device:
            for batch in speech_batches(store, self.frames, ids=chosen):
                moved = batch.to(device)
                logits, lens = model(moved.feats, moved.feat_lens)
                logprobs = logits.float().log_softmax(2).cpu().numpy()
                for utt_id, each, n in zip(batch.ids, logprobs, lens.tolist(), strict=True):
                    found[utt_id] = each[:n].copy()
                if progress is not None:
                    progress(len(found), len(chosen))
        return {utt_id: found[utt_id] for utt_id in chosen}


def alignable_ids(store: FeatureStore, ids: Sequence[str], tokenizer: Tokenizer, stride: int) -> list[str]:
    """The utterances whose output frames, one for ``stride`` feature frames, suffice for their labels."""

    def needs(labels: list[int]) -> int:
        return len(labels) + sum(a == b for a, b in pairwise(labels))

    return with_room(store, ids, tokenizer, needs, -(-store.frames // stride))
