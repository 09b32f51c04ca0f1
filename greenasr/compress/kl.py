"""KL costs: how far a layer's outputs move, as probabilities, when its weights alone are quantized.

    Ω_i(b) = Σ_sites 1/T Σ_t Σ_u KL_σ(h_tu ‖ ĥ_tu)      h = W x + c,  ĥ = Q_b(W) x + c     GREEN eq. 7

x is the layer's *float* input: each cluster is judged alone, with everything else in full precision, so
one pass over the data serves all clusters and widths.  A row of W moves its own output unit and no
other, so the divergence is collected per row and summed over each cluster's rows.  A weight used at
several sites (tied embedding and output layer) adds up over the sites; a cluster of several layers
adds up its layers, each on its float input.

GREEN sums over the T frames of the data; we average, which changes no comparison.  The divergence
has both outcomes of the gate, see `ops.divergence`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from greenasr.compress.attach import sites
from greenasr.compress.candidates import Trained, cluster_weights, quantized_weights
from greenasr.ops.divergence import gated_kl, gated_kls
from greenasr.roles import Cluster, CostTable, Task

LAYERS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d)
CHUNK = {"cpu": 1 << 16}  # outputs compared at a time: on a CPU few enough to stay in the cache
LARGE_CHUNK = 1 << 23


@dataclass
class _Site:
    """One module that applies a weight: the weight's name, and what its outputs showed so far."""

    name: str
    module: nn.Module
    rows: dict[int, Tensor]  # bits -> divergence of every row, (O,), summed over frames
    counts: Tensor | None = None  # of an embedding: how often each row was looked up, (O,)
    frames: int = 0

    def mean(self, bits: int) -> Tensor:
        """Divergence of every row, averaged over the frames, (O,)."""
        rows = self.rows[bits] if self.counts is None else self.rows[bits] * self.counts
        return rows.cpu() / self.frames


def kl_costs(
    model: nn.Module,
    task: Task,
    batches: Iterable[Any],
    clusters: Sequence[Cluster],
    widths: Sequence[int],
    *,
    step: str = "cluster",
    trained: Trained | None = None,
    progress: Callable[[int], None] | None = None,
) -> CostTable:
    """GREEN eq. 7 for every cluster and width, in one pass over ``batches``.

    The candidates are the projections with ``step`` as in a bit map, or ``trained``: bits -> span key
    -> weight.  ``progress`` is told the number of batches done.

    Raises ValueError for clusters of another model, modules of another kind than `LAYERS`, and
    modules that the loss does not run.
    """
    clusters = tuple(clusters)
    weights = cluster_weights(model, clusters)
    start = time.perf_counter()
    quantized = {bits: quantized_weights(weights, clusters, bits, step, trained) for bits in widths}
    seconds_projecting = time.perf_counter() - start
    used = _sites(model, weights, quantized)
    device = next(iter(weights.values())).device
    was_training = model.training
    model.eval()
    hooks = [site.module.register_forward_hook(_watch(site, quantized)) for site in used]
    n_batches, start = 0, time.perf_counter()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for batch in batches:
                task.loss(model, batch, twice_differentiable=True)
                n_batches += 1
                if progress is not None:
                    progress(n_batches)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    seconds_comparing = time.perf_counter() - start
    if not n_batches:
        raise ValueError("no batch to compare outputs on: give at least one.")
    if idle := [site.name for site in used if not site.frames]:
        raise ValueError(f"the loss does not run the layer of '{idle[0]}': leave it out of the clusters.")
    by_row = {(name, bits): torch.zeros(len(weights[name])).double() for name in weights for bits in widths}
    for site in used:
        for bits in widths:
            by_row[site.name, bits] += site.mean(bits)

    def cost(cluster: Cluster, bits: int) -> float:
        return sum(float(by_row[s.name, bits][s.start : s.stop].sum()) for s in cluster.spans)

    costs = {cluster.name: {bits: cost(cluster, bits) for bits in widths} for cluster in clusters}
    details = {
        "batches": n_batches,
        "frames": max(site.frames for site in used),
        "step": step,
        "candidates": "projected" if trained is None else "trained",
        "seconds_projecting": seconds_projecting,
        "seconds_comparing": seconds_comparing,
    }
    return CostTable("kl", clusters, costs, details)


def _sites(
    model: nn.Module, weights: Mapping[str, Tensor], quantized: Mapping[int, Mapping[str, Tensor]]
) -> list[_Site]:
    found = []
    for name, weight in weights.items():
        for module, _ in sites(model, weight):
            if not isinstance(module, LAYERS):
                raise ValueError(
                    f"'{name}' is used by a {type(module).__name__}, whose outputs cannot be compared: "
                    "leave it out of the clusters or use the Hessian costs."
                )
            site = _Site(name, module, {bits: torch.zeros(len(weight)).to(weight) for bits in quantized})
            if isinstance(module, nn.Embedding):  # its outputs are its rows: compare them once, count later
                site.counts = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
                site.rows = {
                    b: gated_kl(weight.detach(), q[name]).sum(1).double() for b, q in quantized.items()
                }
            found.append(site)
    return found


def _watch(
    site: _Site, quantized: Mapping[int, Mapping[str, Tensor]]
) -> Callable[[nn.Module, Any, Tensor], None]:
    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert site.counts is not None
        site.counts += torch.bincount(inputs[0].flatten(), minlength=len(site.counts))
        site.frames += inputs[0].numel()

    def compare(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        a = _frames_first(module, output)
        moved = [_frames_first(module, _apply(module, w[site.name], inputs[0])) for w in quantized.values()]
        for bits, rows in zip(quantized, _sums_over_frames(a, moved), strict=True):
            site.rows[bits] = site.rows[bits] + rows
        site.frames += a.shape[0]

    return count if site.counts is not None else compare


def _apply(module: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        moved: Tensor = module._conv_forward(x, weight, module.bias)
        return moved
    assert isinstance(module, nn.Linear)
    return functional.linear(x, weight, module.bias)


def _frames_first(module: nn.Module, output: Tensor) -> Tensor:
    """(..., O), or (..., O, T) of a convolution, -> (frames, O)."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        output = output.movedim(-1 - len(module.kernel_size), -1)
    return output.reshape(-1, output.shape[-1])


def _sums_over_frames(a: Tensor, bs: Sequence[Tensor]) -> Tensor:
    """Divergence of every unit from (frames, O) to each of W others, (W, O), a cacheful at a time."""
    size = max(1, CHUNK.get(a.device.type, LARGE_CHUNK) // a.shape[1])
    parts = [
        torch.stack([kls.sum(0) for kls in gated_kls(a[i : i + size], (b[i : i + size] for b in bs))])
        for i in range(0, len(a), size)
    ]
    return torch.stack(parts).sum(0, dtype=torch.float64)
