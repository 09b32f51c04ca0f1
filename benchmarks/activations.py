r"""Static steps of activations against a step a row: what words they cost, and what time they save.

    python benchmarks/activations.py --full FLOAT --models A.packed B.packed --lm LM --dev CUTS --test CUTS \
        --out DIR
    python benchmarks/activations.py

The first hears dev and test with every model: activations in float32, int8 row by row, and int8 by static
steps that were measured on dev, by each way of choosing them.  The second multiplies matrices of 4 bits on
one thread, a row and 150 rows at a time: microseconds of a processor, the least of turns taken in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from greenasr.runtime.calibrate import Seen, calibrated, largest_step, least_error_step
from greenasr.runtime.kernels import native
from greenasr.runtime.linear import Dense

SHAPES = ((192, 192), (512, 512), (1536, 256), (256, 1536))
TURNS = 20
STEPS: Mapping[str, Callable[[Seen], float]] = {
    "static, largest": largest_step,
    "static, 99.99 %": lambda seen: seen.quantile(0.9999) / 127,
    "static, 99.9 %": lambda seen: seen.quantile(0.999) / 127,
    "static, least error": least_error_step,
}


def words(given: argparse.Namespace) -> None:
    """A line a model and kind of activations: errors on dev and test, and how far logits of dev move."""
    from greenasr.runtime import engine
    from greenasr.runtime import format as packed_format
    from greenasr.shrinking.board import Board
    from greenasr.shrinking.recognisers import Hearing, recogniser

    cuts = {"train": given.dev, "dev": given.dev, "test": given.test}
    hearing = Hearing(beam=given.beam, word_penalty=given.word_penalty)
    kind = packed_format.read(given.full).model
    _, task, _ = recogniser(kind, given.full, cuts, Board(given.out), given.lm, hearing)
    for path in given.models:
        packed = packed_format.read(path)

        def hear(network: Any) -> str:
            found = []
            for split in ("dev", "test"):
                rows = [row.errors for row in task.score(network, split)]
                wrong = sum(e.n_sub + e.n_del + e.n_ins for e in rows)
                found.append(f"{wrong:5d} of {sum(e.n_ref for e in rows)} on {split}")
            return ", ".join(found)

        print(f"{path}\n    {'float32':22s}{hear(engine.build(packed, 'float32'))}")
        print(f"    {'int8 a row':22s}{hear(engine.build(packed, 'int8'))}")
        seen: dict[str, Any] = {}
        for name, step_of in STEPS.items():
            seen[name], _ = calibrated(packed, lambda network: task.score(network, "dev"), step_of)
            static = replace(packed, rounding=seen[name], self_test={})
            print(f"    {name:22s}{hear(engine.build(static))}", flush=True)


def speed() -> None:
    """A line a shape and number of rows."""
    native.set_threads(1)
    draw = np.random.default_rng(0)
    print(f"4 bits, {native.isa()}, one thread, microseconds of a processor; float32 is NumPy's product")
    for outputs, inputs in SHAPES:
        codes, step = draw.integers(-7, 8, (outputs, inputs)).astype(np.int8), np.float32(0.1)
        weight, exact = (
            native.matrix((codes, 4, np.full((outputs, 1), step))),
            Dense(codes * step, None, False),
        )
        for rows in (1, 150):
            x = draw.standard_normal((rows, inputs)).astype(np.float32)
            out = np.empty((rows, outputs), np.float32)
            runs = {
                "int8 a row": partial(native.linear, x, weight, out=out),
                "static": partial(native.linear, x, weight, out=out),
                "float32": partial(exact, x),
            }
            found = least(weight, runs, max(1, 4000 // rows))
            times = ", ".join(f"{name} {found[name]:8.2f}" for name in runs)
            less = 100 * (1 - found["static"] / found["int8 a row"])
            print(f"{outputs:5d} x {inputs:<5d}{rows:4d} rows: {times}; static {less:.0f} % less")


def least(weight: Any, runs: Mapping[str, Callable[[], Any]], calls: int) -> dict[str, float]:
    """Microseconds of a call of each, the least of all turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            weight.step = 0.03 if name == "static" else 0.0
            began = time.process_time()
            for _ in range(calls):
                run()
            times[name].append(1e6 * (time.process_time() - began) / calls)
    return {name: min(taken) for name, taken in times.items()}


def main() -> None:
    """Words where models are given, else speed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", type=Path, help="the packed float model")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="packed models made of it")
    parser.add_argument("--lm", type=Path, help="an ARPA file, for a hybrid")
    parser.add_argument("--dev", type=Path, help="cuts that steps are measured on")
    parser.add_argument("--test", type=Path, help="other cuts")
    parser.add_argument("--out", type=Path, help="folder for features and graph")
    parser.add_argument("--beam", type=float)
    parser.add_argument("--word-penalty", type=float, default=0.0)
    given = parser.parse_args()
    words(given) if given.models else speed()


if __name__ == "__main__":
    main()
