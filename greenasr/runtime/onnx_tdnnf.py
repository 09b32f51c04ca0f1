"""TDNN-F as ONNX: feats (N, T, F) of equal lengths, i-vectors (N, I) if it reads any -> logits (N, T', C)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from greenasr.runtime.onnx_graph import Graph, model, value
from greenasr.runtime.tdnnf import batch_norm
from greenasr.runtime.weights import Weights


def tdnnf(config: Mapping[str, Any], weights: Weights, metadata: Mapping[str, Any]) -> onnx.ModelProto:
    """`runtime.tdnnf` as a graph."""
    g, third = Graph(style=weights.style), int(config["subsampling"])
    strides = [int(stride) for stride in config["strides"]]
    at = len(strides)
    while at and strides[at - 1] % third == 0:
        at -= 1
    splice, x = int(config["splice"]), "feats"
    if int(config.get("front", 0)):
        x = relu_layer(g, spliced(g, x, splice), weights, "front")
    x = every(g, spliced(g, x, splice), third if at == 0 else 1)
    if ivector := int(config.get("ivector_dim", 0)):
        shape = g.op("Concat", g.size(x, 0), g.size(x, 1), g.const([ivector]), axis=0)
        wide = g.op("Expand", g.op("Unsqueeze", "ivectors", g.const([1])), shape)
        x = g.op("Concat", x, wide, axis=-1)
    x = relu_layer(g, x, weights, "input")
    for i, stride in enumerate(strides):
        name, stride = f"layers.{i}", stride if i < at else stride // third
        y = g.linear(x, weights, f"{name}.linear")
        if stride:
            past, now = g.ops("Split", 2, y, axis=-1)
            y = g.op("Add", shifted(g, past, -stride), now)
            y = g.op("Concat", y, shifted(g, y, stride), axis=-1)
        if i == at - 1:
            x, y = every(g, x, third), every(g, y, third)
        h = g.op("Relu", g.linear(y, weights, f"{name}.affine"))
        h = g.affine(h, *batch_norm(weights, f"{name}.norm"))
        x = g.op("Add", h, g.op("Mul", x, g.const(float(config["bypass"]))))
    x = g.op("Relu", g.linear(g.linear(x, weights, "prefinal"), weights, "chain.affine"))
    x = g.linear(g.affine(x, *batch_norm(weights, "chain.norm")), weights, "chain.linear")
    x = g.affine(x, *batch_norm(weights, "chain.linear_norm"))
    g.named(g.linear(x, weights, "output"), "logits")
    inputs = [value("feats", "float", ["N", "T", int(config["feat_dim"])])]
    if ivector:
        inputs.append(value("ivectors", "float", ["N", ivector]))
    outputs = [value("logits", "float", ["N", "T_out", int(config["n_pdfs"])])]
    return model(g, "tdnnf", inputs, outputs, metadata)


def relu_layer(g: Graph, x: str, weights: Weights, name: str) -> str:
    """norm(relu(W x + c))."""
    y = g.op("Relu", g.linear(x, weights, f"{name}.affine"))
    return g.affine(y, *batch_norm(weights, f"{name}.norm"))


def shifted(g: Graph, x: str, by: int) -> str:
    """Frame t -> frame t + ``by``, or 0 outside, (N, T, D) -> (N, T, D)."""
    if by == 0:
        return x
    before, behind = max(0, -by), max(0, by)
    x = g.op("Pad", x, g.const([0, before, 0, 0, behind, 0]))
    return g.slice(x, behind, -before if before else 1 << 40, 1)


def spliced(g: Graph, x: str, context: int) -> str:
    """Every frame with its neighbours, (N, T, D) -> (N, T, (2c + 1) D)."""
    parts = [shifted(g, x, by) for by in range(-context, context + 1)]
    return g.op("Concat", *parts, axis=-1) if context else x


def every(g: Graph, x: str, n: int) -> str:
    """Frames 0, n, 2n and so on."""
    return x if n == 1 else g.slice(x, 0, 1 << 40, 1, n)
