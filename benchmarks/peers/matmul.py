"""One matrix product by the engines of others: callables that multiply x (M, I) with a fixed weight (O, I).

Every engine gets the same float weight and packs it as its own tools do; a package that is not installed is
left out.  ONNX Runtime: fp32, dynamic int8, MatMulNBits of 4 and 2 bits (blocks of 32, accuracy_level 4).
OpenVINO: weights of 8 and 4 bits (groups of 128 where they fit), which it multiplies with activations that it
rounds on the fly, and static int8 by NNCF.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Run = Callable[[], Any]


def peers(weight: Floats, x: Floats, threads: int) -> Iterator[tuple[str, Run]]:
    """(name, product) of every engine that is installed here."""
    if importlib.util.find_spec("torch"):
        yield "torch fp32", _torch(weight, x, threads)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        yield "ONNX Runtime fp32", _session(_onnx(weight, len(x)), x, threads)
        yield "ONNX Runtime dynamic int8", _session(_dynamic(weight, len(x)), x, threads)
        for bits in (4, 2):
            yield f"ONNX Runtime MatMulNBits {bits}", _session(_nbits(weight, len(x), bits), x, threads)
    if importlib.util.find_spec("openvino") and importlib.util.find_spec("nncf"):
        yield from _openvino(weight, x, threads)


def _torch(weight: Floats, x: Floats, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    w, rows = torch.from_numpy(weight), torch.from_numpy(x)

    def run() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.linear(rows, w)

    return run


def _onnx(weight: Floats, count: int) -> Any:
    """A model of one MatMul."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    n_out, inputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [count, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [count, n_out])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def _dynamic(weight: Floats, count: int) -> Any:
    import tempfile

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        onnx.save(_onnx(weight, count), f"{folder}/float.onnx")
        logging.disable(logging.WARNING)
        quantize_dynamic(
            f"{folder}/float.onnx", f"{folder}/int8.onnx", per_channel=True, weight_type=QuantType.QInt8
        )
        logging.disable(logging.NOTSET)
        return onnx.load(f"{folder}/int8.onnx")


def _nbits(weight: Floats, count: int, bits: int) -> Any:
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    how: dict[str, Any] = dict(block_size=32, is_symmetric=True, accuracy_level=4)
    logging.disable(logging.INFO)
    packer = MatMulNBitsQuantizer(
        _onnx(weight, count), bits=bits, **how, algo_config=DefaultWeightOnlyQuantConfig(**how, bits=bits)
    )
    packer.process()
    logging.disable(logging.NOTSET)
    return packer.model.model


def _session(model: Any, x: Floats, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": x})


def _openvino(weight: Floats, x: Floats, threads: int) -> Iterator[tuple[str, Run]]:
    os.environ.setdefault("NNCF_TELEMETRY_OPT_OUT", "1")
    import nncf
    import openvino
    from openvino import opset13 as op

    nncf.set_log_level(logging.ERROR)

    def model() -> Any:
        rows = op.parameter(list(x.shape), np.float32, "x")
        return openvino.Model([op.matmul(rows, op.constant(weight), False, True)], [rows], "product")

    def compiled(packed: Any) -> Run:
        hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(packed, "CPU", hints).create_infer_request()
        request.set_input_tensor(0, openvino.Tensor(x, shared_memory=True))
        return request.infer

    group = 128 if weight.shape[1] % 128 == 0 else 32
    mode = nncf.CompressWeightsMode
    yield "OpenVINO 8-bit weights", compiled(nncf.compress_weights(model(), mode=mode.INT8_SYM))
    if weight.shape[1] % group == 0:
        four = nncf.compress_weights(
            model(), mode=mode.INT4_SYM, group_size=group, ratio=1.0, all_layers=True
        )
        yield "OpenVINO 4-bit weights", compiled(four)
    calibration = nncf.Dataset([x] * 2, lambda rows: {0: rows})
    yield "OpenVINO static int8", compiled(nncf.quantize(model(), calibration, subset_size=2))
