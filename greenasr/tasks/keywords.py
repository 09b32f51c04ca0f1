"""Keyword spotting: which of C words a second of sound holds, by cross-entropy on a network's logits.

    L = Σ_n -ln p(c_n | x_n) / N          p = softmax(network(x_n)), nats a clip

Clips lie in memory as log-mel energies; a batch is moved, mixed with noise, masked and made into the
network's features at once (`data.clip_augment`).  With ``background`` above 0 the network also learns the
class `BACKGROUND`: so many extra examples a clip of noise alone, or of what is left of a clip moved away by
`AWAY` of its length and more.  That is for streams; a test clip holds a word, so there it is never an answer.

Shapes: N batch, U clips, T frames, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from greenasr.data.clip_augment import ClipAugment, moved_by
from greenasr.data.clip_features import BACKGROUND, seen
from greenasr.data.clips import FRAMES, second_of
from greenasr.data.feature_store import FeatureStore
from greenasr.data.features import Feats, Features
from greenasr.decode.nbest import NBest
from greenasr.decode.transducer import log_softmax
from greenasr.tasks.speech import evaluating

AWAY = 0.6
NOTHING = -30.0  # a log-mel energy below any
QUIET, LOUD = -60.0, 0.0  # dB, mean level of background noise
Progress = Callable[[int, int], None]


class Classifier(Protocol):
    """A network that says what a clip is, of arrays: the runtime's, or torch's behind `models.on_arrays`."""

    def logits(self, feats: Feats) -> Feats:
        """One clip (T, F) -> (C,), not normalised."""
        ...


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of a split: ids, speakers and words [U], log-mel energies (U, T, F) in float16."""

    ids: tuple[str, ...]
    speakers: tuple[str, ...]
    words: tuple[str, ...]
    feats: Tensor

    @classmethod
    def of(
        cls, store: FeatureStore, ids: Sequence[str] | None = None, frames: int = FRAMES, every: int = 1
    ) -> Clips:
        """A second, or ``frames``, of each of a store's utterances, and of that every ``every``-th frame."""
        chosen = tuple(store.ids if ids is None else ids)
        feats = np.empty((len(chosen), -(-frames // every), store.features.dim), np.float16)
        for row, utt_id in zip(feats, chosen, strict=True):
            row[:] = second_of(store.raw(utt_id), frames)[::every]
        places = [store.place[utt_id] for utt_id in chosen]
        speakers, words = (tuple(column[p] for p in places) for column in (store.speakers, store.texts))
        return cls(chosen, speakers, words, torch.from_numpy(feats))

    def __add__(self, other: Clips) -> Clips:
        """These clips and others."""
        return Clips(
            self.ids + other.ids, self.speakers + other.speakers, self.words + other.words,
            torch.cat([self.feats, other.feats]),
        )  # fmt: skip

    def __len__(self) -> int:
        """U."""
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class KeywordBatch:
    """Features (N, T, F) and classes (N,)."""

    feats: Tensor
    targets: Tensor

    def share(self, rank: int, size: int) -> KeywordBatch:
        """Every ``size``-th clip from ``rank`` on; one of them where there are too few."""
        rows = slice(rank % len(self), None, size)
        return KeywordBatch(self.feats[rows], self.targets[rows])

    def __len__(self) -> int:
        """N."""
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Keywords:
    """The task: clips of each split, the words in the order of the network's outputs, and its features.

    ``noise`` (M, F) holds powers of noise, see `clip_augment.noise_powers`; only "train" is augmented.  Above
    ``band`` Hz, if it is not 0, networks hear nothing.
    """

    clips: Mapping[str, Clips]
    words: tuple[str, ...]
    features: Features
    noise: Tensor
    batch: int = 128
    augment: ClipAugment | None = None
    background: float = 0.0
    smoothing: float = 0.0
    band: float = 0.0
    _classes: dict[str, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Number the words; ValueError for a clip whose word is none of them."""
        self._classes.update({word: k for k, word in enumerate(self.words)})
        for split, clips in self.clips.items():
            check_words(split, clips, self.words)
        if not (self.batch > 0 and 0 <= self.background <= 1 and 0 <= self.smoothing < 1):
            raise ValueError(
                f"batch {self.batch} must be positive, background {self.background:g} and smoothing "
                f"{self.smoothing:g} shares from 0 to 1."
            )

    def batches(self, split: str, seed: int = 0) -> Iterator[KeywordBatch]:
        """One pass over a split in batches of about one size; order and changes of "train" by ``seed``."""
        clips = self._clips(split)
        targets = torch.tensor([self._classes[word] for word in clips.words])
        learning = split == "train"
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(clips), generator=generator) if learning else torch.arange(len(clips))
        for chosen in order.tensor_split(self.n_batches(split)):
            feats, classes = clips.feats[chosen].float(), targets[chosen]
            if learning and self.augment is not None:
                extra = self._background(feats, generator)
                feats = torch.cat([self.augment(feats, self.noise, generator), extra])
                classes = torch.cat([classes, torch.full((len(extra),), len(self.words) - 1)])
            yield KeywordBatch(self.seen(feats), classes)

    def n_batches(self, split: str) -> int:
        """How many batches a pass has."""
        return max(1, round(len(self._clips(split)) / self.batch))

    def loss(self, model: Any, batch: KeywordBatch, *, twice_differentiable: bool = False) -> Tensor:
        """Mean cross-entropy of a batch in nats, (); smoothed in training where the task says so."""
        device = next(iter(model.parameters())).device
        logits = model(batch.feats.to(device), None).float()
        smoothing = self.smoothing if model.training and not twice_differentiable else 0.0
        return F.cross_entropy(logits, batch.targets.to(device), label_smoothing=smoothing)

    def means(self, model: Any, batch: KeywordBatch) -> list[tuple[Tensor, int]]:
        """The loss, and the number of clips that it is a mean over."""
        return [(self.loss(model, batch), len(batch))]

    def evaluate(self, model: Any, split: str) -> dict[str, float]:
        """Mean cross-entropy of a split's clips in nats, and their error rate in percent."""
        logprobs = self.logprobs(model, split)
        targets = np.array([self._classes[word] for word in self._clips(split).words])
        loss = -logprobs[np.arange(len(targets)), targets].mean()
        return {"loss": float(loss), "error": 100 * float((logprobs.argmax(1) != targets).mean())}

    def logprobs(self, model: Any, split: str, progress: Progress | None = None) -> np.ndarray:
        """Ln p of every word for every clip, (U, C), without the class `BACKGROUND`."""
        clips, said = self._clips(split), [word != BACKGROUND for word in self.words]
        found = []
        with evaluating(model) as device:
            for chosen in torch.arange(len(clips)).split(256):
                feats = self.seen(clips.feats[chosen].float())
                logits = model(feats.to(device), None).float()
                found.append(logits[:, said].log_softmax(1).cpu().numpy())
                if progress is not None:
                    progress(int(chosen[-1]) + 1, len(clips))
        return np.concatenate(found)

    def heard(self, network: Classifier, split: str, progress: Progress | None = None) -> np.ndarray:
        """The same by a network that hears a clip at a time, of either engine."""
        clips, said = self._clips(split), [word != BACKGROUND for word in self.words]
        found = np.empty((len(clips), sum(said)), np.float32)
        for at, feats in enumerate(clips.feats.float().numpy()):
            found[at] = log_softmax(network.logits(seen(feats, self.features, self.band))[said])
            if progress is not None:
                progress(at + 1, len(clips))
        return found

    def seen(self, feats: Tensor) -> Tensor:
        """What networks see of log-mel energies, (N, T, F)."""
        return torch.from_numpy(seen(feats.numpy(), self.features, self.band))

    def nbest(self, logprobs: np.ndarray, split: str, n: int = 5) -> list[NBest]:
        """The ``n`` likeliest words of every clip, with ln p, of ``logprobs`` (U, C)."""
        clips, lists = self._clips(split), []
        words = [word for word in self.words if word != BACKGROUND]
        for utt_id, ref, row in zip(clips.ids, clips.words, logprobs, strict=True):
            best = np.argsort(-row, kind="stable")[:n]
            lists.append(
                NBest(utt_id, ref, tuple(words[k] for k in best), tuple(float(row[k]) for k in best))
            )
        return lists

    def _clips(self, split: str) -> Clips:
        if split not in self.clips:
            raise ValueError(f"no clips for the split '{split}'; there is {', '.join(self.clips)}.")
        return self.clips[split]

    def _background(self, feats: Tensor, generator: torch.Generator) -> Tensor:
        """Examples of no word, (n, T, F): noise at any level, over fragments of words in every second one."""
        count, frames = round(self.background * len(feats)), feats.shape[1]
        if BACKGROUND not in self.words or not count:
            return feats[:0]

        def draw(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, generator=generator)

        away = draw(AWAY * frames, frames).long() * (2 * torch.randint(2, (count,), generator=generator) - 1)
        left = moved_by(feats[:count], away)
        left[::2] = NOTHING
        starts = torch.randint(len(self.noise) - frames + 1, (count,), generator=generator)
        noise = self.noise[starts[:, None] + torch.arange(frames)]
        level = float(feats.exp().mean()) * 10 ** (draw(QUIET, LOUD) / 10)
        return (left.exp() + level[:, None, None] * noise).clamp(min=2.0**-23).log()


def check_words(split: str, clips: Clips, words: Sequence[str]) -> None:
    """ValueError names the first clip of a split whose word is none of ``words``."""
    known = set(words)
    for utt_id, word in zip(clips.ids, clips.words, strict=True):
        if word not in known:
            some = ", ".join(words[:6])
            raise ValueError(
                f"clip '{utt_id}' of {split} says '{word}', which is none of the {len(words)} words that are "
                f"trained ({some}, …): take it out, or give training clips of it."
            )
