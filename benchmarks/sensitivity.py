"""What sensitivity costs: our Hessian and KL estimates beside PyHessian, in one run on one model.

    python benchmarks/sensitivity.py [--data TEXT] [--json FILE]

A small Transformer language model is trained for a few seconds (generated text unless a file is
given), so that the loss has a shape worth measuring.  Then, round by round and in turn, so that a busy
machine is fair to all, each works on the same batch:

    forward + backward   of the same loss, plain autograd: the unit of all times
    greenasr Hessian     first backward + K probes, one trace for every cluster
    PyHessian            the same (Yao et al. 2020, arXiv 1912.07145), one trace for the whole model
    greenasr KL          every cluster at every width in one pass

Times are medians over the rounds, by the wall clock and by the processor's.  The totals of both
Hessians estimate one number: all parameters, evaluation mode, the same batch.  PyHessian:
`pip install pyhessian` (the extra "peers").
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pyhessian import hessian
from torch import Tensor, nn

from greenasr.compress.candidates import cluster_weights, quantized_weights, rows_of
from greenasr.compress.clusters import make_clusters, span_key
from greenasr.compress.fit import Training, fit_
from greenasr.compress.kl import kl_costs
from greenasr.compress.none import NoCompression
from greenasr.data import grammar, text
from greenasr.data.batches import TokenBatch
from greenasr.data.files import write_json
from greenasr.models.transformer_lm import TransformerConfig, TransformerLM
from greenasr.ops.curvature import block_sums, draw_probe, hessian_quadratic_forms
from greenasr.tasks.language_model import LanguageModel

WIDTHS = [1, 2, 4, 8]


class Logits(nn.Module):
    """The language model as PyHessian wants it: one call from inputs to what the criterion takes."""

    def __init__(self, model: TransformerLM):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """(N, T) -> (N T, V)."""
        return torch.as_tensor(self.model.output(self.model(ids)[0])).flatten(0, 1)


def criterion(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of (N T, V) against (N, T)."""
    return F.cross_entropy(logits, targets.flatten())


