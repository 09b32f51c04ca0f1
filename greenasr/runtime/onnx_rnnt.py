"""A transducer as the three ONNX models that sherpa-onnx's offline transducers are.

    encoder   x (N, T, F) raw fbank, x_lens (N,)             -> encoder_out (N, T', J), encoder_out_lens (N,)
    decoder   y (N, C), the last C labels, 0 or -1 before    -> decoder_out (N, J)
    joiner    encoder_out (N, J), decoder_out (N, J)         -> logit (N, V), blank first

sherpa-onnx knows prediction networks of a few labels alone.  Ours is an LSTM over all of them: its decoder
goes through the last C = `CONTEXT` labels from a state of zeros, the first of them behind a blank, which is
the same up to C - 1 labels an utterance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from greenasr.data.features import Features
from greenasr.runtime.onnx_front import front
from greenasr.runtime.onnx_graph import Graph, model, value
from greenasr.runtime.onnx_lstm import lstm_stack
from greenasr.runtime.weights import Weights

CONTEXT = 64  # labels that the prediction network remembers


def rnnt(
    config: Mapping[str, Any], weights: Weights, features: Features, metadata: Mapping[str, Any]
) -> dict[str, onnx.ModelProto]:
    """`runtime.rnnt` as encoder, decoder and joiner."""
    given, layers = tuple(config["reduction"]), int(config["encoder_layers"])
    reduction = given + (1,) * (layers - len(given))
    about = {**metadata, "context_size": CONTEXT, "vocab_size": config["vocab"], "model_type": "conformer"}
    return {
        "encoder": encoder(config, weights, features, reduction, about),
        "decoder": decoder(config, weights, about),
        "joiner": joiner(config, weights, about),
    }


def encoder(
    config: Mapping[str, Any],
    weights: Weights,
    features: Features,
    reduction: tuple[int, ...],
    about: Mapping[str, Any],
) -> onnx.ModelProto:
    """Raw features to what the joiner adds, with CMVN inside."""
    g = Graph(style=weights.style)
    x = front(g, features, "x", "x_lens")
    x = lstm_stack(g, x, weights, "encoder", reduction, int(config["encoder_dim"]))
    g.named(g.linear(x, weights, "encoder_fc"), "encoder_out")
    joined = int(np.prod(reduction))
    lens = g.op("Div", g.op("Add", "x_lens", g.const([joined - 1])), g.const([joined]))
    g.named(lens, "encoder_out_lens")
    inputs = [value("x", "float", ["N", "T", features.bins]), value("x_lens", "int64", ["N"])]
    width = weights.matrix("encoder_fc").shape[0]
    outputs = [
        value("encoder_out", "float", ["N", "T_out", width]),
        value("encoder_out_lens", "int64", ["N"]),
    ]
    return model(g, "encoder", inputs, outputs, about)


def decoder(config: Mapping[str, Any], weights: Weights, about: Mapping[str, Any]) -> onnx.ModelProto:
    """The last labels to what the joiner adds."""
    g, dim, context = Graph(style=weights.style), int(config["predictor_dim"]), int(about["context_size"])
    said = g.op("Cast", g.op("Greater", "y", g.const(0)), to=1)
    end = g.op("Expand", g.const(1.0), g.op("Concat", g.size("y", 0), g.const([1]), axis=0))
    after = g.op("Concat", g.slice(said, 1, 1 << 40, 1), end, axis=1)
    active = g.op(
        "Unsqueeze", g.op("Max", said, after), g.const([2])
    )  # labels, and the blank before the first
    x = g.rows(g.op("Max", "y", g.const(0)), weights, "embedding.weight")
    layers = (1,) * int(config["predictor_layers"])
    x = lstm_stack(g, x, weights, "predictor", layers, dim, active)
    last = g.op("Squeeze", g.slice(x, -1, 1 << 40, 1), g.const([1]))
    g.named(g.linear(last, weights, "predictor_fc"), "decoder_out")
    width = weights.matrix("predictor_fc").shape[0]
    outputs = [value("decoder_out", "float", ["N", width])]
    return model(g, "decoder", [value("y", "int64", ["N", context])], outputs, about)


def joiner(config: Mapping[str, Any], weights: Weights, about: Mapping[str, Any]) -> onnx.ModelProto:
    """Logits of the blank and all labels."""
    g, width = Graph(style=weights.style), weights.matrix("encoder_fc").shape[0]
    both = g.op("Add", "encoder_out", "decoder_out")
    g.named(g.linear(g.op("Tanh", both), weights, "output") if config["joint"] == "fc" else both, "logit")
    inputs = [value(name, "float", ["N", width]) for name in ("encoder_out", "decoder_out")]
    return model(g, "joiner", inputs, [value("logit", "float", ["N", int(config["vocab"])])], about)
