"""One budget of bytes for bottleneck dimensions and for the widths of all weights: a knapsack over both.

    minimise    Σ_i T_i(d_i)  +  Σ_c R_c(b_c) d_i(c) / D_i(c)
    subject to  Σ_c bytes of c at d_i(c) and b_c  <=  budget

T_i is the divergence of the outputs when layer i alone is cut to d of its D_i dimensions
(`compress.truncate`), R_c when cluster c alone is rounded to b bits; what is cut away is not rounded.  Both
are nats a frame, so they may be added, as far as parts hurt alone.  A class of the knapsack is a factored
layer with all its clusters, or another cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import ceil
from typing import Any

import numpy as np

from greenasr.compress.allocate import cluster_bytes
from greenasr.compress.bottleneck import Factors
from greenasr.ops import knapsack
from greenasr.roles import BitMap, Cluster, CostTable

SHARES = (0.25, 0.5, 0.75)
Moved = Mapping[str, Mapping[int, float]]  # layer -> dimensions -> divergence


def candidates(width: int) -> list[int]:
    """Dimensions to try for a bottleneck, all of them last: shares of it, in fours.

    >>> candidates(96), candidates(6)
    ([24, 48, 72, 96], [4, 6])
    """
    return sorted({*(min(width, 4 * ceil(share * width / 4)) for share in SHARES), width})


class Joint:
    """The table of both as the knapsack's arrays.

    ``pinned`` clusters keep their width.  A layer that shares a cluster with another, or that has a weight in
    none, keeps its dimensions.
    """

    def __init__(
        self, costs: CostTable, moved: Moved, factors: Factors, pinned: Mapping[str, int], step: str
    ) -> None:
        self.factors, self.step, self.clusters = factors, step, costs.clusters
        known = {name for cluster in self.clusters for name in names_of(cluster)}
        owners = {
            c.name: [n for n, (a, b, _) in factors.items() if names_of(c) & {a, b}] for c in self.clusters
        }
        shared = {n for own in owners.values() if len(own) > 1 for n in own}
        free = {n for n in moved if n not in shared and {*factors[n][:2]} <= known}
        self.classes: list[list[Cluster]] = [
            *([c for c in self.clusters if owners[c.name] == [n]] for n in sorted(free)),
            *([c] for c in self.clusters if not set(owners[c.name]) & free),
        ]
        layers: list[str | None] = [*sorted(free), *(None for _ in self.classes[len(free) :])]
        self.options: list[list[tuple[dict[str, int], dict[str, int]]]] = []
        self.sizes: list[knapsack.Sizes] = []
        self.costs: list[knapsack.Costs] = []
        for layer, clusters in zip(layers, self.classes, strict=True):
            widths = [[pinned[c.name]] if c.name in pinned else sorted(costs.costs[c.name]) for c in clusters]
            options: list[tuple[dict[str, int], dict[str, int]]] = []
            sizes: list[int] = []
            prices: list[float] = []
            for dim, cut in moved[layer].items() if layer else [(0, 0.0)]:
                dims = {layer: dim} if layer else {}
                share = dim / factors[layer][2] if layer else 1.0
                narrow = [narrowed(c, factors, dims) for c in clusters]
                for bits in product(*widths):
                    chosen = list(zip(clusters, narrow, bits, strict=True))
                    options.append((dims, {c.name: b for c, _, b in chosen}))
                    sizes.append(sum(cluster_bytes(small, b, step) for _, small, b in chosen))
                    prices.append(
                        max(0.0, cut) + share * sum(max(0.0, costs.costs[c.name][b]) for c, _, b in chosen)
                    )
            self.options.append(options)
            self.sizes.append(np.array(sizes, np.int64))
            self.costs.append(np.array(prices, np.float64))
        self.smallest = sum(int(row.min()) for row in self.sizes)

    def solve(self, budget: int) -> tuple[dict[str, int], BitMap]:
        """Dimensions and widths of at most so many bytes; dimensions that are cut alone.

        Raises ValueError where the budget is below ``smallest``.
        """
        picks = knapsack.cheapest(self.sizes, self.costs, budget)
        dims: dict[str, int] = {}
        bits: dict[str, int] = {}
        for options, pick in zip(self.options, picks, strict=True):
            dims |= options[pick][0]
            bits |= options[pick][1]
        dims = {name: dim for name, dim in dims.items() if dim < self.factors[name][2]}
        clusters = tuple(narrowed(c, self.factors, dims) for c in self.clusters)
        return dims, BitMap(clusters, {c.name: bits[c.name] for c in clusters}, self.step)


def factors_of(model: Any) -> Factors:
    """The bottlenecks of a network; nothing for one without."""
    return dict(model.bottlenecks()) if hasattr(model, "bottlenecks") and hasattr(model, "shrunk") else {}


def names_of(cluster: Cluster) -> set[str]:
    """The weights that a cluster has rows of."""
    return {span.name for span in cluster.spans}


def narrowed(cluster: Cluster, factors: Factors, dims: Mapping[str, int]) -> Cluster:
    """The cluster in a network of fewer bottleneck dimensions: fewer rows of A, fewer columns of B.

    >>> from greenasr.roles import Span
    >>> layer = Cluster("layer", (Span("a", 0, 16, 10), Span("b", 0, 10, 16)))
    >>> [tuple(vars(span).values()) for span in narrowed(layer, {"l": ("a", "b", 8)}, {"l": 3}).spans]
    [('a', 0, 6, 10), ('b', 0, 10, 6)]
    """
    spans = []
    for span in cluster.spans:
        for name, dim in dims.items():
            a, b, width = factors[name]
            if span.name == a:
                span = replace(span, start=span.start // width * dim, stop=span.stop // width * dim)
            elif span.name == b:
                span = replace(span, cols=span.cols // width * dim)
        spans.append(span)
    return replace(cluster, spans=tuple(spans))
