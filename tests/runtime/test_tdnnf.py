"""The TDNN-F in one call of the kernels gives, bit for bit, what product after product gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from greenasr.runtime import engine
from greenasr.runtime.calibrate import calibrated
from greenasr.runtime.kernels import native
from greenasr.runtime.tdnnf import Tdnnf

Made = Callable[..., Any]
pytestmark = pytest.mark.skipif(not native.available(), reason="the extension is not built")
CONFIGS: list[dict[str, Any]] = [
    {},
    {"front": 10, "ivector_dim": 5, "splice": 2},
    {"ivector_dim": 3, "strides": [3, 3, 0, 3]},  # the rate drops before the first layer
    {"strides": [1, 2, 5, 1]},  # … behind the last
    {"strides": [2, 0, 9, 40], "subsampling": 3},  # the last reaches beyond most utterances
    {"strides": [1, 2, 4, 6], "subsampling": 2, "splice": 0, "bottleneck": [8, 5, 1, 7]},
    {"strides": [1, 0, 2, 1], "subsampling": 1},
    {"strides": [20, 7, 1, 150]},
]


@pytest.fixture
def all_threads() -> Iterator[None]:
    """Products on every core, with what the kernels were set to before restored behind."""
    before = native.threads()
    native.set_threads(native.cores())
    yield
    native.set_threads(before)


def _speaker(network: Tdnnf, draw: np.random.Generator) -> dict[str, Any]:
    names = ["input.norm", *(f"layers.{i}.norm" for i in range(len(network.layers)))]
    return {name: draw.standard_normal(24).astype(np.float32) for name in names[::2]}


@pytest.mark.parametrize("activations", ["int8", "static"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_one_call_gives_the_bits_of_layer_after_layer(
    made: Made, all_threads: None, config: dict[str, Any], activations: Any
) -> None:
    packed, _ = made("tdnnf", **config)
    draw = np.random.default_rng(0)
    if activations == "static":
        heard = [draw.standard_normal((50, n)).astype(np.float32) for n in (8, config.get("ivector_dim", 0))]
        rounding, _ = calibrated(packed, lambda net: net.logits(*[x for x in heard if x.size]))  # type: ignore
        packed = replace(packed, rounding=rounding)
    network: Any = engine.build(packed)
    assert network.kernels is not None
    for frames in (1, 2, 3, 4, 7, 20, 95, 96, 97, 145, 300):
        feats = draw.standard_normal((frames, 8)).astype(np.float32)
        vectors: Any = [None]
        if n := config.get("ivector_dim", 0):
            vectors = [draw.standard_normal(shape).astype(np.float32) for shape in ((n,), (frames, n))]
        for vector in vectors:
            wide = None if vector is None else np.broadcast_to(vector, (frames, n))
            for lhuc in (None, _speaker(network, draw)):
                found = network.logits(feats, vector, lhuc)
                assert np.array_equal(found, network.step_by_step(feats, wide, lhuc)), (frames, lhuc)


def test_networks_of_any_settings_give_the_bits_of_layer_after_layer(made: Made) -> None:
    draw = np.random.default_rng(1)
    for _ in range(30):
        layers = int(draw.integers(1, 6))
        strides = draw.integers(0, 8, layers) * draw.integers(1, 4)
        network: Any = engine.build(
            made(
                "tdnnf",
                layers=layers,
                strides=strides.tolist(),
                subsampling=int(draw.integers(1, 5)),
                splice=int(draw.integers(0, 3)),
                front=int(draw.integers(0, 2)) * 5,
            )[0]
        )
        for frames in draw.integers(1, 400, 3):
            feats = draw.standard_normal((frames, 8)).astype(np.float32)
            assert np.array_equal(network.logits(feats), network.step_by_step(feats, None, None)), (
                strides,
                frames,
            )


def test_several_streams_run_through_one_network_at_once(made: Made, all_threads: None) -> None:
    network: Any = engine.build(made("tdnnf", dim=200, bottleneck=40)[0])
    draw = np.random.default_rng(2)
    streams = [
        draw.standard_normal((frames, 8)).astype(np.float32) for frames in (300, 5, 96, 1, 210, 33) * 4
    ]
    expected = [network.step_by_step(feats, None, None) for feats in streams]
    with ThreadPoolExecutor(6) as pool:
        for found, wanted in zip(pool.map(network.logits, streams), expected, strict=True):
            assert np.array_equal(found, wanted)


def test_what_a_thread_computed_before_changes_nothing(made: Made) -> None:
    network: Any = engine.build(made("tdnnf")[0])
    feats = np.random.default_rng(3).standard_normal((40, 8)).astype(np.float32)
    before = network.logits(feats)
    network.logits(np.full((200, 8), np.nan, np.float32))  # fills the memory that the thread keeps
    assert np.array_equal(network.logits(feats), before)
    rows = np.asfortranarray(feats)  # in another order
    assert np.array_equal(network.logits(rows), before)


def test_vectors_of_other_shapes_are_refused(made: Made) -> None:
    network: Any = engine.build(made("tdnnf", ivector_dim=5)[0])
    feats = np.zeros((9, 8), np.float32)
    with pytest.raises(ValueError, match=r"i-vectors are of 0 dimensions, the network reads 5"):
        network.logits(feats)
    with pytest.raises(ValueError, match=r"i-vectors are \(4, 5\): give one, or one for each of 9 frames"):
        network.logits(feats, np.zeros((4, 5), np.float32))
    with pytest.raises(ValueError, match=r"norm \(3,\) has a shape other than \(24\)"):
        small = np.zeros(3, np.float32)
        native.tdnnf(network.kernels, feats, (3, 20), np.zeros((9, 5), np.float32), [small] * 10)


def test_maps_that_do_not_fit_each_other_are_refused(made: Made) -> None:
    network: Any = engine.build(made("tdnnf")[0])
    entry, factor = ((m.weight, None, None, None) for m in (network.input.affine, network.layers[0].affine))
    settings = {"feat_dim": 8, "ivector_dim": 0, "splice": 1, "third": 3, "at": 0, "bypass": 0.66}
    with pytest.raises(ValueError, match=r"'prefinal' reads 16 numbers, before it are 24"):
        native.tdnnf_network(None, entry, [], [factor] * 4, strides=[], **settings)
    with pytest.raises(ValueError, match=r"'layers.0.affine' reads 16 numbers, before it are 24"):
        native.tdnnf_network(None, entry, [(entry, factor)], [entry] * 4, strides=[1], **settings)
    with pytest.raises(ValueError, match="two maps for each of its 1 layers"):
        native.tdnnf_network(None, entry, [], [entry] * 4, strides=[1], **settings)
