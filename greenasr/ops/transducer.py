"""The transducer (RNN-T) loss of logits, the softmax and its gradient inside.

    L_n = -ln p(y_n | x_n)      p sums over all alignments of blanks ∅ and labels, each a softmax of its cell
    ∂L/∂z(t,u,k) = softmax_k z(t,u) · [γ∅(t,u) + γy(t,u)] - [k = ∅] γ∅(t,u) - [k = y_{u+1}] γy(t,u)

γ are the posteriors of the arcs that leave a cell (`transducer_lattice`).  Graves 2012 (arXiv 1211.3711),
§2.4–2.5, gives ∂L/∂Pr(k|t,u); carried through the softmax it is the second line, by which neither the
log-softmax nor its gradient is ever held: "function merging" in Li, Zhao, Hu, Gong 2019, "Improving RNN
transducer modeling for end-to-end speech recognition" (arXiv 1909.12415); also Bagby, Rao, Sim 2018.

Memory beside the logits: their gradient, a chunk of CHUNK numbers, and some of (N, T, U + 1).  The softmax is
taken twice, forwards for the arcs and backwards for the gradient, each chunk while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from greenasr.ops.transducer_lattice import NEVER, Arcs, path_logprobs, posteriors
from greenasr.ops.transducer_targets import Targets

CHUNK = 1 << 18  # logits at a time: 1 MB in float32, near the cache
DEVICE_CHUNK = 1 << 24  # elsewhere a launch costs more than a pass


def rnnt_loss(
    logits: Tensor,
    labels: Tensor,
    frame_lens: Tensor | Sequence[int],
    label_lens: Tensor | Sequence[int],
    *,
    blank: int = 0,
    twice_differentiable: bool = False,
) -> Tensor:
    """-ln p(y|x) in nats of logits (N, T, U + 1, V) and labels (N, U), one an utterance: -> (N,).

    Utterance n has ``frame_lens[n]`` >= 1 frames and ``label_lens[n]`` >= 0 labels; what lies beyond takes no
    part and gets no gradient.  Half-precision logits go through a float32 softmax, all sums over paths are in
    float64; the loss is float32, or float64 for float64 logits.  ``twice_differentiable`` is for Hessian
    products: plain autograd, in several times the memory.

    ValueError, naming the utterance, for lengths and labels out of range, the blank among the labels, NaN or
    infinite logits, and a transcript that logits of -inf rule out.

    >>> logits = torch.zeros(1, 2, 2, 4)  # two alignments of three steps, each step of probability 1/4
    >>> rnnt_loss(logits, torch.tensor([[3]]), [2], [1]).exp()
    tensor([32.])
    """
    if logits.dim() != 4 or not logits.is_floating_point():
        raise ValueError(
            f"logits are {logits.dtype} of shape {tuple(logits.shape)}: expected floats, (N, T, U + 1, V)"
        )
    n, frames, states, vocab = logits.shape
    shape = (n, frames, states, vocab)
    targets = Targets.of(labels, frame_lens, label_lens, shape=shape, blank=blank, device=logits.device)
    if twice_differentiable:
        return _by_autograd(logits, targets, blank)
    loss = _RnntLoss.apply(logits, targets, blank)
    assert isinstance(loss, Tensor)
    return loss


def _by_autograd(logits: Tensor, targets: Targets, blank: int) -> Tensor:
    """The loss (N,) without a gradient of its own."""
    t = torch.arange(logits.shape[1], device=logits.device)[:, None]
    u = torch.arange(logits.shape[2], device=logits.device)
    ends, said = targets.frame_lens[:, None, None], targets.label_lens[:, None, None]
    padding = (t >= ends) | (u > said)
    logprobs = logits.masked_fill(padding[..., None], 0).log_softmax(-1, dtype=_precision(logits))
    y = targets.labels.where(targets.inside(), 0)[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    label = logprobs[:, :, :-1].gather(3, y).squeeze(3)
    stay, say = (x.double().clamp(min=NEVER) for x in (logprobs[..., blank], label))  # -inf has no slope
    arcs = Arcs(stay, say, targets.frame_lens, targets.label_lens)
    return -path_logprobs(arcs).to(logprobs.dtype)


class _RnntLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Targets, blank: int) -> Tensor:
        arcs = Arcs.empty(targets, logits.shape[1])
        for n, at, y, z, room in _chunks(logits, targets):
            logprobs = torch.log_softmax(z, -1, dtype=room.dtype, out=room)
            arcs.blank[n, at, : len(y) + 1] = logprobs[:, :, blank]
            arcs.label[n, at, : len(y)] = logprobs[:, torch.arange(len(y), device=y.device), y]
        if not ctx.needs_input_grad[0]:
            return -path_logprobs(arcs).to(_precision(logits))
        logprob, stay, say = (x.to(_precision(logits)) for x in posteriors(arcs))
        ctx.save_for_backward(logits, stay, say)
        ctx.targets, ctx.blank = targets, blank
        return -logprob

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: the posteriors would pass for constants
            raise RuntimeError("this gradient cannot be differentiated: ask for twice_differentiable=True")
        logits, *shares = ctx.saved_tensors
        stay, say = (x * grads[0][:, None, None] for x in shares)
        leave = stay + F.pad(say, (0, 1))
        grad = torch.empty_like(logits)
        for n, frames, y in ctx.targets.utterances():
            grad[n, frames:] = 0
            grad[n, :frames, len(y) + 1 :] = 0
        for n, at, y, z, room in _chunks(logits, ctx.targets):
            cells, said = (n, at, slice(len(y) + 1)), (n, at, slice(len(y)))
            at_label = slice(None), torch.arange(len(y), device=y.device), y
            softmax = torch.softmax(z, -1, dtype=room.dtype, out=room)
            blank = (
                softmax[:, :, ctx.blank] * leave[cells] - stay[cells]
            )  # before rounding to the logits' dtype
            label = softmax[at_label] * leave[said] - say[said]
            slope = torch.mul(softmax, leave[cells][:, :, None], out=grad[cells])
            slope[:, :, ctx.blank], slope[at_label] = blank.to(slope.dtype), label.to(slope.dtype)
        return grad, None, None


def _chunks(logits: Tensor, targets: Targets) -> Iterator[tuple[int, slice, Tensor, Tensor, Tensor]]:
    """Utterance, frames, labels y, and a chunk of logits (frames, len(y) + 1, V) with room for its softmax.

    The room is the same memory every time: temporaries of that size malloc would give back to the system and
    fault in anew, at the price of the softmax.
    """
    _, _, states, vocab = logits.shape
    size = max(CHUNK if logits.device.type == "cpu" else DEVICE_CHUNK, states * vocab)
    room = torch.empty(min(size, logits.numel()), dtype=_precision(logits), device=logits.device)
    for n, frames, y in targets.utterances():
        step = size // ((len(y) + 1) * vocab)
        for start in range(0, frames, step):
            at = slice(start, min(start + step, frames))
            z = logits[n, at, : len(y) + 1]
            yield n, at, y, z, room[: z.numel()].view(z.shape)


def _precision(logits: Tensor) -> torch.dtype:
    """What the softmax is computed in."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
