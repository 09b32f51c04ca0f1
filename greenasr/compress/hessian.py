"""Hessian costs: squared quantization error, weighted by how much the loss bends there.

    Ω_i(b) = Tr(H_i) / n_i · ‖Q_b(W_i) - W_i‖²                       MPLM eq. 10, GREEN eq. 8

H_i is the Hessian of the mean loss in the n_i weights of cluster i.  The bar over the trace in eq. 10
is its mean over the weights, as in HAWQ-v2 (arXiv 1911.03852, §3.1): for an error of random direction
E[½ eᵀ H e] = ½ ‖e‖² Tr(H) / n, and the ½ is the same for all.  GREEN's eq. 8 prints the plain trace.

The argument holds near a local minimum, in evaluation mode, and ignores terms between clusters.  MPLM
takes Q_b(W) from separately trained models: ‖Q_b(W) - W‖² then holds the drift of that training
beside the rounding, as in the paper.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from greenasr.compress.candidates import Trained, cluster_weights, quantized_weights, rows_of
from greenasr.ops.curvature import ProbeKind, Probing, Traces, hutchinson
from greenasr.roles import Cluster, CostTable, Task


def hessian_costs(
    model: nn.Module,
    task: Task,
    batches: Iterable[Any],
    clusters: Sequence[Cluster],
    widths: Sequence[int],
    *,
    generator: torch.Generator,
    step: str = "cluster",
    trained: Trained | None = None,
    kind: ProbeKind = "rademacher",
    tolerance: float = 0.05,
    min_probes: int = 16,
    max_probes: int = 1024,
    progress: Callable[[int, float], None] | None = None,
    begun: Probing | None = None,
    keep: Callable[[Probing], None] | None = None,
) -> CostTable:
    """Eq. 10 for every cluster and width, from one Hessian product a probe for all of them.

    The Hessian is that of the mean loss over ``batches``, which are all kept; for a language model about
    500 tokens a batch gave the sharpest traces a second.  Probes are added until every cluster's
    standard error is under ``tolerance`` of its trace (`Traces.excess`) or ``max_probes`` are spent.
    The candidates are the projections with ``step`` as in a bit map, or ``trained``: bits -> span key
    -> weight.  ``progress`` is told (probes so far, largest relative error), ``keep`` how far the probes are,
    which may have ``begun`` before.

    A trace below its own standard error cannot be told from zero and may be negative (no minimum, or
    chance); it is replaced by the standard error, so that no cost is negative, and listed in
    ``details["clamped"]``.  Raises ValueError for clusters of another model.
    """
    clusters, batches = tuple(clusters), tuple(batches)
    weights = cluster_weights(model, clusters)
    names = [cluster.name for cluster in clusters]
    errors = {bits: squared_errors(weights, clusters, bits, step, trained) for bits in widths}
    was_training = model.training
    model.eval()
    device = next(iter(weights.values())).device
    try:
        with torch.autocast(device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            losses = [_loss_of(model, task, batch) for batch in batches]
            start = _clock(device)
            traces = hutchinson(
                losses,
                weights,
                {c.name: [(span.name, span.start, span.stop) for span in c.spans] for c in clusters},
                generator,
                kind=kind,
                tolerance=tolerance,
                min_probes=min_probes,
                max_probes=max_probes,
                progress=progress,
                begun=begun,
                keep=keep,
            )
            before = sum(map(len, begun.draws)) if begun else 0
            seconds_per_probe = (_clock(device) - start) / max(1, traces.probes - before)
            seconds_forward_backward = _seconds_forward_backward(losses[0], list(weights.values()), device)
    finally:
        model.train(was_training)
    usable = torch.maximum(traces.mean, traces.standard_error).clamp(min=torch.finfo(torch.float32).tiny)
    mean_traces = {c.name: float(trace) / c.numel for c, trace in zip(clusters, usable, strict=True)}
    costs = {name: {bits: mean_traces[name] * errors[bits][name] for bits in widths} for name in names}
    details = {
        **_trace_details(traces, tolerance),
        "batches": len(batches),
        "probe_kind": kind,
        "mean_traces": mean_traces,
        "squared_errors": {name: {str(bits): errors[bits][name] for bits in widths} for name in names},
        "step": step,
        "candidates": "projected" if trained is None else "trained",
        "seconds_per_probe": seconds_per_probe,
        "seconds_forward_backward": seconds_forward_backward,
    }
    return CostTable("hessian", clusters, costs, details)


def squared_errors(
    weights: Mapping[str, Tensor],
    clusters: Sequence[Cluster],
    bits: int,
    step: str = "cluster",
    trained: Trained | None = None,
) -> dict[str, float]:
    """‖Q_b(W_i) - W_i‖² of every cluster, name -> sum over its weights, in float64."""
    quantized = quantized_weights(weights, clusters, bits, step, trained)

    def error(cluster: Cluster) -> float:
        pairs = ((rows_of(quantized[s.name], s), rows_of(weights[s.name], s)) for s in cluster.spans)
        return sum(float((q - w).double().square().sum()) for q, w in pairs)

    return {cluster.name: error(cluster) for cluster in clusters}


def _loss_of(model: nn.Module, task: Task, batch: Any) -> Callable[[], Tensor]:
    return lambda: task.loss(model, batch, twice_differentiable=True)


def _trace_details(traces: Traces, tolerance: float) -> dict[str, Any]:
    rows = list(zip(traces.blocks, traces.mean.tolist(), traces.standard_error.tolist(), strict=True))
    clamped = [name for name, trace, error in rows if trace < error]
    details: dict[str, Any] = {
        "probes": traces.probes,
        "largest_relative_error": traces.excess(),
        "traces": {name: trace for name, trace, _ in rows},
        "standard_errors": {name: error for name, _, error in rows},
        "clamped": clamped,
    }
    if clamped:
        details["warning"] = (
            f"{len(clamped)} of {len(rows)} traces lie below their standard error, as '{clamped[0]}': "
            "train the model further or allow more probes."
        )
    elif traces.excess() > tolerance:
        details["warning"] = (
            f"{traces.probes} probes leave a standard error of {100 * traces.excess():.1f} %, "
            f"over the {100 * tolerance:g} % asked for: allow more probes."
        )
    return details


def _seconds_forward_backward(
    loss: Callable[[], Tensor], weights: Sequence[Tensor], device: torch.device
) -> float:
    seconds = []
    for _ in range(3):
        start = _clock(device)
        with torch.enable_grad():
            torch.autograd.grad(loss(), weights)
        seconds.append(_clock(device) - start)
    return sorted(seconds)[1]


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
