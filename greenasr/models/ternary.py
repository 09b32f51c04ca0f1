"""A 1x1 convolution whose weights are constant random signs, generated from a seed (Mordido et al. 2021, §3).

    y_o = Σ_{i in I⁺_o} x_i - Σ_{i in I⁻_o} x_i            eq. 1, before norm and ReLU

There is no parameter: gradients reach the inputs alone.  There is no scale either, the batch norm behind it
takes any out.  A checkpoint holds six integers that name the matrix (`ops.signs`), and a file whose integers
are others, or are missing, is refused: with another matrix all trained weights around it would be worthless.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from greenasr.ops.signs import Signs, zeros_of
from greenasr.ops.signs_torch import signs


@dataclass(frozen=True)
class TernaryConfig:
    """Which 1x1 convolutions are generated: those of the residual blocks ``blocks`` (0, 1, …; None: of all).

    ``threshold`` is the paper's t, the expected share of zeros: 0 for dense signs; it is rounded to 256ths.
    ``structured`` keeps exactly two of every four inputs, which goes with t = 0.5.
    """

    threshold: float = 0.5
    seed: int = 0
    blocks: tuple[int, ...] | None = None
    structured: bool = False

    def __post_init__(self) -> None:
        """Refuse thresholds and seeds that generate nothing."""
        if self.blocks is not None:
            object.__setattr__(self, "blocks", tuple(self.blocks))
        zeros_of(self.threshold)
        if self.structured and self.threshold != 0.5:
            raise ValueError(
                f"structured weights have two zeros of every four: t is 0.5, got {self.threshold:g}."
            )
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(
                f"the seed of ternary weights has 32 bits, 0 … {(1 << 32) - 1}, got {self.seed}."
            )

    def covers(self, block: int) -> bool:
        """Whether the 1x1 convolutions of this residual block are generated."""
        return self.blocks is None or block in self.blocks

    def signs(self, layer: int, rows: int, cols: int) -> Signs:
        """The matrix of one layer; layers of a network have numbers of their own."""
        return Signs(self.seed, layer, rows, cols, zeros_of(self.threshold), self.structured)


def ternary_config(value: TernaryConfig | Mapping[str, Any] | None) -> TernaryConfig | None:
    """The settings from the table of a recipe or a packed file."""
    return TernaryConfig(**value) if isinstance(value, Mapping) else value


class Ternary(nn.Module):
    """x (…, I) -> (…, O); ``weight`` (O, I) is kept in memory as floats and in no file.

    The buffer ``signs`` is what a ``state_dict`` holds: `Signs.to_numbers`.
    """

    signs: Tensor
    weight: Tensor

    def __init__(self, spec: Signs):
        super().__init__()
        self.spec = spec
        self.register_buffer("signs", torch.tensor(spec.to_numbers(), device="cpu"))
        self.register_buffer("weight", signs(spec).float(), persistent=False)
        self.register_load_state_dict_pre_hook(_same_matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Differences of sums of inputs."""
        return x @ self.weight.to(x.dtype).t()

    def extra_repr(self) -> str:
        """What stands in a printed network."""
        return str(self.spec)


def _same_matrix(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
    """Refuse a state_dict that was trained around another matrix."""
    assert isinstance(module, Ternary)
    found, wanted = state.get(f"{prefix}signs"), module.spec.to_numbers()
    name = f"{prefix}weight"
    if found is None:
        raise ValueError(
            f"the seed of {name} is missing from the file: it holds no ternary network of this shape; "
            "load it into the network that its own configuration describes."
        )
    if found.tolist() != wanted:
        raise ValueError(
            f"{name} was generated as {Signs.from_numbers(found.tolist())}; the network's is {module.spec}: "
            "trained weights fit one matrix; configure the network with the file's seed and threshold."
        )
