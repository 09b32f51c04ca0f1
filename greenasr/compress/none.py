"""No training towards the grid: the float model, or post-training quantization when a bit map is given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from greenasr.compress import attach
from greenasr.roles import BitMap, Quantized


@dataclass
class NoCompression:
    """Train as if there were no grid; ``finish_`` projects when there is one."""

    bit_map: BitMap | None = None

    def prepare_(self, model: nn.Module) -> None:
        """Nothing to attach."""

    def penalty(self, model: nn.Module) -> float:
        """Nothing to add."""
        return 0.0

    def after_step_(self, model: nn.Module, progress: float) -> dict[str, float]:
        """Nothing to do."""
        return {}

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Project the weights on their tables, if any."""
        if self.bit_map is None:
            return {}
        return attach.settle_(model, attach.make_grids(model, self.bit_map))
