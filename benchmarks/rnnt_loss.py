"""The transducer loss beside log_softmax, the least that one must do, and beside warprnnt_numba.

    python benchmarks/rnnt_loss.py [--json FILE] [--utts N] [--frames T] [--labels U] [--vocab V] [--rounds R]

Loss and gradient of logits (N, T, U + 1, V), float32, one thread.  Round by round and in turn, so that a busy
machine is fair to all:

    log_softmax       its forward and backward on the same logits, the gradient that comes in given
    rnnt_loss         ours
    addition joint    rnnt_loss of logits that are made as enc + pred, with the gradients of both
    merged            merged_rnnt_loss of the same enc and pred
    warprnnt_numba    in every fifth round, and only where `pip install warprnnt_numba numba` was run

The first round warms up.  Figures are medians over the others: milliseconds by the wall clock and by the
processor's, which other programs disturb less, and ratios within a round, by the processor's.

    over_log_softmax      rnnt_loss in units of log_softmax: 1.2 at most
    over_warprnnt_numba   how many times faster rnnt_loss is than it: 20 at least

Memory is the allocator's peak above the inputs, from the profiler, in units of the logits; not of the peer,
whose millions of small calls the profiler would all keep.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from greenasr.data.files import write_json
from greenasr.ops.merged_transducer import merged_rnnt_loss
from greenasr.ops.transducer import rnnt_loss

PEER = "warprnnt_numba"
PEER_EVERY = 5
GOALS = {"over_log_softmax": "at most 1.2", "over_warprnnt_numba": "at least 20"}


class Batch:
    """The contestants on one batch, each a method that does the work once and returns loss and gradient."""

    def __init__(self, utts: int, frames: int, said: int, vocab: int):
        g = torch.Generator().manual_seed(0)
        self.enc = torch.randn(utts, frames, vocab, generator=g).requires_grad_()
        self.pred = torch.randn(utts, said + 1, vocab, generator=g).requires_grad_()
        self.logits = self.added().detach().requires_grad_()
        self.incoming = torch.randn(self.logits.shape, generator=g)
        self.labels = torch.randint(1, vocab, (utts, said), generator=g)
        self.rest = self.labels, torch.full((utts,), frames), torch.full((utts,), said)

    def added(self) -> Tensor:
        """All logits."""
        return self.enc[:, :, None] + self.pred[:, None]

    def log_softmax(self) -> tuple[Tensor, Tensor]:
        """No loss: the floor."""
        out = self.logits.log_softmax(-1)
        return out, torch.autograd.grad(out, self.logits, self.incoming)[0]

    def ours(self) -> tuple[Tensor, Tensor]:
        """Of the logits."""
        loss = rnnt_loss(self.logits, *self.rest).sum()
        return loss, torch.autograd.grad(loss, self.logits)[0]

    def addition(self) -> tuple[Tensor, Tensor]:
        """Of encoder and prediction network, through the logits."""
        loss = rnnt_loss(self.added(), *self.rest).sum()
        return loss, torch.autograd.grad(loss, [self.enc, self.pred])[0]

    def merged(self) -> tuple[Tensor, Tensor]:
        """The same without logits."""
        loss = merged_rnnt_loss(self.enc, self.pred, *self.rest).sum()
        return loss, torch.autograd.grad(loss, [self.enc, self.pred])[0]

    def warprnnt_numba(self) -> tuple[Tensor, Tensor]:
        """The peer, its own log_softmax included."""
        peer = importlib.import_module("warprnnt_numba").RNNTLossNumba(blank=0, reduction="sum")
        loss = peer(self.logits, *(x.int() for x in self.rest)).sum()
        return loss, torch.autograd.grad(loss, self.logits)[0]

    def exact(self) -> Tensor:
        """The gradient of the logits in float64."""
        logits = self.logits.detach().double().requires_grad_()
        return torch.autograd.grad(rnnt_loss(logits, *self.rest).sum(), logits)[0]

    def contestants(self) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
        """All that can run here."""
        all_ = {
            "log_softmax": self.log_softmax,
            "rnnt_loss": self.ours,
            "addition joint": self.addition,
            "merged": self.merged,
        }
        if all(importlib.util.find_spec(name) for name in ("warprnnt_numba", "numba")):
            importlib.import_module("numba").set_num_threads(1)
            all_[PEER] = self.warprnnt_numba
        return all_


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the wall clock and by the processor's, on one thread."""
    torch.set_num_threads(1)  # numba, once started, sets OpenMP's for torch too
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def peak(run: Callable[[], object]) -> int:
    """Most bytes that a call holds at once."""
    with torch.profiler.profile(profile_memory=True) as record:
        run()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(torch.tensor(sizes).cumsum(0).max())


