"""Language modelling: next-token cross-entropy, perplexity, log-probabilities of sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from greenasr.data import batches
from greenasr.data.batches import IGNORE, TokenBatch
from greenasr.data.text import Tokenizer, Words
from greenasr.ops.cross_entropy import Teacher, linear_cross_entropy
from greenasr.ops.curved_cross_entropy import curved_cross_entropy

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
            rows = [row for row in self._sentences(split) if len(row) < self.length]
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
        pieces = [self.tokenizer.word_ids(words) for words in sentences]
        flat = [[i for word in row for i in word] for row in pieces]
        out = []
        for row, logprobs in zip(pieces, self.sentence_logprobs(model, flat, progress), strict=True):
            starts = np.cumsum([0, *(len(word) for word in row)])
            out.append(np.add.reduceat(logprobs, starts))
        return out

    def token_logprobs(
        self, model: nn.Module, split: str, progress: Progress | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Log-probabilities of the split's tokens in order, window by window or sentence by sentence."""
        was_training = model.training
        model.eval()
        try:
            if self.by_sentence:
                yield from self.sentence_logprobs(model, self._sentences(split), progress)
                return
            yield self._windows(model, self._ids(split), self.stride, progress)
        finally:
            model.train(was_training)

    def sentence_logprobs(
        self, model: nn.Module, ids: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> list[NDArray[np.float32]]:
        """Log-probability of every token of each sentence and of its end, [(n + 1,)].

        What is longer than a window is scored in windows that overlap by half.  ``progress`` is told
        (sentences done, sentences).
        """
        done = 0
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(ids)
        short = [i for i, row in enumerate(ids) if len(row) < self.length]
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        try:
            for batch, places in batches.sentences([ids[i] for i in short], self.tokenizer.eos, 2048):
                logprobs = self.logprobs(model, batch.to(device)).cpu().numpy()  # type: ignore[arg-type]
                for row, place in enumerate(places):
                    out[short[place]] = logprobs[row, : len(ids[short[place]]) + 1]
                done += len(places)
                if progress is not None:
                    progress(done, len(ids))
            for i in set(range(len(ids))) - set(short):
                row_ids = np.array([*ids[i], self.tokenizer.eos], np.int32)
                out[i] = self._windows(model, row_ids, max(1, self.length // 2))
        finally:
            model.train(was_training)
        return out

    def _windows(
        self, model: nn.Module, ids: NDArray[np.int32], stride: int, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Log-probabilities of a stream in overlapping windows, (n,); ``progress``: (tokens done, n)."""
        device = next(model.parameters()).device
        parts = []
        for batch in batches.overlapping(ids, self.length, stride, 32, self.tokenizer.eos):
            moved = batch.to(device)
            parts.append(self.logprobs(model, moved)[moved.targets != IGNORE].cpu().numpy())  # type: ignore[arg-type]
            if progress is not None:
                progress(sum(map(len, parts)), len(ids))
        return np.concatenate(parts)

    def _ids(self, split: str) -> NDArray[np.int32]:
        if split not in self.splits:
            raise ValueError(f"no text for the split '{split}'; there is {', '.join(self.splits)}.")
        return self.splits[split]

    def _sentences(self, split: str) -> list[list[int]]:
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
