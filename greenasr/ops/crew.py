"""The processes that train one network together: who is who, and sums over all of them.

    total(x) = Σ_r x_r          dL/dx_r = Σ_q dL_q/dtotal, where L = Σ_q L_q

Every process has a rank.  Outside `working`, and where there is one process, the crew is this process alone
and every function here is the identity: stages that one process works through may not wait for others.
Inside it all processes call the same functions in the same order.  The sums are accelerate's `reduce`, by
gloo for tensors on the CPU and nccl on a GPU; all processes get the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOST = (
    "another process of this run is lost: give the same command again to go on from what is finished; "
    "a process that ends without a word was killed, perhaps for want of memory"
)


@dataclass
class _Crew:
    rank: int = 0
    size: int = 1
    counted: bool = True


_crew = _Crew()


def rank() -> int:
    """This process's number, from 0."""
    return _crew.rank


def size() -> int:
    """How many processes work together."""
    return _crew.size


def counted() -> bool:
    """Whether what passes through the network now counts; see `uncounted`."""
    return _crew.counted


@contextmanager
def working(rank: int, size: int) -> Iterator[None]:
    """Inside the block this process is one of ``size`` that work together; torch.distributed has begun."""
    global _crew
    before, _crew = _crew, _Crew(rank, size)
    try:
        yield
    finally:
        _crew = before


@contextmanager
def uncounted(here: bool) -> Iterator[None]:
    """Where ``here``, what passes through the network inside the block enters no statistics of the crew.

    A process without a share of a batch goes through the motions, so that nobody waits for it.
    """
    before, _crew.counted = _crew.counted, not here
    try:
        yield
    finally:
        _crew.counted = before


def total(values: Tensor) -> Tensor:
    """The sum over the crew, a new tensor of the same shape; without a gradient."""
    if _crew.size == 1:
        return values.detach()
    from accelerate.utils import reduce

    with _nobody_lost():
        found = reduce(values.detach(), reduction="sum")
    assert isinstance(found, Tensor)
    return found


def count(n: int) -> int:
    """The sum of a number over the processes that count."""
    if _crew.size == 1:
        return n
    return int(total(torch.tensor([n if _crew.counted else 0]))[0])


def from_first(values: Tensor) -> Tensor:
    """The first process's values on all, a new tensor of the same shape; without a gradient."""
    if _crew.size == 1:
        return values.detach()
    from accelerate.utils import broadcast

    found = values.detach().clone()
    with _nobody_lost():
        broadcast(found)
    return found


class Total(torch.autograd.Function):
    """`total` with its gradient, the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return total(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """The same again."""
        return total(grads[0])


@contextmanager
def _nobody_lost() -> Iterator[None]:
    """Name what a RuntimeError of torch's collectives means."""
    try:
        yield
    except RuntimeError as error:
        raise ChildProcessError(LOST) from error
