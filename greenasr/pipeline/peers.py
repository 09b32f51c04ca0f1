"""Other engines on the workload of `greenasr bench`: torch in float32, and what is installed of ONNX's.

    ONNX Runtime: float32, dynamic int8, and MatMulNBits of the model's own codes    OpenVINO: int8, 4 bits

OpenVINO reads the same graph with weights rounded row by row to 8 or 4 bits and a multiplication behind
them, which it keeps compressed and multiplies in integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from greenasr.models.on_arrays import on_arrays
from greenasr.runtime import bench
from greenasr.runtime.format import Packed
from greenasr.runtime.pack import state_of
from greenasr.tasks.networks import build

Run = Callable[[], Any]


def peers(packed: Packed, given: Mapping[str, Any], threads: int) -> Iterator[tuple[str, Run]]:
    """(name, workload) of every engine that is installed."""
    torch.set_num_threads(threads)
    model = build(packed.model, packed.config)
    model.load_state_dict(state_of(packed))
    yield "torch float32", bench.ours(packed.model, on_arrays(model), given)
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        return
    from greenasr.runtime import onnx_export

    feeds = _feeds(packed, given)
    name = "encoder" if packed.model == "rnnt" else "model"
    made = {style: onnx_export.models(packed, style)[name] for style in ("float", "nbits", "q8", "q4")}
    yield "ONNX Runtime float32", _onnxruntime(made["float"].SerializeToString(), feeds, threads)
    yield "ONNX Runtime dynamic int8", _onnxruntime(_dynamic(made["float"]), feeds, threads)
    yield "ONNX Runtime MatMulNBits", _onnxruntime(made["nbits"].SerializeToString(), feeds, threads)
    if find_spec("openvino") is not None:
        yield "OpenVINO int8", _openvino(made["q8"], feeds, threads)
        yield "OpenVINO 4-bit", _openvino(made["q4"], feeds, threads)


def _feeds(packed: Packed, given: Mapping[str, Any]) -> dict[str, Any]:
    """The workload as the ONNX models take it."""
    config = packed.config
    if packed.model in ("transformer", "lstm"):
        n, dim = len(given["ids"]), int(config["dim"])
        shape: tuple[int, ...] = (2 * int(config["layers"]), n, dim)
        if packed.model == "transformer":
            heads = int(config["heads"])
            shape = (shape[0], n, heads, 0, dim // heads)
        return {"ids": given["ids"], "past": np.zeros(shape, np.float32)}
    feats = given["feats"][None]
    lens = np.array([feats.shape[1]])
    if packed.model in ("rnnt", "quartznet"):
        return {"x": feats, "x_lens": lens}
    if packed.model == "matchboxnet":
        return {"feats": feats, "feat_lens": lens}
    vectors = int(config.get("ivector_dim", 0))
    return {"feats": feats} | ({"ivectors": np.zeros((1, vectors), np.float32)} if vectors else {})


def _onnxruntime(model: bytes, feeds: Mapping[str, Any], threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options)
    return lambda: session.run(None, dict(feeds))


def _dynamic(model: Any) -> bytes:
    """Weights of int8, activations rounded as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder:
        before, after = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(model, before)
        quantize_dynamic(before, after, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
        return after.read_bytes()


def _openvino(model: Any, feeds: Mapping[str, Any], threads: int) -> Run:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer(dict(feeds))
