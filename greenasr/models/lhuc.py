"""LHUC: a speaker's own amplitude for every hidden unit, everything else shared and frozen.

    h_u <- 2 σ(r_u) h_u,    r = 0 where a speaker begins: the identity

Swietojanski, Li and Renals 2016, "Learning hidden unit contributions for unsupervised acoustic model
adaptation".  The network may be of any precision: its weights are not touched.  While attached, every
module runs as in evaluation, so neither dropout nor batch statistics change with the speaker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

NAME = "lhuc"


@dataclass(frozen=True, eq=False)
class Lhuc:
    """The vectors of one speaker, layer -> r (D,), and how to take them off again."""

    vectors: dict[str, nn.Parameter]
    handles: tuple[RemovableHandle, ...]
    frozen: tuple[nn.Parameter, ...]

    def parameters(self) -> Iterator[nn.Parameter]:
        """What adaptation trains."""
        return iter(self.vectors.values())

    @property
    def numel(self) -> int:
        """Parameters a speaker."""
        return sum(r.numel() for r in self.vectors.values())

    def state(self) -> dict[str, Tensor]:
        """A copy of the vectors, layer -> (D,), to keep for the speaker."""
        return {name: r.detach().clone() for name, r in self.vectors.items()}

    @torch.no_grad()
    def load_(self, state: Mapping[str, Tensor] | None = None) -> None:
        """Take a speaker's vectors; None for a new speaker, r = 0.  ValueError for those of other layers."""
        if state is not None and {n: r.shape for n, r in state.items()} != self._shapes():
            found = {name: tuple(r.shape) for name, r in state.items()}
            raise ValueError(
                f"the speaker's vectors are {found}, the network's LHUC layers {self._shapes()}."
            )
        for name, r in self.vectors.items():
            r.copy_(torch.zeros_like(r) if state is None else state[name])

    def _shapes(self) -> dict[str, torch.Size]:
        return {name: r.shape for name, r in self.vectors.items()}


def attach_lhuc_(model: nn.Module, layers: Sequence[str]) -> Lhuc:
    """Scale the outputs (…, D) of the named modules by 2 σ(r), r = 0; freeze everything else.

    A module's D is its ``num_features`` or ``out_features``: batch norms behind the hidden units
    (`Tdnnf.hidden_units`) or linear maps.  `detach_lhuc_` undoes it.  Raises ValueError for names that
    the model does not have.
    """
    modules = dict(model.named_modules())
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"LHUC needs layers, each named once, got {', '.join(layers) or 'none'}.")
    for name in layers:
        if name not in modules or not _width(modules[name]):
            raise ValueError(
                f"LHUC has no hidden units at '{name}': name batch norms or linear maps of the network."
            )
        if NAME in modules[name]._parameters:
            raise ValueError(f"LHUC is attached to '{name}' already: detach_lhuc_ first.")
    frozen = tuple(p for p in model.parameters() if p.requires_grad)
    for parameter in frozen:
        parameter.requires_grad_(False)
    like = next(model.parameters())
    handles = [m.register_forward_pre_hook(_evaluate) for m in modules.values() if not list(m.children())]
    vectors = {}
    for name in layers:
        vectors[name] = nn.Parameter(torch.zeros(_width(modules[name]), device=like.device))
        modules[name].register_parameter(NAME, vectors[name])
        handles.append(modules[name].register_forward_hook(_scale))
    return Lhuc(vectors, tuple(handles), frozen)


def detach_lhuc_(model: nn.Module, lhuc: Lhuc) -> None:
    """Take the amplitudes off: the model is as it was before, bit for bit."""
    for handle in lhuc.handles:
        handle.remove()
    for name in lhuc.vectors:
        del model.get_submodule(name)._parameters[NAME]
    for parameter in lhuc.frozen:
        parameter.requires_grad_(True)
    model.train(model.training)  # modules that were held in evaluation follow the model again


def _width(module: nn.Module) -> int:
    width = getattr(module, "num_features", getattr(module, "out_features", 0))
    return width if isinstance(width, int) else 0


def _evaluate(module: nn.Module, inputs: Any) -> None:
    module.eval()


def _scale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * (2 * module.get_parameter(NAME).sigmoid())