def measure(batch: Batch, rounds: int) -> dict[str, Any]:
    """Every figure, as one JSON value."""
    runs = batch.contestants()
    found = {name: run() for name, run in runs.items()}
    spent: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in runs}
    for i in range(rounds):
        for name, run in runs.items():
            if name != PEER or i % PEER_EVERY == 0:
                spent[name][i] = timed(run)

    def ratio(a: str, b: str) -> float | None:
        if not {a, b} <= spent.keys():
            return None
        return statistics.median(spent[a][i][1] / spent[b][i][1] for i in spent[a].keys() & spent[b].keys())

    size = batch.logits.numel() * batch.logits.element_size()
    exact = batch.exact()
    return {
        "shape": list(batch.logits.shape),
        "rounds": rounds,
        "rows": [
            {
                "name": name,
                "wall_ms": statistics.median(wall for wall, _ in all_.values()),
                "cpu_ms": statistics.median(cpu for _, cpu in all_.values()),
                "peak_in_logits": None if name == PEER else peak(runs[name]) / size,
            }
            for name, all_ in spent.items()
        ],
        "over_log_softmax": ratio("rnnt_loss", "log_softmax"),
        "over_warprnnt_numba": ratio(PEER, "rnnt_loss"),
        "merged_over_addition_joint": ratio("addition joint", "merged"),
        "goals": GOALS,
        "gradient_error": {
            name: float((found[name][1] - exact).abs().max()) for name in ("rnnt_loss", PEER) if name in runs
        },
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    shape = " x ".join(str(size) for size in figures["shape"])
    print(f"{shape} logits, {figures['rounds']} rounds, torch {torch.__version__}, 1 thread\n")
    print(f"{'loss and gradient':<20}{'wall ms':>10}{'CPU ms':>10}{'peak / logits':>16}")
    for row in figures["rows"]:
        held = "–" if row["peak_in_logits"] is None else f"{row['peak_in_logits']:.2f}"
        print(f"{row['name']:<20}{row['wall_ms']:>10.1f}{row['cpu_ms']:>10.1f}{held:>16}")
    print()
    for name in ("over_log_softmax", "over_warprnnt_numba"):
        value = "not installed" if figures[name] is None else f"{figures[name]:.2f}"
        print(f"{name:<20}  {value}  ({GOALS[name]})")
    print(
        f"merged is {figures['merged_over_addition_joint']:.1f} times as fast as the addition joint's logits"
    )
    errors = ", ".join(f"{name} {error:.1e}" for name, error in figures["gradient_error"].items())
    print(f"largest error of the gradient, beside float64: {errors}")


def main() -> None:
    """Run, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--utts", type=int, default=8)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--vocab", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if min(args.utts, args.frames, args.rounds) < 1 or args.labels < 0 or args.vocab < 2:
        parser.error("give at least one utterance, frame and round, two outputs, and no negative labels")
    torch.set_num_threads(1)
    try:
        figures = measure(Batch(args.utts, args.frames, args.labels, args.vocab), args.rounds)
        show(figures)
        if args.json:
            write_json(args.json, figures)
    except (ValueError, OSError) as error:
        print(f"rnnt_loss: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
