"""What a transducer is asked to say: the labels and lengths of a batch, checked once before any sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Targets(NamedTuple):
    """Labels (N, U), and how many of them and of frames each utterance has (N,); int64, on one device."""

    labels: Tensor
    frame_lens: Tensor
    label_lens: Tensor

    @classmethod
    def of(
        cls,
        labels: Tensor,
        frame_lens: Tensor | Sequence[int],
        label_lens: Tensor | Sequence[int],
        *,
        shape: tuple[int, int, int, int],
        blank: int,
        device: torch.device,
    ) -> Targets:
        """For logits of ``shape`` (N, T, U + 1, V); ValueError names the first utterance that does not fit.

        Every transcript, even an empty one, needs a frame for its last blank, and one is enough for any: a
        transducer says as many labels at a frame as it likes.  The blank is no label.
        """
        n, frames, states, vocab = shape
        frame_lens = torch.as_tensor(frame_lens, device=device)
        label_lens = torch.as_tensor(label_lens, device=device)
        found = [tuple(x.shape) for x in (labels, frame_lens, label_lens)]
        if found != [(n, states - 1), (n,), (n,)]:
            raise ValueError(
                f"labels, frame_lens and label_lens have the shapes {found}, logits (N, T, U + 1, V) "
                f"of shape {shape} need {[(n, states - 1), (n,), (n,)]}"
            )
        if n and any(x.is_floating_point() or x.is_complex() for x in (labels, frame_lens, label_lens)):
            raise ValueError("labels, frame_lens and label_lens hold fractions: give integers")
        if not 0 <= blank < vocab:
            raise ValueError(f"the blank is {blank}, the logits have the outputs 0 to {vocab - 1}")
        targets = cls(labels.to(device).long(), frame_lens.long(), label_lens.long())
        targets._check(frames, vocab, blank)
        return targets

    def inside(self) -> Tensor:
        """Which labels are an utterance's own, (N, U)."""
        return torch.arange(self.labels.shape[1], device=self.labels.device) < self.label_lens[:, None]

    def utterances(self) -> Iterator[tuple[int, int, Tensor]]:
        """Index, frames and labels (U_n,), one utterance after another."""
        lens = zip(self.frame_lens.tolist(), self.label_lens.tolist(), strict=True)
        for n, (frames, said) in enumerate(lens):
            yield n, frames, self.labels[n, :said]

    def _check(self, frames: int, vocab: int, blank: int) -> None:
        room = self.labels.shape[1]
        bad_label = (self.labels < 0) | (self.labels >= vocab) | (self.labels == blank)
        bad_label &= self.inside()
        bad_frames = (self.frame_lens < 1) | (self.frame_lens > frames)
        bad_count = (self.label_lens < 0) | (self.label_lens > room)
        bad = bad_label.any(1) | bad_frames | bad_count
        if not bad.any():
            return
        n = int(bad.nonzero()[0])
        t, said, name = int(self.frame_lens[n]), int(self.label_lens[n]), f"utterance {n} of the batch"
        if bad_frames[n]:
            raise ValueError(
                f"{name} has {t} frames for {said} labels, expected 1 to {frames}: even an empty transcript "
                "needs a frame. Leave such audio out, and count frames as the encoder puts them out."
            )
        if bad_count[n]:
            raise ValueError(f"{name} has {said} labels, the logits have room for 0 to {room}")
        at = int(bad_label[n].nonzero()[0])
        label = int(self.labels[n, at])
        what = "the blank" if label == blank else f"outside the outputs 0 to {vocab - 1}"
        raise ValueError(
            f"label {at} of {name} is {label}, {what}: use the tokenizer that the model was made with, and "
            "an id of its own for the blank"
        )
