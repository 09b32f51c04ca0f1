"""The LSTM language model, beside the Transformer and with its interface.

    i, f, g, o = W x_t + b + R h_{t-1}             input, forget, cell and output gate, (4D,)
    c_t        = σ(f) c_{t-1} + σ(i) tanh(g)
    h_t        = σ(o) tanh(c_t)

Hochreiter and Schmidhuber 1997 with forget gates; dropout between layers alone (Zaremba et al. 2014,
arXiv 1409.2329).  Plain linear layers rather than `nn.LSTM`, so that both matrices of a layer are
weights like any other: W x of all tokens is one product, R h is one a token.  Shapes: N batch, T
tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from greenasr.models.dropout import PooledDropout

Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LSTMConfig:
    """Shape of the network; embedding, state and output are all ``dim`` wide."""

    vocab: int
    layers: int = 2
    dim: int = 512
    dropout: float = 0.3
    tied: bool = True

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built."""
        if min(self.vocab, self.layers, self.dim) < 1:
            raise ValueError(f"every size of the network must be at least 1, got {asdict(self)}.")


class LSTMLayer(nn.Module):
    """One layer; the gates lie in the order of `nn.LSTM`."""

    def __init__(self, dim: int):
        super().__init__()
        self.input = nn.Linear(dim, 4 * dim)
        self.recurrent = nn.Linear(dim, 4 * dim, bias=False)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N, T, D) and the past's h and c, (N, D) each -> (N, T, D) and both after the last token."""
        from_input = self.input(x)
        h, c = past if past is not None else (x.new_zeros(x.shape[0], x.shape[2]),) * 2
        outputs = []
        for gates in from_input.unbind(1):
            i, f, g, o = (gates + self.recurrent(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, 1), (h, c)


class LSTMLM(nn.Module):
    """Token ids to hidden vectors; ``output`` turns those into logits."""

    def __init__(self, config: LSTMConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(LSTMLayer(config.dim) for _ in range(config.layers))
        self.dropout = PooledDropout(config.dropout)
        self.output = nn.Linear(config.dim, config.vocab)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.dim**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in self.layers:  # a forget gate that begins open lets the gradient through
            assert isinstance(layer, LSTMLayer)
            nn.init.ones_(layer.input.bias[config.dim : 2 * config.dim])
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)
        if config.tied:
            self.output.weight = self.embedding.weight

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """(N, T) -> hidden (N, T, D) and the state for the tokens that follow."""
        x = self.dropout(self.embedding(ids))
        new: Cache = []
        for i, layer in enumerate(self.layers):
            x, state = layer(x, cache[i] if cache else None)
            x = self.dropout(x)
            new.append(state)
        return x, new

    def to_config(self) -> dict[str, Any]:
        """The configuration as plain data, for the packed file."""
        return asdict(self.config)
