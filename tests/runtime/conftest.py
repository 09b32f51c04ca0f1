"""Small networks on their grids, as packed models and as the torch networks that the files describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from greenasr.compress.attach import make_grids, settle_
from greenasr.compress.clusters import make_clusters
from greenasr.roles import BitMap
from greenasr.runtime.format import Packed
from greenasr.runtime.pack import pack, unpack
from greenasr.tasks.networks import NETWORKS, build

SIZES: dict[str, dict[str, Any]] = {
    "transformer": {"vocab": 50, "layers": 2, "dim": 16, "heads": 2, "hidden": 32, "context": 24},
    "lstm": {"vocab": 50, "layers": 2, "dim": 16},
    "tdnnf": {"feat_dim": 8, "n_pdfs": 20, "layers": 4, "dim": 24, "bottleneck": 8, "prefinal": 12,
              "strides": [1, 1, 0, 3], "xent": False},
    "rnnt": {"feat_dim": 8, "vocab": 12, "encoder_layers": 2, "encoder_dim": 16, "predictor_layers": 2,
             "predictor_dim": 12, "embedding_dim": 8, "joint_dim": 16},
    "quartznet": {"feat_dim": 8, "vocab": 10, "blocks": 2, "repeat": 2, "width": 8, "kernels": [5, 9],
                  "ends": [11, 7]},
    "matchboxnet": {"feat_dim": 8, "classes": 6, "blocks": 2, "repeat": 2, "width": 8, "edge": 12},
}  # fmt: skip
Made = Callable[..., tuple[Packed, nn.Module]]


@pytest.fixture
def made(tmp_path: Any) -> Made:
    """``made(kind, bits=…, **config)``: a packed model, and the torch network that its file describes.

    ``bits`` are given to the clusters in turn; None packs full precision.
    """

    def make(
        kind: str,
        bits: tuple[int, ...] | None = (1, 2, 4, 8),
        step: str = "row",
        bands: Any = None,
        **config: Any,
    ) -> tuple[Packed, nn.Module]:
        torch.manual_seed(1)
        model = build(kind, {**SIZES[kind], **config}).eval()
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if name.endswith(("running_mean", "norm.bias", "affine.bias")):
                    tensor.normal_(0, 0.3)
                elif name.endswith(("running_var", "norm.weight")):
                    tensor.uniform_(0.5, 2)
                elif name == "output.weight":
                    tensor.normal_(0, 0.3)
        plan, quantized = None, {}
        if bits is not None:
            found = make_clusters(model, bands=bands)
            widths = {cluster.name: bits[i % len(bits)] for i, cluster in enumerate(found)}
            plan = BitMap(found, widths, step)
            quantized = settle_(model, make_grids(model, plan))
        path = tmp_path / f"{kind}.packed"
        pack(path, kind, model.to_config(), model.state_dict(), quantized, plan, {}, {})  # type: ignore[operator]
        packed, state = unpack(path)
        own = NETWORKS[kind][0](NETWORKS[kind][1](**packed.config)).eval()
        own.load_state_dict(state)
        return packed, own

    return make
