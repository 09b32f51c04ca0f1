"""The Transformer language model without torch, token by token or many at once (`models.transformer_lm`).

    x = LayerNorm(E[id] + P[position])
    z = LayerNorm(O softmax(q Kᵀ / √d) V + x)                 K, V: of this token and all before it
    x = LayerNorm(W₂ gelu(W₁ z + b₁) + b₂ + z)

Xu et al. 2021 (arXiv 2112.11438), eq. 1–6.  Shapes: N hypotheses, T tokens, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.runtime.kernels import native
from greenasr.runtime.linear import in_kernels
from greenasr.runtime.pointwise import Floats, gelu, layer_norm, softmax
from greenasr.runtime.weights import Weights

Ids = NDArray[np.integer[Any]]
LANES = 16  # tokens whose keys the kernels read at once


@dataclass(frozen=True, eq=False)
class Past:
    """Keys (L, N, H, D/H, P), values (L, N, H, P, D/H) of L layers: a value, though steps share memory.

    The arrays have room behind the P tokens.  Of all that go on from one past the first takes the room
    behind it, by the entry that it makes in ``taken``, and the others get copies.
    """

    keys: Floats
    values: Floats
    length: int = 0
    taken: dict[int, object] = field(default_factory=dict)

    @classmethod
    def empty(cls, layers: int, n: int, heads: int, room: int, width: int) -> Past:
        """Nothing said, with room for so many tokens."""
        room = -(-room // LANES) * LANES
        keys, values = (layers, n, heads, width, room), (layers, n, heads, room, width)
        return cls(np.empty(keys, np.float32), np.empty(values, np.float32))

    def reserved(self, n_tokens: int) -> Past:
        """This past with room for the tokens after it, which the caller writes behind the ones there are."""
        start, end, mine = self.length, self.length + n_tokens, object()
        layers, n, heads, room, width = self.values.shape
        past = self
        if end > room or self.taken.setdefault(start, mine) is not mine:
            past = Past.empty(layers, n, heads, max(2 * end, room), width)
            past.taken[start] = mine
            past.keys[..., :start] = self.keys[..., :start]
            past.values[..., :start, :] = self.values[..., :start, :]
        return Past(past.keys, past.values, end, past.taken)

    def of(self, hypotheses: Ids) -> Past:
        """The past of some hypotheses, by index: those that a search keeps."""
        return Past(self.keys.take(hypotheses, 1), self.values.take(hypotheses, 1), self.length)


class TransformerLm:
    """Token ids to hidden vectors; `logits` turns those into scores of the vocabulary."""

    def __init__(self, config: Mapping[str, Any], weights: Weights):
        self.vocab, self.dim = int(config["vocab"]), int(config["dim"])
        self.heads, self.context = int(config["heads"]), int(config["context"])
        weights.check("embedding", self.vocab, self.dim)
        weights.check("position", self.context, self.dim)
        if self.heads < 1 or self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.dim}: pack the model again.")
        self.embedding, self.position = weights.rows("embedding.weight"), weights.rows("position.weight")
        self.embedding_norm = _Norm(weights, "embedding_norm")
        self.layers = [_Layer(weights, f"layers.{i}", self.heads) for i in range(int(config["layers"]))]
        blocks = [layer.block for layer in self.layers if layer.block is not None]
        self.blocks = blocks if len(blocks) == len(self.layers) else None
        self.output = weights.linear("output")

    def hidden(self, ids: Ids, state: Past | None = None) -> tuple[Floats, Past]:
        """(N, T) -> hidden (N, T, D) and the state for the tokens that follow.

        ValueError when past and input together are longer than the model's context.
        """
        n, t = ids.shape
        past = state.length if state else 0
        if past + t > self.context:
            raise ValueError(
                f"{past + t} tokens exceed the model's context of {self.context}: cut the text into "
                "shorter windows."
            )
        if state is None:
            room = min(self.context, max(32, 2 * t))
            state = Past.empty(len(self.layers), n, self.heads, room, self.dim // self.heads)
        after = state.reserved(t)
        x = self.embedding(ids) + self.position(np.arange(past, past + t))
        rows = self.embedding_norm(x.reshape(n * t, self.dim))
        if self.blocks is not None:
            native.transformer(self.blocks, rows, n, after.keys, after.values, past)
        else:
            for layer, keys, values in zip(self.layers, after.keys, after.values, strict=True):
                rows = layer(rows, n, keys, values, past)
        return rows.reshape(n, t, self.dim), after

    def logits(self, hidden: Floats) -> Floats:
        """(…, D) -> (…, V)."""
        return self.output(hidden)


class _Layer:
    """One attention block and one feed-forward block; ``block`` is the kernels' where all maps are theirs."""

    def __init__(self, weights: Weights, name: str, heads: int):
        self.heads = heads
        self.qkv = weights.linear(*(f"{name}.attention.{part}" for part in "qkv"))
        self.out = weights.linear(f"{name}.attention.out")
        self.attention_norm = _Norm(weights, f"{name}.attention_norm")
        self.w1, self.w2 = weights.linear(f"{name}.w1"), weights.linear(f"{name}.w2")
        self.norm = _Norm(weights, f"{name}.norm")
        self.block = None
        if (maps := in_kernels(self.qkv, self.out, self.w1, self.w2)) is not None:
            qkv, out, w1, w2 = maps
            norms = (*self.attention_norm.vectors, *self.norm.vectors)
            self.block = native.transformer_block(qkv, out, w1, w2, norms, heads)

    def __call__(self, x: Floats, n: int, keys: Floats, values: Floats, past: int) -> Floats:
        """(N T, D) -> (N T, D); these tokens' keys and values are written behind those of the past."""
        t, dim = len(x) // n, x.shape[1]
        end = past + t
        parts = self.qkv(x).reshape(n, t, 3, self.heads, dim // self.heads).transpose(2, 0, 3, 1, 4)
        keys[..., past:end], values[..., past:end, :] = parts[1].swapaxes(2, 3), parts[2]
        scores = parts[0] @ keys[..., :end] * np.float32((dim // self.heads) ** -0.5)
        if t > 1:
            future = np.triu(np.ones((t, end), bool), end - t + 1)
            scores[..., future] = -np.inf
        y = (softmax(scores) @ values[..., :end, :]).swapaxes(1, 2).reshape(n * t, dim)
        z = self.attention_norm(self.out(y) + x)
        return self.norm(self.w2(gelu(self.w1(z))) + z)


class _Norm:
    """A layer norm of rows, (M, D) -> (M, D)."""

    def __init__(self, weights: Weights, name: str):
        self.vectors = weights.array(f"{name}.weight"), weights.array(f"{name}.bias")

    def __call__(self, x: Floats) -> Floats:
        if native.available():
            return native.layer_norm(x, *self.vectors)
        return layer_norm(x, *self.vectors)
