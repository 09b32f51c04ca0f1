"""The transducer's lattice: the sum over all alignments of a transcript, and the posteriors of its arcs.

    α(t,u) = α(t-1,u) ∅(t-1,u) + α(t,u-1) y(t,u-1)      α(0,0) = 1
    β(t,u) = β(t+1,u) ∅(t,u) + β(t,u+1) y(t,u)          p(y|x) = α(T,U) = β(0,0)
    γ∅(t,u) = α(t,u) ∅(t,u) β(t+1,u) / p                γy(t,u) = α(t,u) y(t,u) β(t,u+1) / p

At frame t with u labels said, the blank ∅ goes on to the next frame and y says the next label; frames count
from 0, and the last blank leads out of them, to (T, U).  Graves 2012, "Sequence transduction with recurrent
neural networks" (arXiv 1211.3711), §2.4.  All in natural logarithms.

The cells of an anti-diagonal t + u = d need those of d - 1 alone, so one step does a diagonal of the whole
batch (loop skewing: Bagby, Rao, Sim 2018, "Efficient implementation of recurrent neural network transducer in
TensorFlow").  Two turns are ours.  Backwards is forwards on the lattice turned by half, so α and β are two
halves of one batch.  And an utterance shorter than the batch walks from its own end to the batch's in a
*corridor*, one path of probability one: all end at (T, U), and no step knows of lengths.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from greenasr.ops.transducer_targets import Targets

NEVER = -1e30  # log-probability of what cannot be; finite, so that differences of two stay numbers


class Arcs(NamedTuple):
    """Log-probabilities of blanks (N, T, U + 1) and of the next labels (N, T, U); lengths (N,).

    What lies beyond an utterance's lengths is never read.
    """

    blank: Tensor
    label: Tensor
    frame_lens: Tensor
    label_lens: Tensor

    @classmethod
    def empty(cls, targets: Targets, frames: int) -> Arcs:
        """For the caller to fill, in float64."""
        n, labels = targets.labels.shape
        blank = torch.zeros(n, frames, labels + 1, dtype=torch.float64, device=targets.labels.device)
        return cls(blank, torch.zeros_like(blank[:, :, 1:]), targets.frame_lens, targets.label_lens)


class Posteriors(NamedTuple):
    """ln p(y|x) (N,), and the shares of alignments that take each blank (N, T, U + 1) and label (N, T, U)."""

    logprob: Tensor
    blank: Tensor
    label: Tensor


def path_logprobs(arcs: Arcs) -> Tensor:
    """Log p(y|x) of every utterance (N,), twice differentiable; ValueError where it is no finite number."""
    return _checked(_diagonals(*_with_corridor(arcs))[-1][:, -1], arcs)


def posteriors(arcs: Arcs) -> Posteriors:
    """Sums and shares; those beyond an utterance's lengths mean nothing.  Errors as `path_logprobs`."""
    blank, label = _with_corridor(arcs)
    n, frames, labels = len(blank), blank.shape[1], label.shape[2]
    turned = [torch.cat([x, x.flip(1, 2)]) for x in (blank, label)]
    cells = _straight(torch.stack(_diagonals(*turned)), frames + 1)
    alpha, beta = cells[:n], cells[n:].flip(1, 2)
    logprob = _checked(alpha[:, -1, -1], arcs)
    ahead = alpha[:, :frames] - logprob[:, None, None]
    blank = (ahead + blank + beta[:, 1:]).exp_()
    label = (ahead[:, :, :labels] + label[:, :frames] + beta[:, :frames, 1:]).exp_()
    return Posteriors(logprob, blank, label)


def _with_corridor(arcs: Arcs) -> tuple[Tensor, Tensor]:
    """Blanks (N, T, U + 1) and labels (N, T + 1, U) by which every utterance ends at (T, U).

    From (T_n, U_n), where the last blank leads, free blanks go on to frame T, and there free labels to U.
    """
    _, frames, states = arcs.blank.shape
    t = torch.arange(frames + 1, device=arcs.blank.device)[:, None]
    u = torch.arange(states, device=arcs.blank.device)
    ends, said = arcs.frame_lens[:, None, None], arcs.label_lens[:, None, None]
    on = (u == said) | ((u < said) & (t[:-1] + 1 < ends))
    blank = torch.where(on, torch.where(t[:-1] < ends, arcs.blank, 0), NEVER)
    inside, along = (t < ends) & (u[:-1] < said), (t == frames) & (u[:-1] >= said)
    label = torch.where(inside, F.pad(arcs.label, (0, 0, 0, 1)), torch.where(along, 0.0, NEVER))
    return blank, label


def _diagonals(blank: Tensor, label: Tensor) -> list[Tensor]:
    """Log α by anti-diagonals: T + U + 1 times (N, U + 1), NEVER where a diagonal leaves the lattice."""
    into_blank = _skewed(F.pad(blank, (0, 0, 1, 0), value=NEVER))
    into_label = _skewed(F.pad(label, (1, 0), value=NEVER))
    add = _add_twice_differentiable if blank.requires_grad else torch.logaddexp
    cell = torch.full_like(into_blank[0], NEVER)
    cell[:, 0] = 0.0
    cells = [cell]
    for stay, say in zip(into_blank[1:].unbind(), into_label[1:].unbind(), strict=True):
        cell = add(cell + stay, cell.roll(1, 1) + say)  # what rolls around meets NEVER
        cells.append(cell)
    return cells


def _add_twice_differentiable(a: Tensor, b: Tensor) -> Tensor:
    """Log(eᵃ + eᵇ); the second derivative of torch's own is NaN where a and b are 355 or more apart."""
    return torch.stack([a, b]).logsumexp(0)


def _skewed(x: Tensor) -> Tensor:
    """x[n, t, u] -> [t + u, n, u]: (N, R, S) -> (R + S - 1, N, S), NEVER in the corners.

    Rows of length R + S, read on as rows of R + S - 1, are each one place further right than the last.
    """
    n, rows, states = x.shape
    flat = F.pad(x.transpose(1, 2), (0, states), value=NEVER).flatten(1)
    return flat[:, :-states].view(n, states, rows + states - 1).permute(2, 0, 1).contiguous()


def _straight(x: Tensor, rows: int) -> Tensor:
    """Undo `_skewed`: (R + S - 1, N, S) -> (N, R, S)."""
    _, n, states = x.shape
    flat = F.pad(x.permute(1, 2, 0).flatten(1), (0, states))
    return flat.view(n, states, rows + states)[:, :, :rows].transpose(1, 2)


def _checked(logprobs: Tensor, arcs: Arcs) -> Tensor:
    """The same (N,), or an error that names utterance and cell."""
    bad = ~((logprobs > NEVER / 10) & logprobs.isfinite()).detach()
    if not bad.any():
        return logprobs
    n = int(bad.nonzero()[0])
    frames, said = int(arcs.frame_lens[n]), int(arcs.label_lens[n])
    broken = arcs.blank[n, :frames, : said + 1].detach()
    broken = broken.isnan() | (broken == torch.inf)
    if not broken.any():
        raise ValueError(
            f"utterance {n} of the batch has no alignment: each meets a blank or a label whose logit is -inf"
        )
    t, u = broken.nonzero()[0].tolist()
    raise ValueError(
        f"the logits of utterance {n} of the batch are NaN or infinite at frame {t} after {u} labels: lower "
        "the learning rate, or look for broken features"
    )
