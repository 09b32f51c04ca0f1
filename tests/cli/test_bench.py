"""What `bench` prints of a model: every layer, and every engine on one workload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenasr.pipeline import peers
from greenasr.runtime import bench, format
from greenasr.runtime.kernels import native


def test_every_layer_has_bits_bytes_kernel_and_time(tones: Path, greenasr: Callable[..., Any]) -> None:
    found = greenasr("bench", tones / "model.packed", "--rounds", "1", "--json").json
    names = [layer["name"] for layer in found["layers"]]
    assert names[:3] == ["input.affine", "layers.0.linear", "layers.0.affine"] and "output" in names
    assert all(layer["ms"] > 0 and layer["bits"] == "32" for layer in found["layers"])
    assert found["bytes"] == sum(layer["nbytes"] for layer in found["layers"])
    assert found["whole_ms"]["greenasr"] > 0 and (found["ceiling"] is None) != native.available()
    shown = greenasr("bench", tones / "model.packed", "--rounds", "1", "--peers")
    assert shown.code == 0 and "torch float32" in shown.out and "all products" in shown.out
    assert "1 or more" in greenasr("bench", tones / "model.packed", "--rows", "0").err


@pytest.mark.parametrize("fixture", ["tones", "tones_transducer"])
def test_every_engine_has_the_workload_of_the_model(fixture: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(fixture)
    packed = format.read(path / "model.packed" if fixture == "tones" else path)
    given = bench.inputs(packed.model, packed.config)
    runs = dict(peers.peers(packed, given, 1))
    assert {"torch float32", "ONNX Runtime MatMulNBits", "ONNX Runtime dynamic int8"} <= runs.keys()
    for run in runs.values():
        run()
