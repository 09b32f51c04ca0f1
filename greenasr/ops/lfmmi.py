"""LF-MMI: the likelihood of the transcript's paths against that of all paths, without lattices.

    L = -1/F Σ_n [ln p_num(n) - ln p_den(n)]  +  l2 / (2F) Σ_n Σ_{t < len_n} ‖x_nt‖²        F = Σ_n len_n
    p(n) = Σ over paths of len_n arcs  Π_t prob(arc_t) exp(x_nt[pdf(arc_t)])

x are the network's outputs, used as they are: no prior, no softmax.  The numerator graph of an utterance is
its transcript, the denominator everything that the phone language model allows.  Povey et al. 2016,
"Purely sequence-trained neural networks for ASR based on lattice-free MMI"; on whole utterances, without any
alignment, Hadian et al. 2018, "End-to-end speech recognition using lattice-free MMI".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from greenasr.ops.forward_backward import Trellis, forward_backward, path_logprobs
from greenasr.ops.own_graphs import both_ways

OCCUPANCY_FRAMES = 100  # as Kaldi's chain-den-graph.cc


@dataclass(frozen=True, eq=False)
class Graph:
    """An acceptor over pdfs, one arc a frame, weights as natural-log probabilities.

    Of arcs ``src``, ``dst``, ``pdf`` int64 (A,) and ``logprob`` float32 (A,); of states ``initial`` and
    ``final`` float32 (S,), -inf where a path may not begin or end.  A graph without arcs has no path.
    """

    src: Tensor
    dst: Tensor
    pdf: Tensor
    logprob: Tensor
    initial: Tensor
    final: Tensor
    _trellises: dict[tuple[torch.dtype, torch.device], Trellis] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Refuse arcs that lead nowhere."""
        sizes = [len(x) for x in (self.src, self.dst, self.pdf, self.logprob)]
        if len(set(sizes)) > 1 or len(self.initial) != len(self.final):
            raise ValueError(
                f"a graph has {sizes} sources, targets, pdfs and weights of arcs and {len(self.initial)}, "
                f"{len(self.final)} initial and final weights: each group should have one size"
            )
        for name, x in (("source", self.src), ("target", self.dst)):
            if len(x) and not 0 <= int(x.min()) <= int(x.max()) < self.n_states:
                raise ValueError(
                    f"an arc's {name} is {int(x.min())} to {int(x.max())}, the graph has the states 0 to "
                    f"{self.n_states - 1}"
                )

    @property
    def n_states(self) -> int:
        """S."""
        return len(self.initial)

    @property
    def n_arcs(self) -> int:
        """A."""
        return len(self.src)

    def occupancy(self, frames: int = OCCUPANCY_FRAMES) -> Tensor:
        """How often each state is visited in the first ``frames`` frames without audio, (S,) in float64.

        The initial distribution is sent through the arcs, rescaled to one at every frame, and averaged: what
        Kaldi calls the initial probabilities of the denominator.  Here they are where the leak goes.
        """
        prob = self.logprob.double().exp()
        now = self.initial.double().exp()
        mean = torch.zeros_like(now)
        for _ in range(frames if self.n_arcs else 0):
            now = torch.zeros_like(now).index_add_(0, self.dst, now[self.src] * prob)
            now = now / now.sum().clamp(min=torch.finfo(now.dtype).tiny)
            mean += now / frames
        return mean

    def trellis(self, dtype: torch.dtype, device: torch.device) -> Trellis:
        """Laid out for forward-backward with all utterances on this graph; kept for the next call."""
        key = dtype, device
        if key not in self._trellises:
            self._trellises[key] = Trellis.of(
                self.src.to(device),
                self.dst.to(device),
                self.pdf.to(device),
                self.logprob.double().exp().to(device, dtype),
                self.initial.double().exp().to(device, dtype),
                self.final.double().exp().to(device, dtype),
                self.occupancy().to(device, dtype),
            )
        return self._trellises[key]


