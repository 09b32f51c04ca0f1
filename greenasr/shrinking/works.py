"""What the jobs of a search do: score the full model, measure costs and proxies, train, score what came out.

A job depends on the model, the task, the settings and finished jobs alone: whoever does it, and however often
it was begun, the same files come of it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Diverged, Training, fit_
from greenasr.compress.truncate import truncated
from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.models.dropout import set_dropout_
from greenasr.ops.divergence import kl
from greenasr.pipeline import engines
from greenasr.pipeline.lm import measure_costs
from greenasr.pipeline.plans import read_bit_map
from greenasr.roles import BitMap, Cluster, CostTable, Quantized
from greenasr.runtime.activations import Rounding
from greenasr.score.errors import bootstrap_ci95, wer
from greenasr.score.scored import Scored, checked, to_jsonl
from greenasr.shrinking.board import Result, Tell
from greenasr.shrinking.joint import candidates, factors_of
from greenasr.shrinking.package import Package, Rounds
from greenasr.shrinking.parts import BITS, named_tensors, rest_of, round_
from greenasr.shrinking.settings import Space
from greenasr.shrinking.task import ShrinkTask, Teaching, teachable
from greenasr.tasks.speech import evaluating

UNTRAINED, BRIEF = "none", "brief"  # how a model came about beside the ways of training


@dataclass
class Works:
    """The model, which is never changed, and all that jobs need of its task, in the folder ``run``."""

    model: nn.Module
    task: ShrinkTask
    package: Package
    space: Space
    run: Path
    device: str = "cpu"

    @cached_property
    def clusters(self) -> tuple[Cluster, ...]:
        """What gets a width."""
        return make_clusters(self.model, self.space.by, skip=self.space.skip)

    @cached_property
    def reference(self) -> nn.Module:
        """The full model, which others are held against and learn from."""
        return copy.deepcopy(self.model).to(self.device).eval().requires_grad_(False)

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

    def full(self, folder: Path, tell: Tell) -> Result:
        """The model as it came, packed, and its words on dev."""
        size = self.package.save(folder / "model.packed", self.model, None, None)
        named = dict(self.model.named_parameters())
        chosen = {span.name for cluster in self.clusters for span in cluster.spans}
        return {
            "bytes": size,
            "parameters": sum(p.numel() for p in named.values()),
            "quantizable": sum(cluster.numel for cluster in self.clusters),
            "kept": {name: p.numel() for name, p in named.items() if name not in chosen},
            **self.scored(folder / "model.packed", folder, "dev", tell),
        }

    def measure(self, method: str, folder: Path, tell: Tell) -> Result:
        """A cost table, or why this model has none: layers that run by no call, no second derivative."""
        if method == "divergence":
            return self.divergences(folder, tell)
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

    def divergences(self, folder: Path, tell: Tell) -> Result:
        """A cost table of what is wanted itself: how far outputs move, on a batch of dev.

        For every cluster and width alone; where the network has bottlenecks, also for every layer with fewer.
        """
        if teachable(self.task) is None:
            return {"method": "divergence", "unavailable": "the outputs of this task cannot be compared"}
        widths, factors = self.space.widths, factors_of(self.model)
        of = len(self.clusters) * len(widths) + sum(len(candidates(each[2])) - 1 for each in factors.values())
        costs: dict[str, dict[int, float]] = {}
        for cluster in self.clusters:
            costs[cluster.name] = {}
            for bits in widths:
                tell(sum(map(len, costs.values())), of, f"rounding {cluster.name}")
                costs[cluster.name][bits] = self.away(self.rounded((cluster,), bits)[0], most=1)
        cut: dict[str, dict[int, float]] = {}
        for name, (_, _, width) in factors.items():
            cut[name] = {width: 0.0}
            for dim in candidates(width)[:-1]:
                tell(sum(map(len, (*costs.values(), *cut.values()))) - len(cut), of, f"cutting {name}")
                small = truncated(self.model, {name: dim}).to(self.device)  # type: ignore[arg-type]
                cut[name][dim] = self.away(small, most=1)
        table = CostTable("divergence", self.clusters, costs, {"cut": cut})
        write_json(folder / "costs.json", table.to_json())
        return {"method": "divergence", "warning": None}

    def base(self, plan: str) -> nn.Module:
        """The full model with a plan's bottlenecks, as trainings begin."""
        path = self.run / "plans" / plan / "dims.json"
        if not path.exists():
            return copy.deepcopy(self.model).to(self.device)
        return truncated(self.model, read_json(path)).to(self.device)  # type: ignore[arg-type]

    def proxy(self, dims: Mapping[str, int], bit_map: BitMap, folder: Path, tell: Tell) -> Result:
        """A plan, and how far cutting and rounding to it move the outputs."""
        write_json(folder / "bit_map.json", bit_map.to_json())
        if dims:
            write_json(folder / "dims.json", dict(dims))
        model = self.base(folder.name).eval()
        COMPRESSORS[UNTRAINED](bit_map).finish_(model)
        distance = self.away(model, tell)
        if not math.isfinite(distance):
            raise ValueError(f"the dev loss of the plan {folder.name} is {distance}: look at the loss.")
        return {
            "distance": distance,
            "bits": bit_map.average_bits,
            "dims": dict(dims),
        }

    def parts(self, folder: Path, tell: Tell) -> Result:
        """How far rounding each part alone moves the outputs, on one batch of dev."""
        widest, rest = max(self.space.widths), rest_of(self.model, self.clusters)
        clean = 0.0 if teachable(self.task) else self.away(self.model, most=1)
        found: dict[str, dict[str, Any]] = {"weights": {}, "rest": {}}
        for done, cluster in enumerate(self.clusters):
            tell(done, len(self.clusters) + len(rest), f"rounding {cluster.name}")
            model, _, _ = self.rounded((cluster,), widest)
            found["weights"][cluster.name] = {
                "parameters": cluster.numel,
                "distance": self.away(model, most=1) - clean,
            }
        for done, (part, names) in enumerate(rest.items(), len(self.clusters)):
            tell(done, len(self.clusters) + len(rest), f"rounding {part}")
            model = copy.deepcopy(self.model).to(self.device)
            round_(model, names)
            sizes = named_tensors(model)
            found["rest"][part] = {
                "parameters": sum(sizes[name].numel() for name in names),
                "distance": self.away(model, most=1) - clean,
            }
        measure = "divergence" if teachable(self.task) else "dev loss"
        return {**found, "bits": {"weights": widest, "rest": BITS}, "measure": measure}

    def wide(self, kept: Sequence[str], folder: Path, tell: Tell) -> Result:
        """All weights at the widest width, but for those of ``kept`` clusters: its words on dev."""
        clusters = tuple(c for c in self.clusters if c.name not in kept)
        model, quantized, bit_map = self.rounded(clusters, max(self.space.widths))
        packed = folder / "model.packed"
        size = self.package.save(packed, model.cpu(), quantized, bit_map)
        return {"kept": list(kept), "bytes": size, **self.scored(packed, folder, "dev", tell)}

    def rounded(
        self, clusters: tuple[Cluster, ...], bits: int
    ) -> tuple[nn.Module, Mapping[str, Quantized], BitMap]:
        """A copy of the full model with some clusters rounded to ``bits`` without training."""
        model = copy.deepcopy(self.model).to(self.device)
        bit_map = BitMap(clusters, {c.name: bits for c in clusters}, self.space.step)
        return model, COMPRESSORS[UNTRAINED](bit_map).finish_(model), bit_map

    def away(self, model: nn.Module, tell: Tell = lambda *news: None, most: int | None = None) -> float:
        """How far a model's outputs on dev are from the full one's; dev loss where none are known.

        On ``most`` batches, by default as many as the space says.
        """
        total = count = 0.0
        task, most = teachable(self.task), most or self.space.proxy_batches
        with evaluating(model):
            for done, batch in enumerate(islice(self.task.batches("dev"), most), 1):
                if task is None:
                    far = self.task.loss(model, batch)
                else:
                    p, q = (task.outputs(each, batch).log_softmax(1) for each in (self.reference, model))
                    far = kl(p, q)
                total, count = total + float(far), count + 1
                tell(done, max(most, done), "proxy on dev")
        return total / count if count else math.nan

    def trained(
        self, name: str, estimator: str, training: Training, folder: Path, tell: Tell
    ) -> tuple[nn.Module, Mapping[str, Quantized]]:
        """A plan's model on its grid, by an estimator; Diverged where it leaves the finite numbers."""
        model = self.base(name)
        way = self.space.estimators[0] if estimator == BRIEF else estimator
        compressor = COMPRESSORS[way](read_bit_map(self.run / "plans" / name / "bit_map.json", model))
        if estimator == UNTRAINED:
            quantized = compressor.finish_(model)
        else:
            quantized = fit_(
                model, self.lesson(model), compressor, replace(training, seed=self.space.seed), run=folder,
                on_step=lambda step, of, loss: tell(step, of, f"loss {loss:.4f}"),
            )  # fmt: skip
        check_finite(model)
        return model, quantized

    def train(self, name: str, estimator: str, folder: Path, tell: Tell) -> Result:
        """A plan's model, packed, and its words on dev."""
        plan = self.run / "plans" / name
        bit_map = read_bit_map(plan / "bit_map.json")
        began = time.perf_counter()
        training = self.space.training
        if estimator == BRIEF:
            training = replace(training, epochs=self.space.brief * training.epochs)
        how = {"bits": bit_map.average_bits, "cost": name.split("-")[1], "estimator": estimator}
        try:
            model, quantized = self.trained(name, estimator, training, folder, tell)
        except Diverged as error:  # this model fails, the search goes on
            return {**how, "failed": str(error)}
        trained = time.perf_counter() - began
        distance = None if teachable(self.task) is None else self.away(model, tell)
        packed = self.package.save(folder / "model.packed", model.cpu(), quantized, bit_map)
        return {
            **how,
            "bytes": packed,
            "plan": dict(bit_map.bits),
            "dims": read_json(plan / "dims.json") if (plan / "dims.json").exists() else {},
            "seconds_train": trained,
            "distance": distance,
            **self.scored(folder / "model.packed", folder, "dev", tell),
        }

    def lesson(self, model: nn.Module) -> ShrinkTask:
        """The task as ``model`` is trained on it; its dropout is set."""
        if self.teaching.dropout is not None:
            set_dropout_(model, self.teaching.dropout)
        task = teachable(self.task)
        if task is None or not self.teaching.share:
            return self.task
        return task.taught(self.reference, self.teaching.share)

    def test(self, name: str, folder: Path, tell: Tell) -> Result:
        """A model's words on test, of the folder that its file is in."""
        return self.scored(self.run / name / "model.packed", folder, "test", tell)

    def activations(self, name: str, folder: Path, tell: Tell) -> Result:
        """A model's files with activations in float32 and by static steps, and their words on dev.

        The steps are measured while the network hears dev in float32.
        """
        package, began = self.package, time.perf_counter()
        assert isinstance(package, Rounds)
        source = self.run / "models" / name / "model.packed"

        def hear(network: Any) -> list[Scored]:
            tell(0, 2, "dev in float32")
            with engines.on_one_core():
                return checked(self.task.score(network, "dev"), "dev")

        steps, rows = package.calibrated(source, hear)
        float32, static = folder / "float32", folder / "static"
        exact = package.with_rounding(source, float32 / "model.packed", Rounding("float32"))
        rounded = package.with_rounding(source, static / "model.packed", steps)
        write_atomic(float32 / "dev.jsonl", to_jsonl(rows))
        tell(1, 2, "dev by static steps")
        found = self.scored(static / "model.packed", static, "dev", tell)
        return {
            "kinds": {
                "static": {"bytes": rounded, "dev": found["dev"]},
                "float32": {"bytes": exact, "dev": summary(rows)},
            },
            "seconds_score": time.perf_counter() - began,
        }

    def scored(self, packed: Path, folder: Path, split: str, tell: Tell) -> Result:
        """What a packed model makes of a set, as it ships; kept and counted."""
        began = time.perf_counter()
        model, activations = self.package.judged(packed, self.space.activations, self.device)
        tell(0, 1, f"scoring {split}")
        with engines.on_one_core():
            rows = checked(self.task.score(model, split), split)
        tell(1, 1, f"scoring {split}")
        write_atomic(folder / f"{split}.jsonl", to_jsonl(rows))
        return {
            split: summary(rows),
            "activations": activations,
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


def summary(rows: Iterable[Scored]) -> dict[str, Any]:
    """The WER of a set with its interval, and its errors by kind."""
    counts = [row.errors for row in rows]
    return {"wer": wer(counts), "ci95": list(bootstrap_ci95(counts)), **totals(counts)}


def totals(counts: Iterable[Any]) -> dict[str, int]:
    """Substitutions, deletions, insertions and reference words of a set."""
    rows = list(counts)
    names = {"sub": "n_sub", "del": "n_del", "ins": "n_ins", "words": "n_ref"}
    return {short: sum(getattr(e, name) for e in rows) for short, name in names.items()}
