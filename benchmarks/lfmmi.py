"""LF-MMI beside plain torch: seconds for loss and gradient of a batch, 2,000 states and 20,000 arcs.

python benchmarks/lfmmi.py [utterances] [frames] [states] [arcs] [pdfs]

One thread.  Ours is the whole loss: numerators, denominator, l2 and the gradient of the logits.  The peers
do the denominator alone, by autograd, as one would write it first: a dense matrix product a frame in scaled
probabilities, and arcs in the log semiring.  The smallest of some runs, wall clock and processor seconds.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from greenasr.ops.lfmmi import Graph, GraphBatch, lfmmi

LEAKY = 1e-5


def denominator(states: int, arcs: int, pdfs: int, generator: torch.Generator) -> Graph:
    """A random graph of chain topology: a state is entered by one pdf and loops on another."""

    def draw(high: int, size: int) -> Tensor:
        return torch.randint(high, (size,), generator=generator)

    loop = torch.arange(states)
    pairs = torch.randperm(states * states, generator=generator)[: arcs - 2 * states]
    src = torch.cat([loop, pairs // states, loop])
    dst = torch.cat([(loop + 1) % states, pairs % states, loop])
    entry, stay = draw(pdfs, states), draw(pdfs, states)
    prob = torch.rand(len(src), generator=generator) + 0.1
    prob /= torch.zeros(states).index_add(0, src, prob)[src]
    initial = torch.full((states,), -math.inf)
    initial[0] = 0.0
    pdf = torch.cat([entry[dst[: arcs - states]], stay])
    return Graph(src, dst, pdf, prob.log(), initial, torch.full((states,), -3.0))


def numerator(den: Graph, phones: int, generator: torch.Generator) -> Graph:
    """A random walk of the denominator: its arcs in a row, each state with its loop."""
    leaving = [[] for _ in range(den.n_states)]
    loops = {}
    for arc, (src, dst) in enumerate(zip(den.src.tolist(), den.dst.tolist(), strict=True)):
        if src == dst:
            loops[src] = arc
        else:
            leaving[src].append(arc)
    path, state = [], 0
    for _ in range(phones):
        path.append(leaving[state][int(torch.randint(len(leaving[state]), (), generator=generator))])
        state = int(den.dst[path[-1]])
    chosen = torch.tensor(path + [loops[int(den.dst[arc])] for arc in path])
    ahead, stay = torch.arange(phones), torch.arange(1, phones + 1)
    initial, final = torch.full((2, phones + 1), -math.inf).unbind()
    initial[0], final[-1] = 0.0, -3.0
    return Graph(
        torch.cat([ahead, stay]),
        torch.cat([ahead + 1, stay]),
        den.pdf[chosen],
        den.logprob[chosen],
        initial,
        final,
    )


def dense(den: Graph, logits: Tensor) -> Tensor:
    """Scaled probabilities, a dense (S, S) product a frame and pdf slot; sum of ln p."""
    n, loop = den.n_states, den.src == den.dst
    entry = torch.zeros(n, n)
    entry[den.src[~loop], den.dst[~loop]] = den.logprob[~loop].exp()
    stay = torch.zeros(n).index_add(0, den.src[loop], den.logprob[loop].exp())
    entry_pdf = torch.zeros(n, dtype=torch.int64).index_copy(0, den.dst[~loop], den.pdf[~loop])
    loop_pdf = torch.zeros(n, dtype=torch.int64).index_copy(0, den.dst[loop], den.pdf[loop])
    alpha, leak = den.initial.exp().expand(len(logits), -1), LEAKY * den.occupancy().float()
    total = logits.new_zeros(())
    for x in logits.exp().unbind(1):
        alpha = alpha + leak
        alpha = (alpha @ entry) * x[:, entry_pdf] + alpha * stay * x[:, loop_pdf]
        scale = alpha.sum(1, keepdim=True)
        total = total + scale.log().sum()
        alpha = alpha / scale
    return total + (alpha * den.final.exp()).sum(1).log().sum()


def log_semiring(den: Graph, logits: Tensor) -> Tensor:
    """Log-probabilities, arcs gathered and summed into their targets by `index_add`; sum of ln p."""
    alpha = den.initial.expand(len(logits), -1)
    leak = (LEAKY * den.occupancy().float()).log()
    for x in logits.unbind(1):
        alpha = torch.logaddexp(alpha, alpha.logsumexp(1, keepdim=True) + leak)
        score = alpha[:, den.src] + den.logprob + x[:, den.pdf]
        top = score.detach().amax(1, keepdim=True)
        into = torch.zeros_like(alpha).index_add(1, den.dst, (score - top).exp())
        alpha = into.log() + top
    return (alpha + den.final).logsumexp(1).sum()


def measure(run: Callable[[], object], logits: Tensor, times: int) -> tuple[float, float]:
    """Smallest wall-clock and processor seconds of ``times`` runs, each with a gradient of its own."""
    seconds = []
    for _ in range(times):
        logits.grad = None
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(w for w, _ in seconds), min(c for _, c in seconds)


def main(utts: int = 32, frames: int = 150, states: int = 2000, arcs: int = 20_000, pdfs: int = 800) -> None:
    """Print one row a way to compute it."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    den = denominator(states, arcs, pdfs, generator)
    nums = [numerator(den, max(1, frames // 4), generator) for _ in range(utts)]
    logits = (2 * torch.randn(utts, frames, pdfs, generator=generator)).requires_grad_()
    lens = torch.full((utts,), frames)
    found = lfmmi(logits, lens, den, nums, leaky=LEAKY, l2=0.0)
    print(f"{utts} x {frames} frames, {den.n_states} states, {den.n_arcs} arcs, {pdfs} pdfs", file=sys.stderr)

    def ours(**options: bool) -> Callable[[], object]:
        return lambda: lfmmi(logits, lens, den, nums, leaky=LEAKY, **options).loss.backward()

    row = "{:<46}{:>9.3f}{:>9.3f}{:>14.4f}"
    print(f"{'loss and gradient':<46}{'wall s':>9}{'cpu s':>9}{'ln p_den':>14}")
    print(
        row.format("ours, numerators and denominator", *measure(ours(), logits, 20), float(found.den.sum()))
    )
    batch = GraphBatch.of(nums)
    twice = lfmmi(logits, lens, den, batch, leaky=LEAKY, l2=0.0, twice_differentiable=True)
    seconds = measure(ours(twice_differentiable=True), logits, 1)
    print(row.format("ours, twice differentiable", *seconds, float(twice.den.sum())))
    for name, peer in (("dense products", dense), ("log semiring, index_add", log_semiring)):
        seconds = measure(lambda peer=peer: peer(den, logits).backward(), logits, 1)  # type: ignore[misc]
        print(row.format(f"{name}, denominator only", *seconds, float(peer(den, logits.detach()))))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
