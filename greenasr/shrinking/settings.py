"""What a run searches over, and what is asked of it: the first names the folder, the second may change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training
from greenasr.ops.bits import WIDTHS
from greenasr.runtime.activations import ACTIVATIONS

COSTS = ("hessian", "kl", "divergence")
FORMAT = "greenasr shrink 2"


@dataclass(frozen=True)
class Space:
    """Where the search looks: plans by ``costs`` over ``widths``, trained by ``estimators`` in this order.

    ``by``, ``step`` and ``pinned`` shape plans as in `make_clusters` and `allocate`; ``skip`` names modules
    that stay as they are.  ``finer`` is the ratio of sizes at which bisection stops, ``keep`` how many plans
    of a budget are trained, those of least dev loss without training.  Costs are measured on
    ``cost_batches`` batches of training; Hessian probing stops as in `hessian_costs`.  Proxies are measured
    on ``proxy_batches`` batches of dev; trainings of ``brief`` of the length come before whole ones.

    ``teach`` is the share of the training loss that the full model's outputs have, None the task's usual one,
    0 none; ``dropout`` is that of training, None the task's usual one with a teacher, else the model's own.
    Costs by "divergence" are how far outputs move on dev, and cut bottlenecks as well where there are any.
    ``activations`` "auto" steers by int8 row by row and gives the smallest finalist the cheapest kind that
    loses nothing (`shrinking.activations`); "int8", "static", "float32" allow one, the last steers by torch.
    """

    costs: tuple[str, ...] = ("hessian", "kl")
    widths: tuple[int, ...] = (2, 3, 4, 6, 8)
    estimators: tuple[str, ...] = ("bp",)
    training: Training = field(default_factory=lambda: Training(epochs=4, lr=5e-4, weight_decay=0.0))
    by: str = "matrix"
    step: str = "row"
    pinned: Mapping[str, int] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    finer: float = 1.15
    keep: int = 1
    cost_batches: int = 4
    cost_tolerance: float = 0.2
    max_probes: int = 16
    proxy_batches: int = 4
    brief: float = 0.1
    seed: int = 0
    teach: float | None = None
    dropout: float | None = None
    activations: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        ways = [name for name in COMPRESSORS if name != "none"]
        for what, given, known in (
            ("costs", self.costs, COSTS),
            ("widths", self.widths, WIDTHS),
            ("estimators", self.estimators, ways),
        ):
            if not given or len(set(given)) != len(given) or not set(given) <= set(known):
                raise ValueError(
                    f"{what} are {', '.join(map(str, given)) or 'none'}: give different ones of "
                    f"{', '.join(map(str, known))}."
                )
        counts = self.keep, self.cost_batches, self.proxy_batches
        if not 1.01 <= self.finer < math.inf or min(counts) < 1:
            raise ValueError(
                f"finer is {self.finer:g}, keep {self.keep}, cost batches {self.cost_batches}, proxy batches "
                f"{self.proxy_batches}: expected 1.01 or more, 1 or more each."
            )

        if not 0 <= (self.teach or 0) <= 1 or not 0 <= (self.dropout or 0) < 1:
            raise ValueError(
                f"teach is {self.teach}, dropout {self.dropout}: give shares, 0 to 1 and 0 to below 1."
            )
        if self.activations not in ("auto", *ACTIVATIONS):
            raise ValueError(f"activations '{self.activations}': choose auto, {', '.join(ACTIVATIONS)}.")
        if not 0 < self.brief <= 1:
            raise ValueError(f"brief is {self.brief:g}: give the share of a training, above 0 and at most 1.")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Question:
    """What is asked: how many points of WER may be lost, and for how long to look.

    Without ``max_wer_increase`` a model passes that MAPSSWE does not call worse.  ``seconds`` bounds when the
    last training begins; 0 answers from what is there.  ``max_bytes`` asks for the best model of that size
    instead of the smallest good one.  Models of ``trainings`` sizes at most are trained, None as many as it
    takes to be as ``finer`` says.  ``finalists`` models at most are scored on test.
    """

    max_wer_increase: float | None = None
    seconds: float = math.inf
    max_bytes: int | None = None
    finalists: int = 4
    trainings: int | None = 2

    def __post_init__(self) -> None:
        """Refuse questions without an answer."""
        margin = self.max_wer_increase
        if margin is not None and not 0 < margin < 100:
            raise ValueError(
                f"max WER increase is {margin:g} points: give one above 0 and below 100, as 0.1."
            )
        if not self.seconds >= 0 or self.finalists < 1:
            raise ValueError("time must be 0 or more, and at least one finalist is needed.")
        if self.trainings is not None and self.trainings < 0:
            raise ValueError(f"trainings are {self.trainings}: give 0 or more.")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"max bytes is {self.max_bytes}: give the size of a file.")
