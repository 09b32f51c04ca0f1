"""Hybrid recognition: LF-MMI steadied by frame-wise cross-entropy, logits for the decoder.

    L = lfmmi(chain output)  +  xent · 1/F Σ_nt -ln softmax(xent output)_nt[pdf_nt]  (+ l2, see `ops.lfmmi`)

pdf_nt is the aligned pdf of output frame t, known when an alignment is given.  Povey et al. 2016, §2.7 and
Kaldi's chain training; a network without the cross-entropy head is trained by LF-MMI alone.

With a teacher, ``share`` s of the training loss is how far the pdfs are from the teacher's, frame by frame:

    (1 - s) L  +  s · 1/F Σ_nt KL(softmax(teacher)_nt ‖ softmax(chain output)_nt)

Hinton et al. 2015 (arXiv 1503.02531), at temperature 1.  What a frame's logits have in common matters to
neither softmax nor decoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from greenasr.data.augment import SpecAugment
from greenasr.data.feature_store import FeatureStore
from greenasr.data.speech_batches import SpeechBatch, speech_batches
from greenasr.decode.alignment import Alignment
from greenasr.decode.context import PdfMap
from greenasr.ops.divergence import kl
from greenasr.ops.lfmmi import Graph, lfmmi
from greenasr.tasks.speech import (
    count_batches,
    evaluating,
    frames_there,
    mean_loss,
    split_batches,
    store_of,
)

Progress = Callable[[int, int], None]  # done, of
Floats = NDArray[np.float32]
Hear = Callable[[Floats, Floats | None], Floats]  # features (T, F), i-vector (I,) -> logits (T', C)
COPY = re.compile(r"sp(\d+\.\d+)-(.+)")  # as `data.feature_store` names copies at other speeds
UNALIGNED = -100  # frames that cross-entropy leaves out


class AcousticModel(Protocol):
    """What a hybrid network offers: logits of pdfs at the output rate."""

    output_xent: Any
    training: bool

    def __call__(
        self, feats: Tensor, feat_lens: Tensor | None = None, ivectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N, T, F), (N,), (N, I) -> logits (N, T', C), (N,)."""
        ...

    def with_xent(
        self, feats: Tensor, feat_lens: Tensor | None = None, ivectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Also the cross-entropy head's logits (N, T', C), in the middle."""
        ...

    def parameters(self) -> Any:
        """The weights."""
        ...


@dataclass(frozen=True, eq=False)
class Chain:
    """The task: features of each split, the denominator graph, a numerator graph an utterance.

    ``targets`` are aligned pdfs at the output rate, (T',) by utterance.  ``ids`` limits a split's utterances.
    A training utterance at another speed, ``sp0.9-<id>``, has the numerator of ``<id>``.  ``frames`` is how
    many frames a batch has, padding included.
    """

    stores: Mapping[str, FeatureStore]
    denominator: Graph
    numerators: Mapping[str, Graph]
    targets: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ivectors: Mapping[str, NDArray[np.float32]] | None = None
    frames: int = 10_000
    xent: float = 0.1
    leaky: float = 1e-5
    l2: float = 5e-5
    augment: SpecAugment | None = None
    teacher: AcousticModel | None = None
    share: float = 0.0

    def batches(self, split: str, seed: int = 0) -> Iterator[SpeechBatch]:
        """One pass over a split, order and masks by ``seed``; only "train" is masked."""
        return split_batches(self, split, seed, self.ivectors)

    def n_batches(self, split: str) -> int:
        """How many batches a pass has, to within a few."""
        return count_batches(self, split)

    def loss(self, model: AcousticModel, batch: SpeechBatch, *, twice_differentiable: bool = False) -> Tensor:
        """Mean loss of an output frame in nats, ()."""
        hard, soft = self._terms(model, batch, twice_differentiable)
        loss = hard[0][0]
        for term, n in hard[1:]:
            loss = loss + term if n else loss
        return loss if soft is None else (1 - self.share) * loss + self.share * soft[0]

    def means(self, model: AcousticModel, batch: SpeechBatch) -> list[tuple[Tensor, int]]:
        """The terms of the loss, each with the number of output frames that it is a mean over."""
        hard, soft = self._terms(model, batch, False)
        if soft is None:
            return hard
        return [*(((1 - self.share) * term, n) for term, n in hard), (self.share * soft[0], soft[1])]

    def outputs(self, model: AcousticModel, batch: SpeechBatch) -> Tensor:
        """Logits of the pdfs of all frames that a batch has, (F, C)."""
        batch = batch.to(next(iter(model.parameters())).device)
        logits, lens = model(batch.feats, batch.feat_lens, batch.ivectors)
        return logits[frames_there(logits, lens)]

    def evaluate(self, model: Any, split: str) -> dict[str, float]:
        """Mean loss of a split, weighted by utterances."""
        return {"loss": mean_loss(self, model, split)}

    def logits(
        self, model: Any, split: str, progress: Progress | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits of every utterance of a split, (T', C) by id, in the store's order."""
        store, found = store_of(self, split), {}
        chosen = list(self.ids.get(split, store.ids))
        with evaluating(model) as device:
            for batch in speech_batches(store, self.frames, ids=chosen, ivectors=self.ivectors):
                moved = batch.to(device)
                out, lens = model(moved.feats, moved.feat_lens, moved.ivectors)
                for row, utt_id in enumerate(batch.ids):
                    found[utt_id] = out[row, : int(lens[row])].float().cpu().numpy()
                if progress is not None:
                    progress(len(found), len(chosen))
        return {utt_id: found[utt_id] for utt_id in chosen}

    def heard(self, hear: Hear, split: str, progress: Progress | None = None) -> dict[str, Floats]:
        """The same by a network on arrays, an utterance at a time."""
        store, found = store_of(self, split), {}
        chosen = list(self.ids.get(split, store.ids))
        for utt_id in chosen:
            vector = None if self.ivectors is None else self.ivectors[utt_id]
            found[utt_id] = hear(store[utt_id], vector)
            if progress is not None:
                progress(len(found), len(chosen))
        return found

    def _terms(
        self, model: AcousticModel, batch: SpeechBatch, twice: bool
    ) -> tuple[list[tuple[Tensor, int]], tuple[Tensor, int] | None]:
        """LF-MMI, and cross-entropy where the network has a head for it; the divergence from a teacher's.

        Each comes with its number of frames; cross-entropy without an aligned frame is 0.
        """
        batch = batch.to(next(iter(model.parameters())).device)
        inputs = (batch.feats, batch.feat_lens, batch.ivectors)
        graphs = [self._numerator(utt_id) for utt_id in batch.ids]
        xent = None
        if model.output_xent is None or not self.targets or not self.xent:
            logits, lens = model(*inputs)
        else:
            logits, xent, lens = model.with_xent(*inputs)
        mmi = lfmmi(
            logits, lens, self.denominator, graphs, leaky=self.leaky, l2=self.l2, twice_differentiable=twice
        )
        terms = [(mmi.loss, mmi.frames)]
        if xent is not None:
            pdfs = self._targets(batch.ids, logits.shape[1]).to(logits.device)
            aligned = int((pdfs != UNALIGNED).sum())
            far = (
                F.cross_entropy(xent.transpose(1, 2), pdfs, ignore_index=UNALIGNED) if aligned else xent.sum()
            )
            terms.append((self.xent * far if aligned else 0 * far, aligned))
        if self.teacher is None or not model.training:
            return terms, None
        with torch.no_grad():
            taught = self.outputs(self.teacher, batch)
        own = logits[frames_there(logits, lens)]
        return terms, (kl(taught.log_softmax(1), own.log_softmax(1)), len(own))

    def _numerator(self, utt_id: str) -> Graph:
        key = utt_id if utt_id in self.numerators else original(utt_id)[0]
        if key not in self.numerators:
            raise ValueError(f"no numerator graph for '{utt_id}': make one of its transcript.")
        return self.numerators[key]

    def _targets(self, ids: Sequence[str], frames: int) -> Tensor:
        """Aligned pdfs of a batch, (N, T'); `UNALIGNED` where there are none."""
        out = torch.full((len(ids), frames), UNALIGNED)
        for row, utt_id in enumerate(ids):
            pdfs = self.targets.get(utt_id)
            if pdfs is not None:
                n = min(frames, len(pdfs))
                out[row, :n] = torch.from_numpy(pdfs[:n].astype(np.int64))
        return out


def frame_targets(
    alignment: Alignment, pdf_map: PdfMap, speed: float = 1.0, subsampling: int = 3
) -> NDArray[np.int32]:
    """The pdf of every output frame, (ceil(T / speed / 3),), of an utterance played at ``speed``.

    Output frame t shows what the alignment has at frame 3 t speed; it has the entry pdf where it is the first
    of its phone.
    """
    frames = np.arange(0, max(1, round(len(alignment.phone) / speed)), subsampling)
    seen = np.minimum((frames * speed).round().astype(np.int64), len(alignment.phone) - 1)
    further = np.diff(np.cumsum(alignment.begins)[seen], prepend=0) == 0
    pdfs: NDArray[np.int32] = pdf_map.table[alignment.left[seen], alignment.phone[seen], further.astype(int)]
    return pdfs


def original(utt_id: str) -> tuple[str, float]:
    """The utterance that a copy at another speed was made of, and the speed.

    A copy's speed has a point, so that a speaker who is called sp1 is nobody's copy.

    >>> original("sp0.9-ann-1"), original("ann-1"), original("sp1-1")
    (('ann-1', 0.9), ('ann-1', 1.0), ('sp1-1', 1.0))
    """
    copy = COPY.fullmatch(utt_id)
    return (copy[2], float(copy[1])) if copy else (utt_id, 1.0)
