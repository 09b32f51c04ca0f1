"""Frames of many utterances in one matrix, one utterance after another, and their places in time.

    (N, T, D) with lengths  ->  (M, D),  M = sum of lengths

Linear maps and batch norm then touch true frames alone, and a network is free of padding by construction:
only `shift` looks across frames, and it reads 0 outside an utterance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Timeline:
    """Lengths of the utterances, (N,), and of each row its frame index and the frames still to come, (M,)."""

    lens: Tensor
    place: Tensor
    rest: Tensor

    @classmethod
    def of(cls, lens: Tensor) -> Timeline:
        """The timeline of utterances of these lengths."""
        n_frames = int(lens.sum())
        ends = lens.cumsum(0).repeat_interleave(lens, output_size=n_frames)
        rest = ends - torch.arange(1, n_frames + 1, device=lens.device)
        return cls(lens, lens.repeat_interleave(lens, output_size=n_frames) - 1 - rest, rest)

    @property
    def n_frames(self) -> int:
        """M, the frames of all utterances."""
        return len(self.place)

    def every(self, n: int) -> Tensor:
        """Row indices of frames 0, n, 2n, … of each utterance."""
        return (self.place % n == 0).nonzero().flatten()

    def thinned(self, n: int) -> Timeline:
        """The timeline of those frames."""
        return Timeline.of((self.lens + n - 1) // n)


def pack(x: Tensor, lens: Tensor | None) -> tuple[Tensor, Timeline]:
    """(N, T, D), lengths (N,) or None for T each -> (M, D) and its timeline.

    Raises ValueError for lengths outside 1 … T or of another number.
    """
    n, t = x.shape[:2]
    if lens is None:
        lens = torch.full((n,), t)
    if lens.shape != (n,) or (n and not 1 <= int(lens.min()) <= int(lens.max()) <= t):
        raise ValueError(f"lengths {lens.tolist()} do not fit {n} utterances padded to {t} frames.")
    time = Timeline.of(lens.to(x.device, torch.int64))
    if time.n_frames == n * t:
        return x.reshape(n * t, -1), time
    return x[torch.arange(t, device=x.device) < time.lens[:, None]], time


def unpack(x: Tensor, time: Timeline, n_frames: int) -> Tensor:
    """(M, D) -> (N, T, D) with T = ``n_frames``; 0 behind an utterance's end."""
    n = len(time.lens)
    if len(x) == n * n_frames:
        return x.view(n, n_frames, -1)
    out = x.new_zeros(n, n_frames, x.shape[1])
    out[torch.arange(n_frames, device=x.device) < time.lens[:, None]] = x
    return out


def shift(x: Tensor, by: int, time: Timeline) -> Tensor:
    """Row of frame t -> that of frame t + ``by`` of the same utterance, or 0 outside it, (M, D) -> (M, D)."""
    if by == 0:
        return x
    zeros = x.new_zeros(min(abs(by), len(x)), x.shape[1])
    moved = torch.cat((x[by:], zeros)) if by > 0 else torch.cat((zeros, x[: len(x) - len(zeros)]))
    if len(time.lens) == 1:
        return moved
    outside = time.rest < by if by > 0 else time.place < -by
    return moved.masked_fill(outside[:, None], 0)


def splice(x: Tensor, context: int, time: Timeline, every: int = 1) -> Tensor:
    """Frames 0, every, 2 every, … with ``context`` neighbours on either side, earliest first.

    (M, D) -> (M', (2 context + 1) D).
    """
    parts = [shift(x, by, time) for by in range(-context, context + 1)]
    if every > 1:
        rows = time.every(every)
        parts = [part[rows] for part in parts]
    return torch.cat(parts, 1) if context else parts[0]
