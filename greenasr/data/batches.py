"""Ids to batches: contiguous windows of a stream, or whole sentences padded to one length.

A batch predicts ``targets[n, t]`` from ``inputs[n, :t + 1]``; targets of `token_rows.IGNORE` count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from greenasr.data import token_rows


@dataclass(frozen=True)
class TokenBatch:
    """Token ids (N, T) and what follows each, (N, T)."""

    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch elsewhere."""
        return TokenBatch(self.inputs.to(device), self.targets.to(device))

    def share(self, rank: int, size: int) -> TokenBatch:
        """Every ``size``-th row from ``rank`` on; one of the rows where there are too few.

        >>> batch = TokenBatch(torch.arange(3)[:, None], torch.arange(3)[:, None])
        >>> [batch.share(rank, 2).inputs.tolist() for rank in (0, 1)]
        [[[0], [2]], [[1]]]
        """
        rows = slice(rank % len(self), None, size)
        return TokenBatch(self.inputs[rows], self.targets[rows])

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.inputs)


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


def sentences(
    ids: Sequence[Sequence[int]], eos: int, tokens: int, seed: int | None = None
) -> Iterator[tuple[TokenBatch, list[int]]]:
    """`token_rows.sentences` as batches, with the sentences' places in ``ids``."""
    for (inputs, targets), group in token_rows.sentences(ids, eos, tokens, seed):
        yield TokenBatch(torch.from_numpy(inputs), torch.from_numpy(targets)), group
