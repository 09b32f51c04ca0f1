"""Static steps of activations: how they are measured, and networks that run with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from greenasr.pipeline.self_tests import measured
from greenasr.runtime import engine, numerics
from greenasr.runtime import format as packed_format
from greenasr.runtime.activations import Rounding, rounded
from greenasr.runtime.calibrate import (
    CENTRES,
    Seen,
    calibrated,
    expected_error,
    largest_step,
    least_error_step,
    steps_of,
)
from greenasr.runtime.kernels import native
from greenasr.runtime.weights import Weights

Made = Callable[..., Any]
KINDS = tuple(engine.FAMILIES)


def drawn(kind: str) -> Any:
    draw = np.random.default_rng(3)
    found = {
        "normal": draw.standard_normal(40_000),
        "laplace": draw.laplace(size=40_000),
        "rectified": np.maximum(draw.standard_normal(40_000), 0),
        "one large": np.concatenate([draw.standard_normal(40_000), [1000.0]]),
        "small": draw.standard_normal(40_000) * 1e-6,
    }[kind]
    return found.astype(np.float32)


def error(x: Any, step: float) -> float:
    """The squared error of rounding by a step, number by number."""
    return float(np.sum((rounded(x, step).astype(np.float64) - x) ** 2))


@pytest.mark.parametrize("kind", ["normal", "laplace", "rectified", "one large", "small"])
def test_the_step_of_least_error_is_as_good_as_the_best_of_a_brute_search(kind: str) -> None:
    x, seen = drawn(kind), Seen()
    for part in np.array_split(x, 7):
        seen(part)
    best = min(error(x, step) for step in np.geomspace(seen.largest / 127 / 500, seen.largest / 127, 400))
    assert error(x, least_error_step(seen)) <= 1.05 * best
    assert error(x, least_error_step(seen)) <= error(x, largest_step(seen)) * 1.0001


def test_the_expected_error_is_that_of_rounding() -> None:
    x, seen = drawn("normal"), Seen()
    seen(x)
    counts = seen.counts[: len(CENTRES)]
    for step in (0.005, 0.01, 0.02, 0.04):
        assert expected_error(step, CENTRES, counts) == pytest.approx(error(x, step), rel=0.1)


def test_what_was_seen_has_its_largest_number_and_shares_to_three_percent() -> None:
    x, seen = drawn("laplace"), Seen()
    seen(np.concatenate([x, np.array([np.nan, np.inf, -np.inf], np.float32)]))
    assert seen.largest == np.abs(x).max() and largest_step(seen) == seen.largest / 127
    for share in (0.5, 0.99, 0.999):
        assert seen.quantile(share) == pytest.approx(np.quantile(np.abs(x), share), rel=0.04)
    assert seen.quantile(1.0) <= seen.largest


def test_a_map_that_saw_only_zeros_has_a_step_all_the_same() -> None:
    seen = Seen()
    seen(np.zeros((3, 4), np.float32))
    assert steps_of({"a": seen}, least_error_step) == {"a": 1.0}


def static(made: Made, kind: str, **config: Any) -> Any:
    """A packed model with steps that were measured on the inputs of its self test."""
    packed, _ = made(kind, **config)
    rounding, outputs = calibrated(packed, lambda network: numerics.outputs(kind, packed.config, network))
    assert np.array_equal(
        outputs, numerics.outputs(kind, packed.config, engine.build(packed, "float32"))
    )  # what is heard while steps are measured is what float32 activations give
    return replace(packed, rounding=rounding)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_with_static_activations_is_near_the_one_in_float32(made: Made, kind: str) -> None:
    packed = static(made, kind)
    exact = numerics.outputs(kind, packed.config, engine.build(packed, "float32"))
    found = numerics.outputs(kind, packed.config, engine.build(packed))
    rms = np.sqrt(np.mean(exact**2))
    assert 0 < np.sqrt(np.mean((found - exact) ** 2)) < 0.05 * rms
    by_row = numerics.outputs(kind, packed.config, engine.build(packed, "int8"))
    assert not np.array_equal(by_row, found)


@pytest.mark.skipif(not native.available(), reason="the extension is not built")
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_give_what_numpy_gives_by_static_steps(
    made: Made, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = static(made, kind, bits=(2, 4, 8))
    weights = Weights(packed, "static")
    engine.FAMILIES[kind](packed.config, weights)
    assert {linear.kernel for linear in weights.maps.values()} == {native.isa()}
    for name, linear in weights.maps.items():
        assert linear.weight.step == np.float32(packed.rounding.steps[name])  # type: ignore[union-attr]
    found = numerics.outputs(kind, packed.config, engine.build(packed))
    monkeypatch.setattr(native, "available", lambda: False)
    slow = numerics.outputs(kind, packed.config, engine.build(packed))
    size = np.sqrt(np.mean(slow**2))
    assert np.abs(found - slow).max() < 0.02 * size  # an activation may fall on the other side of a half
    assert np.abs(found - slow).mean() < 1e-3 * size


@pytest.mark.parametrize("kind", KINDS)
def test_a_static_model_carries_a_self_test_of_its_own(made: Made, kind: str, tmp_path: Any) -> None:
    packed = static(made, kind)
    packed = replace(packed, self_test=measured(packed))
    assert set(packed.self_test["difference"]) == {"int8", "static", "float32"}
    packed_format.write(tmp_path / "m", packed)
    loaded = engine.load(tmp_path / "m")
    found = numerics.outputs(kind, packed.config, loaded.network)
    assert np.array_equal(found, numerics.outputs(kind, packed.config, engine.build(packed, "static")))
    coarse = Rounding("static", {name: 50 * step for name, step in packed.rounding.steps.items()})
    packed_format.write(tmp_path / "m", replace(packed, rounding=coarse))
    with pytest.raises(ValueError, match="the self test failed: with static activations"):
        engine.load(tmp_path / "m")
    engine.load(tmp_path / "m", "int8")


def test_a_file_that_names_float32_runs_so(made: Made) -> None:
    packed = replace(made("tdnnf")[0], rounding=Rounding("float32"))
    found = numerics.outputs("tdnnf", packed.config, engine.build(packed))
    assert np.array_equal(found, numerics.outputs("tdnnf", packed.config, engine.build(packed, "float32")))


def test_steps_that_a_network_lacks_or_does_not_know_are_refused(made: Made) -> None:
    packed = static(made, "tdnnf")
    steps = dict(packed.rounding.steps)
    name, step = steps.popitem()
    with pytest.raises(ValueError, match=f"no step of activations for '{name}'"):
        engine.build(replace(packed, rounding=Rounding("static", steps)))
    more = {**packed.rounding.steps, f"{name} + {name}": step}
    with pytest.raises(ValueError, match=r"is no map\."):
        engine.build(replace(packed, rounding=Rounding("static", more)))
    with pytest.raises(ValueError, match="static activations need steps"):
        engine.build(made("tdnnf")[0], "static")


def test_a_model_without_maps_of_few_bits_and_one_that_heard_nothing_have_no_steps(made: Made) -> None:
    feats = np.zeros((9, 8), np.float32)
    with pytest.raises(ValueError, match="no map of the model is of few bits"):
        calibrated(made("tdnnf", None)[0], lambda network: network.logits(feats))
    with pytest.raises(ValueError, match="multiplied nothing"):
        calibrated(made("tdnnf")[0], lambda network: None)


def test_tied_maps_with_steps_of_their_own_share_no_matrix_but_an_embedding_does(made: Made) -> None:
    packed = static(made, "transformer")
    assert packed.ties
    weights = Weights(packed, "static")
    engine.FAMILIES["transformer"](packed.config, weights)
    if native.available():
        assert all(len(found) == 1 for found in weights.matrices.values())
        other = replace(packed, rounding=Rounding("static", {"embedding": 0.5, "output": 0.25}))
        weights = Weights(other, "static")
        one, two = weights.linear("embedding"), weights.linear("output")
        assert (one.weight.step, two.weight.step) == (0.5, 0.25)  # type: ignore[union-attr]