def any_of(graphs: Sequence[Graph], logprobs: Sequence[float]) -> Graph:
    """A graph whose path is one of the k-th graph's with probability exp(logprobs[k]): p = Σ_k prob_k p_k.

    What may have been said, where nobody wrote it down: Manohar et al. 2018, "Semi-supervised training of
    acoustic models using lattice-free MMI".  Raises ValueError unless there are graphs, each with its own.
    """
    if not graphs or len(graphs) != len(logprobs):
        raise ValueError(
            f"{len(graphs)} graphs and {len(logprobs)} probabilities: give one a graph, and a graph"
        )
    joined = GraphBatch.of(graphs)
    prior = torch.tensor(logprobs, dtype=joined.graph.initial.dtype)
    return replace(joined.graph, initial=joined.graph.initial + prior[joined.owner])


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs of their own for N utterances, side by side: ``owner`` (S,) is the utterance of a state."""

    graph: Graph
    owner: Tensor
    n_utts: int

    @classmethod
    def of(cls, graphs: Sequence[Graph]) -> GraphBatch:
        """Number the states of all graphs through, in order."""
        if not graphs:
            raise ValueError("no numerator graphs: a batch has one an utterance")
        sizes = torch.tensor([graph.n_states for graph in graphs])
        starts = (sizes.cumsum(0) - sizes).tolist()
        return cls(
            Graph(
                torch.cat([g.src + start for g, start in zip(graphs, starts, strict=True)]),
                torch.cat([g.dst + start for g, start in zip(graphs, starts, strict=True)]),
                torch.cat([g.pdf for g in graphs]),
                torch.cat([g.logprob for g in graphs]),
                torch.cat([g.initial for g in graphs]),
                torch.cat([g.final for g in graphs]),
            ),
            torch.repeat_interleave(torch.arange(len(graphs)), sizes),
            len(graphs),
        )

    def trellis(self, device: torch.device) -> Trellis:
        """Laid out for forward-backward in float64, a block an utterance."""
        graph = self.graph
        initial = graph.initial.to(device).double().exp()
        return Trellis.of(
            graph.src.to(device),
            graph.dst.to(device),
            graph.pdf.to(device),
            graph.logprob.to(device).double().exp(),
            initial,
            graph.final.to(device).double().exp(),
            torch.zeros_like(initial),
            self.owner.to(device),
            self.n_utts,
        )


class LfMmi(NamedTuple):
    """The loss () and what it is made of: ln p (N,) in float64, detached; utterances without a path."""

    loss: Tensor
    num: Tensor  # -inf without a path
    den: Tensor
    skipped: int
    frames: int  # F, over the utterances that count


def lfmmi(
    logits: Tensor,
    out_lens: Tensor,
    denominator: Graph,
    numerators: Sequence[Graph] | GraphBatch,
    *,
    leaky: float = 1e-5,
    l2: float = 5e-5,
    twice_differentiable: bool = False,
) -> LfMmi:
    """Mean loss per output frame of logits (N, T, C) with ``out_lens`` (N,) frames each.

    An utterance whose numerator has no path of that many frames, as one shorter than its phone string, is
    left out and counted in ``skipped``; frames beyond ``out_lens`` take no part.  The leak is in the
    denominator alone.  Both graphs must come from one phone language model, so that ln p_num <= ln p_den;
    ValueError where that does not hold, or logits are not finite.  ``twice_differentiable`` is for Hessian
    products, several times slower.
    """
    batch = numerators if isinstance(numerators, GraphBatch) else GraphBatch.of(numerators)
    lens = torch.as_tensor(out_lens, device=logits.device)
    _check(logits, lens, denominator, batch)
    if logits.dtype != torch.float64:
        logits = logits.float()
    num_trellis, den_trellis = batch.trellis(logits.device), denominator.trellis(logits.dtype, logits.device)
    if twice_differentiable:
        num = path_logprobs(num_trellis, logits, lens)
        den = path_logprobs(den_trellis, logits, lens, leaky)
        kept, frames = _kept(num.detach(), den.detach(), lens)
        counted = (torch.arange(logits.shape[1], device=lens.device) < lens[:, None]) & kept[:, None]
        energy = torch.where(counted[:, :, None], logits, 0).square().sum()
        gain = (torch.where(kept, num, 0) - torch.where(kept, den, 0)).sum()
        loss = (0.5 * l2 * energy - gain).to(logits.dtype) / max(frames, 1)
    else:
        loss, num, den, kept = _LfMmi.apply(logits, lens, num_trellis, den_trellis, leaky, l2)
    return LfMmi(loss, num.detach(), den.detach(), int((~kept).sum()), int((lens * kept).sum()))


class _LfMmi(torch.autograd.Function):
    """The loss, with its gradient written out: F ∂L/∂x = γ_den - γ_num + l2 x."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        lens: Tensor,
        numerators: Trellis,
        denominator: Trellis,
        leaky: float,
        l2: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0]
        num, num_slopes = both_ways(numerators, logits, lens)
        den, den_slopes = forward_backward(denominator, logits, lens, leaky, wanted)
        kept, frames = _kept(num, den, lens)
        counted = (torch.arange(logits.shape[1], device=lens.device) < lens[:, None]) & kept[:, None]
        energy = torch.where(counted, torch.linalg.vector_norm(logits, dim=2).square(), 0).sum()
        loss = (0.5 * l2 * energy - torch.where(kept, num - den, 0).sum()) / max(frames, 1)
        if den_slopes is not None:
            grad, weight = logits * (l2 / max(frames, 1)), kept / max(frames, 1)
            den_slopes.add_to_(grad, weight)
            num_slopes.add_to_(grad, -weight)
            ctx.save_for_backward(grad if counted.all() else grad.masked_fill_(~counted[:, :, None], 0))
        ctx.mark_non_differentiable(num, den, kept)
        return loss.to(logits.dtype), num, den, kept

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: the posteriors would pass for constants
            raise RuntimeError("this gradient cannot be differentiated: ask for twice_differentiable=True")
        (grad,) = ctx.saved_tensors
        return grad if grads[0] == 1 else grad * grads[0], None, None, None, None, None


