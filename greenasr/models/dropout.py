"""Dropout whose masks are cut from one pool of random bits, drawn once in a while.

    y = x * mask / (1 - p),   mask a window of the pool at a random offset

The pool is drawn anew whenever torch's seed was set, so a run that reseeds can be repeated.
Drawing a Bernoulli number for every activation is a tenth of a training step on a CPU; a window
of a pool that is drawn anew every `REFRESH` uses costs next to nothing.  Within one use the mask's
entries are independent; two uses of one pool overlap, which training does not notice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOL = 1 << 22
REFRESH = 512


class PooledDropout(nn.Module):
    """`nn.Dropout` with pooled masks; follows torch's global generator, as `nn.Dropout` does."""

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {p}.")
        self.p = p
        self.uses = 0
        self.seed = 0
        self.pool: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape; the identity outside training."""
        if not self.training or self.p == 0:
            return x
        n = x.numel()
        stale = self.uses >= REFRESH or self.seed != torch.initial_seed()
        if self.pool is None or stale or len(self.pool) < 2 * n or self.pool.device != x.device:
            self.seed = torch.initial_seed()
            keep = torch.rand(max(POOL, 2 * n), device=x.device) >= self.p
            self.pool, self.uses = keep.to(torch.bfloat16).div_(1 - self.p), 0
        self.uses += 1
        start = int(torch.randint(len(self.pool) - n + 1, ()))
        return x * self.pool[start : start + n].view(x.shape).to(x.dtype)


class SharedDropout(nn.Module):
    """Continuous dropout, one mask for all frames of an utterance: Kaldi's dropout-per-dim-continuous.

    y_tu = x_tu (1 + 2p (2 z_u - 1)),   z_u uniform in [0, 1], drawn once an utterance and unit
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p <= 0.5:
            raise ValueError(f"continuous dropout is a proportion in [0, 0.5], got {p}.")
        self.p = p

    def forward(self, x: Tensor, lens: Tensor) -> Tensor:
        """Frames of all utterances one after another, (sum of lens, D), to the same; lens (N,)."""
        if not self.training or self.p == 0:
            return x
        mask = torch.rand(len(lens), x.shape[1], device=x.device, dtype=x.dtype)
        mask = mask.mul_(4 * self.p).add_(1 - 2 * self.p)
        return x * mask.repeat_interleave(lens, 0, output_size=len(x))


def set_dropout_(model: nn.Module, p: float) -> None:
    """Another dropout for the whole model; weights of few bits fit less and want less of it."""
    for module in model.modules():
        if isinstance(module, PooledDropout | nn.Dropout):
            module.p = PooledDropout(p).p
        elif isinstance(module, SharedDropout):
            module.p = SharedDropout(p).p
