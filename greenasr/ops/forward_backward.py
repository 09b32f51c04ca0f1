"""Forward-backward over weighted graphs: the log of the sum over all paths, and its gradient.

    α_{t+1} = Σ_k o_t[pdf_k] ⊙ (M_k α_t) / c_t          c_t makes α_{t+1} sum to one
    β_t     = Σ_k M_kᵀ (o_t[pdf_k] ⊙ β_{t+1}) / c_t     from β_T = final / Σ(α_T ⊙ final)
    ln p    = Σ_t ln c_t + ln Σ(α_T ⊙ final)
    ∂ ln p / ∂ ln o_t[pdf] = Σ_k [pdf_k = pdf] o_t[pdf_k] ⊙ (M_k α_t) ⊙ β_{t+1} / c_t

Probabilities, scaled at every frame (Rabiner 1989, "A tutorial on hidden Markov models", V.A).  The arcs into
a state are sorted by their pdf into *slots* k, two in the chain topology (entry and loop), so that M_k is
constant and a frame costs one sparse product.  The leaky HMM of Povey et al. 2016 puts
α_t + leaky · Σ(α_t) · leak for α_t before each frame: a jump from every state to those that ``leak`` names.

Either all utterances share one graph (S states x N utterances), or each has its own (all states x 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Csr(NamedTuple):
    """A sparse matrix by rows: where each row starts (R + 1,), columns (nnz,), values (nnz,)."""

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
        return F.embedding_bag(
            self.col, x, self.crow, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )


@dataclass(frozen=True, eq=False)
class Trellis:
    """One graph, or a block-diagonal row of graphs, laid out for `path_logprobs`.

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

    def start(self, n_utts: int) -> Tensor:
        """α before the first frame, (S, B)."""
        return self.initial.expand(-1, n_utts).contiguous() if self.owner is None else self.initial

    def total(self, x: Tensor) -> Tensor:
        """Sum over an utterance's states, (S, B) -> (N,)."""
        if self.owner is None:
            return x.sum(0)
        return x.new_zeros(self.n_utts).index_add(0, self.owner, x[:, 0])

    def spread(self, x: Tensor) -> Tensor:
        """An utterance's figure where its states can use it, (N,) -> broadcasts with (S, B)."""
        return x if self.owner is None else x[self.owner, None]

    def by_slot(self, x: Tensor) -> Tensor:
        """(K * S, B) seen as (K, S, B)."""
        return x.view(-1, len(self.initial), x.shape[1])


