"""Our own language models as tasks of the search: what is lost are tokens that were foretold.

A language model says no words.  Its errors here are the tokens of a text that are not the likeliest after
those before them; the matched-pairs test takes sentences apart, as for speech.  Dev loss is the proxy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from greenasr.data import batches
from greenasr.data.files import digest
from greenasr.data.text import read_sentences
from greenasr.pipeline import lm
from greenasr.pipeline.models import load
from greenasr.score.scored import Scored, predicted
from greenasr.shrinking.recognisers import OurFormat
from greenasr.tasks.language_model import LanguageModel
from greenasr.tasks.speech import evaluating

TOKENS = 2048  # of a batch of sentences


@dataclass(frozen=True, eq=False)
class TextTask:
    """A language model's task, and the digests of its texts."""

    inner: LanguageModel
    digests: Mapping[str, str]

    def loss(self, model: Any, batch: Any, *, twice_differentiable: bool = False) -> Tensor:
        """Cross-entropy of the next token."""
        return self.inner.loss(model, batch, twice_differentiable=twice_differentiable)

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        """One pass."""
        return self.inner.batches("train" if split == "costs" else split, seed)

    def n_batches(self, split: str) -> int:
        """How many batches a pass has, about."""
        return self.inner.n_batches(split)

    def score(self, model: Any, split: str) -> list[Scored]:
        """The likeliest token at every place of every sentence, against the one that stands there."""
        tokenizer, rows = self.inner.tokenizer, self.inner.sentences(split)
        found: dict[int, Scored] = {}
        with evaluating(model) as device:
            for batch, places in batches.sentences(rows, tokenizer.eos, TOKENS):
                moved: Any = batch.to(device)
                hidden, _ = model(moved.inputs)
                for row, place in enumerate(places):
                    n = len(rows[place]) + 1
                    likeliest = model.output(hidden[row, :n]).argmax(1).tolist()
                    targets = moved.targets[row, :n].tolist()
                    ref, hyp = ([str(i) for i in ids] for ids in (targets, likeliest))
                    found[place] = predicted(f"{split}-{place}", ref, hyp)
        return [found[place] for place in sorted(found)]

    def utterances(self, split: str) -> dict[str, str]:
        """The text as one: sentences of different texts may well be the same."""
        return {split: self.digests[split]}

    def describe(self) -> dict[str, Any]:
        """What it is."""
        return {"kind": "language model", "scored": "next token"}


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
