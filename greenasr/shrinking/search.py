"""The search itself: costs once, then sizes, first coarsely without training and then with it.

    full                 the model as it came, packed, scored on dev
    parts                how far rounding each part alone moves the outputs
    wide/<k>             all weights at the widest width, but for the k parts that move them most
    costs-hessian, -kl   once, for every budget
    plans/<B>-<cost>     a cheapest plan, of B bytes, and how far rounding alone moves the outputs: the proxy
    models/<B>-<cost>-<estimator>   a packed model and its words on dev
    activations/<model>  the smallest finalist's static steps, and its words on dev by them and in float32

Where the widest width everywhere loses words, parts stay in 16 bits, 1, 2, 4, … of them, until it loses none.

A budget passes when one of its models does: its plans, best proxy first, are trained by one estimator after
another until one passes on dev.  Two sizes are trained briefly before any is trained wholly.  B counts codes
and steps; sizes that are reported are those of files.

Which size to train is guessed.  Let d(B) be the divergence of the outputs of B's rounded model from the full
model's.  Training leaves about a share k of it, whatever the size, and models pass up to some divergence D:

    edge  =  the smallest B with k d(B) <= D

D lies between what passed and what failed, at first of the models without training; k is that of the last
training, times `MENDED` where that was a brief one.  Where outputs cannot be compared sizes are bisected.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from torch import nn

from greenasr.compress.allocate import allocate, cluster_bytes
from greenasr.pipeline.plans import read_costs
from greenasr.roles import BitMap, CostTable
from greenasr.score.decision import Comparison, compare
from greenasr.score.scored import Scored, read_scored
from greenasr.shrinking.board import Board, Job
from greenasr.shrinking.budgets import after, limit_of, next_budget, next_guess, smallest
from greenasr.shrinking.joint import Joint, factors_of
from greenasr.shrinking.package import Package
from greenasr.shrinking.settings import Question, Space
from greenasr.shrinking.task import ShrinkTask, teachable
from greenasr.shrinking.works import BRIEF, UNTRAINED, Works

BRIEFS = 2  # sizes that are trained briefly
COARSE = 2.0  # ratio of sizes at which models without training are told apart, where training follows
MENDED = 0.5  # what a whole training leaves of a brief one's divergence: 0.46 and 0.52 for the demo's hybrid
TINY = 1e-12


@dataclass
class Search:
    """One worker's walk; ``model`` is never changed."""

    model: nn.Module
    task: ShrinkTask
    package: Package
    space: Space
    question: Question
    board: Board
    device: str = "cpu"
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _longest: float = field(default=0.0, init=False)
    kept: tuple[str, ...] = field(default=(), init=False)  # clusters that stay in 16 bits
    _walked: list[str] = field(default_factory=list, init=False)  # models, in the order of this walk

    def __post_init__(self) -> None:
        """Begin to count the time."""
        self._began = self.clock()

    @cached_property
    def works(self) -> Works:
        """What the jobs do."""
        return Works(self.model, self.task, self.package, self.space, self.board.run, self.device)

    @cached_property
    def costs(self) -> dict[str, CostTable]:
        """The cost tables that could be measured; ValueError where none could."""
        names = [f"costs-{method}" for method in self.space.costs]
        jobs = [Job(n, partial(self.works.measure, m)) for n, m in zip(names, self.space.costs, strict=True)]
        results = self.board.do(jobs)
        found = {
            method: read_costs(self.board.run / name / "costs.json")
            for name, method, result in zip(names, self.space.costs, results, strict=True)
            if not result.get("unavailable")
        }
        if not found:
            raise ValueError(f"no cost can be measured of this model: {results[0]['unavailable']}")
        return found

    def costs_of(self, method: str) -> CostTable:
        """A cost table without the parts that stay in 16 bits."""
        table = self.costs[method]
        return replace(table, clusters=tuple(c for c in table.clusters if c.name not in self.kept))

    def run(self) -> None:
        """Do all that the question needs, and that its time allows."""
        self.board.do([Job("full", self.works.full), Job("parts", self.works.parts)])
        most, tried = self.question.trainings, dict[int, bool]()
        self._try(self._range()[1], (UNTRAINED,), tried)
        if not any(tried.values()) and (kept := self._sensitive()):
            self.kept, self._walked, tried = kept, [], {}
        low, high = self._range()
        if self.question.max_bytes is not None:
            return self._fill(low, high, self.question.max_bytes)
        last = most == 0 or self.question.seconds == 0
        finer = self.space.finer if last else max(self.space.finer, COARSE)
        while (size := next_budget(low, high, tried, finer)) is not None:
            self._try(size, (UNTRAINED,), tried)
        if most == 0:
            return
        tried = _passed(tried)
        self._train(tried, (BRIEF,), BRIEFS)
        self._train(_passed(tried), self.space.estimators, most)  # what fails briefly may pass wholly

    def _train(self, tried: dict[int, bool], estimators: tuple[str, ...], most: int | None) -> None:
        """Train models of at most so many sizes, as long as there is time."""
        count = 0

        def following(tried: Mapping[int, bool]) -> int | None:
            return self._next(tried, estimators)

        while (most is None or count < most) and (size := following(tried)) is not None:
            if not self._has_time(size, estimators):
                return
            count += 1
            more = (most is None or count < most) and self.question.seconds
            self._try(size, estimators, tried, after(size, tried, following) if more else ())

    def _sensitive(self) -> tuple[str, ...]:
        """The parts that lose words even at the widest width; none where keeping them does not help."""
        parts = (self.board.done("parts") or {})["weights"]
        names = sorted(parts, key=lambda name: -parts[name]["distance"])
        count = 1
        while count <= len(names) // 2:
            job = Job(f"wide/{count}", partial(self.works.wide, names[:count]))
            self.board.do([job])
            if self.passes(job.name):
                return tuple(names[:count])
            count *= 2
        return ()

    def _next(self, tried: Mapping[int, bool], estimators: tuple[str, ...]) -> int | None:
        """The next size to train; the edge as it is guessed where outputs can be compared."""
        low, high = self._range()
        now = next_budget(low, high, tried, self.space.finer)
        if now is None or teachable(self.task) is None or (kept := self._kept(estimators)) is None:
            return now
        limit = limit_of([(self._distance(name), self.passes(name)) for name in self._walked])
        edge = smallest(low, high, self.space.finer, lambda size: kept * self._moved(size) <= limit)
        return next_guess(low, high, tried, self.space.finer, edge)

    def _kept(self, estimators: tuple[str, ...]) -> float | None:
        """The share of the rounding's divergence that training leaves; None where that is not known."""
        for name in reversed(self._walked):
            kind, distance = name.rpartition("-")[2], self._distance(name)
            if kind != UNTRAINED and distance is not None:
                mended = MENDED if kind == BRIEF and estimators != (BRIEF,) else 1.0
                return mended * distance / max(self._rounded(plan_of(name)), TINY)
        return None

    def _moved(self, size: int) -> float:
        """How far rounding to a size moves the outputs, by its best plan."""
        return self._rounded(self._plans(size)[0])

    def _rounded(self, plan: str) -> float:
        return float((self.board.done(f"plans/{plan}") or {})["distance"])

    def _distance(self, name: str) -> float | None:
        """How far a model's outputs are from the full one's; None where it failed."""
        found = (self.board.done(name) or {}).get("distance")
        return None if found is None else float(found)

    def _fill(self, low: int, high: int, wanted: int) -> None:
        """The best model of a file's size: the largest plan that fits, without training and with it."""
        (first,) = self.board.do(self._models(low, (UNTRAINED,))[:1])
        around = first["bytes"] - low  # what is not codes and steps
        if wanted < first["bytes"]:
            raise ValueError(
                f"{wanted:,} bytes are too few: at {min(self.space.widths)} bits everywhere the file has "
                f"{first['bytes']:,}; ask for more, or allow narrower widths."
            )
        size = min(wanted - around, high)
        self.board.do(self._models(size, (UNTRAINED,)))
        if self._has_time(size, self.space.estimators):
            self.board.do(self._models(size, self.space.estimators))

    def _try(
        self, size: int, estimators: tuple[str, ...], tried: dict[int, bool], ahead: Iterable[int] = ()
    ) -> None:
        """Note whether one of a budget's models passes on dev; a plan may take less than its budget.

        ``ahead`` are the sizes that may follow, for workers that have nothing else to do.
        """

        def likely() -> Iterable[Job]:
            for other in ahead:
                yield from self._models(other, estimators[:1])

        for estimator in estimators:
            jobs = self._models(size, (estimator,))
            results = self.board.do(jobs, likely)
            whole = 1 / self.space.brief if estimator == BRIEF else 1.0
            taken = [whole * r["seconds"] for r in results if estimator != UNTRAINED]
            self._longest = max([self._longest, *taken])
            passed = [job.name for job in jobs if self.passes(job.name)]
            self._walked += [job.name for job in jobs]
            tried[size] = bool(passed)
            for name in passed:
                tried[int(name.removeprefix("models/").partition("-")[0])] = True
            if passed:
                return

    def _models(self, size: int, estimators: Iterable[str]) -> list[Job]:
        """The models of a budget, of its best plans."""
        plans = self._plans(size)
        return [
            Job(f"models/{name}-{estimator}", partial(self.works.train, name, estimator))
            for estimator in estimators
            for name in plans[: self.space.keep]
        ]

    def _plans(self, size: int) -> list[str]:
        """A budget's plans that differ, by the size they take and their cost, least proxy first."""
        found: dict[str, tuple[dict[str, int], BitMap]] = {}
        suffix = f"-keep{len(self.kept)}" if self.kept else ""
        for method in self.costs:
            made = self._plan_of(method, size)
            if made is not None and made not in found.values():
                found[f"{bytes_of(made[1])}-{method}{suffix}"] = made
        jobs = [Job(f"plans/{name}", partial(self.works.proxy, *made)) for name, made in found.items()]
        far = [result["distance"] for result in self.board.do(jobs)]
        return [name for _, name in sorted(zip(far, found, strict=True), key=lambda pair: pair[0])]

    def passes(self, name: str) -> bool:
        """Whether a model is good enough on dev to go on with smaller ones."""
        if "failed" in (self.board.done(name) or {}):
            return False
        found = self.against_full(name, "dev")
        return not found.worse and found.within(self.question.max_wer_increase)

    def against_full(self, name: str, split: str) -> Comparison:
        """A model's words of "dev" or "test" against the full model's."""
        return compare(self.words("full", split), self.words(name, split), self.question.max_wer_increase)

    def words(self, name: str, split: str) -> list[Scored]:
        """What a model made of a set."""
        folder = name if split == "dev" else f"test/{name}"
        return read_scored(self.board.run / folder / f"{split}.jsonl")

    def score_on_test(self, names: Iterable[str]) -> None:
        """Let models hear the test set, each once in the life of the run."""
        self.board.do([Job(f"test/{name}", partial(self.works.test, name)) for name in ("full", *names)])

    def looked(self) -> int:
        """How many models were ever scored on test beside the full one, with other activations anew."""
        test = self.board.run / "test"
        return sum(1 for kind in ("models/*", "activations/*/*") for _ in test.glob(f"{kind}/result.json"))

    def _has_time(self, size: int, estimators: tuple[str, ...]) -> bool:
        """Whether another training can be done in time; finished ones cost none."""
        if self.question.seconds == math.inf:
            return True
        if all(self.board.done(job.name) for job in self._models(size, estimators)):
            return True
        needed = self._longest * (self.space.brief if estimators == (BRIEF,) else 1.0)
        return self.clock() - self._began + needed < self.question.seconds

    def _range(self) -> tuple[int, int]:
        """Bytes of the smallest and of the largest plan."""
        costs, pinned = self.costs_of(next(iter(self.costs))), self.space.pinned
        ends = []
        for width in (min(self.space.widths), max(self.space.widths)):
            bits = {c.name: pinned.get(c.name, width) for c in costs.clusters}
            ends.append(bytes_of(BitMap(costs.clusters, bits, self.space.step)))
        if "divergence" in self.costs:
            ends[0] = min(ends[0], self._joint().smallest)
        return ends[0], ends[1]

    def _joint(self) -> Joint:
        """The knapsack over widths and bottlenecks."""
        cut = self.costs["divergence"].details["cut"]
        moved = {name: {int(dim): cost for dim, cost in row.items()} for name, row in cut.items()}
        costs, factors = self.costs_of("divergence"), factors_of(self.model)
        return Joint(costs, moved, factors, self._pinned(), self.space.step)

    def _plan_of(self, method: str, size: int) -> tuple[dict[str, int], BitMap] | None:
        """Cut bottlenecks, and widths, of at most a size; None where the method has none so small."""
        if method == "divergence":
            joint = self._joint()
            return joint.solve(size) if size >= joint.smallest else None
        costs, pinned = self.costs_of(method), self._pinned()
        narrowest = {c.name: pinned.get(c.name, min(self.space.widths)) for c in costs.clusters}
        if size < bytes_of(BitMap(costs.clusters, narrowest, self.space.step)):
            return None
        return {}, allocate(costs, bytes=size, pinned=pinned, step=self.space.step)

    def _pinned(self) -> dict[str, int]:
        return {name: bits for name, bits in self.space.pinned.items() if name not in self.kept}


def bytes_of(bit_map: BitMap) -> int:
    """Bytes of a plan's codes and steps."""
    return sum(cluster_bytes(c, bit_map.bits[c.name], bit_map.step) for c in bit_map.clusters)


def _passed(tried: Mapping[int, bool]) -> dict[int, bool]:
    """The smallest size that passed, alone."""
    good = min((size for size, passed in tried.items() if passed), default=None)
    return {} if good is None else {good: True}


def plan_of(name: str) -> str:
    """The plan of a model by its name.

    >>> plan_of("models/1200-kl-bp")
    '1200-kl'
    """
    return name.removeprefix("models/").rpartition("-")[0]
