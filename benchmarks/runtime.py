"""The runtime's kernels beside the engines of others and beside the machine, in one run.

    python benchmarks/runtime.py [--json FILE] [--threads N] [--rounds R] [--no-peers] [--models [--only A]]

First whole models of published sizes (`random_models.py`): a call of ours on a workload against one of
every peer (`greenasr.pipeline.peers`; logits where ours are log-probabilities). Then a row is one product
at a shape of a speech model: ours with 2-bit weights (random; speed alone is measured) against the fastest
of all peers (`benchmarks/peers/matmul.py`; pip install -e '.[peers]'). All take turns in short slices, so
that a busy machine is fair to all; a figure is the median over the rounds, ``min`` the least. With one
thread, the default, times are the processor's (other programs do not count), else the clock's.

    ratio      peer_ms / ours_ms: how many times faster ours is
    share      of a ceiling measured in the same run: of the integer peak of the instruction set in use for
               M >= 50; for M = 1 of the bytes a second that the threads read from memory of the layers' size,
               and of the floor, the longer of bytes over that rate and operations over the peak

The rows of ``share`` have the ceiling as the peer and its time for the same work as peer_ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.data.files import write_json
from greenasr.ops.signs import Signs
from greenasr.runtime.kernels import native

Floats = NDArray[np.float32]
SLICE = 0.01  # seconds of one contestant's turn


@dataclass(frozen=True)
class Shape:
    """Where a product comes from, its weight (O, I) and its rows M, and by how much to lead."""

    name: str
    n_out: int
    inputs: int
    rows: int
    goal: float | None


SHAPES = (
    Shape("Transformer w1, one token", 2048, 512, 1, 2.5),
    Shape("Transformer vocabulary, one token", 14_848, 512, 1, 2.5),
    Shape("RNN-T gates, one frame", 4096, 1024, 1, 2.5),
    Shape("Transformer w1, 20 hypotheses", 2048, 512, 20, 3.0),
    Shape("Transformer w1, 20 x 20 tokens", 2048, 512, 400, 2.0),
    Shape("Transformer vocabulary, 20 x 20 tokens", 14_848, 512, 400, 2.0),
    Shape("TDNN-F affine, 150 frames", 1536, 320, 150, 2.0),
    Shape("TDNN-F linear, 150 frames", 160, 3072, 150, 2.0),
    Shape("TDNN-F affine, 1000 frames", 1536, 320, 1000, 1.5),
    Shape("QuartzNet 1x1, 500 frames", 512, 512, 500, 1.0),
    Shape("MatchboxNet 1x1, 100 frames", 64, 64, 100, 1.0),
)
WORKLOADS: tuple[tuple[str, str, tuple[int, ...], float], ...] = (
    ("LM", "step, M = 1", (1, 1), 2.5),
    ("LM", "step, M = 20", (20, 1), 3.0),
    ("LM", "20 x 20 tokens with log-probabilities", (20, 20), 2.0),
    ("TDNN-F", "150 frames", (150,), 2.0),
    ("TDNN-F", "1000 frames", (1000,), 1.5),
    ("RNN-T", "encoder, one step", (4,), 2.5),
    ("QuartzNet-15x5", "10 s, 4-bit weights", (1000,), 1.0),
    ("QuartzNet-15x5", "10 s, ternary weights", (1000,), 1.3),
    ("QuartzNet-15x5, generated", "10 s, ternary blocks", (1000,), 1.3),
    ("MatchboxNet-3x1x64", "1 s", (100,), 1.0),
)
SHARES = ((1, "share of bytes read", 0.8), (1, "share of the floor", None), (50, "share of peak", 0.35))


@dataclass(frozen=True)
class Row:
    """One line: times are medians in milliseconds of one product."""

    workload: str
    ours_ms: float
    peer: str
    peer_ms: float
    ratio: float
    goal: float | None
    ours_min_ms: float
    others_ms: dict[str, float]


def ternary(n_out: int, inputs: int) -> Any:
    """A random ternary matrix with a step a row."""
    draw = np.random.default_rng(0)
    codes = draw.integers(-1, 2, (n_out, inputs)).astype(np.int8)
    return native.matrix((codes, 2, np.full((n_out, 1), 0.05, np.float32)))


def timed(run: Callable[[], Any], seconds: float) -> float:
    """Seconds of one call, the mean over a slice."""
    clock = time.process_time if native.threads() == 1 else time.perf_counter
    calls, start = 0, clock()
    while True:
        run()
        calls += 1
        took = clock() - start
        if took >= seconds:
            return took / calls


def interleaved(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every slice of every contestant, in turn."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        timed(run, SLICE)
    for _ in range(rounds):
        for name, run in contestants.items():
            found[name].append(1000 * timed(run, SLICE))
    return found


def against_peers(
    label: str, contestants: dict[str, Callable[[], Any]], rounds: int, goal: float | None
) -> Row:
    """The row of "ours" beside the fastest of the other contestants, all timed in turns."""
    times = interleaved(contestants, rounds)
    ours = times.pop("ours")
    others = {name: statistics.median(each) for name, each in times.items()}
    peer = min(others, key=lambda name: others[name], default="")
    best, mine = others.get(peer, float("nan")), statistics.median(ours)
    return Row(label, mine, peer, best, best / mine, goal, min(ours), others)


def products(threads: int, rounds: int, with_peers: bool) -> Iterator[Row]:
    """A row a shape: ours against the fastest peer."""
    for shape in SHAPES:
        draw = np.random.default_rng(1)
        x = draw.standard_normal((shape.rows, shape.inputs)).astype(np.float32)
        weight, out = ternary(shape.n_out, shape.inputs), np.empty((shape.rows, shape.n_out), np.float32)
        contestants: dict[str, Callable[[], Any]] = {"ours": _product(x, weight, out)}
        if with_peers:
            from peers.matmul import peers

            dense = 0.05 * draw.standard_normal((shape.n_out, shape.inputs)).astype(np.float32)
            contestants |= dict(peers(dense, x, threads))
        label = f"{shape.name}: {shape.n_out} x {shape.inputs}, M = {shape.rows}"
        yield against_peers(label, contestants, rounds, shape.goal)


def whole_models(threads: int, rounds: int, with_peers: bool, only: str) -> Iterator[Row]:
    """A row a workload of a whole model: ours against the fastest peer on the same inputs."""
    from random_models import random_model

    from greenasr.pipeline.peers import peers
    from greenasr.runtime import engine, scoring
    from greenasr.runtime.bench import ours as workload

    for name, label, size, goal in (each for each in WORKLOADS if only in each[0]):
        packed = random_model(name, 4 if "4-bit" in label else 2)
        network: Any = engine.build(packed)
        draw = np.random.default_rng(2)
        if name == "LM":
            given = {"ids": draw.integers(0, packed.config["vocab"], size)}
        else:
            given = {"feats": draw.standard_normal((*size, packed.config["feat_dim"])).astype(np.float32)}
        contestants = {"ours": workload(packed.model, network, given)}
        if "log-probabilities" in label:
            contestants["ours"] = partial(scoring.logprobs, network, given["ids"], given["ids"])
        if with_peers:
            contestants |= dict(peers(packed, given, threads))
        yield against_peers(f"{name}, {label}", contestants, rounds, goal)


def _product(x: Floats, weight: Any, out: Floats) -> Callable[[], Any]:
    return lambda: native.linear(x, weight, out=out)


def shares(rounds: int) -> Iterator[Row]:
    """How near products come to what the machine can do, the ceilings taken in turn with the products."""
    layers = [ternary(4096, 1024) for _ in range(4)]  # 4 MB together: beyond what a core keeps for itself
    for rows in (1, 50, 150, 500):
        x, out = np.ones((rows, 1024), np.float32), np.empty((rows, 4096), np.float32)
        x[:] = np.random.default_rng(0).standard_normal(x.shape)

        def stack(x: Floats = x, out: Floats = out) -> None:
            for weight in layers:
                native.linear(x, weight, out=out)

        ours, peaks, reads = [], [], []
        for _ in range(rounds):
            ours.append(timed(stack, SLICE) / len(layers))
            peaks.append(native.peak_rate(0.005))
            reads.append(native.read_rate(sum(weight.nbytes for weight in layers), 0.005))
        operations, taken = 2 * rows * 4096 * 1024, statistics.median(ours)
        ideal = {
            "share of peak": operations / max(peaks),
            "share of bytes read": layers[0].nbytes / max(reads),
        }
        ideal["share of the floor"] = max(ideal.values())
        for least, kind, goal in SHARES:
            if (rows == 1) == (least == 1):
                rate = max(peaks) / 1e9 if kind == "share of peak" else max(reads) / 1e9
                name = f"{native.isa()} at {rate:.0f} {'Gop/s' if kind == 'share of peak' else 'GB/s'}"
                label = f"{kind}: 4096 x 1024, M = {rows}"
                best = 1000 * ideal[kind]
                yield Row(label, 1000 * taken, name, best, ideal[kind] / taken, goal, 1000 * min(ours), {})


def generation(rounds: int) -> Iterator[Row]:
    """A ternary layer made from its seed and multiplied by a frame, beside reading it as int8 from memory."""
    for zeros in (0, 230):
        signs = Signs(seed=7, layer=0, rows=1024, cols=1024, zeros=zeros)
        weight, x, out = (
            native.generated(signs),
            np.ones((1, 1024), np.float32),
            np.empty((1, 1024), np.float32),
        )
        ours, reads = [], []
        for _ in range(rounds):
            ours.append(1000 * timed(_product(x, weight, out), SLICE))
            reads.append(native.read_rate(1 << 28, 0.05))
        read = 1000 * signs.rows * signs.cols / max(reads)
        label = f"generated 1024 x 1024, t = {zeros}/256, M = 1"
        name = f"reading it as int8 at {max(reads) / 1e9:.1f} GB/s"
        took = statistics.median(ours)
        yield Row(label, took, name, read, read / took, 1.0, min(ours), {})


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--threads", type=int, default=1, help="of every engine; one by default")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every engine a row")
    parser.add_argument("--no-peers", action="store_true", help="ours and the ceilings alone")
    parser.add_argument("--models", action="store_true", help="whole models alone")
    parser.add_argument("--only", default="", help="of whole models, those whose name has this in it")
    options = parser.parse_args()
    native.require()
    native.set_threads(options.threads)
    print(f"{native.isa()}, {options.threads} thread(s), numpy {np.__version__}")
    print("| workload | ours ms (min) | peer | peer ms | ratio | goal |\n|:--|--:|:--|--:|--:|--:|")
    rows = []
    makers = (
        whole_models(options.threads, options.rounds, not options.no_peers, options.only),
        shares(options.rounds),
        generation(options.rounds),
        products(options.threads, options.rounds, not options.no_peers),
    )
    for row in (row for maker in (makers[:1] if options.models else makers) for row in maker):
        rows.append(row)
        goal = "" if row.goal is None else f">= {row.goal:g}"
        ours = f"{row.ours_ms:.4f} ({row.ours_min_ms:.4f})"
        print(f"| {row.workload} | {ours} | {row.peer} | {row.peer_ms:.4f} | {row.ratio:.2f} | {goal} |")
        sys.stdout.flush()
    if options.json:
        write_json(options.json, [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