def _kept(num: Tensor, den: Tensor, lens: Tensor) -> tuple[Tensor, int]:
    """Which utterances count, (N,), and their frames; refuses ln p_num > ln p_den, but for rounding."""
    kept = num.isfinite() & den.isfinite()
    over = torch.where(kept, num - den, -torch.inf) - 1e-5 * lens - 1e-3
    if (over > 0).any():
        utt = int(over.argmax())
        raise ValueError(
            f"the numerator of utterance {utt} of the batch is {float(num[utt] - den[utt]):.3g} nats above "
            "the denominator, it can only be below. Build both from one phone language model and pdf map."
        )
    return kept, int((lens * kept).sum())


def _check(logits: Tensor, lens: Tensor, denominator: Graph, batch: GraphBatch) -> None:
    n_utts, n_frames, n_pdfs = logits.shape
    if not len(lens) == n_utts == batch.n_utts:
        raise ValueError(
            f"{n_utts} utterances of logits come with {len(lens)} lengths and {batch.n_utts} numerator "
            "graphs: give one of each an utterance"
        )
    if len(lens) and not 0 <= int(lens.min()) <= int(lens.max()) <= n_frames:
        raise ValueError(
            f"output lengths are {int(lens.min())} to {int(lens.max())}, the logits have {n_frames} frames. "
            "Lengths count output frames, after subsampling."
        )
    largest = max(int(g.pdf.max()) for g in (denominator, batch.graph) if g.n_arcs)
    if largest >= n_pdfs:
        raise ValueError(
            f"a graph emits pdf {largest}, the network has {n_pdfs} outputs. Build both from one pdf map."
        )
    inside = torch.arange(n_frames, device=logits.device) < lens[:, None]
    finite = logits.detach().sum(2).isfinite() | ~inside
    if not finite.all():
        utt, frame = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"the logits of utterance {utt} of the batch are not finite at output frame {frame}: lower the "
            "learning rate, or look for broken features"
        )
