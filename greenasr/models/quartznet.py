"""QuartzNet-NxMxW of Kriman et al. 2020, arXiv 1910.10261, Table 1: time-channel separable, for CTC.

    C1   33 taps, every second frame, W        N residual blocks of M sub-blocks
    C2   87 taps, dilation 2, 2W               C3   1x1, 4W            C4   1x1 with bias, the labels

The published five groups of blocks have 33, 39, 51, 63, 75 taps and W, W, 2W, 2W, 2W channels, W = 256;
N = 5, 10 and 15 repeat each group once, twice and three times, other N take the groups in that proportion.

Shapes: N batch, T feature frames, F features, T' = ceil(T / 2) output frames, C classes (blank and labels).
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

KERNELS = (33, 39, 51, 63, 75)
WIDTHS = (1, 1, 2, 2, 2)
ENDS = (33, 87)


@dataclass(frozen=True)
class QuartzNetConfig:
    """Shape of the network; ``vocab`` counts the blank, which is class 0.

    ``width`` is W of NxMxW; ``kernels`` and ``widths`` give every block its own taps and channels instead of
    the published ones, ``epilogue`` is the channels of C2 and C3 (default 2W and 4W), ``ends`` the taps of C1
    and C2, ``stride`` the frames in one output frame.  C2 alone hears 173 output frames: utterances of a few
    seconds, of which there are not many, want fewer.  ``skips`` are trained, identity, ternary or none, see
    `models.separable`; ``ternary`` chooses the residual blocks whose 1x1 convolutions are generated.
    """

    feat_dim: int
    vocab: int
    blocks: int = 15
    repeat: int = 5
    width: int = 256
    kernels: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    epilogue: tuple[int, ...] = ()
    ends: tuple[int, ...] = ENDS
    stride: int = 2
    dropout: float = 0.0
    skips: str = "trained"
    ternary: TernaryConfig | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built; give every block its taps and channels."""
        n = self.blocks
        if min(self.feat_dim, n, self.repeat, self.width, self.stride) < 1 or self.vocab < 2:
            raise ValueError(f"every size of the network must be at least 1, vocab 2, got {asdict(self)}.")
        groups = [i * len(KERNELS) // n for i in range(n)]
        kernels = self.kernels or [KERNELS[g] for g in groups]
        widths = self.widths or [self.width * WIDTHS[g] for g in groups]
        object.__setattr__(self, "kernels", named_per_block("kernels", kernels, n))
        object.__setattr__(self, "widths", named_per_block("widths", widths, n))
        object.__setattr__(self, "epilogue", tuple(self.epilogue or (2 * self.width, 4 * self.width)))
        object.__setattr__(self, "ternary", ternary_config(self.ternary))
        if len(self.epilogue) != 2 or min(*self.widths, *self.epilogue) < 1:
            raise ValueError(f"widths and the two of the epilogue must be at least 1, got {asdict(self)}.")
        object.__setattr__(self, "ends", tuple(self.ends))
        if len(self.ends) != 2:
            raise ValueError(f"ends are {self.ends}: give the taps of the first and of the last layer.")
        if odd := [k for k in (*self.kernels, *self.ends) if k < 1 or k % 2 == 0]:
            raise ValueError(f"a kernel has {odd[0]} taps: give odd numbers, which have a middle.")
        check_skips(self.skips, self.ternary, n)

    def to_json(self) -> dict[str, Any]:
        """A JSON value; ``QuartzNetConfig(**value)`` reads it back."""
        return plain(self)


class QuartzNet(nn.Module):
    """Features in, one distribution over blank and labels every ``stride`` frames out."""

    def __init__(self, config: QuartzNetConfig):
        super().__init__()
        self.config = c = config
        self.prologue = Block(c.feat_dim, c.width, c.ends[0], stride=c.stride, dropout=c.dropout)
        self.blocks = residual_blocks(c.width, c.widths, c.kernels, c.repeat, c.skips, c.dropout, c.ternary)
        wide, wider = c.epilogue
        self.epilogue = nn.ModuleList(
            (
                Block(c.widths[-1], wide, c.ends[1], dilation=2, dropout=c.dropout),
                Block(wide, wider, 1, depth=False, dropout=c.dropout),
            )
        )
        self.output = nn.Linear(wider, c.vocab)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, feats: Tensor, feat_lens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, T, F), lengths (N,) -> logits (N, T', C), not normalised, and their lengths (N,).

        Logits behind an utterance's end are those of no sound at all; nothing should read them.
        Raises ValueError for features of another width and lengths outside 1 … T.
        """
        x, frames = channels_first(feats, feat_lens, self.config.feat_dim)
        for block in (self.prologue, *self.blocks, *self.epilogue):
            x, frames = block(x, frames)
        logits = self.output(x.flatten(1).t())
        return logits.view(*x.shape[1:], -1), frames.lens

    def to_config(self) -> dict[str, Any]:
        """The configuration as plain data, for the packed file."""
        return self.config.to_json()
