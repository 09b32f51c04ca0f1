"""The packed file: what is written is read back bit for bit, and nothing else is read at all."""

from __future__ import annotations

import bz2
import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from greenasr.ops import bits as bitpack
from greenasr.ops.signs import Signs
from greenasr.runtime import format as F
from greenasr.runtime.activations import Rounding


def span(
    name: str, start: int, stop: int, cols: int, bits: int, step_shape: tuple[int, ...] = ()
) -> F.PackedSpan:
    rng = np.random.default_rng(stop)
    q = bitpack.largest_code(bits)
    codes = rng.integers(-q, q, (stop - start, cols), endpoint=True)
    codes = np.where(codes == 0, 1, codes) if bits == 1 else codes
    step = rng.random(step_shape, np.float32) if step_shape else np.float32(0.25)
    return F.PackedSpan(name, start, stop, cols, bits, bitpack.pack(codes, bits), np.asarray(step))


def small() -> F.Packed:
    spans = [
        span("emb.weight", 0, 3, 6, 4),
        span("emb.weight", 3, 10, 6, 2, (7, 1)),
        span("conv.weight", 0, 4, 6, 8, (4, 3, 1)),
    ]
    return F.Packed(
        model="transformer_lm",
        config={"width": 6, "layers": 1, "tied": True},
        bit_map={"format": "greenasr bit map 1", "average_bits": 3.5, "clusters": []},
        spans={s.key: s for s in spans},
        rest={
            "norm.weight": np.linspace(-1, 1, 6, dtype=np.float32),
            "norm.bias": F.to_bfloat16(np.linspace(0, 3, 6, dtype=np.float32)),
            "batches": np.array(7),
            "empty": np.zeros((0, 3), np.float32),
        },
        tokenizer={"kind": "words", "words": ["<unk>", "zwölf", "朝"]},
        recipe={"method": "admm", "steps": 10, "seed": 1},
        shapes={"emb.weight": (10, 6), "conv.weight": (4, 2, 3)},
        ties={"output.weight": "emb.weight"},
    )


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    packed = small()
    size = F.write(tmp_path / "m.packed", packed)
    assert size == (tmp_path / "m.packed").stat().st_size
    back = F.read(tmp_path / "m.packed")
    for part in ("model", "config", "bit_map", "tokenizer", "recipe", "shapes", "ties"):
        assert getattr(back, part) == getattr(packed, part)
    assert list(back.spans) == list(packed.spans) and list(back.rest) == list(packed.rest)
    for key, one in packed.spans.items():
        other = back.spans[key]
        assert dataclasses.astuple(one)[:5] == dataclasses.astuple(other)[:5]
        assert one.packed.tobytes() == other.packed.tobytes()
        assert one.step.tobytes() == other.step.tobytes() and one.step.shape == other.step.shape
    for name, array in packed.rest.items():
        assert array.dtype == back.rest[name].dtype and array.shape == back.rest[name].shape
        assert array.tobytes() == back.rest[name].tobytes()


