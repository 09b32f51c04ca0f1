"""Ids to batches: contiguous windows of a stream, or whole sentences padded to one length.

A batch predicts ``targets[n, t]`` from ``inputs[n, :t + 1]``; targets of `IGNORE` count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORE = -100


@dataclass(frozen=True)
class TokenBatch:
    """Token ids (N, T) and what follows each, (N, T)."""

    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch elsewhere."""
        return TokenBatch(self.inputs.to(device), self.targets.to(device))


def contiguous(ids: NDArray[np.int32], length: int, batch: int, seed: int) -> Iterator[TokenBatch]:
    """One pass over a stream in windows of ``length`` tokens, shuffled, cut at an offset by ``seed``.

    Every window begins without memory; the offset moves the cuts from pass to pass.
    """
    if len(ids) < length + 2:
        raise ValueError(
            f"a text of {len(ids)} tokens has no window of {length}: give more text or a shorter context."
        )
    rng = np.random.default_rng(seed)
    offset = int(rng.integers(min(length, len(ids) - length - 1)))
    starts = rng.permutation(np.arange(offset, len(ids) - length, length))
    for first in range(0, len(starts), batch):
        index = starts[first : first + batch, None] + np.arange(length + 1)
        rows = torch.from_numpy(ids[index].astype(np.int64))
        yield TokenBatch(rows[:, :-1], rows[:, 1:])


def n_contiguous(n_ids: int, length: int, batch: int) -> int:
    """The number of batches of `contiguous`, within one."""
    return max(1, round((n_ids - length / 2) / length / batch))


def overlapping(
    ids: NDArray[np.int32], length: int, stride: int, batch: int, first: int
) -> Iterator[TokenBatch]:
    """Windows for evaluation: every token is predicted once, from at least ``length - stride`` before it.

    The stream is taken to follow the token ``first`` (``<eos>``).
    """
    if not 0 < stride <= length:
        raise ValueError(f"stride {stride} must lie between 1 and the window of {length} tokens.")
    padded = np.concatenate(([first], ids)).astype(np.int64)
    windows = []
    for start in range(0, len(ids), stride):
        begin = max(0, start + stride - length)
        row = torch.full((2, length), IGNORE)
        row[0] = first
        part = torch.from_numpy(padded[begin : start + stride + 1])
        row[0, : len(part) - 1] = part[:-1]
        row[1, start - begin : len(part) - 1] = part[start - begin + 1 :]
        windows.append(row)
    for at in range(0, len(windows), batch):
        rows = torch.stack(windows[at : at + batch])
        yield TokenBatch(rows[:, 0], rows[:, 1])


def sentences(
    ids: Sequence[Sequence[int]], eos: int, tokens: int, seed: int | None = None
) -> Iterator[tuple[TokenBatch, list[int]]]:
    """Whole sentences of like length, about ``tokens`` a batch, with their places in ``ids``.

    Inputs begin with ``eos``, targets end with it.  With a ``seed`` the batches come shuffled.
    """
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    groups: list[list[int]] = []
    for i in order:
        if not groups or (len(groups[-1]) + 1) * (len(ids[i]) + 1) > tokens:
            groups.append([])
        groups[-1].append(i)
    if seed is not None:
        np.random.default_rng(seed).shuffle(groups)
    for group in groups:
        longest = max(len(ids[i]) for i in group) + 1
        inputs = torch.full((len(group), longest), eos)
        targets = torch.full((len(group), longest), IGNORE)
        for row, i in enumerate(group):
            n = len(ids[i])
            inputs[row, 1 : n + 1] = torch.tensor(list(ids[i]), dtype=torch.long)
            targets[row, :n] = inputs[row, 1 : n + 1]
            targets[row, n] = eos
        yield TokenBatch(inputs, targets), group
