"""The factored time delay network of Povey et al. 2018, as Kaldi's swbd recipe tdnn_7q has it.

    y_t = A_1 x_{t-s} + A_2 x_t                 A = (A_1 A_2), b x 2D, semi-orthogonal
    z_t = B_1 y_t + B_2 y_{t+s} + c             B = (B_1 B_2), D x 2b
    x_t <- 0.66 x_t + dropout(norm(relu(z_t)))

s is the layer's time stride; with s = 0 each factor has one tap.  ``layers`` counts these; an input layer
(Kaldi's tdnn1: affine on spliced features and i-vector, ReLU, norm) comes before them, two heads behind:
the chain output, and cross-entropy to steady the training.  norm is batch norm without gain and offset.

Frames of all utterances lie one after another in one (M, D) matrix, M = sum of lengths: padding is neither
computed, nor normalised over, nor seen by a neighbour; what a tap would read outside its utterance is 0.
From the first layer on behind which all strides are multiples of ``subsampling`` only every third frame is
computed.  Shapes: N batch, T frames, F features, I i-vector, D width, b bottleneck, C pdfs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from greenasr.models.batch_norm import BatchNorm
from greenasr.models.dropout import SharedDropout
from greenasr.models.timeline import Timeline, pack, shift, splice, unpack
from greenasr.ops.semi_orthogonal import semi_orthogonal_step


@dataclass(frozen=True)
class TdnnfConfig:
    """Shape of the network; sizes and strides default to tdnn_7q with GREEN's bottleneck of 160.

    ``bottleneck`` is one number or one a layer; ``strides`` are in input frames, by default 1, 1, 1, 0, 3,
    3, …; ``splice`` frames on either side enter the input layer; ``front`` is the width of one more spliced
    layer before it, at the full rate (0: none); ``dropout`` as `SharedDropout`'s; ``xent`` False leaves
    the cross-entropy head out.
    """

    feat_dim: int
    n_pdfs: int
    ivector_dim: int = 0
    layers: int = 14
    dim: int = 1536
    bottleneck: int | tuple[int, ...] = 160
    strides: tuple[int, ...] = ()
    bypass: float = 0.66
    prefinal: int = 256
    splice: int = 1
    front: int = 0
    subsampling: int = 3
    dropout: float = 0.0
    xent: bool = True

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built; give every layer its stride and lists as tuples."""
        strides = self.strides or ((1, 1, 1, 0) + (3,) * self.layers)[: self.layers]
        object.__setattr__(self, "strides", tuple(strides))
        if not isinstance(self.bottleneck, int):
            object.__setattr__(self, "bottleneck", tuple(self.bottleneck))
        sizes = (self.feat_dim, self.n_pdfs, self.layers, self.dim, self.prefinal, self.subsampling)
        if min(*sizes, *self.bottlenecks) < 1:
            raise ValueError(f"every size of the network must be at least 1, got {asdict(self)}.")
        if min(self.ivector_dim, self.splice, self.front, *self.strides) < 0:
            raise ValueError(f"ivector_dim, splice, front and strides must be 0 or more, got {asdict(self)}.")
        for name, given in (("strides", self.strides), ("bottleneck", self.bottlenecks)):
            if len(given) != self.layers:
                raise ValueError(
                    f"{name} has {len(given)} entries for {self.layers} layers: give one a layer."
                )

    @property
    def bottlenecks(self) -> tuple[int, ...]:
        """The bottleneck of every layer."""
        return (self.bottleneck,) * self.layers if isinstance(self.bottleneck, int) else self.bottleneck

    @property
    def thinned_after(self) -> int:
        """How many TDNN-F layers come before the rate drops; the last of them computes the drop."""
        at = self.layers
        while at and self.strides[at - 1] % self.subsampling == 0:
            at -= 1
        return at

    def with_bottlenecks(self, dims: Mapping[str, int]) -> TdnnfConfig:
        """The same network with other bottlenecks: layer name, as in `Tdnnf.bottlenecks`, -> dimension."""
        names = [f"layers.{i}" for i in range(self.layers)]
        if unknown := sorted(set(dims) - set(names)):
            raise ValueError(
                f"no TDNN-F layer is called '{unknown[0]}': the names are {names[0]} … {names[-1]}."
            )
        pairs = zip(names, self.bottlenecks, strict=True)
        return replace(self, bottleneck=tuple(dims.get(name, old) for name, old in pairs))

    def to_json(self) -> dict[str, Any]:
        """A JSON value; ``TdnnfConfig(**value)`` reads it back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


class ReluLayer(nn.Module):
    """norm(relu(W x + c)), with dropout behind where asked: tdnn1 of Kaldi."""

    def __init__(self, inputs: int, dim: int, dropout: float):
        super().__init__()
        self.affine = nn.Linear(inputs, dim)
        self.norm = batch_norm(dim)
        self.dropout = SharedDropout(dropout)

    def forward(self, x: Tensor, time: Timeline) -> Tensor:
        """(M, inputs) -> (M, D)."""
        dropped: Tensor = self.dropout(self.norm(F.relu(self.affine(x))), time.lens)
        return dropped


class TdnnfLayer(nn.Module):
    """One factored layer; ``stride`` is in frames of the layer's own input.

    Factors lie tap by tap: ``linear.weight`` is (K b, D), ``affine.weight`` (D, K b), K taps.  The first
    factor is applied before its taps are shifted, so that shifting moves b numbers a frame, not D.
    """

    def __init__(self, dim: int, bottleneck: int, stride: int, bypass: float, dropout: float):
        super().__init__()
        self.stride, self.taps, self.bypass = stride, 2 if stride else 1, bypass
        self.linear = nn.Linear(dim, self.taps * bottleneck, bias=False)
        self.affine = nn.Linear(self.taps * bottleneck, dim)
        self.norm = batch_norm(dim)
        self.dropout = SharedDropout(dropout)
        nn.init.normal_(self.linear.weight, std=(self.taps * dim) ** -0.5)

    def forward(self, x: Tensor, time: Timeline, subsampling: int = 1) -> tuple[Tensor, Timeline]:
        """(M, D) -> (M', D): every frame, or every third of each utterance, with its timeline."""
        y = self.linear(x)
        if self.stride:
            past, now = y.chunk(2, 1)
            y = shift(past, -self.stride, time) + now
            y = torch.cat((y, shift(y, self.stride, time)), 1)
        if subsampling > 1:
            rows = time.every(subsampling)
            x, y, time = x[rows], y[rows], time.thinned(subsampling)
        h = self.norm(F.relu(self.affine(y)))
        return self.dropout(h, time.lens) + self.bypass * x, time


class Head(nn.Module):
    """Kaldi's prefinal-layer: norm(W_2 norm(relu(W_1 x + c))), narrow, wide, narrow."""

    def __init__(self, small: int, big: int):
        super().__init__()
        self.affine = nn.Linear(small, big)
        self.norm = batch_norm(big)
        self.linear = nn.Linear(big, small, bias=False)
        self.linear_norm = batch_norm(small)

    def forward(self, x: Tensor) -> Tensor:
        """(M, small) -> (M, small)."""
        y: Tensor = self.linear_norm(self.linear(self.norm(F.relu(self.affine(x)))))
        return y


class Tdnnf(nn.Module):
    """Features to the logits of pdfs at a third of the frame rate."""

    def __init__(self, config: TdnnfConfig):
        super().__init__()
        self.config = config
        spliced = (2 * config.splice + 1) * config.feat_dim
        self.front = ReluLayer(spliced, config.front, 0.0) if config.front else None
        inputs = (2 * config.splice + 1) * (config.front or config.feat_dim) + config.ivector_dim
        self.input = ReluLayer(inputs, config.dim, config.dropout)
        at, third = config.thinned_after, config.subsampling
        self.layers = nn.ModuleList(
            TdnnfLayer(config.dim, b, s if i < at else s // third, config.bypass, config.dropout)
            for i, (b, s) in enumerate(zip(config.bottlenecks, config.strides, strict=True))
        )
        self.prefinal = nn.Linear(config.dim, config.prefinal, bias=False)
        self.chain = Head(config.prefinal, config.dim)
        self.output = nn.Linear(config.prefinal, config.n_pdfs)
        self.xent = Head(config.prefinal, config.dim) if config.xent else None
        self.output_xent = nn.Linear(config.prefinal, config.n_pdfs) if config.xent else None
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if not name.startswith("layers.") or name.endswith("affine"):
                    nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for output in (self.output, self.output_xent):  # as Kaldi's output layers begin
            if output is not None:
                nn.init.zeros_(output.weight)

    def forward(
        self, feats: Tensor, feat_lens: Tensor | None = None, ivectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N, T, F), lengths (N,), i-vectors (N, I) or (N, T, I) -> chain logits (N, T', C), their lengths.

        T' = ceil(T / 3); logits behind an utterance's end are 0.  Raises ValueError for shapes that do not
        fit the network.
        """
        x, time = self.hidden(feats, feat_lens, ivectors)
        return unpack(self.output(self.chain(x)), time, self._frames(feats)), time.lens

    def with_xent(
        self, feats: Tensor, feat_lens: Tensor | None = None, ivectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, for training: chain logits, cross-entropy logits (both (N, T', C)) and lengths."""
        if self.xent is None or self.output_xent is None:
            raise ValueError("the network has no cross-entropy head: configure it with xent = true.")
        x, time = self.hidden(feats, feat_lens, ivectors)
        chain, xent = self.output(self.chain(x)), self.output_xent(self.xent(x))
        n = self._frames(feats)
        return unpack(chain, time, n), unpack(xent, time, n), time.lens

    def hidden(
        self, feats: Tensor, feat_lens: Tensor | None, ivectors: Tensor | None
    ) -> tuple[Tensor, Timeline]:
        """What both heads read: (M', prefinal), utterances one after another, and their timeline."""
        config = self.config
        x, time = pack(self._checked(feats, ivectors), feat_lens)
        if self.front is not None:
            x = self.front(splice(x, config.splice, time), time)
        at, third = config.thinned_after, config.subsampling
        first = third if at == 0 else 1  # the input layer itself may compute every third frame alone
        x = splice(x, config.splice, time, first)
        if ivectors is not None:
            extra = self._per_frame(ivectors, time)
            x = torch.cat((x, extra[time.every(first)]), 1)
        time = time.thinned(first) if first > 1 else time
        x = self.input(x, time)
        for i, layer in enumerate(self.layers):
            x, time = layer(x, time, third if i == at - 1 else 1)
        return self.prefinal(x), time

    def bottlenecks(self) -> dict[str, tuple[str, str, int]]:
        """Layer name -> names of its factors A (K b, D) and B (D, K b), both tap by tap, and b."""
        return {
            f"layers.{i}": (f"layers.{i}.linear.weight", f"layers.{i}.affine.weight", b)
            for i, b in enumerate(self.config.bottlenecks)
        }

    def hidden_units(self) -> list[str]:
        """Modules whose outputs are the hidden units, where LHUC belongs: input layer and TDNN-F layers."""
        return ["input.norm", *(f"layers.{i}.norm" for i in range(self.config.layers))]

    def shrunk(self, dims: Mapping[str, int]) -> Tdnnf:
        """A new network with other bottlenecks and random weights: layer name -> dimension."""
        return Tdnnf(self.config.with_bottlenecks(dims))

    def without_xent(self) -> Tdnnf:
        """A copy without the cross-entropy head, which only training needs."""
        copy = Tdnnf(replace(self.config, xent=False)).to(self.output.weight.device)
        own = copy.state_dict()
        copy.load_state_dict({name: value for name, value in self.state_dict().items() if name in own})
        return copy.train(self.training)

    def to_config(self) -> dict[str, Any]:
        """The configuration as plain data, for the packed file."""
        return self.config.to_json()

    def _frames(self, feats: Tensor) -> int:
        return -(-feats.shape[1] // self.config.subsampling)

    def _checked(self, feats: Tensor, ivectors: Tensor | None) -> Tensor:
        f, i = self.config.feat_dim, self.config.ivector_dim
        if feats.dim() != 3 or feats.shape[2] != f:
            raise ValueError(f"features are {tuple(feats.shape)}, the network reads (N, T, {f}).")
        if (0 if ivectors is None else ivectors.shape[-1]) != i:
            found = "none" if ivectors is None else tuple(ivectors.shape)
            raise ValueError(
                f"i-vectors are {found}, the network reads i-vectors of {i} dimensions (0: none)."
            )
        return feats

    @staticmethod
    def _per_frame(ivectors: Tensor, time: Timeline) -> Tensor:
        if ivectors.dim() == 3:
            return pack(ivectors, time.lens)[0]
        return ivectors.repeat_interleave(time.lens, 0, output_size=time.n_frames)


def batch_norm(dim: int) -> BatchNorm:
    """Zero mean and unit variance a unit, no gain and offset: the next affine map has them."""
    return BatchNorm(dim, eps=1e-3, affine=False)


@torch.no_grad()
def semi_orthogonal_step_(model: Tdnnf) -> None:
    """One step of every constrained factor: A of each TDNN-F layer, prefinal and the heads' linear maps.

    Kaldi does it every fourth minibatch on average.  A factor under compression is constrained as it is
    stored, in full precision.
    """
    for layer in model.layers:
        assert isinstance(layer, TdnnfLayer)
        weight = _stored(layer.linear)
        b = weight.shape[0] // layer.taps
        rows = weight.view(layer.taps, b, -1).transpose(0, 1).reshape(b, -1)  # (b, K D), as in the paper
        weight.copy_(semi_orthogonal_step(rows).view(b, layer.taps, -1).transpose(0, 1).reshape(weight.shape))
    for module in (model.prefinal, model.chain.linear, None if model.xent is None else model.xent.linear):
        if module is not None:
            weight = _stored(module)
            weight.copy_(semi_orthogonal_step(weight))


def _stored(module: nn.Module) -> Tensor:
    own = dict(module.named_parameters())
    return own["parametrizations.weight.original"] if "weight" not in own else own["weight"]
