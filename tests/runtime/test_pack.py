"""Unpacking gives back the trained weights bit for bit, for every width and every kind of step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from greenasr.compress.clusters import make_clusters
from greenasr.compress.none import NoCompression
from greenasr.ops import bits as bitpack
from greenasr.roles import BitMap, Cluster, Quantized, Span
from greenasr.runtime import format as packed_format
from greenasr.runtime import pack as P
from greenasr.tasks.networks import build

STEPS = {"cluster": (), "row": (10, 1), "group:4": (10, 3, 1)}
Model = tuple[dict[str, Tensor], dict[str, Quantized], BitMap]


def on_grid(rows: int, cols: int, bits: int, step_shape: tuple[int, ...]) -> Quantized:
    q = bitpack.largest_code(bits)
    codes = torch.randint(-q, q + 1, (rows, cols), dtype=torch.int16 if bits == 16 else torch.int8)
    return Quantized(torch.where(codes == 0, 1, codes) if bits == 1 else codes, torch.rand(step_shape) + 0.01)


def model_on_grid(bits: int, step: str) -> Model:
    """An embedding in two bands, tied to the output, a convolution, and a bias."""
    torch.manual_seed(bits)
    low, high = on_grid(10, 12, bits, STEPS[step]), on_grid(10, 12, 2, STEPS[step])
    conv = on_grid(10, 12, bits, STEPS[step])
    embedding = torch.cat([low.dequantize(), high.dequantize()])
    state = {
        "output.weight": embedding,
        "embedding.weight": embedding,
        "conv.weight": conv.dequantize().view(10, 4, 3),
        "bias": torch.randn(5),
        "batches": torch.tensor(3),
        "half": torch.randn(3).half(),
    }
    quantized = {"embedding.weight[0:10]": low, "embedding.weight[10:20]": high, "conv.weight[0:10]": conv}
    clusters = (
        Cluster("frequent", (Span("embedding.weight", 0, 10, 12), Span("conv.weight", 0, 10, 12))),
        Cluster("rare", (Span("embedding.weight", 10, 20, 12),)),
    )
    return state, quantized, BitMap(clusters, {"frequent": bits, "rare": 2}, step)


def write(path: Path, model: Model, **options: Any) -> int:
    state, quantized, bit_map = model
    return P.pack(path, "lm", {"width": 12}, state, quantized, bit_map, {"words": []}, {"seed": 1}, **options)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("bits", bitpack.WIDTHS)
def test_unpacked_weights_equal_the_trained_ones_bit_for_bit(tmp_path: Path, bits: int, step: str) -> None:
    state, quantized, bit_map = model_on_grid(bits, step)
    size = write(tmp_path / "m", (state, quantized, bit_map), rest_dtype="float32")
    assert size == (tmp_path / "m").stat().st_size
    packed, back = P.unpack(tmp_path / "m")
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert torch.equal(back[name], expected) and back[name].dtype == expected.dtype
    assert back["output.weight"] is back["embedding.weight"]
    assert BitMap.from_json(packed.bit_map) == bit_map


def test_the_rest_in_bfloat16_is_what_rounding_gives(tmp_path: Path) -> None:
    model = model_on_grid(4, "cluster")
    write(tmp_path / "m", model)
    _, back = P.unpack(tmp_path / "m")
    assert torch.equal(back["bias"], model[0]["bias"].bfloat16().float())
    assert torch.equal(back["conv.weight"], model[0]["conv.weight"])


def test_rounding_agrees_with_torch() -> None:
    values = torch.randn(10_000) * torch.logspace(-38, 38, 10_000)
    ours = packed_format.from_bfloat16(packed_format.to_bfloat16(values.numpy()))
    assert torch.equal(torch.from_numpy(ours), values.bfloat16().float())


def test_a_full_precision_model_is_the_same_format(tmp_path: Path) -> None:
    state = {"w": torch.randn(4, 3), "b": torch.randn(4)}
    P.pack(tmp_path / "m", "lm", {}, state, {}, None, {}, {})
    packed, back = P.unpack(tmp_path / "m")
    assert packed.bit_map == {} and packed.spans == {} and packed.unquantized_bytes == 64
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    weight = torch.randn(100, 10)
    tied = P.pack(tmp_path / "a", "lm", {}, {"e": weight, "o": weight}, {}, None, {}, {})
    apart = P.pack(tmp_path / "b", "lm", {}, {"e": weight, "o": weight.clone()}, {}, None, {}, {})
    assert 3900 < apart - tied < 4100


def test_a_view_of_a_weight_is_not_a_tie(tmp_path: Path) -> None:
    weight = torch.randn(4, 4)
    state = {"a": weight, "b": weight.t(), "c": weight[:2], "d": weight.view(16)}
    P.pack(tmp_path / "m", "lm", {}, state, {}, None, {}, {})
    packed, back = P.unpack(tmp_path / "m")
    assert packed.ties == {} and all(torch.equal(back[name], state[name]) for name in state)


def test_weights_that_left_their_grid_are_refused(tmp_path: Path) -> None:
    state, quantized, bit_map = model_on_grid(4, "row")
    state["conv.weight"] = state["conv.weight"].clone()
    state["conv.weight"][2, 1, 1] += 1e-6
    with pytest.raises(ValueError, match=r"conv.weight\[0:10\]: the model's weight .* as `finish_` left it"):
        write(tmp_path / "m", (state, quantized, bit_map))


def test_a_bit_map_of_other_spans_is_refused(tmp_path: Path) -> None:
    state, quantized, bit_map = model_on_grid(4, "row")
    missing = dict(quantized)
    del missing["conv.weight[0:10]"]
    with pytest.raises(
        ValueError, match=r"conv.weight\[0:10\] is in the bit map and not in the quantized weights"
    ):
        write(tmp_path / "m", (state, missing, bit_map))
    del state["conv.weight"]
    with pytest.raises(ValueError, match="names conv.weight, which the model lacks"):
        write(tmp_path / "m", (state, quantized, bit_map))


def test_codes_wider_than_the_bit_map_are_refused(tmp_path: Path) -> None:
    state, quantized, bit_map = model_on_grid(8, "row")
    narrow = BitMap(bit_map.clusters, {"frequent": 4, "rare": 2}, "row")
    with pytest.raises(ValueError, match="codes of 4 bits lie in ±7"):
        write(tmp_path / "m", (state, quantized, narrow))


def test_a_tied_weight_quantized_under_both_names_is_refused(tmp_path: Path) -> None:
    state, quantized, bit_map = model_on_grid(4, "cluster")
    twice = Cluster("twice", tuple(Span("output.weight", s, s + 10, 12) for s in (0, 10)))
    both = BitMap((*bit_map.clusters, twice), {**bit_map.bits, "twice": 4})
    for start in (0, 10):
        span = f"[{start}:{start + 10}]"
        quantized["output.weight" + span] = quantized["embedding.weight" + span]
    with pytest.raises(ValueError, match="count tied weights once"):
        write(tmp_path / "m", (state, quantized, both))


def test_codes_computed_in_floats_are_packed_and_fractions_are_not(tmp_path: Path) -> None:
    state, quantized, bit_map = model_on_grid(4, "row")
    floats = {key: Quantized(q.codes.float(), q.step) for key, q in quantized.items()}
    assert write(tmp_path / "a", (state, floats, bit_map)) == write(
        tmp_path / "b", (state, quantized, bit_map)
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    halves = {key: Quantized(q.codes.float() / 2, q.step * 2) for key, q in quantized.items()}
    with pytest.raises(ValueError, match="codes are not integers"):
        write(tmp_path / "c", (state, halves, bit_map))


def test_a_generated_matrix_travels_as_its_seed(tmp_path: Path) -> None:
    config = {"feat_dim": 4, "classes": 3, "blocks": 2, "width": 64, "ternary": {"threshold": 0.9, "seed": 5}}
    model = build("matchboxnet", config)
    size = P.pack(tmp_path / "m", "matchboxnet", config, model.state_dict(), {}, None, {}, {})
    packed, state = P.unpack(tmp_path / "m")
    assert list(packed.seeds) == [f"blocks.{i}.subs.0.pointwise.weight" for i in (0, 1)]
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    again = build(packed.model, packed.config)
    again.load_state_dict(state)
    layer = again.get_submodule("blocks.1.subs.0.pointwise")
    assert np.array_equal(packed.weights()["blocks.1.subs.0.pointwise.weight"], layer.weight.numpy())
    assert size < 4 * sum(value.numel() for value in state.values()) + 4000  # no byte of 12,288 weights


def test_a_ternary_matchboxnet_with_the_rest_at_8_bits_takes_less_than_70_kb(tmp_path: Path) -> None:
    config = {"feat_dim": 64, "classes": 30, "ternary": {"threshold": 0.5, "seed": 5}}
    model = build("matchboxnet", config)
    bit_map = BitMap.uniform(make_clusters(model), 8)
    quantized = NoCompression(bit_map).finish_(model)
    units = {"words": [f"word {i}" for i in range(30)]}
    size = P.pack(tmp_path / "m", "matchboxnet", config, model.state_dict(), quantized, bit_map, units, {})
    assert 59_000 < size < 70_000


def test_a_seed_missing_from_a_file_is_refused(tmp_path: Path) -> None:
    config = {"feat_dim": 4, "classes": 3, "ternary": {"threshold": 0.9, "seed": 5}}
    state = build("matchboxnet", config).state_dict()
    cut = {name: value for name, value in state.items() if not name.endswith("1.subs.0.pointwise.signs")}
    P.pack(tmp_path / "m", "matchboxnet", config, cut, {}, None, {}, {})
    packed, state = P.unpack(tmp_path / "m")
    with pytest.raises(ValueError, match="seed of blocks.1.subs.0.pointwise.weight is missing"):
        build(packed.model, packed.config).load_state_dict(state)


@pytest.mark.parametrize("step", STEPS)
def test_two_steps_a_table_are_unpacked_bit_for_bit(tmp_path: Path, step: str) -> None:
    one = on_grid(10, 12, 2, STEPS[step])
    pair = Quantized(one.codes, one.step, one.step * 0.7 + 0.1)
    bit_map = BitMap.uniform((Cluster("w", (Span("w", 0, 10, 12),)),), 2, step)
    state = {"w": pair.dequantize()}
    assert len(state["w"][0].unique()) > 2
    P.pack(tmp_path / "m", "lm", {}, state, {"w[0:10]": pair}, bit_map, {}, {})
    assert torch.equal(P.unpack(tmp_path / "m")[1]["w"], state["w"])
