"""Language modelling: next-token cross-entropy, perplexity, log-probabilities of sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from greenasr.data import batches
from greenasr.data.batches import TokenBatch
from greenasr.data.text import Tokenizer, Words
from greenasr.data.token_rows import IGNORE
from greenasr.decode import sentence_scores
from greenasr.ops.cross_entropy import Teacher, linear_cross_entropy
from greenasr.ops.curved_cross_entropy import curved_cross_entropy
from greenasr.tasks.speech import evaluating

Progress = Callable[[int, int], None]  # done, of


class CausalLM(Protocol):
    """What a language model offers: hidden vectors, and an output layer for them."""

    output: nn.Linear

    def __call__(self, ids: Tensor, cache: object = None) -> tuple[Tensor, object]:
        """(N, T) -> hidden (N, T, D) and the state for what follows."""
        ...


@dataclass(frozen=True)
class LanguageModel:
    """The task: ids of each split, cut into windows of ``length`` tokens or kept as sentences.

    ``stride`` is how far evaluation windows move: each token is predicted from at least
    ``length - stride`` tokens before it.  ``ends`` marks the tokens that end a word, where a word may
    have several; perplexity is per word, ends of sentences included, whatever the tokenizer.
    ``by_sentence`` trains and scores every sentence alone.

    With a ``teacher``, a model in evaluation mode, ``share`` of the training targets are its softmax.
    """

    tokenizer: Tokenizer
    splits: Mapping[str, NDArray[np.int32]]
    ends: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    length: int = 64
    batch: int = 16
    stride: int = 32
    by_sentence: bool = False
    bf16: bool = True
    teacher: CausalLM | None = None
    share: float = 0.5

    def batches(self, split: str, seed: int = 0) -> Iterator[TokenBatch]:
        """One pass over a split, shuffled by ``seed``."""
        ids = self._ids(split)
        if self.by_sentence:
            rows = [row for row in self.sentences(split) if len(row) < self.length]
            yield from (
                b for b, _ in batches.sentences(rows, self.tokenizer.eos, self.length * self.batch, seed)
            )
        else:
            yield from batches.contiguous(ids, self.length, self.batch, seed)

    def n_batches(self, split: str) -> int:
        """How many batches a pass has, to within a few."""
        if self.by_sentence:
            return sum(1 for _ in self.batches(split))
        return batches.n_contiguous(len(self._ids(split)), self.length, self.batch)

    def loss(self, model: CausalLM, batch: TokenBatch, *, twice_differentiable: bool = False) -> Tensor:
        """Mean cross-entropy in nats, (); the plain form where second derivatives are wanted."""
        batch = batch.to(model.output.bias.device)
        if twice_differentiable:
            hidden, _ = model(batch.inputs)
            return curved_cross_entropy(model.output(hidden).flatten(0, 1), batch.targets.flatten())
        with self._autocast(batch.inputs.device):
            hidden, _ = model(batch.inputs)
            hidden = hidden.flatten(0, 1)
            if self.bf16:
                hidden = hidden.to(torch.bfloat16)
            output, teacher = model.output, self._teacher(batch)
            return linear_cross_entropy(hidden, output.weight, output.bias, batch.targets.flatten(), teacher)

    def outputs(self, model: CausalLM, batch: TokenBatch) -> Tensor:
        """Logits of the token at every place that has a target, (tokens, V)."""
        batch = batch.to(model.output.bias.device)
        hidden, _ = model(batch.inputs)
        found: Tensor = model.output(hidden[batch.targets != IGNORE]).float()
        return found

    def means(self, model: CausalLM, batch: TokenBatch) -> list[tuple[Tensor, int]]:
        """The loss, and the number of targets that it is a mean over."""
        return [(self.loss(model, batch), int((batch.targets != IGNORE).sum()))]

    @torch.no_grad()
    def logprobs(self, model: CausalLM, batch: TokenBatch) -> Tensor:
        """Natural log-probability of every target, (N, T); 0 where there is none.  Always in fp32."""
        hidden, _ = model(batch.inputs)
        out = torch.zeros(batch.targets.shape, device=hidden.device)
        keep = batch.targets != IGNORE
        parts = []
        for h, y in zip(hidden[keep].split(512), batch.targets[keep].split(512), strict=True):
            logits = model.output(h).float()
            parts.append(logits.gather(1, y[:, None]).squeeze(1) - logits.logsumexp(1))
        out[keep] = torch.cat(parts)
        return out

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str, progress: Progress | None = None) -> dict[str, float]:
        """Perplexity of a split with every end of sentence counted as a token."""
        logprobs = self.word_logprobs(model, split, progress)
        return {"ppl": float(np.exp(-logprobs.mean(dtype=np.float64))), "words": len(logprobs)}

    def word_logprobs(
        self, model: nn.Module, split: str, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Natural log-probability of every word and end of sentence of a split, in order."""
        tokens = np.concatenate(list(self.token_logprobs(model, split, progress)))
        if split not in self.ends:
            return tokens
        starts = np.concatenate(([0], np.flatnonzero(self.ends[split])[:-1] + 1))
        summed: NDArray[np.float32] = np.add.reduceat(tokens, starts)
        return summed

    def hypothesis_logprobs(
        self, model: nn.Module, sentences: Sequence[Words], progress: Progress | None = None
    ) -> list[NDArray[np.float32]]:
        """Natural log-probability of every word and of the end of each sentence, [(words + 1,)].

        Every sentence is scored alone; raises ValueError when one is longer than the model's context.
        """
        with evaluating(model):
            return sentence_scores.hypothesis_logprobs(
                self.scoring(model), self.tokenizer, sentences, self.length, progress
            )

    def sentence_logprobs(
        self, model: nn.Module, ids: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> list[NDArray[np.float32]]:
        """Log-probability of every token of each sentence and of its end, [(n + 1,)]."""
        with evaluating(model):
            return sentence_scores.sentence_logprobs(
                self.scoring(model), ids, self.tokenizer.eos, self.length, progress
            )

    def token_logprobs(
        self, model: nn.Module, split: str, progress: Progress | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Log-probabilities of the split's tokens in order, window by window or sentence by sentence."""
        score, eos = self.scoring(model), self.tokenizer.eos
        with evaluating(model):
            if self.by_sentence:
                ids = self.sentences(split)
                yield from sentence_scores.sentence_logprobs(score, ids, eos, self.length, progress)
                return
            yield sentence_scores.stream_logprobs(
                score, self._ids(split), eos, self.length, self.stride, progress
            )

    def scoring(self, model: Any) -> sentence_scores.Score:
        """The model as sentences are scored with it."""

        def score(inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.float32]:
            batch = TokenBatch(torch.from_numpy(inputs), torch.from_numpy(targets))
            found: NDArray[np.float32] = (
                self.logprobs(model, batch.to(model.output.weight.device)).cpu().numpy()
            )
            return found

        return score

    def _ids(self, split: str) -> NDArray[np.int32]:
        if split not in self.splits:
            raise ValueError(f"no text for the split '{split}'; there is {', '.join(self.splits)}.")
        return self.splits[split]

    def sentences(self, split: str) -> list[list[int]]:
        """Ids of every sentence of a split, without its end."""
        ids = self._ids(split)
        ends = np.flatnonzero(ids == self.tokenizer.eos)
        return [row[:-1].tolist() for row in np.split(ids, ends + 1)[:-1]]

    @torch.no_grad()
    def _teacher(self, batch: TokenBatch) -> Teacher | None:
        if self.teacher is None:
            return None
        hidden, _ = self.teacher(batch.inputs)
        return Teacher(hidden.flatten(0, 1), self.teacher.output.weight, self.teacher.output.bias, self.share)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)
