"""Several LSTM layers in one call of the kernels give, bit for bit, what layer after layer gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from greenasr.runtime import engine
from greenasr.runtime.kernels import native
from greenasr.runtime.lstm import LstmStack, through

Made = Callable[..., Any]
pytestmark = pytest.mark.skipif(not native.available(), reason="the extension is not built")


@pytest.mark.parametrize("streams, frames", [(1, 1), (1, 7), (3, 1), (5, 4)])
def test_layers_in_one_call_give_the_bits_of_layer_after_layer(made: Made, streams: int, frames: int) -> None:
    layers = engine.build(made("lstm", layers=3)[0]).layers  # type: ignore[union-attr]
    draw = np.random.default_rng(0)
    x: Any = draw.standard_normal((streams, frames, 16)).astype(np.float32)
    states: Any = [tuple(draw.standard_normal((2, streams, 16)).astype(np.float32)) for _ in layers]
    for before in (None, states):
        kept = [(h.copy(), c.copy()) for h, c in states]
        found, after = through(layers, x, before)
        y = x
        for i, layer in enumerate(layers):
            y, ((h, c),) = through([layer], y, None if before is None else [before[i]])
            assert np.array_equal(after[i][0], h) and np.array_equal(after[i][1], c)
        assert np.array_equal(found, y)
        assert all(np.array_equal(a, b) for a, b in zip(states, kept, strict=True))  # never written to


@pytest.mark.parametrize(
    "config, runs",
    [
        ({}, [(0, 3)]),
        ({"reduction": [2, 1, 2]}, [(0, 2), (2, 3)]),
        ({"layer_norm": True}, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_a_run_of_layers_ends_where_frames_are_joined_or_normalised(
    made: Made, config: dict[str, Any], runs: Any
) -> None:
    stack: LstmStack = engine.build(made("rnnt", encoder_layers=3, **config)[0]).encoder  # type: ignore[union-attr]
    assert stack.runs == runs


def test_layers_that_do_not_fit_are_refused(made: Made) -> None:
    first, second = (layer.maps for layer in engine.build(made("lstm")[0]).layers)  # type: ignore[union-attr]
    x, state = np.zeros((2, 1, 16), np.float32), np.zeros((2, 1, 16), np.float32)
    with pytest.raises(ValueError, match=r"h \(2, 1, 16\) has a shape other than \(1, 1, 16\)"):
        native.lstm_layers(x, [first], state, state)
    with pytest.raises(ValueError, match="an LSTM that reads 16 numbers has 15 before it"):
        native.lstm_layers(np.zeros((2, 1, 15), np.float32), [first, second], state, state)
    with pytest.raises(ValueError, match="a layer at least"):
        native.lstm_layers(x, [], state, state)