def test_weights_are_codes_times_step_under_every_name() -> None:
    packed = small()
    weights = packed.weights()
    first, second, conv = packed.spans.values()
    assert np.array_equal(weights["emb.weight"][:3], first.codes() * np.float32(0.25))
    assert np.array_equal(weights["emb.weight"][3:], second.codes() * second.step)
    assert weights["output.weight"] is weights["emb.weight"]
    slow = np.array([[conv.codes()[o, i] * conv.step[o, i // 2, 0] for i in range(6)] for o in range(4)])
    assert np.array_equal(weights["conv.weight"], slow.reshape(4, 2, 3))
    assert weights["norm.bias"].dtype == np.float32 and weights["batches"] == 7


def test_tied_weights_count_once_in_the_unquantized_size() -> None:
    assert small().unquantized_bytes == 4 * (60 + 24 + 6 + 6) + 8


def test_the_same_model_gives_the_same_bytes() -> None:
    assert F.to_bytes(small()) == F.to_bytes(small())


def test_anyone_can_open_the_container(tmp_path: Path) -> None:
    F.write(tmp_path / "m.packed", small())
    with safe_open(str(tmp_path / "m.packed"), framework="numpy") as file:
        assert file.metadata()["format"] == "greenasr packed 1"
        assert file.metadata()["model"] == "transformer_lm" and file.metadata()["average_bits"] == "3.500"
        assert file.get_tensor("steps").shape == (1 + 7 + 12,)


def test_bfloat16_rounds_to_nearest_even() -> None:
    near = np.array([1.0, 1.00390625, 1.01171875, -1.004, 3.4e38, np.inf, -np.inf, 0.0, -0.0], np.float32)
    expected = [1.0, 1.0, 1.015625, -1.0078125, np.inf, np.inf, -np.inf, 0.0, -0.0]
    assert F.from_bfloat16(F.to_bfloat16(near)).tolist() == expected
    assert np.isnan(F.from_bfloat16(F.to_bfloat16(np.array([np.nan], np.float32)))).all()
    exact = np.arange(0, 2**16, 7, dtype=np.uint16)
    exact = exact[np.isfinite(F.from_bfloat16(exact))]
    assert np.array_equal(F.to_bfloat16(F.from_bfloat16(exact)), exact)


def test_overhead_is_small_and_long_vocabularies_are_compressed() -> None:
    rng = np.random.default_rng(0)
    spans = {}
    for layer in range(60):
        s = span(f"layers.{layer}.feed_forward.weight", 0, 64, 64, 2)
        spans[s.key] = s
    rest = {f"layers.{n}.norm.bias": np.zeros(8, np.uint16) for n in range(80)}
    shapes: dict[str, tuple[int, ...]] = {s.name: (64, 64) for s in spans.values()}
    words = ["".join(map(chr, rng.integers(97, 123, 6))) for _ in range(10_000)]
    for tokenizer, limit in (({}, 3_000), ({"words": words}, 60_000)):
        packed = F.Packed("m", {}, {}, spans, rest, tokenizer, {}, shapes)
        weights = sum(s.nbytes for s in spans.values()) + sum(a.nbytes for a in rest.values())
        assert len(F.to_bytes(packed)) - weights < limit


def test_reading_needs_no_torch() -> None:
    code = "import sys, greenasr.runtime.format; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ----------------------------------------------------------------------------------- bad files


def test_three_hundred_damaged_files_are_all_refused() -> None:
    good = F.to_bytes(small())
    rng = np.random.default_rng(3)
    for case in range(300):
        data = bytearray(good)
        if case % 3 == 0:  # change one to four bytes, half of the time in the header
            limit = 600 if case % 2 else len(data)
            for place in rng.integers(0, limit, rng.integers(1, 5)):
                data[place] ^= int(rng.integers(1, 256))
        elif case % 3 == 1:  # cut
            del data[int(rng.integers(0, len(data))) :]
        elif case % 2:  # insert
            data[int(rng.integers(0, len(data))) : 0] = rng.bytes(int(rng.integers(1, 9)))
        else:  # remove a piece
            start = int(rng.integers(0, len(data) - 10))
            del data[start : start + int(rng.integers(1, 9))]
        if data == good:
            continue
        with pytest.raises(ValueError) as caught:
            F.from_bytes(bytes(data), "m.packed")
        assert str(caught.value).startswith("m.packed: ") and "\n" not in str(caught.value)


def forge(change: dict[str, Any]) -> bytes:
    """A file with a valid checksum whose table says something else."""
    original = F._meta

    def meta(packed: F.Packed) -> bytes:
        return json.dumps(json.loads(original(packed)) | change).encode()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "_meta", meta)
        return F.to_bytes(small())


@pytest.mark.parametrize(
    "change",
    [
        {"spans": []},
        {"spans": [["emb.weight", 0, 10, 6, 4, []]]},
        {"spans": [["emb.weight", 10, 0, 6, 4, []]]},
        {"spans": [["emb.weight", 0, 10, 6, 5, []]]},
        {"spans": [[1, 2]]},
        {"spans": [["emb.weight", "a", "b", 6, 4, []]]},
        {"shapes": {"emb.weight": [10, 6], "conv.weight": [5, 2, 3]}},
        {"shapes": {"emb.weight": ["x"]}},
        {"shapes": 3},
        {"rest": [["norm.weight", "F32", [7]]]},
        {"rest": [["norm.weight", "F64", [6]]]},
        {"ties": {"output.weight": "nothing"}},
        {"ties": []},
        {"config": []},
        {"tokenizer": None},
    ],
)
def test_a_table_that_does_not_fit_its_contents_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its table does not describe its contents"):
        F.from_bytes(forge(change), "m.packed")


def test_another_version_and_another_file_are_named() -> None:
    good = F.to_bytes(small())
    with pytest.raises(ValueError, match="packed format 4, this greenasr reads formats 1 to 3"):
        F.from_bytes(good.replace(b"greenasr packed 1", b"greenasr packed 4"))
    for other in (b"", b"{}", b"PK\x03\x04" + bytes(100), good[:8], bytes(200)):
        with pytest.raises(ValueError, match="not a packed model"):
            F.from_bytes(other)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        F.read(tmp_path / "none.packed")


def test_a_full_disk_keeps_the_old_file_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.packed"
    F.write(path, small())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"m\.packed: No space left"):
        F.write(path, dataclasses.replace(small(), model="other"))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------- parts that do not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": {"emb.weight": (10, 6)}}, "of no parameter"),
        ({"shapes": {"emb.weight": (11, 6), "conv.weight": (4, 6)}}, "do not cover its 11 rows of 6"),
        ({"recipe": {"ppl": float("nan")}}, "not JSON"),
        ({"rest": {"norm.weight": np.zeros(6)}}, "norm.weight is float64"),
        ({"rest": {"conv.weight": np.zeros(6, np.float32)}}, "in the rest and among the spans"),
        ({"ties": {"a": "b"}}, "a is tied to b"),
    ],
)
def test_a_model_whose_parts_do_not_fit_is_not_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        F.write(tmp_path / "m.packed", dataclasses.replace(small(), **change))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(3,), (1, 6), (3, 4, 1), (3, 1, 6)])
def test_a_step_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    odd = span("w", 0, 3, 6, 4, shape)
    packed = F.Packed("m", {}, {}, {odd.key: odd}, {}, {}, {}, {"w": (3, 6)})
    with pytest.raises(ValueError, match="has steps of shape"):
        F.write(tmp_path / "m.packed", packed)


