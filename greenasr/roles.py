"""The roles: what a grid, a way of training and a job must offer.  Read this first.

A *cluster* is named weights that share one bit-width (Xu et al. 2021, arXiv 2112.11438, §3).  A
*bit map* gives every cluster its width; a *cost table* says what every width would cost; allocation
turns the second into the first.  Nothing in this file knows a network, a corpus or a method.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """A weight on its grid: integer ``codes`` (O, I) and a ``step`` that broadcasts against them.

    ``step`` is () for one table a cluster, (O, 1) for one a row, (O, I / group, 1) against codes
    viewed as (O, I / group, group) for one a group.  ``negative``, of the same shape, is the step of codes
    below zero where it is another (trained ternary weights).
    """

    codes: Tensor
    step: Tensor
    negative: Tensor | None = None

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for, (O, I), in the step's dtype."""
        codes = self.codes.to(self.step.dtype)
        if self.step.dim() == 3:
            codes = codes.view(self.step.shape[0], self.step.shape[1], -1)
        weight = codes * self.step
        if self.negative is not None:
            weight = weight.where(codes >= 0, codes * self.negative)
        return weight.view(self.codes.shape)


class Quantizer(Protocol):
    """A set of levels: MPLM eq. 7–9, levels ``step * {0, ±1, … ±(2^(bits-1) - 1)}``, ±1 for 1 bit."""

    @property
    def bits(self) -> int:
        """Nominal width in bits; 2 is ternary, 1 is binary."""
        ...

    def project(self, weight: Tensor, step: Tensor | None = None) -> Quantized:
        """Nearest grid point of ``weight`` (O, I); a given ``step`` is where fitting starts."""
        ...


@dataclass(frozen=True)
class Span:
    """Rows ``start:stop`` of the parameter ``name``, of ``cols`` columns (a convolution as (O, I*K))."""

    name: str
    start: int
    stop: int
    cols: int

    @property
    def numel(self) -> int:
        """Number of weights."""
        return (self.stop - self.start) * self.cols


@dataclass(frozen=True)
class Cluster:
    """Named weights that share one bit-width, hence one quantization table a span."""

    name: str
    spans: tuple[Span, ...]

    @property
    def numel(self) -> int:
        """Number of weights."""
        return sum(span.numel for span in self.spans)


@dataclass(frozen=True)
class BitMap:
    """The precision plan: the width of every cluster, and how often a step is kept.

    ``step`` is "cluster" (one step a span, as in the papers), "row", or "group:N" for one step
    every N columns.
    """

    clusters: tuple[Cluster, ...]
    bits: Mapping[str, int]
    step: str = "cluster"

    def __post_init__(self) -> None:
        """Refuse a plan that does not give exactly its clusters a width."""
        names = {cluster.name for cluster in self.clusters}
        if odd := names.symmetric_difference(self.bits):
            raise ValueError(
                f"bit map and clusters disagree on {', '.join(sorted(odd)[:3])}: every cluster needs "
                "exactly one width. Make the map with `greenasr allocate` from this model's costs."
            )

    @classmethod
    def uniform(cls, clusters: Iterable[Cluster], bits: int, step: str = "cluster") -> BitMap:
        """The same width everywhere: the special case that the papers call uniform precision."""
        clusters = tuple(clusters)
        return cls(clusters, {cluster.name: bits for cluster in clusters}, step)

    @property
    def average_bits(self) -> float:
        """Parameter-weighted mean width over the quantized clusters."""
        total = sum(cluster.numel for cluster in self.clusters)
        return sum(cluster.numel * self.bits[cluster.name] for cluster in self.clusters) / total

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": "greenasr bit map 1",
            "step": self.step,
            "average_bits": self.average_bits,
            "clusters": [
                {
                    "name": cluster.name,
                    "bits": self.bits[cluster.name],
                    "spans": [[s.name, s.start, s.stop, s.cols] for s in cluster.spans],
                }
                for cluster in self.clusters
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BitMap:
        """Read what `to_json` wrote."""
        if value.get("format") != "greenasr bit map 1":
            raise ValueError(
                "not a bit map: 'format' should be 'greenasr bit map 1'. Write one with `greenasr allocate`."
            )
        rows = value["clusters"]
        clusters = tuple(Cluster(r["name"], tuple(Span(*span) for span in r["spans"])) for r in rows)
        return cls(clusters, {r["name"]: int(r["bits"]) for r in rows}, value["step"])


@dataclass(frozen=True)
class CostTable:
    """cluster name -> bits -> cost; every estimate returns one and `allocate` reads nothing else.

    ``method`` names the estimate ("hessian", "kl", "search"), ``details`` keeps what it measured
    (traces and their standard errors, …) for reports.
    """

    method: str
    clusters: tuple[Cluster, ...]
    costs: Mapping[str, Mapping[int, float]]
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": "greenasr costs 1",
            "method": self.method,
            "clusters": [
                {
                    "name": c.name,
                    "numel": c.numel,
                    "costs": {str(bits): cost for bits, cost in self.costs[c.name].items()},
                    "spans": [[s.name, s.start, s.stop, s.cols] for s in c.spans],
                }
                for c in self.clusters
            ],
            "details": json.loads(json.dumps(dict(self.details))),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CostTable:
        """Read what `to_json` wrote."""
        if value.get("format") != "greenasr costs 1":
            raise ValueError(
                "not a cost table: 'format' should be 'greenasr costs 1'. Write one with `greenasr costs`."
            )
        rows = value["clusters"]
        clusters = tuple(Cluster(r["name"], tuple(Span(*span) for span in r["spans"])) for r in rows)
        costs = {r["name"]: {int(bits): float(cost) for bits, cost in r["costs"].items()} for r in rows}
        return cls(value["method"], clusters, costs, value.get("details", {}))


class Compressor(Protocol):
    """How training is drawn to the grid: four hooks of the one loop, `compress.fit.fit_`.

    State lives in buffers of the model, so one ``state_dict`` resumes everything.
    """

    def prepare_(self, model: nn.Module) -> None:
        """Attach what training needs; called once, before the optimizer is made."""
        ...

    def penalty(self, model: nn.Module) -> Tensor | float:
        """What is added to the loss of every step."""
        ...

    def after_step_(self, model: nn.Module, progress: float) -> Mapping[str, float]:
        """Called after every optimizer step, ``progress`` runs from 0 to 1; figures for the log."""
        ...

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Detach everything, leave every weight on its grid; span key -> codes and step."""
        ...


class Task(Protocol):
    """The only thing that knows losses, data and scores."""

    def loss(self, model: Any, batch: Any, *, twice_differentiable: bool = False) -> Tensor:
        """Mean loss of a batch, (); in plain fp32 operations where second derivatives are wanted."""
        ...

    def batches(self, split: str, seed: int = 0) -> Iterable[Any]:
        """One pass over "train", "dev" or "test"; the order of "train" follows ``seed``."""
        ...

    def n_batches(self, split: str) -> int:
        """How many batches one pass has, to within a few."""
        ...

    def evaluate(self, model: Any, split: str) -> Mapping[str, float]:
        """Figures of the split; lower is better."""
        ...
