"""End-to-end recognition: the transducer loss of word pieces or letters, and searches over a split.

    L = Σ_n -ln p(y_n | x_n)  /  Σ_n (U_n + 1)          nats a label, the end of an utterance counted as one

With ``ctc`` λ in training also λ times the CTC loss, a label, of what the encoder says on its own:

    p(k | t) = softmax(joint(f_t, 0))_k

Where text is easy to foretell the prediction network else learns it first, and the encoder has nothing left
to learn from.  Graves et al. 2006; side by side as in Kim et al. 2017 (arXiv 1609.06773), with no weights of
its own.  With ``hidden`` h in training the prediction network reads a blank for each label with chance h
(word dropout, Bowman et al. 2016, arXiv 1511.06349), lest it learn the transcripts of little speech by heart.

Label k of the network is id k - 1 of the tokenizer; 0 is the blank.  Counting the end gives an empty
transcript a weight of its own, and a batch of any size the same scale.  Graves 2012 (arXiv 1211.3711).
Shapes: N batch, T frames, F features, T' encoder frames, U labels, J joint width, V labels and blank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from greenasr.data.augment import SpecAugment
from greenasr.data.feature_store import FeatureStore
from greenasr.data.speech_batches import SpeechBatch, speech_batches
from greenasr.data.text import Tokenizer
from greenasr.decode.labels import words_of
from greenasr.decode.transducer import BLANK, Hypothesis, Search, Transducer, decode_transducer
from greenasr.models.on_arrays import RnntOnArrays
from greenasr.ops.ctc import ctc_loss
from greenasr.ops.merged_transducer import merged_rnnt_loss
from greenasr.ops.transducer import rnnt_loss
from greenasr.tasks.labels import check_outputs, n_labels, padded_labels, with_room
from greenasr.tasks.speech import count_batches, evaluating, mean_loss, split_batches, store_of

Progress = Callable[[int, int], None]  # done, of


class TransducerModel(Protocol):
    """What the loss needs of a network; `models.rnnt.Rnnt` has it."""

    config: Any
    training: bool

    def __call__(
        self, feats: Tensor, feat_lens: Tensor | None, labels: Tensor, stepwise: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(N, T, F), (N,), (N, U) -> encoder (N, T', J), lengths (N,), prediction network (N, U + 1, J)."""
        ...

    def joint(self, enc: Tensor, pred: Tensor) -> Tensor:
        """Logits (…, V) of (…, J) and (…, J), which broadcast."""
        ...

    def parameters(self) -> Any:
        """The weights."""
        ...


