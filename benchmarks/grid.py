"""Every call of the kernels over a grid of shapes beside torch in float32: none should be slower.

    python benchmarks/grid.py [--json FILE] [--threads N] [--rounds R]

Prints the number of shapes of each call, the least and the median ratio torch / ours, and the slowest shapes.
Times are those of `runtime.py`: turns in short slices, with one thread the processor's.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from runtime import timed
from torch.nn import functional

from greenasr.data.files import write_json
from greenasr.ops.signs import Signs
from greenasr.runtime.kernels import native

WIDTHS, ROWS, BITS = (64, 160, 512, 1536, 2048), (1, 2, 5, 8, 12, 20, 50, 150, 400), (1, 2, 4, 8)
SLICE, SLOWEST = 0.003, 8
Call = Callable[[], Any]
draw = np.random.default_rng(0)


@dataclass(frozen=True)
class Shape:
    """One call and its shape with both times in milliseconds."""

    call: str
    shape: str
    ours_ms: float
    torch_ms: float
    ratio: float


def normal(*shape: int) -> Any:
    """Random activations, float32."""
    return draw.standard_normal(shape).astype(np.float32)


def matrix(n_out: int, inputs: int, bits: int) -> tuple[Any, Any]:
    """A random matrix of so many bits for the kernels, and its weights for torch."""
    most = 1 if bits == 1 else 2 ** (bits - 1) - 1
    codes = draw.integers(-most, most + 1, (n_out, inputs)).astype(np.int8)
    codes = np.where(codes == 0, 1, codes).astype(np.int8) if bits == 1 else codes
    step = np.full((n_out, 1), 0.05, np.float32)
    return native.matrix((codes, bits, step)), torch.from_numpy(codes * step)


def products() -> Iterator[tuple[str, str, Call, Call]]:
    """Linear maps of every width of weights, with a bias and ReLU."""
    for n_out, inputs, rows, bits in product(WIDTHS, WIDTHS, ROWS, BITS):
        weight, dense = matrix(n_out, inputs, bits)
        x, bias, out = normal(rows, inputs), normal(n_out), np.empty((rows, n_out), np.float32)
        there, add = torch.from_numpy(x), torch.from_numpy(bias)

        def ours(x: Any = x, w: Any = weight, b: Any = bias, out: Any = out) -> Any:
            return native.linear(x, w, b, relu="first", out=out)

        def theirs(x: Any = there, w: Any = dense, b: Any = add) -> Any:
            return functional.linear(x, w, b).relu_()

        yield "linear", f"{n_out} x {inputs}, M = {rows}, {bits} bits", ours, theirs


def generated() -> Iterator[tuple[str, str, Call, Call]]:
    """Ternary maps made from their seed, without and with zeros."""
    for width, rows, zeros in product((64, 512, 1024), (1, 8, 50, 400), (0, 128, 230)):
        weight = native.generated(Signs(seed=7, layer=0, rows=width, cols=width, zeros=zeros))
        x, out = normal(rows, width), np.empty((rows, width), np.float32)
        there, dense = torch.from_numpy(x), torch.from_numpy(normal(width, width))

        def ours(x: Any = x, w: Any = weight, out: Any = out) -> Any:
            return native.linear(x, w, out=out)

        def theirs(x: Any = there, w: Any = dense) -> Any:
            return functional.linear(x, w)

        yield "generated", f"{width} x {width}, M = {rows}, t = {zeros}/256", ours, theirs


def vocabularies() -> Iterator[tuple[str, str, Call, Call]]:
    """Log-probabilities of one word a row."""
    for words, inputs, rows in product((300, 2500, 14_848), (160, 512), (1, 5, 20, 400)):
        weight, dense = matrix(words, inputs, 2)
        x, chosen = normal(rows, inputs), np.zeros((rows, 1), np.int32)
        there, at = torch.from_numpy(x), torch.zeros(rows, 1, dtype=torch.int64)

        def ours(x: Any = x, w: Any = weight, chosen: Any = chosen) -> Any:
            return native.vocabulary(x, w, chosen)

        def theirs(x: Any = there, w: Any = dense, at: Any = at) -> Any:
            return functional.log_softmax(functional.linear(x, w), -1).gather(1, at)

        yield "vocabulary", f"{words} x {inputs}, M = {rows}", ours, theirs


def sequences() -> Iterator[tuple[str, str, Call, Call]]:
    """LSTM layers over one frame and over twenty."""
    for dim, frames, streams in product((64, 512, 1024), (1, 20), (1, 8)):
        (weight, _), (recurrent, _) = matrix(4 * dim, dim, 2), matrix(4 * dim, dim, 2)
        x, bias = normal(frames, streams, dim), normal(4 * dim)
        h, c, out = normal(streams, dim), normal(streams, dim), np.empty_like(x)
        layer, there = torch.nn.LSTM(dim, dim), torch.from_numpy(x)

        def ours(
            x: Any = x, w: Any = weight, r: Any = recurrent, b: Any = bias, rest: Any = (h, c, out)
        ) -> Any:
            return native.lstm(x, w, r, b, *rest)

        def theirs(x: Any = there, layer: Any = layer) -> Any:
            return layer(x)

        yield "lstm", f"{dim}, T = {frames}, N = {streams}", ours, theirs


def convolutions() -> Iterator[tuple[str, str, Call, Call]]:
    """Depthwise convolutions."""
    for channels, taps, frames, stride in product((64, 256, 512), (11, 33, 75), (20, 100, 500), (1, 2)):
        x, filters = normal(frames, channels), normal(taps, channels)
        there, kernel = torch.from_numpy(x.T.copy())[None], torch.from_numpy(filters.T.copy())[:, None]

        def ours(x: Any = x, w: Any = filters, stride: int = stride) -> Any:
            return native.depthwise(x, w, stride=stride, pad=len(w) // 2)

        def theirs(x: Any = there, w: Any = kernel, stride: int = stride) -> Any:
            return functional.conv1d(x, w, None, stride, w.shape[2] // 2, groups=len(w))

        yield "depthwise", f"{channels} channels, {taps} taps, T = {frames}, stride {stride}", ours, theirs


def norms() -> Iterator[tuple[str, str, Call, Call]]:
    """Layer norms."""
    for dim, rows in product((64, 512, 1024), (1, 20, 400)):
        x, gain, bias = normal(rows, dim), normal(dim), normal(dim)
        there = [torch.from_numpy(a) for a in (x, gain, bias)]

        def ours(x: Any = x, gain: Any = gain, bias: Any = bias) -> Any:
            return native.layer_norm(x, gain, bias)

        def theirs(there: Any = there, dim: int = dim) -> Any:
            return functional.layer_norm(there[0], (dim,), there[1], there[2])

        yield "layer_norm", f"{rows} x {dim}", ours, theirs


def main() -> None:
    """Print the summary, and write all shapes where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, help="write every shape to this file")
    parser.add_argument("--threads", type=int, default=1, help="of both; one by default")
    parser.add_argument("--rounds", type=int, default=3, help="turns of both a shape")
    options = parser.parse_args()
    native.require()
    native.set_threads(options.threads)
    torch.set_num_threads(options.threads)
    found: dict[str, list[Shape]] = {}
    with torch.inference_mode():
        for maker in (products, generated, vocabularies, sequences, convolutions, norms):
            for call, shape, ours, theirs in maker():
                times: tuple[list[float], list[float]] = ([], [])
                for run in (ours, theirs):
                    run()
                for _ in range(options.rounds):
                    for run, each in zip((ours, theirs), times, strict=True):
                        each.append(1000 * timed(run, SLICE))
                mine, their = (statistics.median(each) for each in times)
                found.setdefault(call, []).append(Shape(call, shape, mine, their, their / mine))
    print(f"{native.isa()}, {options.threads} thread(s), torch {torch.__version__}")
    print("| call | shapes | slower than torch | least ratio | median ratio |\n|:--|--:|--:|--:|--:|")
    for call, shapes in found.items():
        ratios = [each.ratio for each in shapes]
        slower = sum(ratio < 1 for ratio in ratios)
        print(f"| {call} | {len(shapes)} | {slower} | {min(ratios):.2f} | {statistics.median(ratios):.1f} |")
    everything = sorted((each for shapes in found.values() for each in shapes), key=lambda each: each.ratio)
    for each in everything[:SLOWEST]:
        print(
            f"{each.ratio:.2f}  {each.call}, {each.shape}: {each.ours_ms:.4f} ms, torch {each.torch_ms:.4f}"
        )
    if options.json:
        write_json(options.json, [asdict(each) for each in everything])


if __name__ == "__main__":
    main()
