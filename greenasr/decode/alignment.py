"""An alignment: which phone, and which state of it, every frame of an utterance belongs to.

A phone is three states from left to right, none skipped, so state 0 after another state begins a phone, and
segments and left contexts follow from the two arrays.  On disk a frame is the number 3 phone + state in two
bytes, all utterances in one npz file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from greenasr.data.files import atomic
from greenasr.decode.context import BOUNDARY

Ints = npt.NDArray[np.int64]

N_STATES = 3
SHIFT = 0.01  # seconds a frame
FORMAT = "greenasr alignments 1"


class Segment(NamedTuple):
    """A phone (its id) from frame ``start``, ``frames`` long.

    >>> Segment(4, 12, 30).seconds
    (0.12, 0.42)
    """

    phone: int
    start: int
    frames: int

    @property
    def seconds(self) -> tuple[float, float]:
        """Where it begins and ends, at 100 frames a second."""
        return round(SHIFT * self.start, 2), round(SHIFT * (self.start + self.frames), 2)


@dataclass(frozen=True, eq=False)
class Alignment:
    """``phone`` id and ``state`` 0 … 2 of each frame, (T,) each, and the path's log probability."""

    phone: Ints
    state: Ints
    logprob: float = 0.0

    @property
    def begins(self) -> npt.NDArray[np.bool_]:
        """Whether a frame is the first of its phone, (T,): state 0 after another state."""
        return (self.state == 0) & (np.concatenate([[N_STATES - 1], self.state[:-1]]) != 0)

    @property
    def left(self) -> Ints:
        """Left context of each frame, (T,): 0 in the first phone, elsewhere 1 + the phone before."""
        start = np.flatnonzero(self.begins)
        before = np.concatenate([[BOUNDARY], 1 + self.phone[start[:-1]]])
        return np.repeat(before, np.diff(start, append=len(self.phone)))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The phones with their frames, in order.

        >>> Alignment(np.array([0, 0, 0, 0, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 1, 2])).segments
        (Segment(phone=0, start=0, frames=4), Segment(phone=2, start=4, frames=3))
        """
        start = np.flatnonzero(self.begins)
        frames = np.diff(start, append=len(self.phone))
        return tuple(map(Segment, self.phone[start].tolist(), start.tolist(), frames.tolist()))


def equal_alignment(n_frames: int, phones: Sequence[int]) -> Alignment:
    """Share the frames out equally over the states of ``phones``: where a flat start begins.

    >>> equal_alignment(7, [4, 5]).state.tolist()
    [0, 0, 1, 2, 0, 1, 2]
    """
    states = N_STATES * len(phones)
    if n_frames < states or not states:
        raise ValueError(
            f"{n_frames} frames are too few for {len(phones)} phones of {N_STATES} states. Leave it out."
        )
    place = np.arange(n_frames) * states // n_frames
    return Alignment(np.repeat(np.array(phones), N_STATES)[place], place % N_STATES)


def write_alignments(path: str | Path, alignments: Mapping[str, Alignment], phones: Sequence[str]) -> None:
    """Write alignments and the phones that their ids number, whole or not at all."""
    codes = [a.phone * N_STATES + a.state for a in alignments.values()]
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            format=np.array(FORMAT),
            phones=np.array(phones),
            utt_id=np.array(list(alignments), str),
            frames=np.array([len(c) for c in codes], np.int64),
            logprob=np.array([a.logprob for a in alignments.values()], np.float64),
            code=np.concatenate([*codes, np.zeros(0, np.int64)]).astype(np.uint16),
        )


def read_alignments(path: str | Path) -> tuple[dict[str, Alignment], tuple[str, ...]]:
    """Alignments by utterance id, and the phones, that `write_alignments` wrote."""
    try:
        with open(path, "rb") as whole, np.load(whole) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an alignment file ({error}). Align the corpus again.") from None
    if str(arrays.get("format")) != FORMAT:
        raise ValueError(
            f"{path}: not an alignment file: 'format' should be '{FORMAT}'. Align the corpus again."
        )
    each = np.split(arrays["code"].astype(np.int64), np.cumsum(arrays["frames"]))[:-1]
    rows = zip(arrays["utt_id"].tolist(), each, arrays["logprob"].tolist(), strict=True)
    found = {utt_id: Alignment(c // N_STATES, c % N_STATES, logprob) for utt_id, c, logprob in rows}
    return found, tuple(arrays["phones"].tolist())
