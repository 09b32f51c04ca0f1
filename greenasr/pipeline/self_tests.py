"""The self test of a packed model: torch and the runtime on the same inputs, when the file is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from greenasr.models.on_arrays import on_arrays
from greenasr.runtime import engine, numerics
from greenasr.runtime.activations import Activations
from greenasr.runtime.format import Packed
from greenasr.runtime.pack import state_of
from greenasr.tasks.networks import build


def measured(packed: Packed) -> dict[str, Any]:
    """`numerics.SelfTest` as JSON; {} for a network that the runtime lacks or that gives no finite numbers.

    Torch's network has the weights that the file holds, so a difference is the runtime's alone.
    """
    if packed.model not in engine.FAMILIES:
        return {}
    packed = replace(packed, self_test={})
    model = build(packed.model, packed.config)
    model.load_state_dict(state_of(packed))
    expected = numerics.outputs(packed.model, packed.config, on_arrays(model.eval()))
    found: dict[str, Any] = {
        kind: numerics.outputs(packed.model, packed.config, engine.build(packed, kind))
        for kind in kinds_of(packed)
    }
    test = numerics.measure(expected, found)
    return {} if test is None else test.to_json()


def kinds_of(packed: Packed) -> tuple[Activations, ...]:
    """The kinds of activations that a file can be run with."""
    return ("int8", "static", "float32") if packed.rounding.steps else ("int8", "float32")