def second_version() -> F.Packed:
    """A model with a generated matrix and a span of two steps."""
    one = small()
    pair = dataclasses.replace(
        span("tern.weight", 0, 5, 6, 2, (5, 1)), negative=np.linspace(1, 2, 5, dtype=np.float32)[:, None]
    )
    return dataclasses.replace(
        one,
        spans=one.spans | {pair.key: pair},
        shapes=one.shapes | {"tern.weight": (5, 6)},
        seeds={"a.weight": Signs(3, 1, 5, 8, 26), "b.weight": Signs(3, 2, 4, 8, 128, True)},
    )


def test_seeds_and_double_steps_are_read_back_and_make_version_2() -> None:
    packed = second_version()
    data = F.to_bytes(packed)
    assert b"greenasr packed 2" in data[:100] and b"greenasr packed 1" in F.to_bytes(small())[:100]
    back = F.from_bytes(data)
    assert back.seeds == packed.seeds
    one, other = packed.spans["tern.weight[0:5]"], back.spans["tern.weight[0:5]"]
    assert other.negative is not None and one.nbytes == other.nbytes == 6 + 4 * 10
    assert np.array_equal(one.step, other.step) and np.array_equal(one.negative, other.negative)
    weights, codes = back.weights(), one.codes()
    slow = [[c * (one.step if c > 0 else one.negative)[o, 0] for c in codes[o]] for o in range(5)]
    assert np.array_equal(weights["tern.weight"], np.array(slow, np.float32))
    assert np.array_equal(weights["a.weight"], Signs(3, 1, 5, 8, 26).rows_of())


def test_seeds_that_name_no_matrix_or_a_stored_one_are_refused() -> None:
    packed = second_version()
    stored = dataclasses.replace(packed, seeds={"conv.weight": Signs(3, 1, 4, 6)})
    with pytest.raises(ValueError, match="conv.weight is generated from a seed and stored"):
        F.to_bytes(stored)
    table = json.loads(F._meta(packed))
    table["seeds"]["a.weight"][4] = 256
    blobs = F._blobs(F.to_bytes(packed))
    blobs["meta"] = np.frombuffer(bz2.compress(json.dumps(table).encode()), np.uint8)
    with pytest.raises(ValueError, match="nothing flows"):
        F._assemble(blobs)


@pytest.mark.parametrize(
    "rounding",
    [Rounding("static", {"emb": 0.5, "conv + emb": 1.25e-3}), Rounding("float32")],
)
def test_activations_are_read_back_and_make_version_3(rounding: Rounding) -> None:
    data = F.to_bytes(dataclasses.replace(small(), rounding=rounding))
    assert b"greenasr packed 3" in data[:100] and F.from_bytes(data).rounding == rounding
    assert F.from_bytes(F.to_bytes(small())).rounding == Rounding("int8")


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        ({"kind": "static"}, "'static' with 0 steps"),
        ({"kind": "int4"}, "activations 'int4'"),
        ({"kind": "float32", "steps": {"emb": 1.0}}, "'float32' with 1 steps"),
        ({"kind": ["static"], "steps": {"emb": 1.0}}, "activations "),
        ({"kind": "static", "steps": [1.0]}, "expected a kind and steps"),
        ([], "expected a kind and steps"),
        *(
            ({"kind": "static", "steps": {"emb": step}}, "step of 'emb' is")
            for step in (0.0, -1.0, float("nan"), float("inf"), 1e-40, 10**400, True, "1", None, [1.0])
        ),
        ({"kind": "static", "steps": {"norm": 1.0}}, "is for 'norm', which is no map of few bits"),
        ({"kind": "static", "steps": {"emb + none": 1.0}}, "is for 'none'"),
    ],
)
def test_activations_that_are_none_are_refused_in_one_line(activations: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        F.from_bytes(forge({"activations": activations}), "m.packed")
    assert "\n" not in str(error.value)
