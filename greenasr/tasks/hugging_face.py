"""Models of Hugging Face's transformers as tasks: CTC encoders, Whisper, causal language models.

    Wav2Vec2ForCTC, HubertForCTC              samples in, CTC over letters, best path
    WhisperForConditionalGeneration           log-mel in, tokens by the model's own ``generate``
    any ...ForCausalLM                        tokens, each foretold from those before it

Nothing here imports transformers: a model is what has its classes' methods, and brings its own configuration.
With a teacher, ``share`` s of the training loss is how far the outputs are from the teacher's:

    (1 - s) L  +  s · mean KL(softmax(teacher) ‖ softmax(model))         as in `tasks.chain`

``encode`` makes ids of a text and ``decode`` a text of ids, as a processor's tokenizer does.  Utterances are
scored one by one, so that no padding changes a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from greenasr.ops.ctc import ctc_loss
from greenasr.ops.divergence import kl
from greenasr.score.scored import Scored, predicted, said
from greenasr.tasks.speech import evaluating, frames_there

IGNORE = -100  # labels that transformers' losses leave out
Encode = Callable[[str], Sequence[int]]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, eq=False)
class Utterance:
    """What a model is given of an utterance, and what was said.

    ``inputs`` are samples (n,), log-mel features (F, T) or ids (U,), as the model takes them.
    """

    utt_id: str
    inputs: Tensor
    text: str = ""
    speaker: str | None = None


class Way(Protocol):
    """How a kind of model learns and is judged."""

    def judged(
        self, model: Any, rows: Sequence[Utterance], twice_differentiable: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Mean loss of a batch, (), and the logits of all that counts in it, (K, C)."""
        ...

    def heard(self, model: Any, row: Utterance) -> Scored:
        """What the model makes of an utterance."""
        ...


