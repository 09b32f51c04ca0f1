"""Bottleneck search: how wide each factored layer's middle must be, with all candidates nested in one.

    h  = Σ_i λ_i B_i A_i x = B diag(m) A x,    m_j = Σ_i λ_i [j < d_i]           GREEN eq. 1
    L  = loss + η Σ_l Σ_i λ_li C_li,           C_li parameters of candidate i, in millions     eq. 3

Candidate i is the first d_i rows of A and columns of B, so one product serves all of them, and the
super-network is no larger than its widest candidate.  Three searches, by `choice.Choice`:

    DARTS           weights and choices together, λ = softmax
    Gumbel DARTS    weights and choices together, λ by Gumbel-softmax, eq. 2
    PipeGumbel      1. weights, with a candidate drawn uniformly a layer and step;
                    2. choices by Gumbel-softmax on held-out data, weights frozen            GREEN §2.3

DARTS by softmax is here for comparison: every mixture is open to it, weights make up for a small λ, and
it takes the cheapest candidate whatever a layer needs.  Gumbel's near one-hot draws, and frozen weights
more so, make a candidate stand for itself.

Xu et al., "Towards Green ASR"; Hu et al. 2021, "Neural architecture search for LF-MMI trained TDNNs".
GREEN gives no unit of C; here it is a million, and ``target_params`` finds η (`choice.Price`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from greenasr.compress import attach
from greenasr.compress.choice import Choice, Price
from greenasr.compress.fit import OnStep, Trainable, Training, fit_
from greenasr.compress.shared import Shareable
from greenasr.ops.knapsack import cheapest
from greenasr.roles import Compressor, Quantized

Factors = Mapping[str, tuple[str, str, int]]  # layer -> names of A (K b, I) and B (O, K b), tap by tap; b


class Bottlenecked(Protocol):
    """A network whose bottlenecks can be searched."""

    def bottlenecks(self) -> Factors:
        """The factored layers."""
        ...

    def shrunk(self, dims: Mapping[str, int]) -> Any:
        """A new network with these bottlenecks, weights at random."""
        ...


class Nested(nn.Module):
    """The first factor of a layer, its rows weighted by m: diag(m) A."""

    def __init__(self, width: int, dims: Sequence[int], choice: Choice):
        super().__init__()
        inside = torch.arange(width) < torch.tensor(list(dims))[:, None]
        self.register_buffer("inside", inside.float(), persistent=False)
        self.inside: Tensor  # (n, b): does candidate i have unit j
        self.choice = choice

    def forward(self, weight: Tensor) -> Tensor:
        """(K b, I) -> (K b, I)."""
        m = (self.choice() @ self.inside).to(weight.dtype)
        return weight * m.repeat(len(weight) // len(m)).view(-1, *(1,) * (weight.dim() - 1))


@dataclass
class BottleneckSearch:
    """Eq. 1 to 3 as a compressor of the one loop.

    ``factors`` is the network's ``bottlenecks()``; ``dims`` are the candidates, one list for all layers or
    layer -> list, none wider than the layer.  ``weighting`` is one of `choice.WEIGHTINGS`; ``frozen`` trains
    the choices alone and leaves the network bit for bit as it was, buffers included (train with a rate of
    0.02 to 0.1: logits move by about the rate a step).  ``eta`` is a price a million parameters; with
    ``target_params``, a size of the whole network, it is where the price begins.
    """

    factors: Factors
    dims: Sequence[int] | Mapping[str, Sequence[int]]
    weighting: str = "gumbel"
    frozen: bool = False
    eta: float = 0.1
    target_params: float | None = None
    temperature: tuple[float, float] = (1.0, 0.1)
    _choices: dict[str, Choice] = field(default_factory=dict, init=False, repr=False)
    _sizes: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _outside: int = field(default=0, init=False, repr=False)
    _price: Price = field(init=False, repr=False)
    _trainable: list[nn.Parameter] = field(default_factory=list, init=False, repr=False)
    _buffers: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse candidates that the layers cannot hold."""
        if not self.factors:
            raise ValueError("the network has no factored layer whose bottleneck could be searched.")
        if self.eta < 0 or (self.target_params is not None and self.eta == 0):
            raise ValueError(f"eta must be positive, got {self.eta:g}.")
        for name, (_, _, width) in self.factors.items():
            dims = self.candidates(name)
            if len(dims) < 2 or list(dims) != sorted(set(dims)) or not 1 <= dims[0] <= dims[-1] <= width:
                raise ValueError(
                    f"candidates of {name} must be at least two numbers that grow between 1 and its width of "
                    f"{width}, got {list(dims)}: build the network with the widest candidate."
                )

    def candidates(self, name: str) -> tuple[int, ...]:
        """The candidate dimensions of a layer."""
        if not isinstance(self.dims, Mapping):
            return tuple(self.dims)
        if name not in self.dims:
            raise ValueError(f"no candidates for {name}: dims has {', '.join(self.dims) or 'none'}.")
        return tuple(self.dims[name])

    def prepare_(self, model: nn.Module) -> None:
        """Attach the choices to the first factors; freeze the rest when asked."""
        parameters = dict(model.named_parameters())
        total = sum(p.numel() for p in parameters.values())
        self._price = Price(self.eta, self.target_params)
        self._choices, nested, inside = {}, {}, 0
        for name, (a, b, width) in self.factors.items():
            each = (parameters[a].numel() + parameters[b].numel()) // width
            dims = self.candidates(name)
            inside += each * width
            self._sizes[name] = torch.tensor(dims, dtype=torch.float64) * each
            self._choices[name] = Choice(len(dims), self.weighting, self.temperature)
            nested[a] = Nested(width, dims, self._choices[name]).to(parameters[a].device)
        self._outside = total - inside
        if self.target_params is not None and not self._reach(min) <= self.target_params <= self._reach(max):
            raise ValueError(
                f"target_params {self.target_params:g} is out of reach: the candidates give "
                f"{self._reach(min):g} to {self._reach(max):g} parameters."
            )
        self._trainable = [p for p in parameters.values() if p.requires_grad] if self.frozen else []
        self._buffers = {n: b.clone() for n, b in model.named_buffers()} if self.frozen else {}
        for parameter in self._trainable:
            parameter.requires_grad_(False)
        attach.attach_(model, nested)
        next(iter(nested.values())).add_module("price", self._price)  # saved and resumed with the choices

    def penalty(self, model: nn.Module) -> Tensor | float:
        """The second term of eq. 3; nothing for uniform choices, which no price could move."""
        if self.weighting == "uniform":
            return 0.0
        terms = [choice() @ self._sizes[name].to(choice.logits) for name, choice in self._choices.items()]
        return self._price.value(self.expected_params()) * 1e-6 * torch.stack(terms).sum()

    def after_step_(self, model: nn.Module, progress: float) -> dict[str, float]:
        """Draw anew at the next step, cooler; let η follow the target."""
        for choice in self._choices.values():
            choice.after_step_(progress)
        if self.weighting == "uniform":
            return {}
        expected = self.expected_params()
        self._price.follow_(expected, progress)
        return {"expected_params": expected, "eta": self._price.value(expected)}

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Detach the choices; the result is in `best` and `weights`."""
        attach.detach_(model)
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        buffers = dict(model.named_buffers())
        with torch.no_grad():
            for name, value in self._buffers.items():
                buffers[name].copy_(value)
        return {}

    def weights(self) -> dict[str, list[float]]:
        """How likely each candidate of each layer is, chance apart."""
        return {name: choice.shares().tolist() for name, choice in self._choices.items()}

    def best(self, max_params: float | None = None) -> dict[str, int]:
        """The 1-best dimension of every layer; with ``max_params`` the likeliest of at most that size.

        The likeliest: argmax Π_l λ_l under Σ_l C_l, exactly (`ops.knapsack`).  Choices that were trained
        without a price then say what each dimension is worth, and the size decides what is paid for it.
        Raises ValueError when even the narrowest network is larger.
        """
        if max_params is None:
            return {name: self.candidates(name)[int(c.logits.argmax())] for name, c in self._choices.items()}
        sizes = [self._sizes[name].numpy().astype(np.int64) for name in self._choices]
        costs = [-c.shares().detach().cpu().double().log().numpy() for c in self._choices.values()]
        picks = cheapest(sizes, costs, int(max_params) - self._outside)
        pairs = zip(self._choices, picks, strict=True)
        return {name: self.candidates(name)[i] for name, i in pairs}

    def expected_params(self) -> float:
        """Size of the whole network when every layer draws its dimension from softmax(a)."""
        inside = sum(float(c.shares() @ self._sizes[name]) for name, c in self._choices.items())
        return self._outside + inside

    def _reach(self, which: Callable[[list[float]], float]) -> float:
        return self._outside + sum(which(sizes.tolist()) for sizes in self._sizes.values())


@dataclass(frozen=True)
class Part:
    """A task that trains on another of its splits: ``Part(task, "heldout")``."""

    task: Trainable
    split: str

    def loss(self, model: Any, batch: Any) -> Tensor:
        """The task's loss."""
        return self.task.loss(model, batch)

    def means(self, model: Any, batch: Any) -> Any:
        """The loss's terms, for several processes; see `compress.shared`."""
        return cast(Shareable, self.task).means(model, batch)

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        """One pass over the part, whatever the split is called."""
        return self.task.batches(self.split, seed)

    def n_batches(self, split: str) -> int:
        """How many batches the part has, about."""
        return self.task.n_batches(self.split)


