"""LSTM layers without torch: whole sequences, or frames as they come, with the state as a value.

    i, f, g, o = W x_t + b + R h_{t-1}
    c_t        = σ(f) c_{t-1} + σ(i) tanh(g)
    h_t        = σ(o) tanh(c_t)

Hochreiter and Schmidhuber 1997 with forget gates.  W x of all frames is one product, R h one a frame.
Shapes: N streams, T frames, I input, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greenasr.runtime.kernels import native
from greenasr.runtime.linear import in_kernels
from greenasr.runtime.pointwise import Floats, layer_norm, sigmoid
from greenasr.runtime.weights import Weights

State = tuple[Floats, Floats]  # h and c after the last frame, (N, D) each; never written to


class LstmLayer:
    """One layer; the gates lie in the order of torch."""

    def __init__(self, weights: Weights, name: str):
        self.input, self.recurrent = weights.linear(f"{name}.input"), weights.linear(f"{name}.recurrent")
        self.dim = self.recurrent.inputs
        maps = in_kernels(self.input, self.recurrent)
        self.maps = None if maps is None else (maps[0][0], maps[1][0], maps[0][1])

    def __call__(self, x: Floats, state: State | None = None) -> tuple[Floats, State]:
        """(N, T, I) and the state before it -> (N, T, D) and the state after it, in NumPy."""
        n, t, inputs = x.shape
        h, c = state if state is not None else (np.zeros((n, self.dim), np.float32),) * 2
        gates = self.input(x.reshape(n * t, inputs)).reshape(n, t, 4 * self.dim)
        out = np.empty((n, t, self.dim), np.float32)
        for at in range(t):
            i, f, g, o = np.split(gates[:, at] + self.recurrent(h), 4, 1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            out[:, at] = h = sigmoid(o) * np.tanh(c)
        return out, (h, c)


def through(
    layers: Sequence[LstmLayer], x: Floats, states: Sequence[State] | None
) -> tuple[Floats, tuple[State, ...]]:
    """Layers one above the other, (N, T, I) and the states before it -> (N, T, D) and the states after it.

    In one call, where all are the kernels' and of one width.
    """
    maps = [layer.maps for layer in layers if layer.maps is not None]
    if len(maps) == len(layers) and len({layer.dim for layer in layers}) == 1:
        both = np.zeros((2, len(layers), len(x), layers[0].dim), np.float32)
        for i, state in enumerate(states or ()):
            both[0, i], both[1, i] = state
        frames = np.ascontiguousarray(x.swapaxes(0, 1), np.float32)
        y = native.lstm_layers(frames, maps, *both)
        return np.ascontiguousarray(y.swapaxes(0, 1)), tuple(zip(*both, strict=True))
    if len(layers) == 1:
        y, after = layers[0](x, None if states is None else states[0])
        return y, (after,)
    found: list[State] = []
    for i, layer in enumerate(layers):
        x, own = through([layer], x, None if states is None else states[i : i + 1])
        found += own
    return x, tuple(found)


@dataclass(frozen=True, eq=False)
class StackState:
    """Where streams stand: h and c of every layer, and frames (N, k, I) that wait for others to join."""

    lstm: tuple[State, ...]
    waiting: tuple[Floats | None, ...]


class LstmStack:
    """Layers on top of each other; before layer l, ``reduction[l]`` frames in a row join into one.

    An utterance's last group is filled with zeros.  A layer may close with a layer norm.
    """

    def __init__(self, weights: Weights, name: str, reduction: Sequence[int]):
        self.reduction = tuple(reduction)
        self.layers = [LstmLayer(weights, f"{name}.layers.{i}") for i in range(len(self.reduction))]
        self.norms = [
            (weights.array(f"{name}.norms.{i}.weight"), weights.array(f"{name}.norms.{i}.bias"))
            if weights.has(f"{name}.norms.{i}.weight")
            else None
            for i in range(len(self.reduction))
        ]
        # layers between which nothing is joined or normalised, (first, end)
        starts = [i for i, r in enumerate(self.reduction) if i == 0 or r > 1 or self.norms[i - 1] is not None]
        self.runs = list(zip(starts, [*starts[1:], len(self.reduction)], strict=True))

    def __call__(
        self, x: Floats, state: StackState | None = None, last: bool = True
    ) -> tuple[Floats, StackState]:
        """(N, T, I), what went before and whether this is the end -> (N, T', D) and the state after it."""
        lstm: list[State] = []
        waiting: list[Floats | None] = []
        for start, end in self.runs:
            rest, r = None if state is None else state.waiting[start], self.reduction[start]
            if r > 1:
                x, rest = join(x if rest is None else np.concatenate((rest, x), 1), r, last)
            x, after = through(self.layers[start:end], x, None if state is None else state.lstm[start:end])
            norm = self.norms[end - 1]
            x = x if norm is None else layer_norm(x, *norm)
            lstm += after
            waiting += [rest, *(None for _ in range(start + 1, end))]
        return x, StackState(tuple(lstm), tuple(waiting))


def join(x: Floats, n: int, last: bool) -> tuple[Floats, Floats]:
    """Groups of ``n`` frames as one, (N, T, I) -> (N, T // n, n I), and the frames left over.

    At the ``last`` frames none is left over: zeros fill the group.
    """
    if last and x.shape[1] % n:
        x = np.pad(x, ((0, 0), (0, n - x.shape[1] % n), (0, 0)))
    groups = x.shape[1] // n
    return x[:, : groups * n].reshape(len(x), groups, n * x.shape[2]), x[:, groups * n :]
