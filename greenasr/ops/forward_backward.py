"""Forward-backward over weighted graphs: the log of the sum over all paths, and its gradient.

    α_{t+1} = Σ_k o_t[pdf_k] ⊙ (M_k α_t) / c_t        ln p = Σ_t ln c_t + ln Σ(α_T ⊙ final)
    β_t     = Σ_k M_kᵀ (o_t[pdf_k] ⊙ β_{t+1}) / d_t    from β_T = final
    ∂ ln p / ∂ ln o_t[pdf]  ∝  Σ_k [pdf_k = pdf] o_t[pdf_k] ⊙ (M_k α_t) ⊙ β_{t+1}, of sum one over the pdfs

Probabilities, scaled at every frame (Rabiner 1989, "A tutorial on hidden Markov models", V.A): c_t makes α
sum to one, and d_t β to the largest safe number, so that β cannot overflow where α has almost nothing.

The arcs into a state are sorted by their pdf into *slots* k, two in the chain topology (entry and loop), so
that M_k is constant and a frame costs one sparse product.  The leaky HMM of Povey et al. 2016 puts
α_t + leaky · Σ(α_t) · leak for α_t before each frame: a jump from every state to those that ``leak`` names.

Either all utterances share one graph (S states x N utterances), or each has its own (all states x 1), for
which `own_graphs` has a faster way.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROOM = (
    1 << 28
)  # bytes that a shared graph may hold M α in, 256 MiB: fewer frames at a time where that is little
SUM = 0  # embedding_bag's mode


class Csr(NamedTuple):
    """A sparse matrix by rows: where each row starts (R + 1,); rows, columns and values (nnz,)."""

    crow: Tensor
    row: Tensor
    col: Tensor
    values: Tensor | None  # None: all ones

    @classmethod
    def of(cls, row: Tensor, col: Tensor, values: Tensor | None, n_rows: int) -> Csr:
        """Sort triples by row; those at the same place add up in a product."""
        order = row.argsort(stable=True)
        crow = F.pad(torch.bincount(row, minlength=n_rows).cumsum(0), (1, 0))
        return cls(crow, row[order], col[order], None if values is None else values[order])

    def times(self, x: Tensor) -> Tensor:
        """(R, C) @ (C, B) -> (R, B).

        Through ``embedding_bag``, whose float32 kernel is twice as fast here as torch's CSR product; a single
        float64 column, where it has no kernel, by ``index_add``.
        """
        if x.shape[1] == 1:
            out, x = x.new_zeros(len(self.crow) - 1), x[:, 0].index_select(0, self.col)
            return out.index_add_(0, self.row, x if self.values is None else x.mul_(self.values))[:, None]
        return torch.embedding_bag(x, self.col, self.crow, False, SUM, False, self.values, True)[0]


@dataclass(frozen=True, eq=False)
class Trellis:
    """One graph, or a block-diagonal row of graphs, laid out for `forward_backward`.

    Probabilities, not logs.  ``initial``, ``final`` and ``leak`` are (S, 1); slot k of state s is number
    k * S + s of ``slot_pdf`` (K * S,); ``owner`` (S,) is a state's utterance, None for a shared graph.
    """

    onward: Csr  # (K * S, S)
    back: Csr  # (S, K * S)
    slot_pdf: Tensor
    initial: Tensor
    final: Tensor
    leak: Tensor
    owner: Tensor | None
    n_utts: int  # of owner
    _rooms: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        src: Tensor,
        dst: Tensor,
        pdf: Tensor,
        prob: Tensor,
        initial: Tensor,
        final: Tensor,
        leak: Tensor,
        owner: Tensor | None = None,
        n_utts: int = 0,
    ) -> Trellis:
        """From arcs, (A,) each, and what is known of the states, (S,) each."""
        n_states, n_pdfs = len(initial), int(pdf.max()) + 1 if len(pdf) else 1
        keys, inverse = torch.unique(dst * n_pdfs + pdf, return_inverse=True)
        state = keys // n_pdfs
        first = torch.searchsorted(state, state)  # of the keys of this state
        rank = torch.arange(len(keys), device=keys.device) - first
        place = rank * n_states + state
        n_slots = (int(rank.max()) + 1 if len(rank) else 1) * n_states
        slot_pdf = torch.zeros(n_slots, dtype=torch.int64, device=keys.device)
        slot_pdf[place] = keys % n_pdfs
        slot = place[inverse]
        return cls(
            Csr.of(slot, src, prob, n_slots),
            Csr.of(src, slot, prob, n_states),
            slot_pdf,
            initial[:, None],
            final[:, None],
            leak[:, None],
            owner,
            n_utts,
        )

    def total(self, x: Tensor) -> Tensor:
        """Sum over an utterance's states, (S, B) -> (N,)."""
        if self.owner is None:
            return x.sum(0)
        return x.new_zeros(self.n_utts).index_add(0, self.owner, x[:, 0])

    def spread(self, x: Tensor) -> Tensor:
        """An utterance's figure where its states can use it, (N,) -> broadcasts with (S, B)."""
        return x if self.owner is None else x[self.owner, None]

    def room(self, n_frames: int, n_columns: int) -> Tensor:
        """Memory for o ⊙ M α of as many of the frames as `ROOM` has place for, (L, K * S, B).

        It is kept for the next call: to fetch it anew costs more than to fill it.
        """
        shape = len(self.slot_pdf), n_columns
        size = max(1, shape[0] * shape[1] * self.initial.element_size())
        length = min(n_frames, max(8, ROOM // size))
        wanted = length * shape[0] * shape[1]
        kept = self._rooms.get("arrived")
        if kept is None or len(kept) < wanted:
            kept = self._rooms["arrived"] = self.initial.new_empty(wanted)
        return kept[:wanted].view(length, *shape)

    def by_slot(self, x: Tensor) -> Tensor:
        """(K * S, B) seen as (K, S, B)."""
        return x.view(-1, len(self.initial), x.shape[1])


class Slopes(NamedTuple):
    """The derivatives ∂ ln p / ∂ logits as `forward_backward` finds them, not yet of sum one in a frame.

    ``values`` (T, U, B): on a shared graph of U pdfs and B utterances; else B is 1, and ``owner`` and ``pdf``
    (U,) say what a row is.  ``total`` (N, T) are their sums over the pdfs.
    """

    values: Tensor
    total: Tensor
    owner: Tensor | None
    pdf: Tensor | None

    @classmethod
    def of(cls, values: Tensor, n_utts: int, owner: Tensor | None, pdf: Tensor | None) -> Slopes:
        """Sum them."""
        if owner is None:
            return cls(values, values.sum(1).t(), owner, pdf)
        total = values.new_zeros(n_utts, len(values)).index_add_(0, owner, values[:, :, 0].t())
        return cls(values, total, owner, pdf)

    def unless_lost(self, logprobs: Tensor, lens: Tensor) -> Tensor:
        """Log p (N,), -inf where nothing is left of an utterance's paths at some frame."""
        inside = torch.arange(self.total.shape[1], device=lens.device) < lens[:, None]
        return logprobs.masked_fill(((self.total == 0) & inside).any(1), -torch.inf)

    def add_to_(self, out: Tensor, weight: Tensor) -> None:
        """Add them to (N, T, C), those of each utterance times its weight (N,)."""
        out = out[:, : len(self.values)]
        share = weight[:, None] / scale_of(self.total)
        if self.owner is None:
            by_frame = share.to(out.dtype).t()[:, :, None]
            for t, values in enumerate(self.values):  # a matrix that the cache holds
                out[:, t].addcmul_(values.t(), by_frame[t])
        else:
            by_pdf, place = out.transpose(1, 2), (self.owner, self.pdf)
            slopes = self.values[:, :, 0].t() * share[self.owner]
            by_pdf[place] = by_pdf[place] + slopes.to(out.dtype)


class Emissions:
    """o_t at every slot: exp of the logits less the frame's largest, which `offset` (N, T) keeps.

    A shared graph takes exp before it spreads the pdfs over its slots, graphs of their own after: each where
    there is less of it.  Frames beyond an utterance's length have o = 1, whatever the logits hold.  On a
    shared graph o is at least 1e-17 in float32: with the leak's jumps no state then falls out of its range.
    """

    def __init__(self, trellis: Trellis, logits: Tensor, lens: Tensor) -> None:
        dtype, self.n_pdfs = trellis.initial.dtype, logits.shape[2]
        self.slot_pdf, self.owner = trellis.slot_pdf, trellis.owner
        padding = torch.arange(logits.shape[1], device=lens.device) >= lens[:, None]
        self.offset = logits.detach().amax(2).masked_fill_(padding, 0)
        if self.owner is None:
            x = logits.to(dtype) - self.offset[:, :, None]
            if padding.any():
                x.masked_fill_(padding[:, :, None], 0)
            x.clamp_(min=0.45 * math.log(torch.finfo(dtype).tiny))
            self.values = x.exp_().permute(1, 2, 0).contiguous()  # (T, C, N)
        else:
            self.owner = self.owner.repeat(len(self.slot_pdf) // len(self.owner))
            x = logits.transpose(1, 2)[self.owner, self.slot_pdf].to(dtype)
            x = x.sub_(self.offset[self.owner]).masked_fill_(padding[self.owner], 0)
            self.values = x.exp_().t()[:, :, None].contiguous()  # (T, K * S, 1)

    def at(self, t: int, out: Tensor | None = None) -> Tensor:
        """Frame t at every slot, (K * S, B); ``out`` is room for it that may be used."""
        if self.owner is not None:
            return self.values[t]
        return torch.index_select(self.values[t], 0, self.slot_pdf, out=out)

    def pool(self) -> tuple[Csr, Tensor | None, Tensor | None]:
        """The matrix (U, K * S) that sums the slots of a pdf; for `Slopes`, whose and which."""
        slots = torch.arange(len(self.slot_pdf), device=self.slot_pdf.device)
        if self.owner is None:
            return Csr.of(self.slot_pdf, slots, None, self.n_pdfs), None, None
        used, row = (self.owner * self.n_pdfs + self.slot_pdf).unique(return_inverse=True)
        return Csr.of(row, slots, None, len(used)), used // self.n_pdfs, used % self.n_pdfs


class _Stretch(NamedTuple):
    """What some frames in a row leave."""

    alpha: Tensor  # (S, B) after them, with its leak
    scales: list[Tensor]  # c_t (N,) of each
    at_end: Tensor  # (N,): Σ(α_T ⊙ final) of utterances that ended in them or before


def _advance(
    trellis: Trellis,
    emissions: Emissions,
    frames: range,
    alpha: Tensor,
    leaky: float,
    ends: dict[int, Tensor],
    at_end: Tensor,
    arrived: Tensor | None,
) -> _Stretch:
    """Through some frames; o_t ⊙ M α_t of each goes to ``arrived`` (L, K * S, B), where that is given."""
    scales = []
    leak = leaky * trellis.leak
    room = alpha.new_empty(len(trellis.slot_pdf), alpha.shape[1])
    for t in frames:
        into = trellis.onward.times(alpha)
        y = into if arrived is None else arrived[t - frames.start]
        torch.mul(into, emissions.at(t, room), out=y)
        alpha = functools.reduce(torch.add, trellis.by_slot(y))
        scales.append(scale_of(trellis.total(alpha)))
        alpha.mul_(trellis.spread(scales[-1].reciprocal()))
        if t + 1 in ends:
            at_end = torch.where(ends[t + 1], trellis.total(alpha * trellis.final), at_end)
        if leaky:
            alpha.add_(leak)  # Σ α_t was one
    return _Stretch(alpha, scales, at_end)


def forward_backward(
    trellis: Trellis, logits: Tensor, lens: Tensor, leaky: float = 0.0, slopes: bool = True
) -> tuple[Tensor, Slopes | None]:
    """Log of Σ over paths of lens[n] arcs Π prob(arc) exp(logit), (N, T, C) -> (N,), float64, and its slopes.

    Without a path -inf, and slopes of no meaning; also where all paths fall out of the precision's range.
    The precision is the trellis': float32 does where a leak keeps every state in reach.  Without, float64
    can follow a path that at some frame is a thousand nats behind, and catches up.

    Where `Trellis.room` has not place for M α of all frames, a stretch is held at a time, and computed
    again from its first α when the backward pass comes to it.
    """
    n_frames = int(lens.max()) if len(lens) else 0
    logits = logits[:, :n_frames]
    emissions, ends = Emissions(trellis, logits, lens), at_ends(lens)
    alpha, scales, at_end = start_of(trellis, len(lens), leaky)
    arrived = trellis.room(n_frames, alpha.shape[1]) if slopes else None
    length = max(1, n_frames if arrived is None else len(arrived))
    stretches = [range(t, min(t + length, n_frames)) for t in range(0, n_frames, length)]
    starts = []
    for frames in stretches:
        starts.append(alpha)
        last = arrived if frames == stretches[-1] else None
        done = _advance(trellis, emissions, frames, alpha, leaky, ends, at_end, last)
        alpha, at_end = done.alpha, done.at_end
        scales += done.scales
    logprobs = logprobs_of(scales, at_end, emissions.offset, lens)
    if arrived is None:
        return logprobs, None

    pool, owner, pdf = emissions.pool()
    beta = torch.zeros_like(alpha)
    u = beta.new_empty(len(trellis.slot_pdf), beta.shape[1])
    values = beta.new_empty(n_frames, len(pool.crow) - 1, beta.shape[1])
    limits = torch.finfo(beta.dtype)
    top = limits.max**0.9
    for frames, start in zip(reversed(stretches), reversed(starts), strict=True):
        if frames != stretches[-1]:
            _advance(trellis, emissions, frames, start, leaky, {}, at_end, arrived)
        for t in reversed(frames):
            if t + 1 in ends:
                beta = torch.where(trellis.spread(ends[t + 1]), trellis.final, beta)
            y = trellis.by_slot(arrived[t - frames.start])
            values[t] = pool.times(y.mul_(beta).view_as(u))
            torch.mul(trellis.by_slot(emissions.at(t, u)), beta, out=trellis.by_slot(u))
            beta = trellis.back.times(u)
            if leaky:
                beta.add_(leaky * trellis.spread(trellis.total(trellis.leak * beta)))
            beta.mul_(trellis.spread(top / trellis.total(beta).clamp(min=top * limits.tiny)))
    found = Slopes.of(values, len(lens), owner, pdf)
    return found.unless_lost(logprobs, lens), found


def path_logprobs(trellis: Trellis, logits: Tensor, lens: Tensor, leaky: float = 0.0) -> Tensor:
    """What `forward_backward` sums, in operations that autograd can follow, twice: for Hessian products."""
    logits = logits[:, : int(lens.max()) if len(lens) else 0]
    emissions, ends = Emissions(trellis, logits, lens), at_ends(lens)
    alpha, scales, at_end = start_of(trellis, len(lens), leaky)
    for t in range(logits.shape[1]):
        arrived = _Product.apply(alpha, trellis.onward, trellis.back)
        assert isinstance(arrived, Tensor)
        alpha = trellis.by_slot(emissions.at(t) * arrived).sum(0)
        scales.append(scale_of(trellis.total(alpha)))
        alpha = alpha * trellis.spread(scales[-1].reciprocal())
        if t + 1 in ends:
            at_end = torch.where(ends[t + 1], trellis.total(alpha * trellis.final), at_end)
        alpha = alpha + leaky * trellis.leak
    return logprobs_of(scales, at_end, emissions.offset, lens)


def start_of(trellis: Trellis, n_utts: int, leaky: float) -> tuple[Tensor, list[Tensor], Tensor]:
    """α before the first frame with its leak, (S, B); its sum before scaling, [(N,)]; zeros (N,)."""
    alpha = trellis.initial.expand(-1, n_utts) if trellis.owner is None else trellis.initial
    scale = scale_of(trellis.total(alpha))
    alpha = alpha * trellis.spread(scale.reciprocal()) + leaky * trellis.leak
    return alpha.contiguous(), [scale], torch.zeros_like(scale)


def logprobs_of(scales: list[Tensor], at_end: Tensor, offset: Tensor, lens: Tensor) -> Tensor:
    """Of every utterance, (N,) in float64, from 1 + T scales; the first is the initial distribution's sum."""
    inside = torch.arange(offset.shape[1], device=lens.device) < lens[:, None]
    c, alive = torch.stack(scales, 1), at_end > 0
    c = torch.where(F.pad(inside, (1, 0), value=True), c, 1)
    sums = offset.double().sum(1) + c.double().log().sum(1)
    return torch.where(alive, sums + torch.where(alive, at_end, 1).double().log(), -torch.inf)


class _Product(torch.autograd.Function):
    """A sparse product that can be differentiated any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Csr, transposed: Csr) -> Tensor:
        ctx.matrices = matrix, transposed
        return matrix.times(x.contiguous())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        matrix, transposed = ctx.matrices
        x = _Product.apply(grads[0], transposed, matrix)
        assert isinstance(x, Tensor)
        return x, None, None


def at_ends(lens: Tensor) -> dict[int, Tensor]:
    """Frames after which utterances end -> which ones, (N,)."""
    return {t: lens == t for t in set(lens.tolist()) if t}


def scale_of(x: Tensor) -> Tensor:
    """A sum to divide by; where it is 0 all of its terms are, and stay so."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)
