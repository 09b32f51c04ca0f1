"""What every layer of a packed model costs here, and how far that is from what the machine allows.

    floor = max(bytes / bytes a second, 2 O I M / operations a second)          share = floor / time

Bytes are those that a product reads of the weight in memory; both rates are measured in the same run, with
the same threads and instruction set.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from greenasr.runtime import engine
from greenasr.runtime.format import Packed
from greenasr.runtime.kernels import native
from greenasr.runtime.linear import Narrow
from greenasr.runtime.numerics import normal, uniform
from greenasr.runtime.weights import Weights

SLICE = 0.005  # seconds of one contestant's turn
WORKLOADS = {
    "transformer": "scores of 20 sentences of 20 tokens",
    "lstm": "scores of 20 sentences of 20 tokens",
    "tdnnf": "150 frames",
    "rnnt": "the encoder on 100 frames",
    "quartznet": "1,000 frames",
    "matchboxnet": "100 frames",
}


@dataclass(frozen=True)
class Layer:
    """One linear map: what it is, its time for M rows in milliseconds, and its floor's share of that."""

    name: str
    shape: tuple[int, int]
    bits: str
    nbytes: int
    kernel: str
    ms: float
    share: float | None


@dataclass(frozen=True)
class Ceiling:
    """Bytes and integer operations a second of this machine, with these threads."""

    read: float
    operations: float

    @classmethod
    def measured(cls, nbytes: int) -> Ceiling:
        """Reading as many bytes as the model has, over and over."""
        return cls(native.read_rate(max(nbytes, 1 << 16)), native.peak_rate())

    def floor(self, nbytes: int, operations: float) -> float:
        """The least seconds of a product."""
        return max(nbytes / self.read, operations / self.operations)


def inputs(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The workload of a network: its arguments by the names that its ONNX has."""
    if kind in ("transformer", "lstm"):
        tokens = min(20, int(config.get("context", 20)))
        ids = (uniform(20 * tokens) * int(config["vocab"])).astype(np.int64).reshape(20, tokens)
        return {"ids": ids}
    frames = {"tdnnf": 150, "rnnt": 100, "quartznet": 1000, "matchboxnet": 100}[kind]
    return {"feats": normal((frames, int(config["feat_dim"])))}


def ours(kind: str, network: Any, given: Mapping[str, Any]) -> Callable[[], Any]:
    """The workload on the runtime, or on torch's network behind the same interface."""
    if kind in ("transformer", "lstm"):
        return lambda: network.logits(network.hidden(given["ids"])[0])
    if kind == "rnnt":
        return lambda: network.encode(given["feats"][None])
    return lambda: network.logits(given["feats"])


def layers(packed: Packed, rows: int, rounds: int = 5) -> tuple[list[Layer], Ceiling | None, Any]:
    """Every linear map of a model, the machine's ceiling (None without kernels), and the network.

    ``rows`` are M; maps of plain NumPy have no share of a ceiling.
    """
    weights = Weights(packed, packed.rounding.kind)
    network = engine.FAMILIES[packed.model](packed.config, weights)
    maps = weights.maps
    ceiling = None
    if native.available():
        ceiling = Ceiling.measured(sum(m.weight.nbytes for m in maps.values() if isinstance(m, Narrow)))
    found = []
    for name, linear in maps.items():
        x = normal((rows, linear.inputs))
        ms = 1e3 * statistics.median(timed(_of(linear, x)) for _ in range(rounds))
        parts = weights.parts(*name.split(" + "))
        narrow = isinstance(linear, Narrow)
        bits = ", ".join(map(str, sorted({b for _, b, _ in parts or []}))) or "32"
        nbytes = linear.weight.nbytes
        share = None
        if ceiling is not None and narrow:
            share = ceiling.floor(nbytes, 2.0 * linear.inputs * linear.outputs * rows) / (ms / 1e3)
        shape = (linear.outputs, linear.inputs)
        found.append(Layer(name, shape, bits, nbytes, linear.kernel, ms, share))
    return found, ceiling, network


def interleaved(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, all taking turns in short slices."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for name, run in _rounds(contestants, rounds):
        times[name].append(1e3 * timed(run))
    return {name: statistics.median(each) for name, each in times.items()}


def _rounds(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> Iterator[tuple[str, Any]]:
    for run in contestants.values():
        run()
    for _ in range(rounds):
        yield from contestants.items()


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call, the mean over a slice."""
    calls, start = 0, time.perf_counter()
    while True:
        run()
        calls += 1
        took = time.perf_counter() - start
        if took >= SLICE:
            return took / calls


def _of(linear: Any, x: Any) -> Callable[[], Any]:
    return lambda: linear(x)
