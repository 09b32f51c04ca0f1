"""The transducer loss of an addition joint, without ever holding (N, T, U + 1, V).

    z(t,u,k) = f(t,k) + g(u,k)          f of the encoder, g of the prediction network
    Σ_k exp z(t,u,k) = Σ_k exp(f(t,k) - max f(t)) exp(g(u,k) - max g(u)) · exp(max f(t) + max g(u))
    ∂L/∂f(t,k) = e^f(t,k) Σ_u w(t,u) e^g(u,k) - [k = ∅] Σ_u γ∅(t,u) - Σ_u [k = y_{u+1}] γy(t,u)
    ∂L/∂g(u,k) = e^g(u,k) Σ_t w(t,u) e^f(t,k) - [k = ∅] Σ_t γ∅(t,u) - [k = y_{u+1}] Σ_t γy(t,u)
    w(t,u) = [γ∅(t,u) + γy(t,u)] / Σ_k exp z(t,u,k)

The sums over k, and those over cells, are matrix products of (T, V), (U + 1, V) and (T, U + 1).  That of the
normaliser is the linear joiner of Kuang et al. 2022, "Pruned RNN-T for fast, memory-efficient ASR training"
(arXiv 2206.13236).  The gradient is that of `transducer`, summed over u or over t: its function merging, one
step further.

The products are in float64: some output of every cell has to come within 700 nats of max f + max g, where
float32 would give up at 87; beyond that the error is the one of infinite logits.  Memory beside the inputs:
their gradients, some of (N, T, U + 1), and float64 copies of one utterance's inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from greenasr.ops.transducer_lattice import NEVER, Arcs, path_logprobs, posteriors
from greenasr.ops.transducer_targets import Targets


def merged_rnnt_loss(
    enc: Tensor,
    pred: Tensor,
    labels: Tensor,
    frame_lens: Tensor | Sequence[int],
    label_lens: Tensor | Sequence[int],
    *,
    blank: int = 0,
    twice_differentiable: bool = False,
) -> Tensor:
    """What `rnnt_loss` makes of logits enc[:, :, None] + pred[:, None]: (N, T, V) x (N, U + 1, V) -> (N,).

    The arguments, the loss and the errors are its own; the loss is float64 where an input is.

    >>> enc, pred = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    >>> merged_rnnt_loss(enc, pred, torch.tensor([[3]]), [2], [1]).exp()
    tensor([32.])
    """
    if enc.dim() != 3 or pred.dim() != 3 or (len(enc), enc.shape[2]) != (len(pred), pred.shape[2]):
        raise ValueError(
            f"enc and pred have the shapes {tuple(enc.shape)} and {tuple(pred.shape)}: expected (N, T, V) "
            "and (N, U + 1, V), of the same N and V"
        )
    if not (enc.is_floating_point() and pred.is_floating_point()):
        raise ValueError(f"enc and pred are {enc.dtype} and {pred.dtype}: expected floats")
    shape = (len(enc), enc.shape[1], pred.shape[1], enc.shape[2])
    targets = Targets.of(labels, frame_lens, label_lens, shape=shape, blank=blank, device=enc.device)
    if twice_differentiable:
        return _by_autograd(enc, pred, targets, blank)
    loss = _MergedRnntLoss.apply(enc, pred, targets, blank)
    assert isinstance(loss, Tensor)
    return loss


class _MergedRnntLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, enc: Tensor, pred: Tensor, targets: Targets, blank: int) -> Tensor:
        arcs = Arcs.empty(targets, enc.shape[1])
        for n, frames, y in targets.utterances():
            f, g, u = enc[n, :frames].double(), pred[n, : len(y) + 1].double(), _range(y)
            total = _log_sums(f, g)
            arcs.blank[n, :frames, : len(y) + 1] = f[:, blank, None] + g[:, blank] - total
            arcs.label[n, :frames, : len(y)] = f[:, y] + g[u, y] - total[:, :-1]
        if not any(ctx.needs_input_grad):
            return -path_logprobs(arcs).to(_loss_dtype(enc, pred))
        logprob, *shares = posteriors(arcs)
        ctx.save_for_backward(enc, pred, *shares)
        ctx.targets, ctx.blank = targets, blank
        return -logprob.to(_loss_dtype(enc, pred))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: the posteriors would pass for constants
            raise RuntimeError("this gradient cannot be differentiated: ask for twice_differentiable=True")
        enc, pred, *shares = ctx.saved_tensors
        grad_enc, grad_pred = torch.zeros_like(enc), torch.zeros_like(pred)
        for n, frames, y in ctx.targets.utterances():
            stay, say = (x[n, :frames] * grads[0][n] for x in shares)
            stay, say, u = stay[:, : len(y) + 1], say[:, : len(y)], _range(y)
            f, g = (_exp(x)[0] for x in (enc[n, :frames].double(), pred[n, : len(y) + 1].double()))
            weight = (stay + F.pad(say, (0, 1))) / (f @ g.T)
            slope_f, slope_g = (weight @ g).mul_(f), (weight.T @ f).mul_(g)
            slope_f[:, ctx.blank] -= stay.sum(1)
            slope_g[:, ctx.blank] -= stay.sum(0)
            slope_f.index_add_(1, y, say, alpha=-1)
            slope_g[u, y] -= say.sum(0)
            grad_enc[n, :frames], grad_pred[n, : len(y) + 1] = slope_f.to(enc.dtype), slope_g.to(pred.dtype)
        return grad_enc, grad_pred, None, None


def _by_autograd(enc: Tensor, pred: Tensor, targets: Targets, blank: int) -> Tensor:
    """The loss (N,) without a gradient of its own; float64 copies of the whole batch."""
    t, u = (torch.arange(x.shape[1], device=x.device)[:, None] for x in (enc, pred))
    f = enc.double().masked_fill(t >= targets.frame_lens[:, None, None], 0)
    g = pred.double().masked_fill(u > targets.label_lens[:, None, None], 0)
    total = _log_sums(f, g)
    y = targets.labels.where(targets.inside(), 0)
    at_frame = f.gather(2, y[:, None].expand(-1, f.shape[1], -1))
    stay = f[:, :, None, blank] + g[:, None, :, blank] - total
    say = at_frame + g[:, :-1].gather(2, y[:, :, None])[:, None, :, 0] - total[:, :, :-1]
    arcs = Arcs(stay.clamp(min=NEVER), say.clamp(min=NEVER), targets.frame_lens, targets.label_lens)
    return -path_logprobs(arcs).to(_loss_dtype(enc, pred))


def _log_sums(f: Tensor, g: Tensor) -> Tensor:
    """Log Σ_k exp(f(t,k) + g(u,k)): (..., T, V) x (..., U + 1, V) -> (..., T, U + 1)."""
    (exp_f, top_f), (exp_g, top_g) = _exp(f), _exp(g)
    return (exp_f @ exp_g.mT).log() + top_f + top_g.mT


def _exp(x: Tensor) -> tuple[Tensor, Tensor]:
    """Exponentials of a row with its largest at one, and the row's largest (..., 1)."""
    top = x.detach().amax(-1, keepdim=True)
    return (x - top).exp(), top


def _range(y: Tensor) -> Tensor:
    return torch.arange(len(y), device=y.device)


def _loss_dtype(enc: Tensor, pred: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (enc.dtype, pred.dtype) else torch.float32
