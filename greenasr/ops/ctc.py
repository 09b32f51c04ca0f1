"""CTC: the probability of a labelling is that of all its alignments with one label or blank a frame.

    p(y | x) = Σ_{π : B(π) = y} Π_t p(π_t | t)          B joins equal neighbours, then drops blanks

    α_t(s) = p(ℓ_s | t) (α_{t-1}(s) + α_{t-1}(s-1) + [ℓ_s ∉ {blank, ℓ_{s-2}}] α_{t-1}(s-2))
    p(y | x) = α_T(2U + 1) + α_T(2U)                    ℓ = blank y_1 blank y_2 … y_U blank

Graves et al. 2006, "Connectionist temporal classification", eq. 3 and 6 to 8.  Training takes PyTorch's
kernel; it has no second derivative, so where one is needed the recursion runs in plain tensor operations.  A
labelling that has no alignment, since its frames are fewer than its labels and the blanks between equal ones,
has loss 0 and no gradient: it is left out, and `alignable` says which those are.  Shapes: N batch, T frames,
C classes, U labels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -1e5  # ln 0 in the recursion: far below any alignment, near enough that sums of it are exact


def frames_needed(labels: Tensor, lens: Tensor) -> Tensor:
    """The fewest frames that can say each labelling, (N, U), (N,) -> (N,): labels, blanks between equal ones.

    >>> frames_needed(torch.tensor([[3, 3, 5], [1, 0, 0]]), torch.tensor([3, 1])).tolist()
    [4, 1]
    """
    same = labels[:, 1:] == labels[:, :-1]
    inside = 1 + torch.arange(same.shape[1], device=labels.device) < lens[:, None]
    return lens + (same & inside).sum(1)


def alignable(labels: Tensor, lens: Tensor, frames: Tensor) -> Tensor:
    """Which labellings (N, U), (N,) fit into their frames (N,), as (N,) booleans."""
    return frames_needed(labels, lens) <= frames


def ctc_loss(
    logprobs: Tensor,
    labels: Tensor,
    frames: Tensor,
    lens: Tensor,
    *,
    blank: int = 0,
    twice_differentiable: bool = False,
) -> Tensor:
    """-ln p(y | x) of every utterance in nats, (N,); 0, without gradient, where `alignable` says no.

    ``logprobs`` (N, T, C) are natural log probabilities, ``labels`` (N, U) of ``lens`` (N,), ``frames`` (N,).
    Raises ValueError for shapes, lengths and labels that do not fit, and for logprobs that are not numbers.
    """
    _check(logprobs, labels, frames, lens, blank)
    fits = alignable(labels, lens, frames)
    if twice_differentiable:
        losses = -_forward(logprobs, labels, frames, lens, blank).to(logprobs.dtype)
    else:
        losses = F.ctc_loss(
            logprobs.transpose(0, 1), labels, frames, lens, blank, reduction="none", zero_infinity=True
        )
    return losses.where(fits, torch.zeros_like(losses))


def _check(logprobs: Tensor, labels: Tensor, frames: Tensor, lens: Tensor, blank: int) -> None:
    """Refuse what PyTorch's kernel would read outside of its arrays, or turn into NaN."""
    if logprobs.dim() != 3 or not len(logprobs) == len(labels) == len(frames) == len(lens):
        raise ValueError(
            f"CTC needs logprobs (N, T, C), labels (N, U), frames (N,) and lens (N,); got "
            f"{tuple(logprobs.shape)}, {tuple(labels.shape)}, {tuple(frames.shape)} and {tuple(lens.shape)}."
        )
    n_frames, classes = logprobs.shape[1:]
    if len(frames) and not (0 <= int(frames.min()) and int(frames.max()) <= n_frames):
        raise ValueError(f"frames are {frames.tolist()}, the batch has {n_frames}: give 0 to {n_frames}.")
    if len(lens) and not (0 <= int(lens.min()) and int(lens.max()) <= labels.shape[1]):
        raise ValueError(f"lens are {lens.tolist()}, there is room for {labels.shape[1]} labels.")
    real = labels[torch.arange(labels.shape[1], device=labels.device) < lens[:, None]]
    if len(real) and not (0 <= int(real.min()) and int(real.max()) < classes and not (real == blank).any()):
        raise ValueError(
            f"labels go from {int(real.min())} to {int(real.max())}, the network has {classes} outputs and "
            f"the blank is {blank}: use the tokenizer that the network was made with."
        )
    if logprobs.detach()[:, :1].isnan().any():
        raise ValueError("the network's outputs are not numbers: lower the learning rate, or train it again.")


def _forward(logprobs: Tensor, labels: Tensor, frames: Tensor, lens: Tensor, blank: int) -> Tensor:
    """Natural log of p(y | x), (N,), by the recursion over frames; about NEVER where nothing aligns.

    In float64: where a state cannot be reached the shares of its three ways must still add up to one, else
    second derivatives grow threefold from frame to frame.
    """
    n, n_frames, _ = logprobs.shape
    logprobs = logprobs.double()
    states = torch.full((n, 2 * labels.shape[1] + 1), blank, dtype=torch.int64, device=labels.device)
    states[:, 1::2] = labels.where(
        torch.arange(labels.shape[1], device=labels.device) < lens[:, None], torch.full_like(labels, blank)
    )
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    said = logprobs.gather(2, states[:, None].expand(-1, n_frames, -1))  # (N, T, 2U + 1)
    never = torch.full_like(said[:, 0], NEVER)
    began = torch.arange(states.shape[1], device=states.device) < 2
    alpha = said[:, 0].where(began, never) if n_frames else never
    for t in range(1, n_frames):
        one = F.pad(alpha, (1, 0), value=NEVER)[:, :-1]
        two = F.pad(alpha, (2, 0), value=NEVER)[:, :-2].where(skips, never)
        moved = torch.stack((alpha, one, two)).logsumexp(0) + said[:, t]
        alpha = moved.where((frames > t)[:, None], alpha)
    last = alpha.gather(1, 2 * lens[:, None])[:, 0]
    before = alpha.gather(1, (2 * lens[:, None] - 1).clamp(min=0))[:, 0]
    total = torch.stack((last, before.where(lens > 0, torch.full_like(before, NEVER)))).logsumexp(0)
    return total.where(frames > 0, torch.zeros_like(total))
