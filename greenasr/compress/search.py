"""Search: which width each cluster asks for, by a super-network over separately trained models.

    h_l  = Σ_i λ_li W_li x = (Σ_i λ_li W_li) x,   λ_l = softmax(a_l)      MPLM §4.3, Fig. 3
    L    = f(λ) + β Σ_l Σ_i λ_li √bits_i                                  eq. 12

Xu et al. 2021 (arXiv 2112.11438).  W_li is cluster l of the model trained at bits_i throughout; the
weighted sum of a linear layer's outputs is the output of the weighted sum of its weights, so one
product serves all candidates.  Only the logits a are trained.  The 1-best width of each cluster is kept.

A β set by hand gives whatever bits it gives.  With ``target_bits`` β follows the expected average
E = Σ_l n_l Σ_i λ_li bits_i / Σ_l n_l, in which n_l weights count as they do in the file (`choice.Price`); it
falls below zero where too few bits are bought.
The 1-best plan has other bits than the expectation as far as λ is undecided, none but the narrowest where
all clusters lean to it a little; `allocate` on `Search.costs` finds the likeliest plan of the target's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from greenasr.compress import attach
from greenasr.compress.allocate import allocate
from greenasr.compress.candidates import Trained, cluster_weights, quantized_weights
from greenasr.compress.choice import Choice, Price
from greenasr.roles import BitMap, Cluster, CostTable, Quantized

SPENT = 0.95  # of a target, at least, by the plan
LARGEST = 1e6  # a reward beside which no choice counts


def least_reward(rewarded: Callable[[float], CostTable], target: float) -> float:
    """The least reward a bit at which the cheapest plan within ``target`` bits takes `SPENT` of them.

    Found by bisection, to a millionth of itself.  Costs need not be convex in the bits, so a reward by which
    the cheapest plan of all reaches the target may leave none near it within.
    """

    def average(reward: float) -> float:
        return allocate(rewarded(reward), average_bits=target).average_bits

    enough = min(SPENT * target, average(LARGEST))
    if average(0.0) >= enough:
        return 0.0
    low, high = 0.0, 1.0
    while average(high) < enough and high < LARGEST:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if average(middle) >= enough else (middle, high)
    return high


class Mixture(nn.Module):
    """One parameter as the weighted sum of its candidates, span by span."""

    def __init__(self, candidates: Sequence[Tensor], spans: Sequence[tuple[int, int, Choice]]):
        super().__init__()
        self.register_buffer("candidates", torch.stack(list(candidates)), persistent=False)
        self.candidates: Tensor
        self.rows = [(start, stop) for start, stop, _ in spans]
        self.choices = nn.ModuleList(choice for _, _, choice in spans)

    def forward(self, weight: Tensor) -> Tensor:
        """Σ_i λ_i W_i; rows of no cluster are all candidates' common value."""
        parts, at = [], 0
        for (start, stop), choice in zip(self.rows, self.choices, strict=True):
            if start > at:
                parts.append(self.candidates[0, at:start])
            pairs = zip(choice(), self.candidates[:, start:stop], strict=True)
            parts.append(torch.stack([share * value for share, value in pairs]).sum(0))
            at = stop
        if at < len(weight):
            parts.append(self.candidates[0, at:])
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass
class Search:
    """Eq. 12 as a compressor of the one loop: it trains the choices and leaves the model as it was.

    ``trained`` is bits -> span key -> weight of the uniform models; ``others`` are the parameters
    outside the clusters (biases, norms) of each of them, whose mean the super-network uses, by default
    the model's own.  ``beta`` is eq. 12's; with ``target_bits`` it is where β begins.  Logits start at
    zero and move by about the learning rate a step: train with a rate of 0.02 to 0.1.  ``weighting``
    "gumbel" is GREEN's choice (§4.3, "NAS gumbel" in Table 2).
    """

    clusters: Sequence[Cluster]
    trained: Trained
    beta: float = 0.01
    target_bits: float | None = None
    others: Sequence[Mapping[str, Tensor]] = ()
    weighting: str = "softmax"
    _choices: dict[str, Choice] = field(default_factory=dict, init=False, repr=False)
    _kept: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _trainable: list[nn.Parameter] = field(default_factory=list, init=False, repr=False)
    _price: Price = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a search without a choice and targets out of reach."""
        widths = self.widths
        if len(widths) < 2:
            raise ValueError(
                f"a search needs models of at least two widths, got {len(widths)}: train another."
            )
        if self.beta < 0 or (self.target_bits is not None and self.beta == 0):
            raise ValueError(f"beta must be positive, got {self.beta:g}.")
        if self.target_bits is not None and not widths[0] <= self.target_bits <= widths[-1]:
            raise ValueError(
                f"target_bits {self.target_bits:g} is not within the candidates' {widths[0]} to {widths[-1]}."
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """The candidates' bits, ascending, in the order of the choice weights."""
        return tuple(sorted(self.trained))

    def prepare_(self, model: nn.Module) -> None:
        """Attach the mixtures to all sites of their weights and freeze everything but the choices."""
        floats = cluster_weights(model, self.clusters)
        by_width = [quantized_weights(floats, self.clusters, b, trained=self.trained) for b in self.widths]
        self._price = Price(self.beta, self.target_bits)
        self._choices = {cluster.name: Choice(len(self.widths), self.weighting) for cluster in self.clusters}
        spans: dict[str, list[tuple[int, int, Choice]]] = {name: [] for name in floats}
        for cluster in self.clusters:
            for span in cluster.spans:
                spans[span.name].append((span.start, span.stop, self._choices[cluster.name]))
        mixtures: dict[str, nn.Module] = {}
        for name, weight in floats.items():
            parts = sorted(spans[name], key=lambda part: part[:2])
            values = [values[name].to(weight.dtype).view(weight.shape) for values in by_width]
            mixtures[name] = Mixture(values, parts).to(weight.device)
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        for parameter in self._trainable:
            parameter.requires_grad_(False)
        self._take_mean_(model)
        attach.attach_(model, mixtures)
        next(iter(mixtures.values())).add_module("price", self._price)  # saved and resumed with the choices

    def penalty(self, model: nn.Module) -> Tensor:
        """The second term of eq. 12."""
        total = torch.stack([self._mean_root(choice()) for choice in self._choices.values()]).sum()
        return self._price.value(self.expected_bits()) * total

    def after_step_(self, model: nn.Module, progress: float) -> dict[str, float]:
        """Let β follow the target."""
        for choice in self._choices.values():
            choice.after_step_(progress)
        expected = self.expected_bits()
        self._price.follow_(expected, progress)
        return {"expected_bits": expected, "beta": self._price.value(expected)}

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Leave the model bit for bit as it was; the plan is in `best` and `costs`."""
        attach.detach_(model)
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in self._kept.items():
                parameters[name].copy_(value)
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        return {}

    def weights(self) -> dict[str, list[float]]:
        """λ of every cluster, chance apart, in the order of `widths`."""
        return {name: choice.shares().tolist() for name, choice in self._choices.items()}

    def expected_bits(self) -> float:
        """Parameter-weighted mean width when every cluster draws its width from softmax(a)."""
        bits = torch.tensor(self.widths, dtype=torch.float64)
        total = sum(c.numel * float(self._choices[c.name].shares() @ bits) for c in self.clusters)
        return total / sum(c.numel for c in self.clusters)

    def costs(self) -> CostTable:
        """-log λ, so that the 1-best has the least cost and `allocate` can trade among clusters.

        With ``target_bits`` less a reward for every bit, the least at which the cheapest plan within the
        target takes `SPENT` of it, or as much as any plan can.
        """
        log = {name: choice.logits.detach().double().log_softmax(0) for name, choice in self._choices.items()}
        plain = np.array([(-log[cluster.name]).tolist() for cluster in self.clusters])  # (C, widths)
        numel = np.array([cluster.numel for cluster in self.clusters], float)
        bits = np.outer(numel / numel.sum(), self.widths)
        details = {"expected_bits": self.expected_bits(), "beta": self._price.base, "reward": 0.0}

        def rewarded(reward: float) -> CostTable:
            rows = (plain - reward * bits).tolist()
            pairs = zip(self.clusters, rows, strict=True)
            table = {cluster.name: dict(zip(self.widths, row, strict=True)) for cluster, row in pairs}
            return CostTable("search", tuple(self.clusters), table, {**details, "reward": reward})

        return rewarded(0.0 if self.target_bits is None else least_reward(rewarded, self.target_bits))

    def best(self) -> dict[str, int]:
        """The 1-best width of every cluster."""
        return {name: self.widths[int(choice.logits.argmax())] for name, choice in self._choices.items()}

    def best_map(self, step: str = "cluster") -> BitMap:
        """The 1-best widths as a plan."""
        return BitMap(tuple(self.clusters), self.best(), step)

    def _mean_root(self, weights: Tensor) -> Tensor:
        return weights @ torch.tensor(self.widths, dtype=weights.dtype, device=weights.device).sqrt()

    @torch.no_grad()
    def _take_mean_(self, model: nn.Module) -> None:
        named = {span.name for cluster in self.clusters for span in cluster.spans}
        parameters = {name: p for name, p in model.named_parameters() if name not in named}
        self._kept = {}
        for name, parameter in parameters.items() if self.others else ():
            values = [other[name].to(parameter) for other in self.others if name in other]
            if len(values) != len(self.others) or any(v.shape != parameter.shape for v in values):
                raise ValueError(f"the trained models do not all have {name} as {tuple(parameter.shape)}.")
            self._kept[name] = parameter.detach().clone()
            parameter.copy_(torch.stack(values).mean(0))
