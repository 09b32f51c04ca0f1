"""A model of any class that torch exports computes the same from the codes of its packed file."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import greenasr
from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.roles import BitMap
from greenasr.runtime.format import Packed, read
from greenasr.runtime.onnx_narrow import narrowed
from greenasr.shrinking.package import save_module


class Network(nn.Module):
    """Frames over time by two convolutions, linear maps, and an embedding that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 32)
        self.conv = nn.Conv1d(16, 32, 3)
        self.first, self.second = nn.Linear(32, 48), nn.Linear(48, 5, bias=False)

    def forward(self, feats: Tensor, kind: Tensor) -> Tensor:
        """(N, T, 16), (N,) -> (N, T - 2, 5)."""
        seen = self.conv(feats.transpose(1, 2)).transpose(1, 2) + self.embedding(kind)[:, None]
        found: Tensor = self.second(self.first(seen).relu())
        return found


def exported(model: nn.Module, *given: Tensor) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, that another one is newer
        torch.onnx.export(
            model, given, buffer, dynamo=False, opset_version=17, input_names=["feats", "kind"],
            dynamic_axes={"feats": {1: "frames"}},
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def packed(path: Path, bits: tuple[int, ...], step: str = "row") -> tuple[nn.Module, Packed]:
    """A network filled from its file, whose weights have these widths in turn, and what the file holds."""
    torch.manual_seed(0)
    model, loaded = Network().eval(), Network().eval()
    clusters = make_clusters(model)
    widths = {cluster.name: bits[k % len(bits)] for k, cluster in enumerate(clusters)}
    bit_map = BitMap(clusters, widths, step)
    save_module(path / "m.packed", model, COMPRESSORS["none"](bit_map).finish_(model), bit_map)
    greenasr.load_into(loaded, path / "m.packed")
    return loaded, read(path / "m.packed")


@pytest.mark.parametrize(
    ("bits", "step"), [((4,), "row"), ((8, 2, 3, 6), "cluster"), ((2,), "group:16"), ((16, 4), "row")]
)
def test_codes_give_the_logits_of_the_model_that_was_exported(
    tmp_path: Path, bits: tuple[int, ...], step: str
) -> None:
    model, file = packed(tmp_path, bits, step)
    feats, kind = torch.randn(2, 9, 16), torch.tensor([2, 0])
    plain = exported(model, feats, kind)
    found, names = narrowed(plain, file)
    linear = [node for node in found.graph.node if node.op_type == "MatMulNBits"]
    assert {"first.weight", "second.weight"} & set(names) and len(linear) == sum(
        name in names for name in ("first.weight", "second.weight")
    )
    session = onnxruntime.InferenceSession(found.SerializeToString())
    for frames in (9, 5):
        given = {"feats": feats[:, :frames].numpy(), "kind": kind.numpy()}
        with torch.no_grad():
            expected = model(feats[:, :frames], kind).numpy()
        np.testing.assert_allclose(session.run(None, given)[0], expected, atol=2e-6)
    if bits == (4,):
        assert set(names) == {f"{name}.weight" for name in ("embedding", "conv", "first", "second")}
        assert {each.op_type for each in found.graph.node} >= {"MatMulNBits", "Conv", "Gather"}
        assert len(found.SerializeToString()) < len(plain.SerializeToString())


def test_inputs_are_rounded_only_when_asked_for(tmp_path: Path) -> None:
    model, file = packed(tmp_path, (4,))
    plain = exported(model, torch.randn(1, 9, 16), torch.tensor([1]))
    levels = [
        {
            a.i
            for node in narrowed(plain, file, level)[0].graph.node
            for a in node.attribute
            if "level" in a.name
        }
        for level in (1, 4)
    ]
    assert levels == [{1}, {4}]


def test_a_graph_of_another_model_is_refused(tmp_path: Path) -> None:
    _, file = packed(tmp_path, (4,))
    other = exported(Network().eval(), torch.randn(1, 9, 16), torch.tensor([1]))
    with pytest.raises(ValueError, match="none of the file's weights: export the model that was loaded"):
        narrowed(other, file)
