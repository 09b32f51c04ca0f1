"""Our own language models as tasks of the search: what is lost are tokens that were foretold.

A language model says no words.  Its errors here are the tokens of a text that are not the likeliest after
those before them; the matched-pairs test takes sentences apart, as for speech.  Dev loss is the proxy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from greenasr.data import batches
from greenasr.data.batches import TokenBatch
from greenasr.data.files import digest
from greenasr.data.text import read_sentences
from greenasr.pipeline import lm
from greenasr.pipeline.models import load
from greenasr.score.scored import Scored, predicted
from greenasr.shrinking.recognisers import OurFormat
from greenasr.shrinking.task import Teaching
from greenasr.tasks.language_model import LanguageModel
from greenasr.tasks.speech import evaluating

TOKENS = 2048  # of a batch of sentences


@dataclass(frozen=True, eq=False)
class TextTask:
    """A language model's task, and the digests of its texts."""

    inner: LanguageModel
    digests: Mapping[str, str]
    teaching = Teaching(0.5, None)

    def loss(self, model: Any, batch: Any, *, twice_differentiable: bool = False) -> Tensor:
        """Cross-entropy of the next token."""
        return self.inner.loss(model, batch, twice_differentiable=twice_differentiable)

    def outputs(self, model: Any, batch: Any) -> Tensor:
        """Logits of the next token."""
        return self.inner.outputs(model, batch)

    def taught(self, teacher: Any, share: float) -> TextTask:
        """The task with a teacher."""
        return replace(self, inner=replace(self.inner, teacher=teacher, share=share))

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        """One pass."""
        return self.inner.batches("train" if split == "costs" else split, seed)

    def n_batches(self, split: str) -> int:
        """How many batches a pass has, about."""
        return self.inner.n_batches(split)

    def score(self, model: Any, split: str) -> list[Scored]:
        """The likeliest token at every place of every sentence, against the one that stands there."""
        parts, owners = cut(self.inner.sentences(split), self.inner.length - 1)
        heard: list[list[int]] = [[] for _ in parts]
        likeliest = _by_torch if isinstance(model, nn.Module) else _by_runtime
        for batch, places in batches.sentences(parts, self.inner.tokenizer.eos, TOKENS):
            for place, row in zip(places, likeliest(model, batch), strict=True):
                heard[place] = row[: len(parts[place]) + 1]
        refs, hyps = (defaultdict[int, list[str]](list) for _ in range(2))
        for k, owner in enumerate(owners):
            last = k + 1 == len(owners) or owners[k + 1] != owner
            n = len(parts[k]) + last  # the end of a sentence is foretold once
            refs[owner] += [str(i) for i in [*parts[k], self.inner.tokenizer.eos][:n]]
            hyps[owner] += [str(i) for i in heard[k][:n]]
        return [predicted(f"{split}-{owner}", refs[owner], hyps[owner]) for owner in refs]

    def utterances(self, split: str) -> dict[str, str]:
        """The text as one: sentences of different texts may well be the same."""
        return {split: self.digests[split]}

    def describe(self) -> dict[str, Any]:
        """What it is."""
        return {"kind": "language model", "scored": "next token"}


def _by_torch(model: Any, batch: TokenBatch) -> Iterator[list[int]]:
    """The likeliest token at every place, sentence by sentence."""
    with evaluating(model) as device:
        hidden, _ = model(batch.inputs.to(device))
        for row in hidden:
            yield model.output(row).argmax(1).tolist()


def _by_runtime(network: Any, batch: TokenBatch) -> Iterator[list[int]]:
    """The same by a network of the runtime."""
    hidden, _ = network.hidden(batch.inputs.numpy())
    for row in hidden:
        yield network.logits(row).argmax(1).tolist()


def cut(rows: Sequence[Sequence[int]], most: int) -> tuple[list[list[int]], list[int]]:
    """Sentences in parts of at most ``most`` ids, and the sentence of each part.

    >>> cut([[1, 2, 3], [4]], 2)
    ([[1, 2], [3], [4]], [0, 0, 1])
    """
    parts, owners = [], []
    for owner, row in enumerate(rows):
        for first in range(0, max(1, len(row)), most):
            parts.append(list(row[first : first + most]))
            owners.append(owner)
    return parts, owners


def language_model(path: Path, texts: Mapping[str, Path]) -> tuple[nn.Module, TextTask, OurFormat]:
    """Model, task and package of a packed language model, and its three texts."""
    saved = load(path)
    if saved.bit_map is not None:
        raise ValueError(f"{path}: is quantized already: give the float model.")
    inner = replace(
        lm.task_of(saved, {split: read_sentences(text) for split, text in texts.items()}), bf16=False
    )
    task = TextTask(inner, {split: digest(text) for split, text in texts.items()})
    recipe = {**saved.recipe, "shrunk_from": digest(path)}
    return saved.model, task, OurFormat(saved.tokenizer, recipe, load)
