"""Utterances of a feature store to batches (N, T, F): like lengths together, order by a seed.

    order      sort by T · u, u uniform in 1 ± jitter        neighbours change from pass to pass
    group      N · max T <= frames,  1 - ΣT / (N · max T) <= max_padding
    shuffle    the groups

Behind an utterance's end its last frame is repeated; ``context`` frames more are repeated on either side
for networks that consume them, so every network sees whole utterances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from greenasr.data.augment import SpecAugment
from greenasr.data.feature_store import FeatureStore

JITTER = 0.05  # share by which lengths are changed for sorting


@dataclass(frozen=True, eq=False)
class SpeechBatch:
    """Features (N, left + T + right, F), lengths (N,) without context, i-vectors (N, D) if any, texts."""

    ids: tuple[str, ...]
    feats: Tensor
    feat_lens: Tensor
    ivectors: Tensor | None
    texts: tuple[str, ...]

    def to(self, device: torch.device | str) -> SpeechBatch:
        """The same batch elsewhere."""
        ivectors = None if self.ivectors is None else self.ivectors.to(device)
        return replace(
            self, feats=self.feats.to(device), feat_lens=self.feat_lens.to(device), ivectors=ivectors
        )

    def share(self, rank: int, size: int) -> SpeechBatch:
        """Every ``size``-th utterance from ``rank`` on, padded as here; one where there are too few."""
        rows = slice(rank % len(self), None, size)
        vectors = None if self.ivectors is None else self.ivectors[rows]
        return SpeechBatch(self.ids[rows], self.feats[rows], self.feat_lens[rows], vectors, self.texts[rows])

    def __len__(self) -> int:
        """N, the number of utterances."""
        return len(self.ids)


def groups(
    lengths: Sequence[int] | NDArray[np.int64],
    frames: int,
    seed: int | None = None,
    max_padding: float = 0.15,
) -> list[list[int]]:
    """Places in ``lengths``, each once, in batches of at most ``frames`` with padding and little of it.

    An utterance longer than ``frames`` is a batch of its own.  With a ``seed`` batches and their members are
    drawn anew, else the shortest come first.

    >>> groups([100, 300, 98, 290], 600)
    [[2, 0], [3, 1]]
    """
    if frames < 1 or not 0 <= max_padding < 1:
        raise ValueError(
            f"frames {frames}, max_padding {max_padding}: expected 1 or more, and a share below 1."
        )
    rng = None if seed is None else np.random.default_rng(seed)
    keys = np.asarray(lengths, np.float64)
    if rng is not None:
        keys = keys * rng.uniform(1 - JITTER, 1 + JITTER, len(keys))
    found: list[list[int]] = []
    longest, total = 0, 0
    for place in np.argsort(keys, kind="stable").tolist():
        length = int(lengths[place])
        padded = (len(found[-1]) + 1 if found else 1) * max(longest, length)
        if not found or padded > frames or total + length < (1 - max_padding) * padded:
            found.append([])
            longest, total = 0, 0
        found[-1].append(place)
        longest, total = max(longest, length), total + length
    if rng is not None:
        rng.shuffle(found)
    return found


def pad(feats: Sequence[NDArray[np.float32]], context: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
    """Utterances (T_n, F) -> (N, left + max T + right, F) by repeating edges, and lengths (N,).

    >>> feats, lens = pad([np.array([[1], [2]], np.float32), np.array([[5]], np.float32)], (1, 0))
    >>> feats[:, :, 0].tolist(), lens.tolist()
    ([[1.0, 1.0, 2.0], [5.0, 5.0, 5.0]], [2, 1])
    """
    lens = torch.tensor([len(each) for each in feats])
    left, right = context
    place = (torch.arange(-left, int(lens.max()) + right)[None]).clamp(min=0).minimum(lens[:, None] - 1)
    rows = torch.from_numpy(np.concatenate(feats))
    return rows[place + (lens.cumsum(0) - lens)[:, None]], lens


def speech_batches(
    store: FeatureStore,
    frames: int,
    seed: int | None = None,
    *,
    ids: Sequence[str] | None = None,
    ivectors: Mapping[str, NDArray[np.float32]] | None = None,
    augment: SpecAugment | None = None,
    context: tuple[int, int] = (0, 0),
    max_padding: float = 0.15,
) -> Iterator[SpeechBatch]:
    """One pass over the utterances ``ids`` (all of the store), at most ``frames`` a batch; see `groups`.

    ``ivectors`` are by utterance id.  ``augment`` masks features by draws from the ``seed``, which it needs.
    Raises ValueError, before the first batch, for ids that the store or the i-vectors lack.
    """
    chosen = list(store.ids if ids is None else ids)
    if lacking := [utt_id for utt_id in chosen if utt_id not in store.place]:
        raise ValueError(
            f"{store.folder}: no features of {len(lacking):,} utterances, the first is '{lacking[0]}': "
            "extract features of the same corpus."
        )
    if ivectors is not None and (lacking := [utt_id for utt_id in chosen if utt_id not in ivectors]):
        raise ValueError(
            f"no i-vectors of {len(lacking):,} utterances, the first is '{lacking[0]}': extract them anew."
        )
    if augment is not None and seed is None:
        raise ValueError("SpecAugment draws its masks: give batches a seed.")
    places = [store.place[utt_id] for utt_id in chosen]
    made = groups(store.frames[places], frames, seed, max_padding)
    return _batches(store, [[places[i] for i in group] for group in made], seed, ivectors, augment, context)


def _batches(
    store: FeatureStore,
    made: Sequence[Sequence[int]],
    seed: int | None,
    ivectors: Mapping[str, NDArray[np.float32]] | None,
    augment: SpecAugment | None,
    context: tuple[int, int],
) -> Iterator[SpeechBatch]:
    """The batches of `speech_batches`, whose arguments are checked by now."""
    generator = torch.Generator().manual_seed(seed or 0)
    for group in made:
        ids = tuple(store.ids[place] for place in group)
        feats = [store[utt_id] for utt_id in ids]
        if augment is not None:
            feats = [augment(torch.from_numpy(each), generator).numpy() for each in feats]
        padded, lens = pad(feats, context)
        vectors = None if ivectors is None else torch.from_numpy(np.stack([ivectors[each] for each in ids]))
        yield SpeechBatch(ids, padded, lens, vectors, tuple(store.texts[place] for place in group))
