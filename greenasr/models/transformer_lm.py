"""The Transformer language model of Xu et al. 2021 (arXiv 2112.11438), eq. 1–6.

    q, k, v = Q x, K x, V x                                             (1)
    h       = (h, (k, v))            the keys and values of the past     (2)
    z       = LayerNorm(W_h SelfAttention(h, q) + x)                 (3, 4)
    x       = LayerNorm(W_2 GELU(W_1 z + b_1) + b_2 + z)             (5, 6)

Post-norm, learned positions, the output layer tied to the embedding or not.  Attention is written
out as two batched products: at these lengths it trains faster on a CPU than the fused kernel, and
it can be differentiated twice.  Shapes: N batch, T tokens, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from greenasr.models.dropout import PooledDropout

Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of the network; ``context`` is the longest input in tokens."""

    vocab: int
    layers: int = 6
    dim: int = 512
    heads: int = 8
    hidden: int = 2048
    context: int = 128
    dropout: float = 0.1
    tied: bool = True

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built."""
        if min(self.vocab, self.layers, self.dim, self.heads, self.hidden, self.context) < 1:
            raise ValueError(f"every size of the network must be at least 1, got {asdict(self)}.")
        if self.dim % self.heads:
            raise ValueError(
                f"dim {self.dim} is not a multiple of heads {self.heads}: choose heads that divide it."
            )


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention to the past, eq. 1–3 without the residual."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.dim, config.dim, bias=False)
        self.k = nn.Linear(config.dim, config.dim, bias=False)
        self.v = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N, T, D) and the past's keys and values (N, H, P, D/H) -> (N, T, D) and both, extended."""
        n, t, d = x.shape
        q, k, v = (f(x).view(n, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        if past is not None:
            k, v = torch.cat((past[0].to(k.dtype), k), 2), torch.cat((past[1].to(v.dtype), v), 2)
        s = k.shape[2]
        future = torch.full((t, s), -torch.inf, dtype=q.dtype, device=x.device).triu(s - t + 1)
        flat_q, flat_k, flat_v = (a.reshape(n * self.heads, -1, d // self.heads) for a in (q, k, v))
        scores = torch.baddbmm(future, flat_q, flat_k.transpose(1, 2), alpha=(d // self.heads) ** -0.5)
        y = torch.bmm(scores.softmax(-1, dtype=q.dtype), flat_v)
        return self.out(y.view(n, self.heads, t, -1).transpose(1, 2).reshape(n, t, d)), (k, v)


class TransformerLayer(nn.Module):
    """One attention block and one feed-forward block, each closed by a LayerNorm."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.w1 = nn.Linear(config.dim, config.hidden)
        self.w2 = nn.Linear(config.hidden, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = PooledDropout(config.dropout)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N, T, D) -> (N, T, D), with the keys and values that the next step needs."""
        y, past = self.attention(x, past)
        z = self.attention_norm(self.dropout(y) + x)
        s = self.w2(self.dropout(F.gelu(self.w1(z))))
        return self.norm(self.dropout(s) + z), past


class TransformerLM(nn.Module):
    """Token ids to hidden vectors; ``output`` turns those into logits."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.dim)
        self.position = nn.Embedding(config.context, config.dim)
        self.embedding_norm = nn.LayerNorm(config.dim)
        self.dropout = PooledDropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.output = nn.Linear(config.dim, config.vocab)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.dim**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in self.layers:  # a post-norm stack trains when its branches start small
            assert isinstance(layer, TransformerLayer)
            nn.init.normal_(layer.attention.out.weight, std=config.dim**-0.5 / (2 * config.layers) ** 0.5)
            nn.init.normal_(layer.w2.weight, std=config.hidden**-0.5 / (2 * config.layers) ** 0.5)
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)
        nn.init.normal_(self.position.weight, std=0.5 * config.dim**-0.5)
        if config.tied:
            self.output.weight = self.embedding.weight

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """(N, T) -> hidden (N, T, D) and the cache for the tokens that follow.

        Raises ValueError when past and input together are longer than ``config.context``.
        """
        past = 0 if not cache else cache[0][0].shape[2]
        if past + ids.shape[1] > self.config.context:
            raise ValueError(
                f"{past + ids.shape[1]} tokens exceed the model's context of {self.config.context}: "
                "cut the text into shorter windows or train with a larger context."
            )
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)
        x = self.dropout(self.embedding_norm(self.embedding(ids) + self.position(positions)))
        new: Cache = []
        for i, layer in enumerate(self.layers):
            x, kv = layer(x, cache[i] if cache else None)
            new.append(kv)
        return x, new

    def to_config(self) -> dict[str, Any]:
        """The configuration as plain data, for the packed file."""
        return asdict(self.config)
