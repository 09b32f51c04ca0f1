"""LSTM layers as ONNX: W x of all frames is one product, a Scan goes over the frames with R h.

ONNX's own LSTM takes weights of float alone; the body of a Scan takes MatMulNBits.
"""

from __future__ import annotations

from collections.abc import Sequence

from greenasr.runtime.onnx_graph import Graph, body, value
from greenasr.runtime.weights import Weights


def lstm_layer(
    g: Graph, x: str, h: str, c: str, weights: Weights, name: str, dim: int, active: str | None = None
) -> tuple[str, str, str]:
    """(N, T, I) with h and c (N, D) -> (N, T, D), h and c behind the last frame.

    Where ``active`` (N, T, 1) is 0 the state becomes 0: nothing has begun.
    """
    gates = g.linear(x, weights, f"{name}.input")
    step = Graph(g)
    sums = step.op("Add", "gates_t", step.linear("h_before", weights, f"{name}.recurrent"))
    i, f, cell, o = step.ops("Split", 4, sums, axis=-1)
    kept = step.op("Mul", step.op("Sigmoid", f), "c_before")
    fresh = step.op("Mul", step.op("Sigmoid", i), step.op("Tanh", cell))
    c_after = step.op("Add", kept, fresh)
    h_after = step.op("Mul", step.op("Sigmoid", o), step.op("Tanh", c_after))
    if active is not None:
        c_after, h_after = step.op("Mul", c_after, "active_t"), step.op("Mul", h_after, "active_t")
    for found, given in ((h_after, "h_after"), (c_after, "c_after"), (h_after, "y_t")):
        step.named(found, given)
    state = [value(each, "float", ["N", dim]) for each in ("h_before", "c_before")]
    scanned = [value("gates_t", "float", ["N", 4 * dim])]
    if active is not None:
        scanned.append(value("active_t", "float", ["N", 1]))
    outputs = [value(each, "float", ["N", dim]) for each in ("h_after", "c_after", "y_t")]
    inputs = [h, c, gates, *([active] if active is not None else [])]
    h, c, y = g.ops(
        "Scan", 3, *inputs, body=body(step, f"{name}.step", [*state, *scanned], outputs),
        num_scan_inputs=len(scanned), scan_input_axes=[1] * len(scanned), scan_output_axes=[1],
    )  # fmt: skip
    return y, h, c


def zeros(g: Graph, x: str, dim: int) -> str:
    """A state at the beginning of N streams x (N, …), (N, D)."""
    shape = g.op("Concat", g.size(x, 0), g.const([dim]), axis=0)
    return g.op("Expand", g.const(0.0), shape)


def lstm_stack(
    g: Graph,
    x: str,
    weights: Weights,
    name: str,
    reduction: Sequence[int],
    dim: int,
    active: str | None = None,
) -> str:
    """`runtime.lstm.LstmStack` from a zero state, (N, T, I) -> (N, T', D)."""
    for i, r in enumerate(reduction):
        if r > 1:
            x = joined(g, x, r)
        x, _, _ = lstm_layer(
            g, x, zeros(g, x, dim), zeros(g, x, dim), weights, f"{name}.layers.{i}", dim, active
        )
        if weights.has(f"{name}.norms.{i}.weight"):
            x = g.layer_norm(x, weights, f"{name}.norms.{i}")
    return x


def joined(g: Graph, x: str, n: int) -> str:
    """Groups of ``n`` frames as one, the last one filled with zeros: (N, T, I) -> (N, ceil(T / n), n I)."""
    length = g.size(x, 1)
    missing = g.op("Mod", g.op("Neg", length), g.const([n]))
    none = g.const([0])
    x = g.op("Pad", x, g.op("Concat", none, none, none, none, missing, none, axis=0))
    groups = g.op("Div", g.op("Add", length, missing), g.const([n]))
    shape = g.op("Concat", g.size(x, 0), groups, g.op("Mul", g.size(x, 2), g.const([n])), axis=0)
    return g.op("Reshape", x, shape)
