"""What every task on a feature store shares: its splits in batches, how many, and the mean loss of one.

A task has ``stores`` by split, ``ids`` that limit a split's utterances, ``frames`` a batch with padding, and
``augment``, which masks the split "train" alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from greenasr.data.augment import SpecAugment
from greenasr.data.feature_store import FeatureStore
from greenasr.data.speech_batches import SpeechBatch, speech_batches


class SpeechTask(Protocol):
    """The part of a task that its batches need."""

    @property
    def stores(self) -> Mapping[str, FeatureStore]:
        """Features of each split."""
        ...

    @property
    def ids(self) -> Mapping[str, Sequence[str]]:
        """Utterances of a split, where they are not all of its store."""
        ...

    @property
    def frames(self) -> int:
        """Frames of a batch, padding included."""
        ...

    @property
    def augment(self) -> SpecAugment | None:
        """Masks of training."""
        ...

    def loss(self, model: Any, batch: Any) -> Tensor:
        """Mean loss of a batch, ()."""
        ...

    def batches(self, split: str, seed: int = 0) -> Iterator[SpeechBatch]:
        """One pass over a split."""
        ...


def store_of(task: SpeechTask, split: str) -> FeatureStore:
    """The features of a split; ValueError where there are none."""
    if split not in task.stores:
        raise ValueError(f"no speech for the split '{split}'; there is {', '.join(task.stores)}.")
    return task.stores[split]


def split_batches(
    task: SpeechTask, split: str, seed: int, ivectors: Mapping[str, NDArray[np.float32]] | None = None
) -> Iterator[SpeechBatch]:
    """One pass over a split, order and masks by ``seed``; only "train" is masked."""
    augment = task.augment if split == "train" else None
    store, ids = store_of(task, split), task.ids.get(split)
    return speech_batches(store, task.frames, seed, ids=ids, ivectors=ivectors, augment=augment)


def count_batches(task: SpeechTask, split: str) -> int:
    """How many batches a pass has, to within a few."""
    store, chosen = store_of(task, split), task.ids.get(split)
    frames = store.frames if chosen is None else store.frames[[store.place[i] for i in chosen]]
    return max(1, round(1.06 * float(frames.sum()) / task.frames))


def frames_there(outputs: Tensor, lens: Tensor) -> Tensor:
    """Which frames of outputs (N, T, C) are none of padding, (N, T), by their lengths (N,)."""
    return torch.arange(outputs.shape[1], device=lens.device) < lens[:, None]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """The network in evaluation mode and without gradients inside the block; yields where it lies."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)


def mean_loss(task: SpeechTask, model: nn.Module, split: str) -> float:
    """Mean loss of a split, weighted by utterances."""
    with evaluating(model):
        parts = [(len(batch), float(task.loss(model, batch))) for batch in task.batches(split)]
    return sum(n * loss for n, loss in parts) / sum(n for n, _ in parts)
