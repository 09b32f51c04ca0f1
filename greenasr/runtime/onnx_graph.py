"""ONNX graphs by hand: a node a call, and low-bit linear maps as ONNX Runtime's MatMulNBits.

    y = x Wᵀ,   W(o, i) = scale(o, i // B) (digit(o, i) - 2^(b-1)),   b = 2, 4 or 8 bits, B inputs a block

Codes of 1 and 2 bits go into the 2-bit container, 3 and 4 into 4, 6 and 8 into 8; wider ones and weights with
two steps stay float.  accuracy_level 4 rounds activations to int8 block by block, 1 computes in
float32.  The operator is com.microsoft's, described in ONNX Runtime's docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from greenasr.runtime.weights import Weights

OPSET, OPSET_4, IR = 17, 21, 10  # the second has integers of 4 bits
BLOCK = 64  # inputs that share a scale; also of the blocks in which activations are rounded
CONTAINERS = (2, 4, 8)
DTYPES = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32}
Array = NDArray[Any]
Dims = Sequence[Any]  # int, or str for a size that varies


class Graph:
    """Nodes and constants in order; every call returns the name of what it computes."""

    def __init__(self, outer: Graph | None = None, style: str = "nbits", level: int = 4):
        self.style: str = outer.style if outer is not None else style
        self.level: int = outer.level if outer is not None else level  # accuracy_level of MatMulNBits
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.outer = outer  # whose constants the body of a loop may read
        self.count: list[int] = outer.count if outer is not None else [0]

    def const(self, value: Any, dtype: Any = None) -> str:
        """A constant; numbers of Python are float32 or int64."""
        if self.outer is not None:
            return self.outer.const(value, dtype)
        array = np.asarray(value, dtype)
        if dtype is None and array.dtype == np.float64:
            array = array.astype(np.float32)
        name = self._name("c")
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """A node of several outputs."""
        names = [self._name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names

    def named(self, value: str, name: str) -> str:
        """The same value under a name of ours, for outputs."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        return name

    def size(self, x: str, axis: int) -> str:
        """The length of an axis, (1,) int64."""
        return self.op("Gather", self.op("Shape", x), self.const([axis]), axis=0)

    def slice(self, x: str, start: Any, stop: Any, axis: int, step: int = 1) -> str:
        """x[start:stop:step] of one axis; start and stop are numbers or names of (1,) int64."""
        first, last = (each if isinstance(each, str) else self.const([each]) for each in (start, stop))
        return self.op("Slice", x, first, last, self.const([axis]), self.const([step]))

    def reshape(self, x: str, *dims: int) -> str:
        """Dims of 0 stay, one of -1 is what is left."""
        return self.op("Reshape", x, self.const(list(dims), np.int64))

    def layer_norm(self, x: str, weights: Weights, name: str) -> str:
        """Layer norm with gain and bias."""
        gain, bias = (self.const(weights.array(f"{name}.{part}")) for part in ("weight", "bias"))
        return self.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-5)

    def affine(self, x: str, gain: Array, offset: Array) -> str:
        """X · gain + offset."""
        return self.op("Add", self.op("Mul", x, self.const(gain)), self.const(offset))

    def linear(self, x: str, weights: Weights, *names: str) -> str:
        """(…, I) -> (…, O): `Weights.linear` of the same names."""
        bias = weights.bias(*names)
        parts = weights.parts(*names)
        y = self.narrow(x, *parts) if parts is not None and self.style == "nbits" else None
        if y is None and self.style in ("q8", "q4"):
            y = self.op(
                "MatMul", x, self._rounded(weights.matrix(*names).T, 127 if self.style == "q8" else 7)
            )
        elif y is None:
            y = self.op("MatMul", x, self.const(weights.matrix(*names).T))
        return y if bias is None else self.op("Add", y, self.const(bias))

    def rows(self, ids: str, weights: Weights, name: str) -> str:
        """Rows of an embedding: codes of int8 in the file where it is quantized."""
        parts = weights.parts(name.removesuffix(".weight"))
        if parts is None or any(bits > 8 or step.ndim == 3 for _, bits, step in parts):
            return self.op("Gather", self.const(weights.array(name)), ids, axis=0)
        codes = np.concatenate([codes for codes, _, _ in parts]).astype(np.int8)
        steps = np.concatenate([np.broadcast_to(step, (len(c), 1)) for c, _, step in parts])
        taken = self.op("Cast", self.op("Gather", self.const(codes), ids, axis=0), to=TensorProto.FLOAT)
        return self.op("Mul", taken, self.op("Gather", self.const(steps), ids, axis=0))

    def _rounded(self, weight: Array, largest: int) -> str:
        """A weight (I, O) as integers and a step an output, multiplied in the graph."""
        step = np.maximum(np.abs(weight).max(0), 1e-12) / np.float32(largest)
        digits = np.rint(weight / step).astype(np.int8)
        if largest == 7:
            digits = digits.astype(ml_dtypes.int4)
        taken = self.op("Cast", self.const(digits), to=TensorProto.FLOAT)
        return self.op("Mul", taken, self.const(step.astype(np.float32)))

    def narrow(self, x: str, *parts: tuple[Array, int, Array]) -> str | None:
        """MatMulNBits of `Weights.parts`; None where its containers cannot hold the weight."""
        rows, cols = sum(len(codes) for codes, _, _ in parts), parts[0][0].shape[1]
        bits = next((b for b in CONTAINERS if all(own <= b for _, own, _ in parts)), None)
        groups = {cols if step.ndim < 3 else cols // step.shape[1] for _, _, step in parts}
        block = next((b for b in (BLOCK, 32, 16) if all(g == cols or g % b == 0 for g in groups)), None)
        if bits is None or block is None:
            return None
        blocks = -(-cols // block)
        digits = np.full((rows, blocks * block), 1 << (bits - 1), np.uint8)
        digits[:, :cols] = np.concatenate([codes for codes, _, _ in parts]).astype(np.int16) + (
            1 << (bits - 1)
        )
        scales = np.concatenate([_by_block(step, len(codes), blocks) for codes, _, step in parts])
        per_byte = digits.reshape(rows, blocks, -1, 8 // bits)
        packed = np.zeros(per_byte.shape[:3], np.uint8)
        for at in range(8 // bits):
            packed |= per_byte[..., at] << np.uint8(bits * at)
        return self.ops(
            "MatMulNBits", 1, x, self.const(packed), self.const(scales), domain="com.microsoft",
            K=cols, N=rows, bits=bits, block_size=block, accuracy_level=self.level,
        )[0]  # fmt: skip

    def _name(self, kind: str) -> str:
        self.count[0] += 1
        return f"{kind}_{self.count[0]}"


def _by_block(step: Array, rows: int, blocks: int) -> NDArray[np.float32]:
    """Steps of any of their shapes as one a block, (rows, blocks)."""
    if step.ndim == 3:
        step = np.repeat(step[:, :, 0], blocks // step.shape[1], 1)
    return np.broadcast_to(step, (rows, blocks)).astype(np.float32)


def value(name: str, dtype: str, dims: Dims) -> onnx.ValueInfoProto:
    """An input or output: names in ``dims`` are sizes that vary."""
    return helper.make_tensor_value_info(name, DTYPES[dtype], list(dims))


def body(graph: Graph, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.GraphProto:
    """The body of a loop."""
    return helper.make_graph(graph.nodes, name, list(inputs), list(outputs))


def model(
    graph: Graph, name: str, inputs: Sequence[Any], outputs: Sequence[Any], metadata: Mapping[str, Any]
) -> onnx.ModelProto:
    """The whole, checked, with metadata as strings."""
    made = helper.make_graph(graph.nodes, name, list(inputs), list(outputs), list(graph.constants.values()))
    opsets = [
        helper.make_opsetid("", OPSET_4 if graph.style == "q4" else OPSET),
        helper.make_opsetid("com.microsoft", 1),
    ]
    found = helper.make_model(made, opset_imports=opsets, producer_name="greenasr", ir_version=IR)
    helper.set_model_props(found, {key: str(each) for key, each in metadata.items()})
    onnx.checker.check_model(found)
    return found