@dataclass(frozen=True, eq=False)
class Utterances:
    """The task of the sets "train", "dev" and "test" in batches of ``size``: what `greenasr.shrink` takes."""

    sets: Mapping[str, Sequence[Utterance]]
    way: Way
    size: int = 8
    teacher: nn.Module | None = None
    share: float = 0.0

    def loss(self, model: Any, batch: Sequence[Utterance], *, twice_differentiable: bool = False) -> Tensor:
        """The way's; masks of training draw from numpy's generator, seeded here, so that they repeat."""
        if model.training:
            np.random.seed(int(torch.randint(2**31 - 1, ())))
        loss, own = self.way.judged(model, batch, twice_differentiable)
        if self.teacher is None or not model.training:
            return loss
        with torch.no_grad():
            taught = self.outputs(self.teacher, batch)
        return (1 - self.share) * loss + self.share * kl(taught.log_softmax(1), own.float().log_softmax(1))

    def outputs(self, model: nn.Module, batch: Sequence[Utterance]) -> Tensor:
        """Logits of all that counts in a batch, (K, C)."""
        return self.way.judged(model, batch)[1].float()

    def taught(self, teacher: nn.Module, share: float) -> Utterances:
        """The task with ``share`` of its training loss from a teacher."""
        return replace(self, teacher=teacher, share=share)

    def score(self, model: nn.Module, split: str) -> list[Scored]:
        """What the model makes of every utterance, one by one."""
        with evaluating(model):
            return [self.way.heard(model, row) for row in self.sets[split]]

    def describe(self) -> dict[str, Any]:
        """What it is."""
        return {"kind": type(self.way).__name__, "batch": self.size}

    def batches(self, split: str, seed: int = 0) -> Iterator[list[Utterance]]:
        """One pass; training in an order by ``seed``, costs in batches of at most 2."""
        rows, size = list(self.sets["train" if split == "costs" else split]), self.size
        if split in ("train", "costs"):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
            rows = [rows[i] for i in order.tolist()]
            size = min(size, 2) if split == "costs" else size
        for first in range(0, len(rows), size):
            yield rows[first : first + size]

    def n_batches(self, split: str) -> int:
        """How many batches a pass has."""
        return -(-len(self.sets[split]) // self.size)

    def utterances(self, split: str) -> dict[str, str]:
        """Ids; what was said tells nobody apart."""
        return {row.utt_id: "" for row in self.sets[split]}


@dataclass(frozen=True)
class CtcEncoder:
    """Wav2Vec2ForCTC and HubertForCTC: words of the best path; ``blank`` is the pad token's id."""

    encode: Encode
    decode: Decode
    blank: int = 0

    def judged(
        self, model: Any, rows: Sequence[Utterance], twice_differentiable: bool = False
    ) -> tuple[Tensor, Tensor]:
        """CTC loss a label, (), of `ops.ctc`, which has second derivatives; logits of all frames."""
        device = model.device
        lens = torch.tensor([len(row.inputs) for row in rows])
        inputs = pad_sequence([row.inputs for row in rows], batch_first=True).to(device)
        mask = None
        if model.config.feat_extract_norm == "layer":  # others were trained on padding as it is
            mask = (torch.arange(inputs.shape[1]) < lens[:, None]).to(device)
        labels = [torch.tensor(list(self.encode(row.text)), dtype=torch.int64) for row in rows]
        counts = torch.tensor([len(each) for each in labels])
        frames = model._get_feat_extract_output_lengths(lens).to(torch.int64)
        logits = model(inputs, attention_mask=mask).logits.float()
        losses = ctc_loss(
            logits.log_softmax(2),
            pad_sequence(labels, batch_first=True).to(device), frames.to(device), counts.to(device),
            blank=self.blank, twice_differentiable=twice_differentiable,
        )  # fmt: skip
        there = frames_there(logits, frames.to(device))
        return losses.sum() / (int(counts.sum()) + len(rows)), logits[there]

    def heard(self, model: Any, row: Utterance) -> Scored:
        """Words of the best path."""
        best = model(row.inputs[None].to(model.device)).logits[0].argmax(1).unique_consecutive().tolist()
        words = self.decode([k for k in best if k != self.blank]).split()
        return said(row.utt_id, row.text.split(), words, row.speaker)


@dataclass(frozen=True)
class SpeechToText:
    """WhisperForConditionalGeneration: words by the model's own ``generate``, which is given ``settings``.

    ``encode`` gives the ids behind the start token, with the end; ``decode`` leaves special tokens out.
    """

    encode: Encode
    decode: Decode
    settings: Mapping[str, Any] = field(default_factory=dict)

    def judged(
        self, model: Any, rows: Sequence[Utterance], twice_differentiable: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy a label, (), and the logits at all labels."""
        labels = [torch.tensor(list(self.encode(row.text)), dtype=torch.int64) for row in rows]
        padded = pad_sequence(labels, batch_first=True, padding_value=IGNORE).to(model.device)
        found = model(torch.stack([row.inputs for row in rows]).to(model.device), labels=padded)
        return found.loss, found.logits[padded != IGNORE]

    def heard(self, model: Any, row: Utterance) -> Scored:
        """Words that the model generates."""
        ids = model.generate(row.inputs[None].to(model.device), **self.settings)[0].tolist()
        return said(row.utt_id, row.text.split(), self.decode(ids).split(), row.speaker)


@dataclass(frozen=True)
class NextToken:
    """A causal language model: what is lost are tokens that were foretold."""

    def judged(
        self, model: Any, rows: Sequence[Utterance], twice_differentiable: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy a token, (), and the logits wherever one is foretold."""
        ids = pad_sequence([row.inputs for row in rows], batch_first=True).to(model.device)
        labels = pad_sequence([row.inputs for row in rows], batch_first=True, padding_value=IGNORE)
        labels = labels.to(model.device)
        found = model(ids, labels=labels)
        return found.loss, found.logits[:, :-1][labels[:, 1:] != IGNORE]

    def heard(self, model: Any, row: Utterance) -> Scored:
        """The likeliest token after every token against the one that comes."""
        likeliest = model(row.inputs[None].to(model.device)).logits[0, :-1].argmax(1).tolist()
        ref, hyp = ([str(i) for i in ids] for ids in (row.inputs[1:].tolist(), likeliest))
        return predicted(row.utt_id, ref, hyp, row.speaker)
