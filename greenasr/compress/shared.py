"""One step of training, shared by all processes of a crew: each has its share of every batch.

    L  = Σ_k mean_k                          a task's means, one process
    L  = Σ_r Σ_k mean_rk n_rk / N_k          processes r; mean k is over N_k = Σ_r n_rk in the whole batch
    g  = Σ_r g_r                             gradients are summed, then clipped: that of one process

up to the order of summation.  A penalty on the weights is counted by the first process alone.  A process
without a share of a small batch repeats an utterance with weight zero, so that nobody waits for it.

Every process draws the same batches, holds the same weights and takes the same steps; only dropout and what
else is drawn for a single utterance differ.  accelerate's ``prepare`` would wrap torch's
DistributedDataParallel, whose gradient is the mean over processes: that of the whole batch only where all
shares weigh the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from greenasr.ops import crew

BUCKET = 1 << 25  # gradients summed at a time
APART = 40  # bits by which the seeds of processes are moved


class Batch(Protocol):
    """What can be shared."""

    def __len__(self) -> int:
        """Utterances, or windows of text."""
        ...

    def share(self, rank: int, size: int) -> Self:
        """Those of process ``rank`` of ``size``; its own again and again where there are too few."""
        ...


class Shareable(Protocol):
    """The part of a task that several processes need."""

    def means(self, model: Any, batch: Any) -> Sequence[tuple[Tensor, int]]:
        """The terms of ``loss`` with what each is a mean over, always as many; their sum is ``loss``."""
        ...


def seed(first: int) -> int:
    """A process's own seed; the first has that of one process alone."""
    return first + (crew.rank() << APART)


def share_of_loss(task: Any, model: nn.Module, batch: Any) -> Tensor:
    """This process's summand of the loss of a batch, (); where it is alone the loss.

    Raises ValueError for a task or a batch that cannot be shared.
    """
    if crew.size() == 1:
        loss: Tensor = task.loss(model, batch)
        return loss
    if not hasattr(task, "means") or not hasattr(batch, "share"):
        kind = type(batch if hasattr(task, "means") else task).__name__
        raise ValueError(
            f"{kind} cannot be shared by processes: train in one, or give its task `means` and its batches "
            "`share` (greenasr/compress/shared.py)."
        )
    spare = crew.rank() >= len(batch)
    with crew.uncounted(spare):
        means = task.means(model, batch.share(crew.rank(), crew.size()))
    own = torch.tensor([0 if spare else n for _, n in means], dtype=torch.float64)
    every = crew.total(own).tolist()
    terms = zip(means, own.tolist(), every, strict=True)
    parts = [mean * (n / total) for (mean, _), n, total in terms if total]  # a mean of nothing is no term
    return torch.stack(parts).sum() if parts else 0 * means[0][0]


def counted_once(penalty: Tensor | float) -> Tensor | float:
    """The penalty on the first process, nothing on others."""
    return penalty if crew.rank() == 0 else 0.0


def sum_gradients_(model: nn.Module, loss: Tensor) -> Tensor:
    """Put the sum over processes into every gradient; returns that of the loss, (), on the CPU.

    A parameter that no process used keeps no gradient.
    """
    if crew.size() == 1:
        return loss.detach().cpu()
    parameters = [p for p in model.parameters() if p.requires_grad]
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float64)
    summed = crew.total(torch.cat((loss.detach().double().cpu()[None], used)))
    wanted = [p for p, n in zip(parameters, summed[1:].tolist(), strict=True) if n]
    for bucket in buckets(wanted):
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = crew.total(torch.cat([grad.flatten() for grad in grads]))
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = part.view_as(p)
    return summed[0].to(loss.dtype)


def buckets(parameters: Sequence[Tensor], size: int = BUCKET) -> list[list[Tensor]]:
    """Parameters in order, of one type and device and about ``size`` numbers a bucket."""
    found: list[list[Tensor]] = []
    full = 0
    for p in parameters:
        like = found and (found[-1][0].dtype, found[-1][0].device) == (p.dtype, p.device)
        if not like or full + p.numel() > size:
            found.append([])
            full = 0
        found[-1].append(p)
        full += p.numel()
    return found


@torch.no_grad()
def begin_alike_(model: nn.Module) -> None:
    """The first process's weights and buffers for all: machines may draw or read them differently."""
    if crew.size() == 1:
        return
    for value in model.state_dict().values():
        value.copy_(crew.from_first(value))


def check_alike(model: nn.Module, step: int) -> None:
    """Raise ValueError when a weight or buffer is not, bit for bit, that of the first process."""
    if crew.size() == 1:
        return
    state = model.state_dict()
    sums = torch.stack([_checksum(value) for value in state.values()])
    other = (sums != crew.from_first(sums)).tolist()
    if any(other):
        name = [name for name, differs in zip(state, other, strict=True) if differs][0]
        raise ValueError(
            f"after step {step} {name} is not the same on all processes: use machines of one kind with the "
            "same versions of torch and greenasr, or train in one process."
        )


def _checksum(value: Tensor) -> Tensor:
    """The sum of a tensor's bytes, () int64 on the CPU."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).sum(dtype=torch.int64)