class _Emissions:
    """o_t at every slot: exp of the logits less the frame's largest, which `offset` (N, T) keeps.

    A shared graph takes exp before it spreads the pdfs over its slots, graphs of their own after: each where
    there is less of it.
    """

    def __init__(self, trellis: Trellis, logits: Tensor, dtype: torch.dtype) -> None:
        self.shape = logits.shape
        self.slot_pdf, self.owner = trellis.slot_pdf, trellis.owner
        self.offset = logits.detach().amax(2)
        if self.owner is None:
            x = (logits - self.offset[:, :, None]).permute(1, 2, 0)
            self.values = x.to(dtype).exp().contiguous()  # (T, C, N)
        else:
            self.owner = self.owner.repeat(len(self.slot_pdf) // len(self.owner))
            x = logits.transpose(1, 2)[self.owner, self.slot_pdf] - self.offset[self.owner]
            self.values = x.t().to(dtype).exp()[:, :, None]  # (T, K * S, 1)

    def at(self, t: int, out: Tensor | None = None) -> Tensor:
        """Frame t at every slot, (K * S, B); ``out`` is room for it that may be used."""
        if self.owner is not None:
            return self.values[t]
        return torch.index_select(self.values[t], 0, self.slot_pdf, out=out)

    def pool(self) -> tuple[Csr, Tensor]:
        """Matrix (U, K * S) that sums the slots of a pdf, and the pdf, (U,): n * C + pdf of own graphs."""
        row = self.slot_pdf if self.owner is None else self.owner * self.shape[2] + self.slot_pdf
        used, row = row.unique(return_inverse=True)
        return Csr.of(row, torch.arange(len(row), device=row.device), None, len(used)), used

    def by_utterance(self, x: Tensor, used: Tensor) -> Tensor:
        """What the rows of `pool` hold in every frame, (T, U, B), as (N, T, C)."""
        n_utts, n_frames, n_pdfs = self.shape
        out = x.new_zeros(self.shape, dtype=self.offset.dtype)
        if self.owner is None:
            out[:, :, used] = x.permute(2, 0, 1).to(out.dtype)
        else:
            out.transpose(1, 2)[used // n_pdfs, used % n_pdfs] = x.squeeze(2).t().to(out.dtype)
        return out


def path_logprobs(
    trellis: Trellis, logits: Tensor, lens: Tensor, *, leaky: float = 0.0, twice_differentiable: bool = False
) -> Tensor:
    """Log of Σ over paths of lens[n] arcs Π prob(arc) exp(logit), (N, T, C) and (N,) -> (N,) in float64.

    -inf where there is no such path; the gradient there is zero.  A shared graph is computed in the logits'
    precision, at least float32; graphs of their own in float64: without a leak only its range keeps
    paths that look bad for long.  ``twice_differentiable`` takes plain autograd instead of the
    written-out gradient.  Logits beyond lens are ignored, whatever they are.
    """
    n_frames = int(lens.max()) if len(lens) else 0
    if not n_frames:
        return torch.full(lens.shape, -torch.inf, dtype=torch.float64, device=logits.device)
    inside = torch.arange(n_frames, device=logits.device) < lens[:, None]
    logits = torch.where(inside[:, :, None], logits[:, :n_frames], 0)
    if logits.dtype != torch.float64:
        logits = logits.float()
    run = _by_autograd if twice_differentiable else _PathLogprobs.apply
    logprobs = run(logits, lens, trellis, leaky)
    assert isinstance(logprobs, Tensor)
    return logprobs


class _Sums(NamedTuple):
    """What the forward pass leaves: α_t with its leak, c_t, and Σ(α_T ⊙ final)."""

    alphas: Tensor  # (T, S, B)
    scales: Tensor  # (1 + T, N), first the sum of the initial distribution
    at_end: Tensor  # (N,)

    def logprobs(self, offset: Tensor, lens: Tensor) -> Tensor:
        """Log-probability of every utterance, (N,) in float64."""
        inside = torch.arange(offset.shape[1], device=lens.device) < lens[:, None]
        scales, alive = self.scales.t(), self.at_end > 0
        scales = torch.where(F.pad(inside, (1, 0), value=True) & (scales > 0), scales, 1)
        at_end = torch.where(alive, self.at_end, 1)
        sums = torch.where(inside, offset, 0).double().sum(1) + scales.double().log().sum(1)
        return torch.where(alive, sums + at_end.double().log(), -torch.inf)


def _forward(trellis: Trellis, emissions: _Emissions, ends: dict[int, Tensor], leaky: float) -> _Sums:
    n_utts, n_frames, _ = emissions.shape
    alpha = trellis.start(n_utts)
    scales = [trellis.total(alpha)]
    alpha = alpha * trellis.spread(_inverse(scales[0]))
    alphas = alpha.new_empty(n_frames, *alpha.shape)
    room = alpha.new_empty(len(trellis.slot_pdf), alpha.shape[1])
    leak = leaky * trellis.leak
    at_end = torch.zeros_like(scales[0])
    for t in range(n_frames):
        leaked = torch.add(alpha, leak, out=alphas[t]) if leaky else alphas[t].copy_(alpha)  # Σ α_t is one
        o, x = trellis.by_slot(emissions.at(t, room)), trellis.by_slot(trellis.onward.times(leaked))
        torch.mul(o[0], x[0], out=alpha)
        for k in range(1, len(o)):
            alpha.addcmul_(o[k], x[k])
        scales.append(trellis.total(alpha))
        alpha.mul_(trellis.spread(_inverse(scales[-1])))
        if t + 1 in ends:
            at_end = torch.where(ends[t + 1], trellis.total(alpha * trellis.final), at_end)
    return _Sums(alphas, torch.stack(scales), at_end)


def _posteriors(
    trellis: Trellis, emissions: _Emissions, ends: dict[int, Tensor], leaky: float, sums: _Sums
) -> Tensor:
    """∂ ln p / ∂ logits, (N, T, C).  M α_t is computed again: storing it would take twice the memory."""
    n_frames = emissions.shape[1]
    pool, used = emissions.pool()
    beta = torch.zeros_like(sums.alphas[0])
    room, u = (beta.new_empty(len(trellis.slot_pdf), beta.shape[1]) for _ in range(2))
    out = beta.new_empty(n_frames, len(used), beta.shape[1])
    largest = torch.finfo(beta.dtype).max ** 0.9  # 0 · ∞ at states that no path of this length passes
    inverse, at_end = _inverse(sums.scales), trellis.spread(_inverse(sums.at_end))
    for t in reversed(range(n_frames)):
        if t + 1 in ends:
            beta = torch.where(trellis.spread(ends[t + 1]), trellis.final * at_end, beta)
        beta.mul_(trellis.spread(inverse[t + 1]))
        o = trellis.by_slot(emissions.at(t, room))
        torch.mul(o, beta, out=trellis.by_slot(u)).clamp_(max=largest)
        beta = trellis.back.times(u)
        out[t] = pool.times(u.mul_(trellis.onward.times(sums.alphas[t])))
        if leaky:
            beta.add_(leaky * trellis.spread(trellis.total(trellis.leak * beta)))
    return emissions.by_utterance(out, used)


class _PathLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, lens: Tensor, trellis: Trellis, leaky: float) -> Tensor:
        emissions = _Emissions(trellis, logits, trellis.initial.dtype)
        ends = _ends(lens)
        sums = _forward(trellis, emissions, ends, leaky)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_posteriors(trellis, emissions, ends, leaky, sums))
        return sums.logprobs(emissions.offset, lens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: the posteriors would pass for constants
            raise RuntimeError("this gradient cannot be differentiated: ask for twice_differentiable=True")
        (posteriors,) = ctx.saved_tensors
        return posteriors * grads[0].to(posteriors)[:, None, None], None, None, None


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


def _by_autograd(logits: Tensor, lens: Tensor, trellis: Trellis, leaky: float) -> Tensor:
    """The forward pass in operations that autograd follows, twice."""
    emissions = _Emissions(trellis, logits, trellis.initial.dtype)
    ends = _ends(lens)
    alpha = trellis.start(logits.shape[0])
    scales = [trellis.total(alpha)]
    alpha = alpha * trellis.spread(_inverse(scales[0]))
    at_end = torch.zeros_like(scales[0])
    for t in range(logits.shape[1]):
        if leaky:
            alpha = alpha + leaky * trellis.leak
        arrived = _Product.apply(alpha, trellis.onward, trellis.back)
        assert isinstance(arrived, Tensor)
        alpha = trellis.by_slot(emissions.at(t) * arrived).sum(0)
        scales.append(trellis.total(alpha))
        alpha = alpha * trellis.spread(_inverse(scales[-1]))
        if t + 1 in ends:
            at_end = torch.where(ends[t + 1], trellis.total(alpha * trellis.final), at_end)
    return _Sums(alpha, torch.stack(scales), at_end).logprobs(emissions.offset, lens)


def _ends(lens: Tensor) -> dict[int, Tensor]:
    """Frames after which utterances end -> which ones, (N,)."""
    return {t: lens == t for t in set(lens.tolist()) if t}


def _inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 for 0: an utterance without a path stays at zero."""
    return torch.where(x > 0, x, torch.inf).reciprocal()
