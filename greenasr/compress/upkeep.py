"""Upkeep: what a network needs after every few steps, whatever it is trained towards.

The semi-orthogonal constraint of TDNN-F is one: `Upkeep(compressor, semi_orthogonal_step_)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from greenasr.roles import Compressor, Quantized

COUNTER = "upkeep_steps"


@dataclass
class Upkeep:
    """Another compressor, and ``keep_`` called with the model before its every ``every``-th hook."""

    compressor: Compressor
    keep_: Callable[[Any], None]
    every: int = 4

    def prepare_(self, model: nn.Module) -> None:
        """Prepare the other; count steps in a buffer, so that a resumed run keeps the beat."""
        self.compressor.prepare_(model)
        model.register_buffer(COUNTER, torch.zeros((), dtype=torch.int64))

    def penalty(self, model: nn.Module) -> Tensor | float:
        """The other's."""
        return self.compressor.penalty(model)

    def after_step_(self, model: nn.Module, progress: float) -> dict[str, float]:
        """Keep, then the other: its tables see the weights as they are."""
        steps = model.get_buffer(COUNTER).add_(1)
        if int(steps) % self.every == 0:
            self.keep_(model)
        return dict(self.compressor.after_step_(model, progress))

    def finish_(self, model: nn.Module) -> dict[str, Quantized]:
        """Take the counter off and finish the other."""
        del model._buffers[COUNTER]
        return self.compressor.finish_(model)
