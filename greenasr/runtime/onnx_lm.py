"""Language models as ONNX: ids and what went before in, logits and what the next tokens need out.

    transformer   ids (N, T), past (2 L, N, H, P, D/H)   -> logits (N, T, V), present (2 L, N, H, P + T, D/H)
    lstm          ids (N, T), past (2 L, N, D)           -> logits (N, T, V), present (2 L, N, D)

``past`` holds keys and values of layer 0, of layer 1, …, or h and c; at a text's beginning P = 0, or zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from greenasr.runtime.onnx_graph import Graph, model, value
from greenasr.runtime.onnx_lstm import lstm_layer
from greenasr.runtime.weights import Weights


def transformer_lm(
    config: Mapping[str, Any], weights: Weights, metadata: Mapping[str, Any]
) -> onnx.ModelProto:
    """`runtime.transformer_lm` as a graph."""
    g, layers, heads, dim = (
        Graph(style=weights.style),
        int(config["layers"]),
        int(config["heads"]),
        int(config["dim"]),
    )
    length, before = g.size("ids", 1), g.size("past", 3)
    first = g.op("Squeeze", before, g.const([0]))
    end = g.op("Add", first, g.op("Squeeze", length, g.const([0])))
    places = g.op("Range", first, end, g.const(1))
    x = g.op("Add", g.rows("ids", weights, "embedding.weight"), g.rows(places, weights, "position.weight"))
    x = g.layer_norm(x, weights, "embedding_norm")
    all_tokens = g.op("Add", length, before)
    shape = g.op("Concat", length, all_tokens, axis=0)
    hidden = g.op("Expand", g.const(np.float32(-1e30)), shape)
    future = g.op("Trilu", hidden, g.op("Squeeze", g.op("Add", before, g.const([1])), g.const([0])), upper=1)
    present = []
    for i in range(layers):
        name = f"layers.{i}"
        both = g.linear(x, weights, *(f"{name}.attention.{part}" for part in "qkv"))
        parts = g.ops("Split", 3, both, axis=-1)
        q, k, v = (
            g.op("Transpose", g.reshape(part, 0, 0, heads, dim // heads), perm=[0, 2, 1, 3]) for part in parts
        )
        old = [g.op("Gather", "past", g.const(2 * i + j), axis=0) for j in (0, 1)]
        k, v = g.op("Concat", old[0], k, axis=2), g.op("Concat", old[1], v, axis=2)
        present += [k, v]
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g.op("Add", g.op("Mul", scores, g.const(float((dim // heads) ** -0.5))), future)
        y = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        y = g.reshape(g.op("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, dim)
        y = g.op("Add", g.linear(y, weights, f"{name}.attention.out"), x)
        z = g.layer_norm(y, weights, f"{name}.attention_norm")
        s = g.linear(gelu(g, g.linear(z, weights, f"{name}.w1")), weights, f"{name}.w2")
        x = g.layer_norm(g.op("Add", s, z), weights, f"{name}.norm")
    g.named(g.linear(x, weights, "output"), "logits")
    stacked = [g.op("Unsqueeze", each, g.const([0])) for each in present]
    g.named(g.op("Concat", *stacked, axis=0), "present")
    state = [2 * layers, "N", heads, "P", dim // heads]
    inputs = [value("ids", "int64", ["N", "T"]), value("past", "float", state)]
    after = [2 * layers, "N", heads, "P_and_T", dim // heads]
    outputs = [value("logits", "float", ["N", "T", int(config["vocab"])]), value("present", "float", after)]
    return model(g, "transformer_lm", inputs, outputs, metadata)


def gelu(g: Graph, x: str) -> str:
    """½ x (1 + erf(x / √2))."""
    inner = g.op("Add", g.op("Erf", g.op("Mul", x, g.const(0.5**0.5))), g.const(1.0))
    return g.op("Mul", g.op("Mul", x, g.const(0.5)), inner)


def lstm_lm(config: Mapping[str, Any], weights: Weights, metadata: Mapping[str, Any]) -> onnx.ModelProto:
    """`runtime.lstm_lm` as a graph."""
    g, layers, dim = Graph(style=weights.style), int(config["layers"]), int(config["dim"])
    x, present = g.rows("ids", weights, "embedding.weight"), []
    for i in range(layers):
        h, c = (g.op("Gather", "past", g.const(2 * i + j), axis=0) for j in (0, 1))
        x, *after = lstm_layer(g, x, h, c, weights, f"layers.{i}", dim)
        present += after
    g.named(g.linear(x, weights, "output"), "logits")
    stacked = [g.op("Unsqueeze", each, g.const([0])) for each in present]
    g.named(g.op("Concat", *stacked, axis=0), "present")
    inputs = [value("ids", "int64", ["N", "T"]), value("past", "float", [2 * layers, "N", dim])]
    outputs = [
        value("logits", "float", ["N", "T", int(config["vocab"])]),
        value("present", "float", [2 * layers, "N", dim]),
    ]
    return model(g, "lstm_lm", inputs, outputs, metadata)
