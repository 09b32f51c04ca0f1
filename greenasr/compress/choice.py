"""A choice among candidates: its weights λ, and the price of what they would buy.

    λ = softmax(a)                                "softmax": DARTS, Liu et al. 2019
    λ = softmax((a + G) / T),  G = -log(-log U)   "gumbel": GREEN eq. 2, a = log γ, U uniform in (0, 1)
    λ = one-hot at random                         "uniform": stage 1 of pipelined DARTS, GREEN §2.3

Chance is drawn once a step, at the first use after `Choice.after_step_`: every site and the penalty of one
step see the same λ.  GREEN averages a step's gradient over J samples; here J = 1 and the steps average.
T falls geometrically from the first to the second value of ``temperature``.

A price multiplies a penalty: β, or with a target what the expected cost E asks for,

    β sinh(u + 8 e) / sinh(1),      e = E / target - 1,      du = 40 e dp,      u = 1 at p = 0,      p = 0 … 1

over training.  Far above 0 u is the logarithm of a price, which moves by an order of magnitude when E is off
by half for a tenth of the training; below, more is rewarded, for a penalty alone could never undo that it
pushed too far.  The term 8 e acts at once and damps what would else swing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from greenasr.ops import crew

WEIGHTINGS = ("softmax", "gumbel", "uniform")
GAIN, DAMPING, LIMIT = 40.0, 8.0, 100.0


class Choice(nn.Module):
    """The architecture weights of one place in the network: a logit a candidate."""

    def __init__(
        self, n_candidates: int, weighting: str = "softmax", temperature: tuple[float, float] = (1.0, 0.1)
    ):
        super().__init__()
        if weighting not in WEIGHTINGS:
            raise ValueError(f"unknown weighting '{weighting}': choose {' or '.join(WEIGHTINGS)}.")
        if not 0 < temperature[1] <= temperature[0] < math.inf:
            raise ValueError(f"the temperature falls and stays positive, got {temperature}.")
        self.logits = nn.Parameter(torch.zeros(n_candidates), requires_grad=weighting != "uniform")
        self.weighting, self.range = weighting, temperature
        self.drawn: Tensor | None = None
        if weighting == "gumbel":  # saved and resumed with the logits
            self.register_buffer("temperature", torch.tensor(temperature[0]))

    def forward(self) -> Tensor:
        """Candidate weights λ of sum 1, (n,)."""
        if self.weighting == "softmax":
            return self.logits.softmax(0)
        if self.drawn is None:
            self.drawn = self._draw()
        if self.weighting == "uniform":
            return self.drawn
        return ((self.logits + self.drawn) / self.get_buffer("temperature")).softmax(0)

    @torch.no_grad()
    def shares(self) -> Tensor:
        """How likely each candidate is, chance apart: γ = softmax(a), (n,), in float64 on the CPU."""
        return self.logits.double().cpu().softmax(0)

    def after_step_(self, progress: float) -> None:
        """Draw anew at the next use, at the temperature that belongs to ``progress``."""
        self.drawn = None
        if self.weighting == "gumbel":
            first, last = self.range
            self.get_buffer("temperature").fill_(first * (last / first) ** progress)

    def _draw(self) -> Tensor:
        """Gumbel variables, or a one-hot choice, (n,); follows torch's global generator, as dropout does.

        Processes that train together use the draws of the first.
        """
        n, like = len(self.logits), self.logits.detach()
        if self.weighting == "uniform":
            place = crew.from_first(torch.randint(n, (1,)))
            return torch.zeros_like(like).index_fill_(0, place.to(like.device), 1)
        uniform = crew.from_first(torch.rand(n, device=like.device, dtype=like.dtype))
        return -(-uniform.clamp(1e-10, 1 - 1e-7).log()).log()


class Price(nn.Module):
    """β, or with a ``target`` the price that follows the expected cost: a buffer of the searched network."""

    def __init__(self, beta: float, target: float | None = None):
        super().__init__()
        self.beta, self.target = beta, target
        self.register_buffer("state", torch.tensor([1.0, 0.0], dtype=torch.float64))  # u, progress
        self.state: Tensor

    @property
    def base(self) -> float:
        """The price where the expected cost is the target."""
        return self.value(self.target or 0.0)

    def value(self, expected: float) -> float:
        """The price where the expected cost is ``expected``."""
        if self.target is None:
            return self.beta
        power = float(self.state[0]) + DAMPING * self._excess(expected)
        return self.beta * math.sinh(min(max(power, -LIMIT), LIMIT)) / math.sinh(1)

    @torch.no_grad()
    def follow_(self, expected: float, progress: float) -> None:
        """Move towards the price at which the target is met."""
        if self.target is not None:
            passed = progress - float(self.state[1])
            self.state[0] += GAIN * self._excess(expected) * passed
            self.state[1] = progress

    def _excess(self, expected: float) -> float:
        assert self.target is not None
        return expected / self.target - 1
