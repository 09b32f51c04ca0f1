"""Another exporter's ONNX graph with the codes of a packed file where it has floats.

    MatMul(x, Wᵀ)     ->  MatMulNBits(x, codes, steps)            W of linear layers, of 8 bits or fewer
    Conv(x, W, …)     ->  Conv(x, steps · Cast(codes), …)         any other node that reads such a weight

A constant is known by its value: an export of the model that `greenasr.load_into` filled has the file's
weights, number for number.  So models of any class are written by ``torch.onnx.export`` and narrowed here.
What the file does not quantize stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from greenasr.runtime.format import Packed
from greenasr.runtime.onnx_graph import Graph
from greenasr.runtime.weights import Weights

DOMAIN = "com.microsoft"


def narrowed(exported: onnx.ModelProto, packed: Packed, level: int = 1) -> tuple[onnx.ModelProto, list[str]]:
    """The graph with codes for floats, and the names of the weights that are codes now.

    ``level`` is MatMulNBits's accuracy_level: 1 computes in float32, 4 rounds its inputs to int8 by blocks.
    Raises ValueError where the graph has none of the file's weights.
    """
    weights, made = Weights(packed, "float32"), Graph(level=level)
    known: dict[Any, tuple[str, bool]] = {}  # value -> name, and whether it lies across
    for name, shape in packed.shapes.items():
        value = weights.array(name)
        if len(shape) == 2:
            known[_key(value.T)] = (name, True)
        known[_key(value)] = (name, False)
    constants = {each.name: numpy_helper.to_array(each) for each in exported.graph.initializer}
    ours = {name: known[key] for name, value in constants.items() if (key := _key(value)) in known}
    nodes: list[onnx.NodeProto] = []
    wide: dict[str, str] = {}  # constant -> the value that takes its place
    done: set[str] = set()
    for node in exported.graph.node:
        placed = onnx.NodeProto()
        placed.CopyFrom(node)
        for at, constant in enumerate(node.input):
            if constant not in ours:
                continue
            name, across = ours[constant]
            parts = weights.parts(name.removesuffix(".weight"))
            if parts is None:
                continue
            if node.op_type == "MatMul" and at == 1 and across:
                if made.narrow(node.input[0], *parts) is not None:
                    placed = made.nodes.pop()
                    placed.output[0] = node.output[0]
                    done.add(name)
            elif not across and constant not in wide:
                if (found := _spread(made, constants[constant].shape, parts)) is not None:
                    wide[constant] = found
                    done.add(name)
            if constant in wide:
                placed.input[at] = wide[constant]
        nodes.append(placed)
    if not done:
        raise ValueError(
            "the graph has none of the file's weights: export the model that was loaded from it."
        )
    return _model(exported, [*made.nodes, *nodes], list(made.constants.values())), sorted(done)


def _key(value: NDArray[Any]) -> tuple[tuple[int, ...], bytes]:
    """What tells a constant from others; zeros have no sign."""
    return value.shape, (value + 0).tobytes() if value.dtype == np.float32 else b""


def _spread(made: Graph, shape: tuple[int, ...], parts: list[tuple[NDArray[Any], int, Any]]) -> str | None:
    """A weight as steps times codes of int8; None where it has wider codes or several steps a row."""
    if any(bits > 8 or step.ndim == 3 for _, bits, step in parts):
        return None
    codes = np.concatenate([codes for codes, _, _ in parts]).astype(np.int8).reshape(shape)
    steps = np.concatenate([np.broadcast_to(step, (len(own), 1)) for own, _, step in parts])
    taken = made.op("Cast", made.const(codes), to=TensorProto.FLOAT)
    return made.op("Mul", taken, made.const(steps.reshape(-1, *[1] * (len(shape) - 1)).astype(np.float32)))


def _read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """What nodes read, also inside branches and loops."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from _read(attribute.g.node)


def _model(
    exported: onnx.ModelProto, nodes: list[onnx.NodeProto], more: list[onnx.TensorProto]
) -> onnx.ModelProto:
    """The exported model with other nodes, without constants that none of them reads; checked."""
    found = onnx.ModelProto()
    found.CopyFrom(exported)
    graph = found.graph
    read = {*_read(nodes), *(output.name for output in graph.output)}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *more])
    if all(each.domain != DOMAIN for each in found.opset_import):
        found.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.checker.check_model(found)
    return found
