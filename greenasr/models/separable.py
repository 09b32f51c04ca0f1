"""What QuartzNet and MatchboxNet are made of: time-channel separable convolutions in residual blocks.

    sub-block   y = norm(P D x)                 D depthwise over time (K taps a channel), P 1x1 over channels
    block       x <- dropout(relu(sub(… dropout(relu(sub(x))) …) + skip(x)))

Kriman et al. 2020 (arXiv 1910.10261) and Majumdar and Ginsburg 2020 (arXiv 2004.08531), with the details of
NeMo's implementation: batch norm with ε = 1e-3, no biases before it, activation and dropout behind the sum.
The skip is ``trained`` (1x1 and norm, as published), ``ternary`` (the same with generated weights),
``identity`` (the first channels as they are: an identity matrix, cut or filled with zeros where widths
differ, and no norm) or ``none``.

Padded frames are 0 before every convolution, so an utterance's outputs do not depend on its batch, and they
are not counted in the statistics of batch norm (in NeMo they are).

Shapes: C or O channels, N batch, T frames, K taps.  Activations are (C, N, T): the 1x1 convolution is then
one product of matrices, W @ (C, N T), as fast as in any layout, and `ops.depthwise` is three times as fast as
torch's convolution.  A layer that a forward hook listens to runs as the torch module that it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from greenasr.models.dropout import PooledDropout
from greenasr.models.ternary import Ternary, TernaryConfig
from greenasr.ops import crew
from greenasr.ops.batch_norm import affine, batch_norm, masked_relu
from greenasr.ops.depthwise import depthwise
from greenasr.ops.signs import Signs

SKIPS = ("trained", "identity", "ternary", "none")


def plain(config: Any) -> dict[str, Any]:
    """A network's settings as a JSON value: lists for tuples, a table for the ternary ones."""
    value = asdict(config)
    for table in (value, value["ternary"] or {}):
        table.update({name: list(v) for name, v in table.items() if isinstance(v, tuple)})
    return value


@dataclass(frozen=True, eq=False)
class Frames:
    """Lengths (N,), their sum, and which frames are no padding, (N, T), or None where all are true."""

    lens: Tensor
    count: int
    mask: Tensor | None

    @classmethod
    def of(cls, lens: Tensor, n_frames: int, dtype: torch.dtype) -> Frames:
        """The frames of utterances of these lengths, padded to ``n_frames``."""
        count = int(lens.sum())
        if count == len(lens) * n_frames:
            return cls(lens, count, None)
        mask = torch.arange(n_frames, device=lens.device) < lens[:, None]
        return cls(lens, count, mask.to(dtype))

    @cached_property
    def of_all(self) -> int:
        """The sum over all processes that train together."""
        return crew.count(self.count)

    def clear(self, x: Tensor) -> Tensor:
        """(C, N, T) with padding set to 0."""
        return x if self.mask is None else x * self.mask


class Separable(nn.Module):
    """norm(P D x): one sub-block without its activation; ``depth`` False leaves D out, ``signs`` are P's."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        depth: bool = True,
        signs: Signs | None = None,
    ):
        super().__init__()
        self.depthwise = (
            nn.Conv1d(
                inputs,
                inputs,
                kernel,
                stride,
                dilation * (kernel - 1) // 2,
                dilation,
                groups=inputs,
                bias=False,
            )
            if depth
            else None
        )
        self.pointwise = nn.Linear(inputs, outputs, bias=False) if signs is None else Ternary(signs)
        self.norm = nn.BatchNorm1d(outputs, eps=1e-3, momentum=0.1)
        if isinstance(self.pointwise, nn.Linear):
            nn.init.xavier_uniform_(self.pointwise.weight)
        if self.depthwise is not None:
            nn.init.xavier_uniform_(self.depthwise.weight)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """(C, N, T), padding 0 -> (O, N, T'), padding anything; ``frames`` are those of the output."""
        if self.depthwise is not None:
            x = frames.clear(_over_time(self.depthwise, x))  # it has smeared the ends into the padding
        return normalize(self.norm, _over_channels(self.pointwise, x), frames)


class Block(nn.Module):
    """``repeat`` sub-blocks and a skip around them; without one for prologue and epilogue.

    ``ternary`` generates every 1x1 convolution but a trained skip, from layer number ``first`` on.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        repeat: int = 1,
        stride: int = 1,
        dilation: int = 1,
        depth: bool = True,
        skip: str = "none",
        dropout: float = 0.0,
        ternary: TernaryConfig | None = None,
        first: int = 0,
    ):
        super().__init__()
        widths = (inputs, *(outputs,) * (repeat - 1))
        signs = [
            None if ternary is None else ternary.signs(first + i, outputs, w) for i, w in enumerate(widths)
        ]
        self.stride = stride
        self.subs = nn.ModuleList(
            Separable(width, outputs, kernel, stride if i == 0 else 1, dilation, depth, signs[i])
            for i, width in enumerate(widths)
        )
        self.skip_kind = skip
        self.skip = None
        if skip in ("trained", "ternary"):
            generated = ternary is not None and skip == "ternary"
            matrix = ternary.signs(first + repeat, outputs, inputs) if ternary and generated else None
            self.skip = Separable(inputs, outputs, 1, depth=False, signs=matrix)
        self.dropout = PooledDropout(dropout)

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Frames]:
        """(C, N, T) -> (O, N, ceil(T / stride)) and its frames; padding is 0 in both."""
        if self.stride > 1:
            shorter = -(-x.shape[2] // self.stride)
            frames = Frames.of(-(-frames.lens // self.stride), shorter, x.dtype)
        y = x
        last = len(self.subs) - 1
        for i, sub in enumerate(self.subs):
            y = sub(y, frames)
            if i < last:
                y = self.dropout(masked_relu(y, frames.mask))
        if self.skip is not None:
            y = y + self.skip(x, frames)
        elif self.skip_kind == "identity":
            y = y + _resized(x, y.shape[0])
        return self.dropout(masked_relu(y, frames.mask)), frames


def normalize(norm: nn.BatchNorm1d, x: Tensor, frames: Frames) -> Tensor:
    """Batch norm over the true frames of (C, N, T), whose padding is 0 on the way in and anything behind.

    The module's running statistics move as torch's own forward moves them.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None and norm.momentum is not None
    flat = x.flatten(1)
    if not norm.training:
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return affine(flat, gain, norm.bias - norm.running_mean * gain).view_as(x)
    n = frames.of_all
    y, mean, var = batch_norm(flat, norm.weight, norm.bias, frames.count, norm.eps, n)
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * (n / max(1, n - 1)), norm.momentum)
        norm.num_batches_tracked += 1
    return y.view_as(x)


