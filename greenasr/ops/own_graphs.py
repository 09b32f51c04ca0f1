"""Forward-backward over a graph of its own for every utterance, both directions at once.

    a_{t+1} = A (o_t ⊙ a_t) / c_t         M α_t: what arrives at a slot before its frame, forward
    v_{t-1} = Aᵀ (o_t ⊙ v_t) / d_t        β_{t+1} of the state that a slot belongs to, backward
    ∂ ln p / ∂ ln o_t[pdf]  ∝  Σ_k [pdf_k = pdf] o_t ⊙ a_t ⊙ v_t

Slots and scales are those of `forward_backward`; A goes from slot to slot.  Transcripts make small graphs,
on which the time goes into calls, not into numbers: frame t forward and frame T - 1 - t backward are one
vector of twice the length, and a frame costs one sparse product for both.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from greenasr.ops.forward_backward import (
    Csr,
    Emissions,
    Slopes,
    Trellis,
    at_ends,
    logprobs_of,
    scale_of,
    start_of,
)


def both_ways(trellis: Trellis, logits: Tensor, lens: Tensor) -> tuple[Tensor, Slopes]:
    """Log of Σ over paths, (N, T, C) -> (N,), and its slopes, as `forward_backward` of a shared graph.

    The trellis has owners.  Without a path -inf, and slopes of no meaning.  On the CPU the products go
    through torch's CSR matrices, twice as fast as index_add.
    """
    n_frames, n = (int(lens.max()) if len(lens) else 0), len(lens)
    emissions, ends = Emissions(trellis, logits[:, :n_frames], lens), at_ends(lens)
    o, dtype = emissions.values[:, :, 0], trellis.initial.dtype
    k, size = o.shape[1] // len(trellis.initial), o.shape[1]
    owner, final = emissions.owner, trellis.final[:, 0].repeat(k)
    assert owner is not None
    step, sums = _step(trellis, k), _sums(owner, n, dtype)
    both = torch.cat([owner, owner + n])
    aim = torch.ones(2 * n, dtype=dtype, device=o.device)
    largest = torch.finfo(dtype).max
    aim[n:] = largest**0.9  # β as large as is safe: it cannot overflow where α is almost 0

    alpha, scales, at_end = start_of(trellis, n, 0.0)
    there = o.new_zeros(n_frames, 2 * size)  # a_t, v_{T-1-t}
    if n_frames:
        there[0] = torch.cat([trellis.onward.times(alpha)[:, 0], final])
    sides = torch.cat([o, o.flip(0)], 1)
    for t in range(n_frames):
        y = sides[t] * there[t]
        total = scale_of(torch.mv(sums, y))
        scales.append(total[:n])
        y.mul_((aim / total).clamp_(max=largest).index_select(0, both))  # never infinite, beside zeros
        if t + 1 in ends:
            at_end = torch.where(ends[t + 1], torch.mv(sums, y * final.repeat(2))[:n], at_end)
        if t + 1 < n_frames:
            torch.mv(step, y, out=there[t + 1])
            if n_frames - 1 - t in ends:
                v = there[t + 1, size:]
                torch.where(ends[n_frames - 1 - t][owner], final, v, out=v)
    pool, utts, pdf = emissions.pool()
    slots = (o * there[:, :size]).mul_(there[:, size:].flip(0))
    found = Slopes.of(pool.times(slots.t().contiguous()).t()[:, :, None], n, utts, pdf)
    logprobs = logprobs_of(scales, at_end, emissions.offset, lens)
    return found.unless_lost(logprobs, lens), found


def _step(trellis: Trellis, k: int) -> Tensor:
    """A, and Aᵀ beside it: (2 K S, 2 K S).  An arc goes on from all slots of the state that it leaves."""
    states, arcs = len(trellis.initial), trellis.onward
    assert arcs.values is not None
    into = arcs.row.repeat(k)
    out_of = torch.cat([arcs.col + states * i for i in range(k)])
    rows = torch.cat([into, out_of + k * states])
    cols = torch.cat([out_of, into + k * states])
    return _csr(rows, cols, arcs.values.repeat(2 * k), (2 * k * states,) * 2)


def _sums(owner: Tensor, n_utts: int, dtype: torch.dtype) -> Tensor:
    """Sums over every utterance's slots, forward and backward: (2 N, 2 K S)."""
    rows = torch.cat([owner, owner + n_utts])
    ones = torch.ones(len(rows), dtype=dtype, device=owner.device)
    return _csr(rows, torch.arange(len(rows), device=owner.device), ones, (2 * n_utts, len(rows)))


def _csr(rows: Tensor, cols: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A sparse matrix of torch's."""
    made = Csr.of(rows, cols, values, shape[0])
    assert made.values is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "CSR support is in beta state", said once
        return torch.sparse_csr_tensor(made.crow.int(), made.col.int(), made.values, shape)
