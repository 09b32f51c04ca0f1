"""Which weights share a bit-width: by matrix, by block, by layer, by band of rows.

MPLM's default is one cluster a matrix; its Fig. 1 and 2 take an attention or feed-forward block as
a whole; GREEN gives both factors of a TDNN-F layer one width.  An embedding whose rows are sorted by
frequency splits into bands: one ternary step that fits the rare words silences the frequent ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from greenasr.roles import Cluster, Span

LAYERS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Quantizable parameters by name: weights of linear, embedding and convolution layers, tied ones once."""
    seen: set[int] = set()
    found = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, LAYERS) and parameter.dim() >= 2 and id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{prefix}.{name}" if prefix else name] = parameter
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no linear, embedding or convolution weight to quantize."
        )
    return found


def make_clusters(
    model: nn.Module,
    by: str = "matrix",
    bands: Mapping[str, Sequence[int]] | None = None,
    skip: Sequence[str] = (),
) -> tuple[Cluster, ...]:
    """Clusters in network order; ``bands`` cuts a parameter's rows at the given places.

    ``by="block"`` joins the matrices of one parent module (the four of an attention block, the two
    of a feed-forward block), ``by="layer"`` those of one numbered layer, and of one part of the network
    outside its stack (both factors of a TDNN-F layer; a whole Transformer layer).  Modules named in
    ``skip`` stay out (a head that only training needs).

    Raises ValueError for names and cuts that the model does not have.
    """
    bands = dict(bands or {})
    found = weights(model)
    if unknown := sorted(set(bands) - set(found)):
        raise ValueError(
            f"bands name weights that {type(model).__name__} does not have: {', '.join(unknown)}. "
            f"It has {', '.join(list(found)[:4])}, …"
        )
    if by not in ("matrix", "block", "layer"):
        raise ValueError(f"clusters by '{by}': choose matrix or block or layer.")
    modules = {name for name, _ in model.named_modules()}
    if unknown := sorted(set(skip) - modules):
        raise ValueError(
            f"no module of {type(model).__name__} is called '{unknown[0]}', which was to be skipped."
        )
    spans: dict[str, list[Span]] = {}
    for name, weight in found.items():
        if any(name.startswith(f"{module}.") for module in skip):
            continue
        rows, cols = weight.shape[0], weight[0].numel()
        cuts = [0, *bands.get(name, ()), rows]
        if cuts != sorted(set(cuts)):
            raise ValueError(f"bands of {name} must grow between 1 and {rows - 1}, got {list(bands[name])}.")
        parent = _owner(name, by)
        for start, stop in zip(cuts, cuts[1:], strict=False):
            cluster = parent if len(cuts) == 2 else f"{name}[{start}:{stop}]"
            spans.setdefault(cluster, []).append(Span(name, start, stop, cols))
    return tuple(Cluster(name, tuple(parts)) for name, parts in spans.items())


def _owner(name: str, by: str) -> str:
    """The name of the cluster that a whole parameter belongs to."""
    parts = name.split(".")
    if by == "matrix" or len(parts) < 3:
        return name
    if by == "block":
        return ".".join(parts[:-2])
    numbers = [i for i, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[: numbers[0] + 1] if numbers else parts[:1])


def span_key(span: Span) -> str:
    """The name of a span in packed files: ``parameter[start:stop]``."""
    return f"{span.name}[{span.start}:{span.stop}]"


def check_clusters(model: nn.Module, clusters: Sequence[Cluster]) -> None:
    """Raise ValueError when clusters name weights or shapes that the model does not have."""
    found = weights(model)
    for span in (span for cluster in clusters for span in cluster.spans):
        if span.name not in found:
            raise ValueError(
                f"the bit map names weights that {type(model).__name__} does not have: {span.name}. It has "
                f"{len(found)} quantizable weights, the first is '{next(iter(found))}'. "
                "A bit map belongs to one model shape."
            )
        shape = found[span.name].flatten(1).shape
        if span.stop > shape[0] or span.cols != shape[1]:
            raise ValueError(
                f"the bit map has rows {span.start}:{span.stop} of {span.cols} for {span.name}, the model "
                f"{tuple(shape)}: it was made for another size; "
                "run `greenasr costs` and `greenasr allocate` again."
            )
