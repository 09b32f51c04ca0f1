"""Damaged packed files by the hundred thousand: whatever one holds, reading it ends in one line or a model.

    python benchmarks/fuzz_packed.py [--files N] [--seed S] [--json FILE]

Small models of every network are written, then changed: bytes flipped, cut, repeated and swapped, with and
without a checksum that fits again; values of the table replaced by absurd ones (sizes that overflow,
negative, huge, of another kind, nested); bombs in place of the table; settings of other networks.  Each file
is read and, if it can be, its network is built.  Counted are outcomes; a run fails on an exception that
is not a ValueError of one line, on a file that takes the processor longer than `SLOW` seconds, or on memory
(tracemalloc's peak) above four times the file and `ROOM` bytes.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import json
import random
import resource
import time
import tracemalloc
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from greenasr.compress.attach import make_grids, settle_
from greenasr.compress.clusters import make_clusters
from greenasr.data.files import write_json
from greenasr.pipeline.self_tests import measured
from greenasr.roles import BitMap
from greenasr.runtime import engine, numerics
from greenasr.runtime import format as packed_format
from greenasr.runtime.calibrate import calibrated
from greenasr.runtime.pack import pack
from greenasr.tasks.networks import build

SLOW, ROOM, LIMIT = 2.0, 4 << 20, 8 << 30  # the last: of the process, so that a mistake hurts nobody else
TRACED = 10  # every so many files memory is traced
SIZES: dict[str, dict[str, Any]] = {
    "transformer": {"vocab": 50, "layers": 2, "dim": 16, "heads": 2, "hidden": 32, "context": 24},
    "lstm": {"vocab": 50, "layers": 2, "dim": 16},
    "tdnnf": {"feat_dim": 8, "n_pdfs": 20, "layers": 4, "dim": 24, "bottleneck": 8, "prefinal": 12,
              "strides": [1, 1, 0, 3], "xent": False},
    "rnnt": {"feat_dim": 8, "vocab": 12, "encoder_layers": 2, "encoder_dim": 16, "predictor_layers": 2,
             "predictor_dim": 12, "embedding_dim": 8, "joint_dim": 16},
    "quartznet": {"feat_dim": 8, "vocab": 10, "blocks": 2, "repeat": 2, "width": 8, "kernels": [5, 9],
                  "skips": "ternary", "ternary": {"seed": 3, "threshold": 0.4}},
    "matchboxnet": {"feat_dim": 8, "classes": 6, "blocks": 2, "repeat": 2, "width": 8, "edge": 12},
}  # fmt: skip
ABSURD: list[Any] = [
    *(-1, 0, 1, 2, 3, 1 << 31, 1 << 40, 1 << 63, 1 << 64, 10**30, -(1 << 63), 0.5, 1e308, True, False, None),
    *("", "x", "\x00", "é" * 50, [], [[]], {}, {"a": 1}, [1, 2], [-1], [1 << 62, 4], [0, 0], [1 << 40, 0]),
]


def originals(folder: Path) -> list[bytes]:
    """A small packed model of every network, with self tests.

    In full precision, and at mixed widths with a step of activations a row and with static ones.
    """
    found = []
    for kind, config in SIZES.items():
        for bits in (None, (1, 2, 4, 8)):
            torch.manual_seed(1)
            model = build(kind, config).eval()
            plan, quantized = None, {}
            if bits is not None:
                clusters = make_clusters(model)
                plan = BitMap(clusters, {c.name: bits[i % 4] for i, c in enumerate(clusters)}, "row")
                quantized = settle_(model, make_grids(model, plan))
            units = {"kind": "words", "words": "<eos> <unk> a b"}
            state = model.state_dict()
            pack(folder / "m", kind, model.to_config(), state, quantized, plan, units, {}, measure=measured)  # type: ignore[operator]
            found.append((folder / "m").read_bytes())
            if bits is not None:
                found.append(static(kind, packed_format.from_bytes(found[-1])))
    return found


def static(kind: str, packed: packed_format.Packed) -> bytes:
    """The same model with static steps of activations."""
    rounding, _ = calibrated(packed, lambda network: numerics.outputs(kind, packed.config, network))
    packed = replace(packed, rounding=rounding)
    return packed_format.to_bytes(replace(packed, self_test=measured(packed)))


def resealed(data: bytes) -> bytes:
    """The bytes with a checksum that fits, where the place of one is still there."""
    place = data.find(b'"sha256":"') + 10
    if place < 18 or place + 64 > len(data):
        return data
    digest = hashlib.sha256(data[:place] + b"0" * 64 + data[place + 64 :]).hexdigest().encode()
    return data[:place] + digest + data[place + 64 :]


def bent(draw: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut, repeated or swapped."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        at, n = draw.randrange(len(out)), draw.choice((1, 2, 4, 8, 64))
        kind = draw.randrange(6)
        if kind == 0:
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            out[at : at + n] = draw.randbytes(n)
        elif kind == 2:
            del out[at : at + n]
        elif kind == 3:
            out[at:at] = out[at : at + n]
        elif kind == 4:
            out[at : at + n] = bytes([draw.choice((0, 255, 48, 57, 91, 123))]) * n
        else:
            del out[at:]
        if not out:
            break
    return bytes(out)


def with_table(data: bytes, change: Any) -> bytes:
    """The file with another table: ``change`` takes the table or its text and gives text."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    low, _ = header["meta"]["data_offsets"]
    meta = change(bz2.decompress(data[start + low :]))
    header["meta"] |= {"data_offsets": [low, low + len(meta)], "shape": [len(meta)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return resealed(len(text).to_bytes(8, "little") + text + data[start : start + low] + meta)


def absurd_table(draw: random.Random, text: bytes) -> bytes:
    """A few values of the table replaced, anywhere in it."""
    table = json.loads(text)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at: Any = table
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(at[key], dict | list) and at[key] and draw.random() < 0.85:
                at = at[key]
                continue
            if draw.random() < 0.1:
                del at[key]
            else:
                at[key] = deepcopy(draw.choice(ABSURD))
            break
    return bz2.compress(json.dumps(table).encode())


def bomb(draw: random.Random, text: bytes) -> bytes:
    """A table that is far larger than it looks, or nested without end."""
    size = draw.choice((1 << 16, 1 << 20, 1 << 24))
    kind = draw.randrange(5)
    inside = [b"[" * size, b"[0," * size, b" " * size, b'{"a":' * size, text + b" " * size][kind]
    return bz2.compress(inside[: 1 << 25])


def mutated(draw: random.Random, files: list[bytes]) -> tuple[str, bytes]:
    """A kind of damage, and a file that has it."""
    data, kind = draw.choice(files), draw.random()
    if kind < 0.25:
        return "bytes", bent(draw, data)
    if kind < 0.5:
        return "bytes, checksum fits", resealed(bent(draw, data))
    if kind < 0.95:
        return "table", with_table(data, lambda text: absurd_table(draw, text))
    if kind < 0.955:
        return "bomb", with_table(data, lambda text: bomb(draw, text))
    if kind < 0.975:
        return "bent table", with_table(data, lambda text: bz2.compress(bent(draw, text)))
    other = packed_format.from_bytes(draw.choice(files))
    packed = packed_format.from_bytes(data)
    swapped = replace(packed, model=other.model, config=other.config, self_test=other.self_test)
    return "another's settings", packed_format.to_bytes(swapped)


def outcome(data: bytes) -> str:
    """What became of a file; anything but a ValueError of one line is raised."""
    try:
        packed = packed_format.from_bytes(data, "here")
    except ValueError as error:
        assert "\n" not in str(error), error
        return "refused by the reader"
    try:
        engine.build(packed, where="here")
    except ValueError as error:
        assert "\n" not in str(error), error
        return "refused by the engine"
    return "a model"


def main() -> None:
    """Run, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000, help="damaged files")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    draw, counts, slowest, peak = random.Random(args.seed), Counter[str](), 0.0, 0
    with TemporaryDirectory() as folder:
        files = originals(Path(folder))
    assert [outcome(data) for data in files] == ["a model"] * len(files)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    for n in range(args.files):
        kind, data = mutated(draw, files)
        traced = n % TRACED == 0
        if traced:
            tracemalloc.start()
        start = time.process_time()
        found = outcome(data)
        seconds = time.process_time() - start
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if found != "a model" and kind != "bomb":
            assert resident - before < 64 << 10, f"{kind}: the process grew by {resident - before:,} kB"
        before = resident
        if traced:
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            peak = max(peak, used)
            assert used <= 4 * len(data) + ROOM, f"{kind}: {used:,} bytes for a file of {len(data):,}"
        else:
            slowest = max(slowest, seconds)
            assert seconds < SLOW, f"{kind}: {seconds:.1f} s"
        counts[f"{kind}: {found}"] += 1
        if (n + 1) % 10_000 == 0:
            print(f"{n + 1:,} files, {time.perf_counter() - began:.0f} s", flush=True)
    for name, count in sorted(counts.items()):
        print(f"{count:>8,}  {name}")
    sizes = [len(data) for data in files]
    print(
        f"{args.files:,} files of {min(sizes):,} to {max(sizes):,} bytes and bombs: no crash, slowest "
        f"{1e3 * slowest:.0f} ms; of every {TRACED}th memory was traced, at most {peak / 1e6:.1f} MB"
    )
    if args.json is not None:
        value = {"files": args.files, "counts": dict(counts), "slowest": slowest, "peak_bytes": peak}
        write_json(args.json, value)


if __name__ == "__main__":
    main()
