"""What rounding does to each part of a model alone: found by measurement, not by a list of layer kinds.

    weights   a cluster, at the widest width of plans          stays in 16 bits where that loses words
    rest      what no plan rounds (norms, their statistics, biases), at `BITS`      always in 16 bits

Tensors of repeated layers are one part of the rest: ``layers.*.norm.running_var``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from greenasr.compress.quantizers import Uniform
from greenasr.roles import Cluster

BITS = 8


def rest_of(model: nn.Module, clusters: Sequence[Cluster]) -> dict[str, list[str]]:
    """The parts that no cluster has, and the names of their parameters and buffers of floating point.

    >>> from greenasr.compress.clusters import make_clusters
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    >>> for part, names in rest_of(model, make_clusters(model, "matrix")).items():
    ...     print(part, names)
    *.bias ['0.bias', '1.bias', '2.bias']
    *.weight ['1.weight']
    *.running_mean ['1.running_mean']
    *.running_var ['1.running_var']
    """
    chosen = {span.name for cluster in clusters for span in cluster.spans}
    found: dict[str, list[str]] = {}
    for name, value in named_tensors(model).items():
        if name not in chosen and value.is_floating_point() and value.numel() > 1:
            found.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    return found


def round_(model: nn.Module, names: Iterable[str], bits: int = BITS) -> None:
    """Round tensors to the grid of ``bits``, with a step for every row of a matrix and one for a vector."""
    there = named_tensors(model)
    with torch.no_grad():
        for name in names:
            value = there[name]
            rows = value.reshape(len(value) if value.dim() > 1 else 1, -1)
            value.copy_(Uniform(bits, "row").project(rows).dequantize().view_as(value))


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
