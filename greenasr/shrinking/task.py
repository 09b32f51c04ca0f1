"""What the search must know of a model: a loss, batches, and a scorer.

Three sets: "train" teaches, "dev" steers every choice, "test" is scored once, at the end.  So dev and test
must be different speech, which is looked at before anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from greenasr.ops.divergence import kl
from greenasr.score.errors import Errors
from greenasr.score.scored import Scored

SETS = ("train", "dev", "test")


class ShrinkTask(Protocol):
    """The only thing that knows losses, data and scores."""

    def loss(self, model: Any, batch: Any, *, twice_differentiable: bool = False) -> Tensor:
        """Mean loss of a batch, (); in operations with second derivatives where they are wanted."""
        ...

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        """One pass over "train" by ``seed``, over "costs", small batches of it by ``seed``, or over "dev"."""
        ...

    def n_batches(self, split: str) -> int:
        """How many batches a pass has, about."""
        ...

    def score(self, model: Any, split: str) -> Sequence[Scored]:
        """What the model makes of every utterance of "dev" or "test", the same ones in the same order."""
        ...

    def utterances(self, split: str) -> Mapping[str, str]:
        """Id -> what tells its content from others' ("" where nothing does), of "train", "dev" or "test"."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Plain data: what figures depend on beside the model and the utterances."""
        ...


@runtime_checkable
class Teachable(Protocol):
    """A task whose outputs can be compared: the full model can teach its small versions."""

    def taught(self, teacher: Any, share: float) -> ShrinkTask:
        """The task with ``share`` of its training loss the divergence from the teacher's outputs."""
        ...

    def outputs(self, model: Any, batch: Any) -> Tensor:
        """Logits of all that counts in a batch, (K, C), the same places for every model."""
        ...


@dataclass(frozen=True)
class Teaching:
    """How a small model learns from the full one: the teacher's share, and the dropout meanwhile.

    A ``dropout`` of None is the model's own.  AN4's 4-bit hybrid gained most of what rounding had lost by 0.8
    without dropout (recipes/an4/RESULTS.md), which is so the way of all tasks that do not say otherwise.
    """

    share: float = 0.8
    dropout: float | None = 0.0


def teachable(task: ShrinkTask) -> Teachable | None:
    """The task if its outputs can be compared."""
    return task if isinstance(task, Teachable) and getattr(task, "can_teach", True) else None


@dataclass(frozen=True, eq=False)
class OwnTask:
    """A task of functions: for a model that somebody brings.

    ``loss`` (model, batch) is the mean loss of a batch, ``train`` and ``dev_batches`` are lists of batches,
    ``scorer`` (model, data) judges ``dev`` or ``test``, which are whatever the scorer reads.  A scorer gives
    `Scored` or plain `Errors`, one an utterance.  ``ids`` (data) names the utterances of ``dev`` and
    ``test``, so that the two can be held against each other; else they are taken for different.  Batches of
    training come in an order by seed.  Without ``dev_batches`` proxies are judged on the first eighth of
    ``train``.  ``logits`` (model, batch) are those of all that counts in a batch, (K, C): with them the full
    model teaches the small ones.
    """

    loss_of: Callable[[Any, Any], Tensor]
    train: Sequence[Any]
    dev: Any
    test: Any
    scorer: Callable[[Any, Any], Iterable[Scored | Errors]]
    dev_batches: Sequence[Any] = ()
    ids: Callable[[Any], Iterable[str]] | None = None
    logits: Callable[[Any, Any], Tensor] | None = None
    teacher: nn.Module | None = None
    share: float = 0.0

    @property
    def can_teach(self) -> bool:
        """Whether outputs are known."""
        return self.logits is not None

    def loss(self, model: nn.Module, batch: Any, *, twice_differentiable: bool = False) -> Tensor:
        """``loss_of``; it must be twice differentiable itself where Hessian costs are wanted."""
        loss = self.loss_of(model, batch)
        if self.teacher is None or not model.training:
            return loss
        with torch.no_grad():
            taught = self.outputs(self.teacher, batch)
        own = self.outputs(model, batch)
        return (1 - self.share) * loss + self.share * kl(taught.log_softmax(1), own.log_softmax(1))

    def outputs(self, model: Any, batch: Any) -> Tensor:
        """``logits``."""
        if self.logits is None:
            raise ValueError("the task has no logits, of which a teacher's could be taught.")
        return self.logits(model, batch)

    def taught(self, teacher: nn.Module, share: float) -> OwnTask:
        """The task with a teacher."""
        return replace(self, teacher=teacher, share=share)

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        """One pass."""
        if split in ("train", "costs"):
            order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
            return (self.train[i] for i in order.tolist())
        return iter(self.dev_batches or self.train[: max(1, len(self.train) // 8)])

    def n_batches(self, split: str) -> int:
        """How many batches a pass has."""
        return len(self.train) if split == "train" else sum(1 for _ in self.batches(split))

    def score(self, model: nn.Module, split: str) -> list[Scored]:
        """The scorer's records."""
        found = self.scorer(model, self.dev if split == "dev" else self.test)
        return [Scored(row) if isinstance(row, Errors) else row for row in found]

    def utterances(self, split: str) -> dict[str, str]:
        """Ids of dev and test, if they are told."""
        if self.ids is None or split == "train":
            return {}
        return dict.fromkeys(self.ids(self.dev if split == "dev" else self.test), "")

    def describe(self) -> dict[str, Any]:
        """How much there is of it."""
        return {"train": len(self.train), "dev": self.n_batches("dev")}


def check_apart(task: ShrinkTask, allow: bool = False) -> list[str]:
    """Notes on sets that share utterances; ValueError where they do and it was not allowed.

    Two utterances are the same where their ids are, or what is known of their content.
    """
    notes = []
    for a, b in (("dev", "test"), ("train", "test"), ("train", "dev")):
        one, two = task.utterances(a), task.utterances(b)
        known = set(one.values()) - {""}
        shared = [name for name, content in two.items() if name in one or content in known]
        if not shared:
            continue
        found = f"{a} and {b} share {len(shared)} of {len(two)} utterances, the first is '{shared[0]}'"
        if not allow:
            raise ValueError(
                f"{found}: what steers the search cannot judge it; give other speech, or allow it knowingly "
                "(--allow-overlap)."
            )
        notes.append(f"{found}: figures on {b} are too good.")
    return notes