@dataclass(frozen=True, eq=False)
class Transduction:
    """The task: features of each split, and the tokenizer that makes labels of their texts.

    ``ids`` limits a split's utterances, `carried` to those that can be said; ``frames`` is how many frames a
    batch has, padding included; ``ctc`` is the weight of the encoder's own loss in training, ``hidden`` the
    share of labels that the prediction network does not see there.
    """

    stores: Mapping[str, FeatureStore]
    tokenizer: Tokenizer
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    frames: int = 10_000
    augment: SpecAugment | None = None
    ctc: float = 0.0
    hidden: float = 0.0

    def batches(self, split: str, seed: int = 0) -> Iterator[SpeechBatch]:
        """One pass over a split, order and masks by ``seed``; only "train" is masked."""
        return split_batches(self, split, seed)

    def n_batches(self, split: str) -> int:
        """How many batches a pass has, to within a few."""
        return count_batches(self, split)

    def loss(
        self, model: TransducerModel, batch: SpeechBatch, *, twice_differentiable: bool = False
    ) -> Tensor:
        """Mean loss of a label in nats, (); frame by frame where hooks or second derivatives look inside.

        An addition joint's logits are never held.  ValueError for a tokenizer of another size.
        """
        batch = batch.to(next(iter(model.parameters())).device)
        check_outputs(model.config.vocab, self.tokenizer)
        labels, lens = self.labels(batch.texts)
        labels = labels.to(batch.feats.device)
        learning, shown = model.training and not twice_differentiable, labels
        if self.hidden and learning:
            shown = labels.masked_fill(torch.rand(labels.shape).to(labels.device) < self.hidden, BLANK)
        enc, enc_lens, pred = model(batch.feats, batch.feat_lens, shown, stepwise=twice_differentiable)
        if model.config.joint == "addition":
            losses = merged_rnnt_loss(
                enc, pred, labels, enc_lens, lens, blank=BLANK, twice_differentiable=twice_differentiable
            )
        else:
            logits = model.joint(enc[:, :, None], pred[:, None])
            losses = rnnt_loss(
                logits, labels, enc_lens, lens, blank=BLANK, twice_differentiable=twice_differentiable
            )
        loss = losses.sum() / (int(lens.sum()) + len(lens))
        if self.ctc and learning:
            loss = loss + self.ctc * encoders_own(model, enc, enc_lens, labels, lens)
        return loss

    def means(self, model: TransducerModel, batch: SpeechBatch) -> list[tuple[Tensor, int]]:
        """The loss, and the number of labels that it is a mean over, ends of utterances among them."""
        return [(self.loss(model, batch), n_labels(self.tokenizer, batch.texts))]

    def evaluate(self, model: Any, split: str) -> dict[str, float]:
        """Mean loss of a split, weighted by utterances."""
        return {"loss": mean_loss(self, model, split)}

    def labels(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts as labels, see `labels.padded_labels`."""
        return padded_labels(self.tokenizer, texts)

    def words(self, labels: Sequence[int]) -> str:
        """What labels spell."""
        return words_of(self.tokenizer, labels)

    def decode(
        self, model: Any, split: str, search: Search | None = None, progress: Progress | None = None
    ) -> dict[str, list[Hypothesis]]:
        """Hypotheses of every utterance of a split, best first, by id in the store's order."""
        with evaluating(model):
            return self.heard(RnntOnArrays(model), split, search, progress)

    def heard(
        self, network: Transducer, split: str, search: Search | None = None, progress: Progress | None = None
    ) -> dict[str, list[Hypothesis]]:
        """The same by a network of either engine."""
        store = store_of(self, split)
        found: dict[str, list[Hypothesis]] = {}
        chosen = list(self.ids.get(split, store.ids))
        for batch in speech_batches(store, self.frames, ids=chosen):
            feats, lens = batch.feats.numpy(), batch.feat_lens.numpy()
            hyps = decode_transducer(network, feats, lens, search)
            found |= dict(zip(batch.ids, hyps, strict=True))
            if progress is not None:
                progress(len(found), len(chosen))
        return {utt_id: found[utt_id] for utt_id in chosen}


def encoders_own(
    model: TransducerModel, enc: Tensor, enc_lens: Tensor, labels: Tensor, lens: Tensor
) -> Tensor:
    """CTC loss of softmax(joint(enc, 0)), () a label; utterances with fewer frames than it needs count 0.

    ``enc`` (N, T', J) with ``enc_lens`` (N,), ``labels`` (N, U) with ``lens`` (N,).
    """
    logprobs = model.joint(enc, torch.zeros_like(enc[:1, :1])).float().log_softmax(2)
    losses = ctc_loss(logprobs, labels, enc_lens, lens, blank=BLANK)
    return losses.sum() / (int(lens.sum()) + len(lens))


def carried(
    store: FeatureStore, ids: Sequence[str], tokenizer: Tokenizer, joined: int, most: int
) -> list[str]:
    """The utterances whose frames can carry their labels: at most ``most`` labels an encoder frame.

    An encoder frame joins ``joined`` feature frames.  The loss of others is finite, but no search would say
    them, and they mostly have a transcript of another utterance.
    """
    return with_room(store, ids, tokenizer, len, -(-store.frames // joined) * most)
