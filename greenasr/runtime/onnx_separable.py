"""QuartzNet and MatchboxNet as ONNX.

    quartznet     x (N, T, F) raw fbank, x_lens (N,)              -> log_probs (N, T', C), log_probs_lens (N,)
    matchboxnet   feats (N, T, F) behind CMVN, feat_lens (N,)     -> logits (N, C)

QuartzNet has the inputs, outputs and metadata of sherpa-onnx's CTC models.  What lies behind an utterance's
end is 0 before every convolution over time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from greenasr.data.features import Features
from greenasr.runtime.onnx_front import front, true_frames
from greenasr.runtime.onnx_graph import Graph, model, value
from greenasr.runtime.separable import folded_norm
from greenasr.runtime.weights import Weights


def quartznet(
    config: Mapping[str, Any], weights: Weights, features: Features, metadata: Mapping[str, Any]
) -> onnx.ModelProto:
    """`runtime.quartznet` as a graph, with CMVN inside and log softmax behind."""
    g, stride = Graph(style=weights.style), int(config["stride"])
    x = front(g, features, "x", "x_lens")
    lens = g.op("Div", g.op("Add", "x_lens", g.const([stride - 1])), g.const([stride]))
    x, _ = _network(g, x, "x_lens", lens, config, weights, stride)
    g.named(g.op("LogSoftmax", g.linear(x, weights, "output"), axis=-1), "log_probs")
    g.named(lens, "log_probs_lens")
    inputs = [value("x", "float", ["N", "T", features.bins]), value("x_lens", "int64", ["N"])]
    outputs = [
        value("log_probs", "float", ["N", "T_out", int(config["vocab"])]),
        value("log_probs_lens", "int64", ["N"]),
    ]
    about = {**metadata, "model_type": "zipformer2_ctc", "vocab_size": config["vocab"]}
    return model(g, "quartznet", inputs, outputs, about)


def matchboxnet(config: Mapping[str, Any], weights: Weights, metadata: Mapping[str, Any]) -> onnx.ModelProto:
    """`runtime.matchboxnet` as a graph."""
    g = Graph(style=weights.style)
    x = g.op("Mul", "feats", true_frames(g, "feats", "feat_lens"))
    x, mask = _network(g, x, "feat_lens", "feat_lens", config, weights, 1)
    total = g.op("ReduceSum", g.op("Mul", x, mask), g.const([1]), keepdims=0)
    mean = g.op("Div", total, g.op("ReduceSum", mask, g.const([1]), keepdims=0))
    g.named(g.linear(mean, weights, "output"), "logits")
    dims = ["N", "T", int(config["feat_dim"])]
    inputs = [value("feats", "float", dims), value("feat_lens", "int64", ["N"])]
    outputs = [value("logits", "float", ["N", int(config["classes"])])]
    return model(g, "matchboxnet", inputs, outputs, metadata)


def _network(
    g: Graph, x: str, lens: str, out_lens: str, config: Mapping[str, Any], weights: Weights, stride: int
) -> tuple[str, str]:
    """Prologue, residual blocks and epilogue, (N, T, F) -> (N, T', D), and its true frames (N, T', 1)."""
    x = _sub(g, x, None, weights, "prologue.subs.0", stride)
    mask = true_frames(g, x, out_lens)
    x = g.op("Relu", x)
    skips, repeat = str(config["skips"]), int(config["repeat"])
    widths = [weights.matrix(f"blocks.{i}.subs.0.pointwise").shape for i in range(int(config["blocks"]))]
    for i, (outputs, inputs) in enumerate(widths):
        y = x
        for j in range(repeat):
            y = _sub(g, y, mask, weights, f"blocks.{i}.subs.{j}")
            y = g.op("Relu", y) if j < repeat - 1 else y
        if skips in ("trained", "ternary"):
            y = g.op("Add", y, _sub(g, x, mask, weights, f"blocks.{i}.skip"))
        elif skips == "identity":
            cut = g.slice(x, 0, min(inputs, outputs), 2)
            wide = g.op("Pad", cut, g.const([0, 0, 0, 0, 0, max(0, outputs - inputs)]))
            y = g.op("Add", y, wide)
        x = g.op("Relu", y)
    x = g.op("Relu", _sub(g, x, mask, weights, "epilogue.0.subs.0", dilation=2))
    return g.op("Relu", _sub(g, x, mask, weights, "epilogue.1.subs.0")), mask


def _sub(
    g: Graph,
    x: str,
    mask: str | None,
    weights: Weights,
    name: str,
    stride: int = 1,
    dilation: int = 1,
) -> str:
    """norm(P D x) of (N, T, I), whose padding is 0 once ``mask`` is applied."""
    if weights.has(f"{name}.depthwise.weight"):
        taps = weights.array(f"{name}.depthwise.weight")
        x = g.op("Transpose", x if mask is None else g.op("Mul", x, mask), perm=[0, 2, 1])
        pad = dilation * (taps.shape[2] - 1) // 2
        x = g.op(
            "Conv", x, g.const(taps), group=len(taps), kernel_shape=[taps.shape[2]], pads=[pad, pad],
            strides=[stride], dilations=[dilation],
        )  # fmt: skip
        x = g.op("Transpose", x, perm=[0, 2, 1])
    gain, offset = folded_norm(weights, f"{name}.norm")
    return g.affine(g.linear(x, weights, f"{name}.pointwise"), np.asarray(gain), np.asarray(offset))
