"""Ids as rows for scoring: overlapping windows of a stream, or whole sentences padded to one length.

Targets[n, t] are predicted from inputs[n, :t + 1]; targets of `IGNORE` count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

IGNORE = -100
Rows = tuple[NDArray[np.int64], NDArray[np.int64]]  # inputs and targets, (N, T) each


def overlapping(ids: NDArray[np.int32], length: int, stride: int, batch: int, first: int) -> Iterator[Rows]:
    """Windows for evaluation: every token is predicted once, from at least ``length - stride`` before it.

    The stream is taken to follow the token ``first`` (``<eos>``).
    """
    if not 0 < stride <= length:
        raise ValueError(f"stride {stride} must lie between 1 and the window of {length} tokens.")
    padded = np.concatenate(([first], ids)).astype(np.int64)
    windows = []
    for start in range(0, len(ids), stride):
        begin = max(0, start + stride - length)
        row = np.full((2, length), IGNORE)
        row[0] = first
        part = padded[begin : start + stride + 1]
        row[0, : len(part) - 1] = part[:-1]
        row[1, start - begin : len(part) - 1] = part[start - begin + 1 :]
        windows.append(row)
    for at in range(0, len(windows), batch):
        rows = np.stack(windows[at : at + batch])
        yield rows[:, 0], rows[:, 1]


def sentences(
    ids: Sequence[Sequence[int]], eos: int, tokens: int, seed: int | None = None
) -> Iterator[tuple[Rows, list[int]]]:
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
        inputs = np.full((len(group), longest), eos, np.int64)
        targets = np.full((len(group), longest), IGNORE, np.int64)
        for row, i in enumerate(group):
            n = len(ids[i])
            inputs[row, 1 : n + 1] = targets[row, :n] = ids[i]
            targets[row, n] = eos
        yield (inputs, targets), group