def channels_first(feats: Tensor, feat_lens: Tensor | None, feat_dim: int) -> tuple[Tensor, Frames]:
    """(N, T, F) and lengths (N,), None for T each, -> (F, N, T) with padding 0, and its frames.

    Raises ValueError for features of another width and lengths outside 1 … T.
    """
    if feats.dim() != 3 or feats.shape[2] != feat_dim:
        raise ValueError(f"features are {tuple(feats.shape)}, the network reads (N, T, {feat_dim}).")
    n, t = feats.shape[:2]
    if feat_lens is None:
        feat_lens = torch.full((n,), t)
    if feat_lens.shape != (n,) or (n and not 1 <= int(feat_lens.min()) <= int(feat_lens.max()) <= t):
        raise ValueError(f"lengths {feat_lens.tolist()} do not fit {n} utterances padded to {t} frames.")
    frames = Frames.of(feat_lens.to(feats.device, torch.int64), t, feats.dtype)
    return frames.clear(feats.permute(2, 0, 1).contiguous()), frames


def residual_blocks(
    inputs: int,
    widths: Sequence[int],
    kernels: Sequence[int],
    repeat: int,
    skips: str,
    dropout: float,
    ternary: TernaryConfig | None,
) -> nn.ModuleList:
    """The residual part of a network; sub-block j of block i has layer number i (repeat + 1) + j, skips last.

    A ternary skip around a block that is not ternary is a trained one.
    """
    blocks = []
    for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        own = ternary if ternary is not None and ternary.covers(i) else None
        first = i * (repeat + 1)
        blocks.append(
            Block(inputs, width, kernel, repeat, skip=skips, dropout=dropout, ternary=own, first=first)
        )
        inputs = width
    return nn.ModuleList(blocks)


def named_per_block(name: str, given: int | Sequence[int], blocks: int) -> tuple[int, ...]:
    """One value a block from one for all or a list; ValueError for a list of another length."""
    values = (given,) * blocks if isinstance(given, int) else tuple(given)
    if len(values) != blocks:
        raise ValueError(f"{name} has {len(values)} entries for {blocks} blocks: give one a block.")
    return values


def check_skips(skips: str, ternary: TernaryConfig | None, blocks: int) -> None:
    """Refuse kinds of skips that do not exist or cannot be made, and ternary blocks that the net lacks."""
    if skips not in SKIPS:
        raise ValueError(f"skips are '{skips}', they should be {', '.join(SKIPS[:-1])} or {SKIPS[-1]}.")
    if skips == "ternary" and ternary is None:
        raise ValueError("ternary skips need a seed and a threshold: give the network a ternary table.")
    chosen: tuple[int, ...] = () if ternary is None or ternary.blocks is None else ternary.blocks
    if odd := [i for i in chosen if not 0 <= i < blocks]:
        raise ValueError(
            f"ternary names block {odd[0]} of a network of {blocks}: they count from 0 to {blocks - 1}."
        )


def _over_time(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A depthwise convolution of (C, N, T)."""
    with torch.autocast(x.device.type, enabled=False):  # mixed precision is for the 1x1 convolutions
        if conv._forward_hooks or conv.stride[0] > 1 or x.device.type != "cpu":
            out: Tensor = conv(x.transpose(0, 1)).transpose(0, 1)
            return out
        return depthwise(x, conv.weight[:, 0], conv.dilation[0])


def _over_channels(linear: nn.Module, x: Tensor) -> Tensor:
    """A 1x1 convolution, trained or generated, (C, N, T) -> (O, N, T)."""
    flat = x.flatten(1)
    if linear._forward_hooks:
        out: Tensor = linear(flat.t()).t()
    else:
        weight = linear.weight
        assert isinstance(weight, Tensor)
        out = weight.to(flat.dtype) @ flat
    return out.to(x.dtype).unflatten(1, x.shape[1:])


def _resized(x: Tensor, channels: int) -> Tensor:
    """The first ``channels`` of (C, N, T), with channels of zeros behind where there are fewer."""
    missing = channels - len(x)
    return x[:channels] if missing <= 0 else F.pad(x, (0, 0, 0, 0, 0, missing))
