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
    """Keys (N, H, D/H, P), values (N, H, P, D/H) of one layer: a value, though what follows it shares memory.

    The arrays have room behind the P tokens.  Of all that go on from one past the first takes the room
    behind it, by the entry that it makes in ``taken``, and the others get copies.
    """

    keys: Floats
    values: Floats
    length: int = 0
    taken: dict[int, object] = field(default_factory=dict)

    @classmethod
    def empty(cls, n: int, heads: int, room: int, width: int) -> Past:
        """Nothing said, with room for so many tokens."""
        room = -(-room // LANES) * LANES
        keys, values = (n, heads, width, room), (n, heads, room, width)
        return cls(np.empty(keys, np.float32), np.empty(values, np.float32))

    def reserved(self, n_tokens: int) -> Past:
        """This past with room for the tokens after it, which the caller writes behind the ones there are."""
        start, end, mine = self.length, self.length + n_tokens, object()
        n, heads, room, width = self.values.shape
        past = self
        if end > room or self.taken.setdefault(start, mine) is not mine:
            past = Past.empty(n, heads, max(2 * end, room), width)
            past.taken[start] = mine
            past.keys[..., :start] = self.keys[..., :start]
            past.values[:, :, :start] = self.values[:, :, :start]
        return Past(past.keys, past.values, end, past.taken)

    def with_next(self, keys: Floats, values: Floats) -> Past:
        """This past and the tokens after it, (N, H, T, D/H) each."""
        past = self.reserved(keys.shape[2])
        past.keys[..., self.length : past.length] = keys.swapaxes(2, 3)
        past.values[:, :, self.length : past.length] = values
        return past

    def of(self, hypotheses: Ids) -> Past:
        """The past of some hypotheses, by index: those that a search keeps."""
        return Past(self.keys[hypotheses], self.values[hypotheses], self.length)


State = tuple[Past, ...]


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
        self.embedding_norm = _norm(weights, "embedding_norm")
        self.layers = [_Layer(weights, f"layers.{i}", self.heads) for i in range(int(config["layers"]))]
        self.output = weights.linear("output")

    def hidden(self, ids: Ids, state: State | None = None) -> tuple[Floats, State]:
        """(N, T) -> hidden (N, T, D) and the state for the tokens that follow.

        ValueError when past and input together are longer than the model's context.
        """
        past = state[0].length if state else 0
        n, t = ids.shape
        if past + t > self.context:
            raise ValueError(
                f"{past + t} tokens exceed the model's context of {self.context}: cut the text into "
                "shorter windows."
            )
        x = layer_norm(self.embedding(ids) + self.position(np.arange(past, past + t)), *self.embedding_norm)
        rows, new = x.reshape(n * t, self.dim), []
        for i, layer in enumerate(self.layers):
            room = min(self.context, max(32, 2 * t))
            before = state[i] if state else Past.empty(n, self.heads, room, self.dim // self.heads)
            rows, after = layer(rows, n, before)
            new.append(after)
        return rows.reshape(n, t, self.dim), tuple(new)

    def logits(self, hidden: Floats) -> Floats:
        """(…, D) -> (…, V)."""
        return self.output(hidden)


class _Layer:
    """One attention block and one feed-forward block."""

    def __init__(self, weights: Weights, name: str, heads: int):
        self.heads = heads
        self.qkv = weights.linear(*(f"{name}.attention.{part}" for part in "qkv"))
        self.out = weights.linear(f"{name}.attention.out")
        self.attention_norm = _norm(weights, f"{name}.attention_norm")
        self.w1, self.w2 = weights.linear(f"{name}.w1"), weights.linear(f"{name}.w2")
        self.norm = _norm(weights, f"{name}.norm")
        self.block = None
        if (maps := in_kernels(self.qkv, self.out, self.w1, self.w2)) is not None:
            (qkv, out, w1, w2), exact = maps
            norms = (*self.attention_norm, *self.norm)
            self.block = native.transformer_block(qkv, out, w1, w2, norms, heads, exact)

    def __call__(self, x: Floats, n: int, past: Past) -> tuple[Floats, Past]:
        """(N T, D) -> (N T, D) and the past with these tokens."""
        t, dim = len(x) // n, x.shape[1]
        if self.block is not None:
            rows, after = np.array(x, np.float32), past.reserved(t)
            self.block(rows, n, after.keys, after.values, past.length)
            return rows, after
        parts = self.qkv(x).reshape(n, t, 3, self.heads, dim // self.heads).transpose(2, 0, 3, 1, 4)
        past = past.with_next(parts[1], parts[2])
        keys, values = past.keys[..., : past.length], past.values[:, :, : past.length]
        scores = parts[0] @ keys * np.float32((dim // self.heads) ** -0.5)
        if t > 1:
            future = np.triu(np.ones((t, past.length), bool), past.length - t + 1)
            scores[..., future] = -np.inf
        y = (softmax(scores) @ values).swapaxes(1, 2).reshape(n * t, dim)
        z = layer_norm(self.out(y) + x, *self.attention_norm)
        return layer_norm(self.w2(gelu(self.w1(z))) + z, *self.norm), past


def _norm(weights: Weights, name: str) -> tuple[Floats, Floats]:
    return weights.array(f"{name}.weight"), weights.array(f"{name}.bias")
