"""Candidates: what a model's weights would be at each width, for whoever wants to know the price.

Q_b(W_i)   the projection of the float weight on its b-bit table, or
           the weight of a model trained at b bits throughout (MPLM §4.2: uniform models by ADMM)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from greenasr.compress.clusters import check_clusters, span_key, weights
from greenasr.compress.quantizers import Uniform
from greenasr.roles import Cluster, Span

Trained = Mapping[int, Mapping[str, Tensor]]  # bits -> "parameter[start:stop]" -> (stop - start, cols)


def cluster_weights(model: nn.Module, clusters: Sequence[Cluster]) -> dict[str, Tensor]:
    """The parameters that the clusters name, each once; ValueError for clusters of another model."""
    check_clusters(model, clusters)
    named = {span.name for cluster in clusters for span in cluster.spans}
    if not named:
        raise ValueError("there is no cluster to take the cost of: list some with make_clusters(model).")
    return {name: weight for name, weight in weights(model).items() if name in named}


def rows_of(weight: Tensor, span: Span) -> Tensor:
    """The span's weights as a matrix, (stop - start, cols); a view, without gradient."""
    return weight.detach().flatten(1)[span.start : span.stop]


def quantized_weights(
    floats: Mapping[str, Tensor],
    clusters: Sequence[Cluster],
    bits: int,
    step: str = "cluster",
    trained: Trained | None = None,
) -> dict[str, Tensor]:
    """Every named weight with all its clusters' rows at ``bits``, and other rows as they were.

    Each span is projected on a table of its own with ``step`` as in a bit map, or taken from
    ``trained``.  Raises ValueError when ``trained`` lacks a width or a span, or has another shape.
    """
    if trained is not None and bits not in trained:
        widths = ", ".join(map(str, trained)) or "none"
        raise ValueError(
            f"no trained candidate has {bits} bits, there is {widths}: train one or drop the width."
        )
    quantizer = Uniform(bits, step)
    out = {name: weight.detach().clone() for name, weight in floats.items()}
    for span in (span for cluster in clusters for span in cluster.spans):
        rows = rows_of(floats[span.name], span)
        if trained is None:
            value = quantizer.project(rows).dequantize()
        else:
            value = _trained(trained[bits], bits, span, rows)
        rows_of(out[span.name], span).copy_(value)
    return out


def _trained(candidates: Mapping[str, Tensor], bits: int, span: Span, rows: Tensor) -> Tensor:
    value = candidates.get(span_key(span))
    if value is None or value.shape != rows.shape:
        has = "lacks it" if value is None else f"has {tuple(value.shape)}"
        raise ValueError(
            f"the candidate of {bits} bits must give {span_key(span)} as {tuple(rows.shape)}, but {has}: "
            "train it with these clusters."
        )
    return value
