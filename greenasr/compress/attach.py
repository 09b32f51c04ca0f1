"""Attach to weights, never to networks: a parametrization at every site of a parameter.

A tied weight is one parameter at several sites.  With the embedding alone attached, the output
layer would quietly train on the float weight; so one module serves all sites of a parameter and
computes its value once a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from greenasr.compress.quantizers import Uniform
from greenasr.roles import BitMap, Quantized

OURS = "attached_by_greenasr"  # marks what `detach_` takes off


def sites(model: nn.Module, parameter: Tensor) -> list[tuple[nn.Module, str]]:
    """Every (module, attribute) at which a parameter is used."""
    return [
        (module, name)
        for module in model.modules()
        for name, value in module._parameters.items()
        if value is parameter
    ]


def attach_(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Put ``modules`` (parameter name -> what it becomes) at all sites of their parameters."""
    parameters = dict(model.named_parameters())
    for name, module in modules.items():
        setattr(module, OURS, True)
        for owner, attribute in sites(model, parameters[name]):
            parametrize.register_parametrization(owner, attribute, module, unsafe=True)


def detach_(model: nn.Module) -> None:
    """Take every module of `attach_` off; parameters keep their own values, names and order.

    What a network has by nature, as weight normalization, stays.
    """
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for name, attached in list(module.parametrizations.items()):
                if not any(hasattr(each, OURS) for each in attached.children()):
                    continue
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)
                rest = {
                    other: module._parameters.pop(other)
                    for other in list(module._parameters)
                    if other != name
                }
                module._parameters.update(rest)  # torch registers a layer's weight before its bias


@contextmanager
def replaced(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Other values for named parameters inside the block; afterwards they are as they were, bit for bit."""
    parameters = dict(model.named_parameters())
    kept = {name: parameters[name].detach().clone() for name in values}
    try:
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(value)
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)


class Grid(nn.Module):
    """The tables of one parameter: the widths of its spans and, as buffers, their steps.

    ``project`` gives the nearest point on the tables as they stand; ``refit_`` moves the steps.  They begin
    as fitted to the weight, or all of them as ``even``.
    """

    def __init__(
        self, weight: Tensor, spans: list[tuple[int, int, int]], step: str, even: float | None = None
    ):
        super().__init__()
        self.spans = [(start, stop, Uniform(bits, step)) for start, stop, bits in sorted(spans)]
        covered = [(start, stop) for start, stop, _ in self.spans]
        if [0, *(b for _, b in covered)] != [*(a for a, _ in covered), len(weight)]:
            raise ValueError(f"spans {covered} do not cover the {len(weight)} rows of a weight exactly once.")
        for i, (start, stop, quantizer) in enumerate(self.spans):
            rows = weight.detach().flatten(1)[start:stop].float()
            fitted = quantizer.project(rows).step if even is None else quantizer.even(rows, even)
            self.register_buffer(f"step_{i}", fitted)

    def quantized(self, weight: Tensor) -> list[Quantized]:
        """Codes and steps of every span."""
        flat = weight.detach().flatten(1)
        return [q.on(flat[a:b], self.get_buffer(f"step_{i}")) for i, (a, b, q) in enumerate(self.spans)]

    def project(self, weight: Tensor) -> Tensor:
        """The nearest point on the tables, in the weight's shape; no gradient."""
        parts = [quantized.dequantize() for quantized in self.quantized(weight)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(weight.shape)

    @torch.no_grad()
    def refit_(self, weight: Tensor) -> None:
        """One alternation of codes and step for every span."""
        flat = weight.detach().flatten(1)
        for i, (start, stop, quantizer) in enumerate(self.spans):
            step = self.get_buffer(f"step_{i}")
            step.copy_(quantizer.project(flat[start:stop], step).step)


def make_grids(model: nn.Module, bit_map: BitMap, even: float | None = None) -> dict[str, Grid]:
    """The tables of every parameter that the bit map names, with fitted steps or ``even`` ones."""
    parameters = dict(model.named_parameters())
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for cluster in bit_map.clusters:
        for span in cluster.spans:
            spans.setdefault(span.name, []).append((span.start, span.stop, bit_map.bits[cluster.name]))
    return {name: Grid(parameters[name], parts, bit_map.step, even) for name, parts in spans.items()}


class Tables(Protocol):
    """What settles a weight: a `Grid`, or tables of another kind."""

    @property
    def spans(self) -> list[tuple[int, int, Uniform]]:
        """First row, row behind the last, and width of every span."""
        ...

    def quantized(self, weight: Tensor) -> list[Quantized]:
        """Codes and steps of every span."""
        ...

    def project(self, weight: Tensor) -> Tensor:
        """The weight that they stand for."""
        ...


def settle_(model: nn.Module, grids: Mapping[str, Tables]) -> dict[str, Quantized]:
    """Put every weight on its grid; span key -> codes and step."""
    parameters = dict(model.named_parameters())
    out = {}
    with torch.no_grad():
        for name, grid in grids.items():
            for (start, stop, _), quantized in zip(grid.spans, grid.quantized(parameters[name]), strict=True):
                out[f"{name}[{start}:{stop}]"] = quantized
            parameters[name].copy_(grid.project(parameters[name]))
    return out
