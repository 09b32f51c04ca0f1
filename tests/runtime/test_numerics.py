"""The self test: what it measures, what it lets pass, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from greenasr.models.on_arrays import on_arrays
from greenasr.pipeline.self_tests import kinds_of, measured
from greenasr.runtime import engine, format, numerics

Made = Callable[..., Any]


@pytest.mark.parametrize("kind", engine.FAMILIES)
def test_the_difference_is_that_of_all_outputs_over_their_size(made: Made, kind: str) -> None:
    packed, model = made(kind)
    test = numerics.SelfTest.from_json(measured(packed))
    expected = numerics.outputs(kind, packed.config, on_arrays(model))
    assert test.rms == pytest.approx(np.sqrt(np.mean(expected**2)), rel=1e-4)
    for activations in kinds_of(packed):
        found = numerics.outputs(kind, packed.config, engine.build(packed, activations))
        slow = np.abs(found - expected).max() / test.rms
        assert test.difference[activations] == pytest.approx(slow, rel=0.01, abs=1e-6)
    assert test.difference["float32"] < 1e-4 < test.difference["int8"]
    np.testing.assert_allclose(test.values, expected[numerics.kept(len(expected))], rtol=1e-5)


@pytest.mark.parametrize("kind", engine.FAMILIES)
@pytest.mark.parametrize("activations", ["int8", "float32"])
def test_a_network_that_computes_something_else_is_refused(
    made: Made, kind: str, activations: Any, tmp_path: Any
) -> None:
    packed, _ = made(kind)
    packed = replace(packed, self_test=measured(packed))
    format.write(tmp_path / "m", packed)
    assert format.read(tmp_path / "m").version == 1  # an old reader passes the key over
    engine.load(tmp_path / "m", activations)
    spans = {
        key: replace(span, step=span.step * np.float32(1.3)) if "0" in key or "out" in key else span
        for key, span in packed.spans.items()
    }
    format.write(tmp_path / "m", replace(packed, spans=spans))
    with pytest.raises(ValueError, match=rf"m: the self test failed: with {activations} activations"):
        engine.load(tmp_path / "m", activations)


def test_a_network_that_gives_no_numbers_has_no_self_test(made: Made) -> None:
    packed, _ = made("tdnnf", None)
    broken = {
        name: np.full_like(a, np.nan) if name == "output.bias" else a for name, a in packed.rest.items()
    }
    assert measured(replace(packed, rest=broken)) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "2"},
        {"values": []},
        {"values": [1.0] * 17},
        {"rms": "nan"},
        {"difference": 3},
        {"values": None},
    ],
)
def test_a_self_test_that_is_none_is_refused(made: Made, change: dict[str, Any]) -> None:
    packed, _ = made("lstm")
    with pytest.raises(ValueError, match="here: its self test is not"):
        engine.build(replace(packed, self_test={**measured(packed), **change}), where="here")


def test_inputs_follow_from_nothing_but_their_number() -> None:
    np.testing.assert_allclose(numerics.uniform(3), [0.6180339887, 0.2360679775, 0.8541019662], atol=1e-9)
    assert abs(numerics.normal((4000,)).mean()) < 0.01 and abs(numerics.normal((4000,)).std() - 1) < 0.01