def trained_model(
    data: Path | None, layers: int, dim: int, seconds: float
) -> tuple[TransformerLM, LanguageModel]:
    """A language model of the text, trained for about ``seconds``."""
    sentences = text.read_sentences(data) if data else [s.split() for s in grammar.generate("train", 20_000)]
    vocabulary = text.Vocabulary.from_sentences(sentences, 10_000)
    task = LanguageModel(vocabulary, {"train": text.stream(sentences, vocabulary)[0]}, length=32, batch=16)
    torch.manual_seed(0)
    heads = max(1, dim // 48)
    model = TransformerLM(TransformerConfig(vocabulary.size, layers, dim, heads, 4 * dim, 32))
    passes = task.n_batches("train")
    start = time.perf_counter()
    fit_(model, task, NoCompression(), Training(epochs=10 / passes, leg=10**6))
    steps = max(10, int(10 * seconds / (time.perf_counter() - start)))
    fit_(model, task, NoCompression(), Training(epochs=steps / passes, leg=10**6))
    return model, task


@dataclass(frozen=True)
class Spent:
    """Wall-clock seconds, and processor seconds, which other programs on the machine disturb less."""

    wall: float
    cpu: float

    def each(self, n: int) -> Spent:
        """An n-th of it."""
        return Spent(self.wall / n, self.cpu / n)


def timed(run: Callable[[], object]) -> Spent:
    """What a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


class Bench:
    """The contestants on one model and batch, each a method that does the work once."""

    def __init__(self, model: TransformerLM, task: LanguageModel, batch: TokenBatch, probes: int):
        self.model, self.task, self.batch, self.probes = model.eval(), task, batch, probes
        self.clusters = make_clusters(model)
        self.generator = torch.Generator().manual_seed(1)
        self.weights = dict(model.named_parameters())
        everything = [(name, 0, len(weight)) for name, weight in self.weights.items()]
        spans = {c.name: [(s.name, s.start, s.stop) for s in c.spans] for c in self.clusters}
        self.blocks = {**spans, "all parameters": everything}
        floats = dict(cluster_weights(model, self.clusters))
        self.candidates = {bits: self.projected(floats, bits) for bits in WIDTHS}
        self.ours: list[Tensor] = []
        self.theirs: list[float] = []

    def projected(self, floats: dict[str, Tensor], bits: int) -> dict[str, Tensor]:
        """Every span at one width, so that fitting the grids is not timed."""
        quantized = quantized_weights(floats, self.clusters, bits)
        return {span_key(s): rows_of(quantized[s.name], s) for c in self.clusters for s in c.spans}

    def loss(self) -> Tensor:
        """The mean loss of the batch, twice differentiable."""
        return self.task.loss(self.model, self.batch, twice_differentiable=True)

    def forward(self) -> None:
        """The forward pass alone."""
        with torch.no_grad():
            self.loss()

    def forward_backward(self) -> None:
        """One gradient."""
        torch.autograd.grad(self.loss(), list(self.weights.values()))

    def our_hessian(self) -> None:
        """Every cluster's trace and the total, K probes."""
        draws = (draw_probe(self.weights, self.generator) for _ in range(self.probes))
        rows = hessian_quadratic_forms(self.loss(), self.weights, draws)
        self.ours += [block_sums(row, self.blocks) for row in rows]

    def pyhessian(self) -> None:
        """The total trace, K probes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls backward(create_graph=True)
            self.model.zero_grad(set_to_none=True)
            peer = hessian(
                Logits(self.model), criterion, data=(self.batch.inputs, self.batch.targets), cuda=False
            )
            self.theirs += peer.trace(maxIter=self.probes, tol=0.0)
        self.model.zero_grad(set_to_none=True)

    def our_kl(self) -> None:
        """Every cluster at every width, on candidates that are there already."""
        kl_costs(self.model, self.task, [self.batch], self.clusters, WIDTHS, trained=self.candidates)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5


def medians(bench: Bench, rounds: int) -> dict[str, Spent]:
    """Medians of each contestant over interleaved rounds, after one round of warming up."""
    runs: dict[str, tuple[Callable[[], object], int]] = {
        "forward": (bench.forward, 1),
        "forward_backward": (bench.forward_backward, 1),
        "greenasr_hessian": (bench.our_hessian, bench.probes),
        "pyhessian": (bench.pyhessian, bench.probes),
        "greenasr_kl": (bench.our_kl, len(WIDTHS)),
    }
    spent: dict[str, list[Spent]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, (run, n) in runs.items():
            spent[name].append(timed(run).each(n))
    return {
        name: Spent(statistics.median(s.wall for s in all_[1:]), statistics.median(s.cpu for s in all_[1:]))
        for name, all_ in spent.items()
    }


def ratio(spent: Spent, unit: Spent) -> dict[str, float]:
    """How many units, by either clock."""
    return {"wall": spent.wall / unit.wall, "cpu": spent.cpu / unit.cpu}


def report(bench: Bench, spent: dict[str, Spent]) -> dict[str, Any]:
    """Everything measured, as one JSON value."""
    draws = torch.stack(bench.ours)
    ours, theirs = mean_and_error(draws[:, -1].tolist()), mean_and_error(bench.theirs)
    gap = (ours[0] - theirs[0]) / (ours[1] ** 2 + theirs[1] ** 2) ** 0.5
    clusters = {name: mean_and_error(draws[:, i].tolist()) for i, name in enumerate(bench.blocks)}
    return {
        "parameters": sum(weight.numel() for weight in bench.weights.values()),
        "clusters": len(bench.clusters),
        "tokens_a_batch": bench.batch.inputs.numel(),
        "probes": {"greenasr": len(bench.ours), "pyhessian": len(bench.theirs)},
        "seconds": {name: asdict(s) for name, s in spent.items()},
        "hessian_probe_in_forward_backward": ratio(spent["greenasr_hessian"], spent["forward_backward"]),
        "pyhessian_probe_in_forward_backward": ratio(spent["pyhessian"], spent["forward_backward"]),
        "kl_width_in_forward": ratio(spent["greenasr_kl"], spent["forward"]),
        "total_trace": {"greenasr": ours, "pyhessian": theirs, "difference_in_standard_errors": gap},
        "traces": clusters,
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures as two tables."""
    s, n = figures["seconds"], figures["clusters"]
    print(
        f"{figures['parameters']:,} parameters, {n} clusters, {figures['tokens_a_batch']} tokens a batch, "
        f"widths {WIDTHS}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)\n"
    )
    print(f"{'':28}{'wall ms':>9}{'CPU ms':>9}{'wall':>8}{'CPU':>7}  relative to")
    one, whole = {"wall": 1.0, "cpu": 1.0}, "forward + backward"
    rows = [
        ("forward", "forward", one, "forward"),
        ("forward + backward", "forward_backward", one, whole),
        (
            "greenasr Hessian, a probe",
            "greenasr_hessian",
            figures["hessian_probe_in_forward_backward"],
            whole,
        ),
        ("PyHessian, a probe", "pyhessian", figures["pyhessian_probe_in_forward_backward"], whole),
        ("greenasr KL, a width", "greenasr_kl", figures["kl_width_in_forward"], "forward"),
    ]
    for label, key, times, unit in rows:
        ms = {clock: 1e3 * value for clock, value in s[key].items()}
        print(f"{label:28}{ms['wall']:9.1f}{ms['cpu']:9.1f}{times['wall']:8.2f}{times['cpu']:7.2f}  {unit}")
    ours, theirs = (1e3 * s[key]["cpu"] for key in ("greenasr_hessian", "pyhessian"))
    print(f"\na probe and cluster: greenasr {ours / n:.1f} CPU ms (one product serves all {n}), ", end="")
    print(f"PyHessian {theirs:.1f} (a run for each)\n")
    total = figures["total_trace"]
    print(f"{'trace, all parameters':34}{'estimate':>12}{'std error':>12}{'probes':>8}")
    for name in ("greenasr", "pyhessian"):
        mean, error = total[name]
        print(f"{name:34}{mean:12.2f}{error:12.2f}{figures['probes'][name]:8d}")
    print(f"difference: {total['difference_in_standard_errors']:+.1f} standard errors\n")
    print(f"{'cluster (greenasr)':34}{'trace':>12}{'std error':>12}")
    for name, (mean, error) in figures["traces"].items():
        print(f"{name:34}{mean:12.3f}{error:12.3f}")


def main() -> None:
    """Run, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="text, one sentence a line (default: generated)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--train-seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--probes", type=int, default=8, help="probes a round")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.rounds < 1 or args.probes < 2:
        parser.error("give at least one round and two probes: a standard error needs them")
    torch.set_num_threads(args.threads)
    try:
        model, task = trained_model(args.data, args.layers, args.dim, args.train_seconds)
        bench = Bench(model, task, next(iter(task.batches("train", seed=1))), args.probes)
        figures = report(bench, medians(bench, args.rounds))
        show(figures)
        if args.json:
            write_json(args.json, figures)
    except (ValueError, OSError) as error:
        print(f"sensitivity: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
