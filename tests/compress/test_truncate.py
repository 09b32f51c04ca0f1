"""Bottlenecks of fewer dimensions: nothing is lost at full width, and the nearest product otherwise."""

from __future__ import annotations

import pytest
import torch

from greenasr.compress.truncate import truncated
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig


def network() -> Tdnnf:
    torch.manual_seed(0)
    model = Tdnnf(TdnnfConfig(6, 5, layers=2, dim=12, bottleneck=8, strides=(1, 0), prefinal=8))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.without_xent().eval()


def product(model: Tdnnf, layer: int) -> torch.Tensor:
    """All taps of one factor after all of the other, (K O, K I)."""
    b = model.config.bottlenecks[layer]
    a, c = model.layers[layer].linear.weight, model.layers[layer].affine.weight  # type: ignore[union-attr]
    taps = [[c[:, j : j + b] @ a[k : k + b] for k in range(0, len(a), b)] for j in range(0, c.shape[1], b)]
    return torch.cat([torch.cat(row, 1) for row in taps]).detach()


def test_a_layer_that_keeps_all_but_silent_dimensions_computes_what_it_did() -> None:
    model, feats = network(), torch.randn(2, 20, 6)
    with torch.no_grad():
        for name in ("linear", "affine"):
            weight = getattr(model.layers[0], name).weight
            if name == "linear":
                weight.unflatten(0, (-1, 8))[:, 3:] = 0  # of 8 dimensions three speak
        small = truncated(model, {"layers.0": 3})
        assert small.config.bottlenecks == (3, 8)
        torch.testing.assert_close(small(feats)[0], model(feats)[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(small.layers[1].linear.weight, model.layers[1].linear.weight)


def test_no_product_of_so_few_dimensions_is_nearer() -> None:
    model = network()
    before, small = product(model, 0), truncated(model, {"layers.0": 5})
    left = torch.linalg.svdvals(before)[5:].square().sum()
    assert float((product(small, 0) - before).square().sum()) == pytest.approx(float(left), rel=1e-4)


def test_odd_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="no bottleneck is called 'layers.9': there are layers.0, layers.1"):
        truncated(network(), {"layers.9": 2})
    with pytest.raises(ValueError, match="'layers.0' has 8 dimensions: 9 cannot be kept"):
        truncated(network(), {"layers.0": 9})
