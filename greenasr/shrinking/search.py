"""The search itself: costs once, then bisection on bytes, first without training and then with it.

    full                 the model as it came, packed, scored on dev
    costs-hessian, -kl   once, for every budget
    plans/<B>-<cost>     a cheapest plan, of B bytes, and dev loss without training: the proxy
    models/<B>-<cost>-<estimator>   a packed model and its words on dev

A budget passes when one of its models does: its plans, best proxy first, are trained by one estimator after
another until one passes on dev.  B counts codes and steps; sizes that are reported are those of files.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from greenasr.compress.allocate import allocate, plan
from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Diverged, fit_
from greenasr.data.files import write_atomic, write_json
from greenasr.models.dropout import set_dropout_
from greenasr.pipeline.lm import measure_costs
from greenasr.pipeline.plans import read_bit_map, read_costs
from greenasr.roles import BitMap, Cluster, CostTable
from greenasr.score.decision import Comparison, compare
from greenasr.score.errors import bootstrap_ci95, wer
from greenasr.score.scored import Scored, checked, read_scored, to_jsonl
from greenasr.shrinking.board import Board, Job, Result, Tell
from greenasr.shrinking.budgets import after, next_budget
from greenasr.shrinking.package import Package
from greenasr.shrinking.settings import Question, Space
from greenasr.shrinking.task import ShrinkTask, Teaching, teachable

UNTRAINED = "none"


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

    def __post_init__(self) -> None:
        """Begin to count the time."""
        self._began = self.clock()

    @cached_property
    def clusters(self) -> tuple[Cluster, ...]:
        """What gets a width."""
        return make_clusters(self.model, self.space.by, skip=self.space.skip)

    @cached_property
    def teaching(self) -> Teaching:
        """How trainings are taught: as the space says, else as is usual for the task."""
        if teachable(self.task) is None:
            if self.space.teach:
                raise ValueError(
                    f"teach is {self.space.teach:g}, but the outputs of this task cannot be compared with a "
                    "teacher's: leave it out."
                )
            return Teaching(0.0, self.space.dropout)
        usual = getattr(self.task, "teaching", Teaching())
        share = usual.share if self.space.teach is None else self.space.teach
        without = self.space.dropout is not None or not share
        return Teaching(share, self.space.dropout if without else usual.dropout)

    @cached_property
    def costs(self) -> dict[str, CostTable]:
        """The cost tables that could be measured; ValueError where none could."""
        names = [f"costs-{method}" for method in self.space.costs]
        jobs = [Job(n, partial(self._measure, m)) for n, m in zip(names, self.space.costs, strict=True)]
        results = self.board.do(jobs)
        found = {
            method: read_costs(self.board.run / name / "costs.json")
            for name, method, result in zip(names, self.space.costs, results, strict=True)
            if not result.get("unavailable")
        }
        if not found:
            raise ValueError(f"no cost can be measured of this model: {results[0]['unavailable']}")
        return found

    def run(self) -> None:
        """Do all that the question needs, and that its time allows."""
        self.board.do([Job("full", self._full)])
        low, high = self._range()
        if self.question.max_bytes is not None:
            return self._fill(low, high, self.question.max_bytes)
        tried: dict[int, bool] = {}
        while (size := next_budget(low, high, tried, self.space.finer)) is not None:
            self._try(size, (UNTRAINED,), tried)
        untrained = min((size for size, passed in tried.items() if passed), default=None)
        tried = {} if untrained is None else {untrained: True}
        while (size := next_budget(low, high, tried, self.space.finer)) is not None:
            if not self._has_time(size):
                return
            self._try(size, self.space.estimators, tried)

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
        if self._has_time(size):
            self.board.do(self._models(size, self.space.estimators))

    def _try(self, size: int, estimators: tuple[str, ...], tried: dict[int, bool]) -> None:
        """Note whether one of a budget's models passes on dev; a plan may take less than its budget."""
        low, high = self._range()
        ahead = after(low, high, tried, self.space.finer) if estimators != (UNTRAINED,) else []

        def likely() -> Iterable[Job]:
            for other in ahead:
                yield from self._models(other, estimators[:1])

        for estimator in estimators:
            jobs = self._models(size, (estimator,))
            results = self.board.do(jobs, likely)
            self._longest = max([self._longest, *(r["seconds"] for r in results if estimator != UNTRAINED)])
            passed = [job.name for job in jobs if self.passes(job.name)]
            tried[size] = bool(passed)
            for name in passed:
                tried[int(name.removeprefix("models/").partition("-")[0])] = True
            if passed:
                return

    def _models(self, size: int, estimators: Iterable[str]) -> list[Job]:
        """The models of a budget, of its best plans."""
        plans = self._plans(size)
        return [
            Job(f"models/{name}-{estimator}", partial(self._model, name, estimator))
            for estimator in estimators
            for name in plans[: self.space.keep]
        ]

    def _plans(self, size: int) -> list[str]:
        """A budget's plans that differ, by the size they take and their cost, least proxy first."""
        found: dict[str, tuple[str, BitMap]] = {}
        for method, costs in self.costs.items():
            bit_map = self._plan_of(costs, size)
            if dict(bit_map.bits) not in [dict(other.bits) for _, other in found.values()]:
                found[f"{plan(costs, bit_map).bytes}-{method}"] = method, bit_map
        jobs = [Job(f"plans/{name}", partial(self._proxy, *each)) for name, each in found.items()]
        losses = [result["loss"] for result in self.board.do(jobs)]
        return [name for _, name in sorted(zip(losses, found, strict=True), key=lambda pair: pair[0])]

    def passes(self, name: str) -> bool:
        """Whether a model is good enough on dev to go on with smaller ones."""
        if "failed" in (self.board.done(name) or {}):
            return False
        found = self.against_full(name, "dev")
        margin = self.question.max_wer_increase
        return not found.worse and (margin is None or found.difference <= margin)

    def against_full(self, name: str, split: str) -> Comparison:
        """A model's words of "dev" or "test" against the full model's."""
        return compare(self.words("full", split), self.words(name, split), self.question.max_wer_increase)

    def words(self, name: str, split: str) -> list[Scored]:
        """What a model made of a set."""
        folder = name if split == "dev" else f"test/{name}"
        return read_scored(self.board.run / folder / f"{split}.jsonl")

    def score_on_test(self, names: Iterable[str]) -> None:
        """Let models hear the test set, each once in the life of the run."""
        self.board.do([Job(f"test/{name}", partial(self._test, name)) for name in ("full", *names)])

    def looked(self) -> int:
        """How many models were ever scored on test beside the full one."""
        return len(list((self.board.run / "test").glob("models/*/result.json")))

    def _has_time(self, size: int) -> bool:
        """Whether another training can be done in time; finished ones cost none."""
        if self.question.seconds == math.inf:
            return True
        names = [job.name for job in self._models(size, self.space.estimators)]
        if all(self.board.done(name) for name in names):
            return True
        return self.clock() - self._began + self._longest < self.question.seconds

    def _range(self) -> tuple[int, int]:
        """Bytes of the smallest and of the largest plan."""
        costs = next(iter(self.costs.values()))
        pinned, widths = self.space.pinned, self.space.widths
        ends = []
        for width in (min(widths), max(widths)):
            bits = {c.name: pinned.get(c.name, width) for c in self.clusters}
            ends.append(plan(costs, BitMap(self.clusters, bits, self.space.step)).bytes)
        return ends[0], ends[1]

    def _plan_of(self, costs: CostTable, size: int) -> BitMap:
        return allocate(costs, bytes=size, pinned=self.space.pinned, step=self.space.step)

    def _full(self, folder: Path, tell: Tell) -> Result:
        size = self.package.save(folder / "model.packed", self.model, None, None)
        model = self.package.load(folder / "model.packed").to(self.device)
        named = dict(self.model.named_parameters())
        chosen = {span.name for cluster in self.clusters for span in cluster.spans}
        return {
            "bytes": size,
            "parameters": sum(p.numel() for p in named.values()),
            "quantizable": sum(cluster.numel for cluster in self.clusters),
            "kept": {name: p.numel() for name, p in named.items() if name not in chosen},
            **self._scored(model, folder, "dev", tell),
        }

    def _measure(self, method: str, folder: Path, tell: Tell) -> Result:
        """A cost table, or why this model has none: layers that run by no call, no second derivative."""
        model = copy.deepcopy(self.model).to(self.device).eval().requires_grad_(True)  # frozen weights too
        task: Any = _Small(self.task)
        try:
            costs = measure_costs(
                method, model, task, self.clusters, self.space.widths, step=self.space.step,
                n_batches=self.space.cost_batches, tolerance=self.space.cost_tolerance,
                max_probes=self.space.max_probes, seed=self.space.seed, tell=tell,
            )  # fmt: skip
            bad = [n for n, row in costs.costs.items() if not all(map(math.isfinite, row.values()))]
            if bad:
                raise ValueError(f"the cost of '{bad[0]}' is not finite")
        except (ValueError, RuntimeError, NotImplementedError) as error:
            return {"method": method, "unavailable": str(error).splitlines()[0]}
        write_json(folder / "costs.json", costs.to_json())
        return {"method": method, "warning": costs.details.get("warning")}

    def _proxy(self, method: str, bit_map: BitMap, folder: Path, tell: Tell) -> Result:
        model = copy.deepcopy(self.model).to(self.device).eval()
        COMPRESSORS[UNTRAINED](bit_map).finish_(model)
        total = count = 0.0
        of = self.task.n_batches("dev")
        with torch.no_grad():
            for done, batch in enumerate(self.task.batches("dev"), 1):
                total, count = total + float(self.task.loss(model, batch)), count + 1
                tell(done, max(of, done), "dev loss")
        if not count or not math.isfinite(total):
            raise ValueError(f"the dev loss of a {method} plan is {total / max(count, 1)}: look at the loss.")
        write_json(folder / "bit_map.json", bit_map.to_json())
        return {
            "loss": total / count,
            "bits": bit_map.average_bits,
            "bytes": plan(self.costs[method], bit_map).bytes,
        }

    def _model(self, name: str, estimator: str, folder: Path, tell: Tell) -> Result:
        bit_map = read_bit_map(self.board.run / "plans" / name / "bit_map.json", self.model)
        model = copy.deepcopy(self.model).to(self.device)
        compressor, training = (
            COMPRESSORS[estimator](bit_map),
            replace(self.space.training, seed=self.space.seed),
        )
        began = time.perf_counter()
        how = {"bits": bit_map.average_bits, "cost": name.partition("-")[2], "estimator": estimator}
        try:
            if estimator == UNTRAINED:
                quantized = compressor.finish_(model)
            else:
                quantized = fit_(
                    model, self._lesson(model), compressor, training, run=folder,
                    on_step=lambda step, of, loss: tell(step, of, f"loss {loss:.4f}"),
                )  # fmt: skip
            check_finite(model)
        except Diverged as error:  # this model fails, the search goes on
            return {**how, "failed": str(error)}
        trained = time.perf_counter() - began
        packed = self.package.save(folder / "model.packed", model.cpu(), quantized, bit_map)
        loaded = self.package.load(folder / "model.packed").to(self.device)
        return {
            **how,
            "bytes": packed,
            "plan": dict(bit_map.bits),
            "seconds_train": trained,
            **self._scored(loaded, folder, "dev", tell),
        }

    def _lesson(self, model: nn.Module) -> ShrinkTask:
        """The task as ``model`` is trained on it; its dropout is set."""
        if self.teaching.dropout is not None:
            set_dropout_(model, self.teaching.dropout)
        task = teachable(self.task)
        if task is None or not self.teaching.share:
            return self.task
        teacher = copy.deepcopy(self.model).to(self.device).eval().requires_grad_(False)
        return task.taught(teacher, self.teaching.share)

    def _test(self, name: str, folder: Path, tell: Tell) -> Result:
        model = self.package.load(self.board.run / name / "model.packed").to(self.device)
        return self._scored(model, folder, "test", tell)

    def _scored(self, model: nn.Module, folder: Path, split: str, tell: Tell) -> Result:
        began = time.perf_counter()
        tell(0, 1, f"scoring {split}")
        rows = checked(self.task.score(model, split), split)
        tell(1, 1, f"scoring {split}")
        write_atomic(folder / f"{split}.jsonl", to_jsonl(rows))
        counts = [row.errors for row in rows]
        return {
            split: {"wer": wer(counts), "ci95": list(bootstrap_ci95(counts)), **totals(counts)},
            "seconds_score": time.perf_counter() - began,
        }


@dataclass(frozen=True)
class _Small:
    """A task as costs see it."""

    task: ShrinkTask

    def loss(self, model: Any, batch: Any, *, twice_differentiable: bool = False) -> Tensor:
        return self.task.loss(model, batch, twice_differentiable=twice_differentiable)

    def batches(self, split: str, seed: int = 0) -> Iterable[Any]:
        return self.task.batches("costs", seed)


def check_finite(model: nn.Module) -> None:
    """Raise Diverged where a weight is no number."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise Diverged(f"'{name}' is not finite after training: lower lr.")


def totals(counts: Iterable[Any]) -> dict[str, int]:
    """Substitutions, deletions, insertions and reference words of a set."""
    rows = list(counts)
    names = {"sub": "n_sub", "del": "n_del", "ins": "n_ins", "words": "n_ref"}
    return {short: sum(getattr(e, name) for e in rows) for short, name in names.items()}
