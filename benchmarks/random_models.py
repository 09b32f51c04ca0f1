"""Packed models of published sizes with random weights, where speed alone is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from greenasr.compress.clusters import weights
from greenasr.ops import bits as bitpack
from greenasr.ops.signs import Signs
from greenasr.runtime.format import Packed, PackedSpan
from greenasr.runtime.pack import SIGNS
from greenasr.tasks.networks import build

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "LM": ("transformer", {"vocab": 14_848, "layers": 6, "dim": 512, "heads": 8, "hidden": 2048}),
    "TDNN-F": ("tdnnf", {"feat_dim": 40, "n_pdfs": 3000, "layers": 15, "xent": False}),
    "RNN-T": ("rnnt", {"feat_dim": 128, "vocab": 2501}),
    "QuartzNet-15x5": ("quartznet", {"feat_dim": 64, "vocab": 29}),
    "QuartzNet-15x5, generated": (
        "quartznet",
        {"feat_dim": 64, "vocab": 29, "skips": "ternary", "ternary": {"seed": 3, "threshold": 0.5}},
    ),
    "MatchboxNet-3x1x64": ("matchboxnet", {"feat_dim": 64, "classes": 35}),
}


def random_model(name: str, bits: int = 2) -> Packed:
    """One of `MODELS`, a step a row; 2 bits are ternary, what its settings generate has a seed."""
    kind, config = MODELS[name]
    torch.manual_seed(0)
    model = build(kind, config).eval()
    draw, spans, shapes = np.random.default_rng(0), {}, {}
    most = (1 << (bits - 1)) - 1
    for key, weight in weights(model).items():
        flat = weight.detach().flatten(1)
        codes = draw.integers(-most, most + 1, flat.shape).astype(np.int8)
        step = (flat.std(1, keepdim=True) * 1.2 / most).numpy()
        shapes[key] = tuple(weight.shape)
        span = PackedSpan(key, 0, len(flat), flat.shape[1], bits, bitpack.pack(codes, bits), step)
        spans[span.key] = span
    rest = {key: t.numpy() for key, t in model.state_dict().items() if key not in shapes}
    signs = {key: rest.pop(key) for key in list(rest) if key.endswith(SIGNS)}
    seeds = {f"{key.removesuffix(SIGNS)}.weight": Signs.from_numbers(n.tolist()) for key, n in signs.items()}
    ties = {"output.weight": "embedding.weight"} if kind == "transformer" else {}
    rest = {key: array for key, array in rest.items() if key not in ties}
    units = {"features": {"format": "greenasr features 1", "kind": "fbank", "cmvn": "none"}}
    units["features"]["bins"] = config.get("feat_dim", 40)
    return Packed(kind, model.to_config(), {}, spans, rest, units, {}, shapes, ties, seeds)  # type: ignore[operator]