def pipe_gumbel_(
    model: nn.Module,
    factors: Factors,
    dims: Sequence[int] | Mapping[str, Sequence[int]],
    train: Trainable,
    held_out: Trainable,
    settings: tuple[Training, Training],
    *,
    eta: float = 0.1,
    target_params: float | None = None,
    temperature: tuple[float, float] = (1.0, 0.1),
    wrap: Callable[[Compressor], Compressor] = lambda compressor: compressor,
    run: Path | None = None,
    on_step: OnStep | None = None,
) -> BottleneckSearch:
    """PipeGumbel: train ``model`` as the super-network, then its choices on other data, which it returns.

    ``held_out`` is a task whose training split is the held-out data (`Part`); ``settings`` are those of the
    two stages; ``wrap`` puts what else every step needs around the first (`upkeep.Upkeep`).  With ``run``
    a killed search goes on where it was.
    """
    weights = BottleneckSearch(factors, dims, "uniform")
    fit_(model, train, wrap(weights), settings[0], run=run and run / "weights", on_step=on_step)
    choices = BottleneckSearch(factors, dims, "gumbel", True, eta, target_params, temperature)
    fit_(model, held_out, choices, settings[1], run=run and run / "choices", on_step=on_step)
    return choices


def nested(state: Mapping[str, Tensor], factors: Factors, dims: Mapping[str, int]) -> dict[str, Tensor]:
    """The state of a network of these bottlenecks, cut out of the super-network's.

    A layer's first d rows of A and columns of B, of every tap; everything else as it is.
    """
    out = dict(state)
    for name, dim in dims.items():
        a, b, width = factors[name]
        first, second = state[a], state[b]
        out[a] = first.unflatten(0, (-1, width))[:, :dim].flatten(0, 1)
        out[b] = second.unflatten(1, (-1, width))[:, :, :dim].flatten(1, 2)
    return out


def shrink(model: Bottlenecked, dims: Mapping[str, int], inherit: bool = True) -> nn.Module:
    """A network with these bottlenecks, layer -> dimension, on the model's device.

    It inherits the nested weights, or begins at random as the paper's retraining does.  Inherited batch norm
    statistics are those of the super-network: train on, or run some batches in training mode.
    """
    small = model.shrunk(dims)
    assert isinstance(small, nn.Module) and isinstance(model, nn.Module)
    small.to(next(model.parameters()).device)
    if inherit:
        small.load_state_dict(nested(model.state_dict(), model.bottlenecks(), dims))
    return small.train(model.training)
