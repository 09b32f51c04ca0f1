"""MatchboxNet-NxMxW of Majumdar and Ginsburg 2020, arXiv 2004.08531, Table 1: one word of a second of sound.

    C1   11 taps, 128        N residual blocks of M sub-blocks, W channels, 13, 15, 17, … taps
    C2   29 taps, dilation 2, 128        C3   1x1, 128        C4   mean over time, then the classes

The paper's table ends at three blocks.  Each further one has two taps more: MatchboxNet-6x2x64 then has the
paper's 140k parameters (35 classes).  As in NeMo's own configuration the mean comes before the last 1x1,
which is the same function.

Shapes: N batch, T frames, F features, C classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from greenasr.models.separable import (
    Block,
    channels_first,
    check_skips,
    named_per_block,
    plain,
    residual_blocks,
)
from greenasr.models.ternary import TernaryConfig, ternary_config


@dataclass(frozen=True)
class MatchboxNetConfig:
    """Shape of the network; ``edge`` is the width of prologue and epilogue, W of NxMxW the blocks'.

    ``kernels`` gives every block its own taps.  ``skips`` are trained, identity, ternary or none, see
    `models.separable`; ``ternary`` chooses the residual blocks whose 1x1 convolutions are generated.
    """

    feat_dim: int
    classes: int
    blocks: int = 3
    repeat: int = 1
    width: int = 64
    edge: int = 128
    kernels: tuple[int, ...] = ()
    dropout: float = 0.0
    skips: str = "trained"
    ternary: TernaryConfig | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built; give every block its taps."""
        if min(self.feat_dim, self.classes, self.blocks, self.repeat, self.width, self.edge) < 1:
            raise ValueError(f"every size of the network must be at least 1, got {asdict(self)}.")
        kernels = self.kernels or [13 + 2 * i for i in range(self.blocks)]
        object.__setattr__(self, "kernels", named_per_block("kernels", kernels, self.blocks))
        object.__setattr__(self, "ternary", ternary_config(self.ternary))
        if odd := [k for k in self.kernels if k < 1 or k % 2 == 0]:
            raise ValueError(f"a kernel has {odd[0]} taps: give odd numbers, which have a middle.")
        check_skips(self.skips, self.ternary, self.blocks)

    def to_json(self) -> dict[str, Any]:
        """A JSON value; ``MatchboxNetConfig(**value)`` reads it back."""
        return plain(self)


class MatchboxNet(nn.Module):
    """Features of a whole clip in, one logit a class out."""

    def __init__(self, config: MatchboxNetConfig):
        super().__init__()
        self.config = c = config
        self.prologue = Block(c.feat_dim, c.edge, 11, dropout=c.dropout)
        self.blocks = residual_blocks(
            c.edge, [c.width] * c.blocks, c.kernels, c.repeat, c.skips, c.dropout, c.ternary
        )
        self.epilogue = nn.ModuleList(
            (
                Block(c.width, c.edge, 29, dilation=2, dropout=c.dropout),
                Block(c.edge, c.edge, 1, depth=False, dropout=c.dropout),
            )
        )
        self.output = nn.Linear(c.edge, c.classes)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, feats: Tensor, feat_lens: Tensor | None = None) -> Tensor:
        """(N, T, F), lengths (N,) -> logits (N, C), not normalised; the mean is over the true frames.

        Raises ValueError for features of another width and lengths outside 1 … T.
        """
        x, frames = channels_first(feats, feat_lens, self.config.feat_dim)
        for block in (self.prologue, *self.blocks, *self.epilogue):
            x, frames = block(x, frames)
        logits: Tensor = self.output((x.sum(2) / frames.lens).t())
        return logits

    def to_config(self) -> dict[str, Any]:
        """The configuration as plain data, for the packed file."""
        return self.config.to_json()
