"""Curvature: how much the loss bends in each block of weights, without ever forming a Hessian.

    Tr(H_ii) = E[z_iᵀ (H z)_i]      z has independent entries of mean 0 and variance 1

One Hessian-vector product H z serves every block i at once: z_iᵀ (H z)_i = Σ_j z_iᵀ H_ij z_j, and
the cross terms j ≠ i vanish in expectation because z_i and z_j are independent.  They do add variance:

    Var = 2 (‖H_ii‖² - ‖diag H_ii‖²) + Σ_{j≠i} ‖H_ij‖²     random signs
    Var = 2  ‖H_ii‖²                 + Σ_{j≠i} ‖H_ij‖²     Gaussian

Hutchinson 1989; MPLM eq. 11 (Xu et al. 2021, arXiv 2112.11438) with Gaussian z.  Random signs are
never worse, so they are the default here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

ProbeKind = Literal["rademacher", "gaussian"]
Block = Sequence[tuple[str, int, int]]  # rows start:stop of named weights


@dataclass(frozen=True)
class Traces:
    """What `hutchinson` found: one figure a block, and how far to trust it.

    ``draws`` (B, K, C) are the single estimates of K probes on each of B losses for C blocks, in
    float64.  The estimand is the trace on the *mean of the B losses*; ``standard_error`` is what the
    probes leave open about it (it does not say how well the B losses stand for other data).
    """

    blocks: tuple[str, ...]
    draws: Tensor

    @property
    def mean(self) -> Tensor:
        """Estimated trace of every block, (C,)."""
        return self.draws.mean((0, 1))

    @property
    def standard_error(self) -> Tensor:
        """sqrt(Σ_b s_b² / K) / B with s_b² the variance among the probes of loss b, (C,)."""
        n_losses, n_probes, _ = self.draws.shape
        return (self.draws.var(1).mean(0) / (n_losses * n_probes)).sqrt()

    @property
    def probes(self) -> int:
        """Hessian-vector products spent, B * K."""
        return self.draws.shape[0] * self.draws.shape[1]

    def excess(self, negligible: float = 0.1) -> float:
        """Largest standard error, relative: max_i se_i / max(|t_i|, negligible · mean_j |t_j|).

        A block below a tenth of the average trace is held to that tenth: its own trace may be zero.
        """
        size = self.mean.abs()
        floor = torch.clamp(size, min=negligible * float(size.mean()))
        return float((self.standard_error / floor.clamp(min=1e-300)).max())


@dataclass
class Probing:
    """How far `hutchinson` has come: what it needs to go on as if it had never stopped.

    ``draws`` has the estimates of each loss, ``wanted`` how many the round in hand gives each of them, ``at``
    the loss that is next, ``state`` the generator's.
    """

    draws: list[list[Tensor]]
    wanted: int
    at: int
    state: Tensor

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back, exact in float64."""
        draws = [[draw.tolist() for draw in seen] for seen in self.draws]
        return {"draws": draws, "wanted": self.wanted, "at": self.at, "state": self.state.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Probing:
        """Read what `to_json` wrote."""
        draws = [[torch.tensor(draw, dtype=torch.float64) for draw in seen] for seen in value["draws"]]
        return cls(draws, value["wanted"], value["at"], torch.tensor(value["state"], dtype=torch.uint8))


def draw_probe(
    weights: Mapping[str, Tensor], generator: torch.Generator, kind: ProbeKind = "rademacher"
) -> dict[str, Tensor]:
    """One z: entries ±1 with equal chance, or standard normal, shaped as the weights.

    >>> z = draw_probe({"w": torch.zeros(2, 3)}, torch.Generator().manual_seed(0))
    >>> z["w"].abs().tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    if kind not in ("rademacher", "gaussian"):
        raise ValueError(f"probe kind '{kind}' is unknown: choose 'rademacher' or 'gaussian'")
    return {name: _entries(weight, generator, kind) for name, weight in weights.items()}


def _entries(weight: Tensor, generator: torch.Generator, kind: ProbeKind) -> Tensor:
    shape, device = weight.shape, generator.device
    if kind == "gaussian":
        return torch.randn(shape, generator=generator, device=device).to(weight)
    signs = torch.randint(0, 2, shape, generator=generator, device=device, dtype=torch.int8)
    return signs.to(weight).mul_(2).sub_(1)


def hessian_quadratic_forms(
    loss: Tensor, weights: Mapping[str, Tensor], probes: Iterable[Mapping[str, Tensor]]
) -> Iterator[dict[str, Tensor]]:
    """For every probe z the row sums of z ⊙ (H z): name -> (O,), a weight seen as (O, rest).

    The sum over a block of rows estimates the trace of that block of H.  H z is the gradient of
    (∂loss/∂W)ᵀ z (Pearlmutter 1994); the graph of the first backward is kept for all probes, so a
    probe costs about one more forward and backward.  ``loss`` must be twice differentiable.

    >>> w = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> z = {"w": torch.tensor([[1.0, -1.0]])}
    >>> [q["w"].tolist() for q in hessian_quadratic_forms((w**3).sum(), {"w": w}, [z])]
    [[18.0]]
    """
    names, values = tuple(weights), tuple(weights.values())
    first = torch.autograd.grad(loss, values, create_graph=True, allow_unused=True)
    for name, grad in zip(names, first, strict=True):
        if grad is None:
            raise ValueError(f"the loss does not depend on '{name}': leave it out of the clusters")
    bent = [i for i, grad in enumerate(first) if grad is not None and grad.requires_grad]
    grads = [grad for grad in first if grad is not None and grad.requires_grad]
    for probe in probes:
        z = [probe[name] for name in names]
        if grads:
            outputs = [z[i] for i in bent]
            hz: Sequence[Tensor] = torch.autograd.grad(
                grads, values, grad_outputs=outputs, retain_graph=True, materialize_grads=True
            )
        else:  # a loss linear in every weight
            hz = [torch.zeros_like(value) for value in values]
        yield {
            name: (a * b).reshape(a.shape[0], -1).sum(1, dtype=torch.float64)
            for name, a, b in zip(names, z, hz, strict=True)
        }


def block_sums(rows: Mapping[str, Tensor], blocks: Mapping[str, Block]) -> Tensor:
    """Sum the row sums over every block's rows: name -> (O,) and C blocks -> (C,)."""
    sums = [
        torch.stack([rows[name][start:stop].sum() for name, start, stop in block]).sum()
        for block in blocks.values()
    ]
    return torch.stack(sums).cpu()


def hutchinson(
    losses: Sequence[Callable[[], Tensor]],
    weights: Mapping[str, Tensor],
    blocks: Mapping[str, Block],
    generator: torch.Generator,
    *,
    kind: ProbeKind = "rademacher",
    tolerance: float = 0.05,
    min_probes: int = 16,
    max_probes: int = 1024,
    progress: Callable[[int, float], None] | None = None,
    begun: Probing | None = None,
    keep: Callable[[Probing], None] | None = None,
) -> Traces:
    """Tr(H_ii) of every block on the mean of ``losses``, with probes added until it is sharp enough.

    Every loss is evaluated anew, given a few probes of its own, and dropped again, so that memory
    holds one graph.  Cutting the data into more losses, each with its own probes, never spreads the
    estimate more at equal data (‖mean H‖² ≤ mean ‖H‖²); a loss too small wastes the machine.

    Stops when `Traces.excess` is under ``tolerance`` or another round would pass ``max_probes``.  A
    round gives each loss the number of probes that the spread so far asks for, at most doubling; the first
    gives at least eight, so that they share the price of the first backward.  ``progress(probes,
    excess)`` is told after each loss.  Given the number of probes the estimate is unbiased.

    ``keep`` hears after each loss how far it is; ``begun`` from there gives what it would have given.
    """
    if not losses:
        raise ValueError("no batch to take the Hessian on: give at least one")
    if max_probes < 2 * len(losses):
        raise ValueError(
            f"{max_probes} probes cannot give {len(losses)} batches two each: "
            f"allow {2 * len(losses)} or use fewer batches"
        )
    share = max_probes // len(losses)
    wanted = min(max(8, math.ceil(min_probes / len(losses))), share)
    draws: list[list[Tensor]] = [[] for _ in losses]
    at, excess = 0, math.inf
    if begun is not None:
        draws, wanted, at = [list(seen) for seen in begun.draws], begun.wanted, begun.at
        generator.set_state(begun.state)
        whole = min(map(len, draws))
        excess = _excess(blocks, [seen[:whole] for seen in draws] if whole else draws[:at])
    while True:
        for n, loss in enumerate(losses[at:], at + 1):
            probes = (draw_probe(weights, generator, kind) for _ in range(wanted))
            with torch.enable_grad():
                rows = hessian_quadratic_forms(loss(), weights, probes)
                draws[n - 1] += [block_sums(row, blocks) for row in rows]
            level = draws if n == len(losses) else draws[:n] if not draws[-1] else []
            if level:  # as many probes on each
                excess = _excess(blocks, level)
            if not math.isfinite(excess):
                spent = sum(map(len, draws))
                raise ValueError(
                    f"the Hessian is not finite after {spent} probes: check the weights and the loss"
                )
            if progress is not None:
                progress(sum(map(len, draws)), excess)
            if keep is not None and n < len(losses):
                keep(Probing(draws, wanted, n, generator.get_state()))
        done, at = len(draws[0]), 0
        if excess <= tolerance or done >= share:
            return _traces(blocks, draws)
        needed = math.ceil(done * (excess / tolerance) ** 2) - done if tolerance > 0 else done
        wanted = max(1, min(needed, done, share - done))
        if keep is not None:
            keep(Probing(draws, wanted, 0, generator.get_state()))


def _traces(blocks: Iterable[str], draws: Sequence[Sequence[Tensor]]) -> Traces:
    return Traces(tuple(blocks), torch.stack([torch.stack(list(seen)) for seen in draws]))


def _excess(blocks: Iterable[str], draws: Sequence[Sequence[Tensor]]) -> float:
    return _traces(blocks, draws).excess()
