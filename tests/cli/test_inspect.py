"""`greenasr inspect` accounts for every byte that `ls` prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from greenasr.cli.inspect import describe, inspect
from greenasr.ops.signs import Signs
from greenasr.roles import BitMap, Cluster, CostTable, Quantized, Span
from greenasr.runtime.pack import pack

app = typer.Typer()
app.command()(inspect)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    codes = torch.randint(-1, 2, (20, 10), dtype=torch.int8)
    value = Quantized(codes, torch.tensor(0.5))
    state = {"w": value.dequantize(), "bias": torch.ones(7)}
    bit_map = BitMap.uniform((Cluster("w [of all]", (Span("w", 0, 20, 10),)),), 2)
    pack(tmp_path / "m.packed", "lm", {"dim": 10}, state, {"w[0:20]": value}, bit_map, {}, {"seed": 1})
    return tmp_path / "m.packed"


def test_every_byte_of_a_packed_model_is_accounted_for(packed: Path) -> None:
    found = describe(packed)
    assert found["file_bytes"] == packed.stat().st_size
    assert found["quantized_bytes"] == 40 + 4 == found["clusters"][0]["bytes"]
    assert found["unquantized_bytes"] == 14
    assert found["metadata_bytes"] == found["file_bytes"] - 44 - 14
    assert found["fp32_weight_bytes"] == 4 * 207
    assert found["ratio"] == 4 * 207 / found["file_bytes"]
    assert found["average_bits"] == 2.0 and found["clusters"][0]["bits"] == 2


def test_json_is_one_object_and_people_get_a_table(packed: Path) -> None:
    runner = CliRunner()
    assert json.loads(runner.invoke(app, [str(packed), "--json"]).stdout) == describe(packed)
    text = runner.invoke(app, [str(packed)]).stdout
    assert (
        "w [of all]" in text
        and "average bits: 2" in text
        and f"file bytes: {packed.stat().st_size:,}" in text
    )


def test_a_full_precision_model_has_no_clusters(tmp_path: Path) -> None:
    pack(tmp_path / "m", "lm", {}, {"w": torch.ones(3, 3)}, {}, None, {}, {})
    found = describe(tmp_path / "m")
    assert found["clusters"] == [] and found["average_bits"] is None and found["unquantized_bytes"] == 36
    assert CliRunner().invoke(app, [str(tmp_path / "m")]).exit_code == 0


def test_plans_and_cost_tables_are_listed(tmp_path: Path) -> None:
    clusters = (Cluster("a", (Span("w", 0, 4, 5),)), Cluster("b", (Span("v", 0, 2, 5),)))
    (tmp_path / "bit_map.json").write_text(json.dumps(BitMap(clusters, {"a": 2, "b": 8}).to_json()))
    found = describe(tmp_path / "bit_map.json")
    assert [row["bytes"] for row in found["clusters"]] == [4 + 4, 10 + 4] and found["average_bits"] == 4.0
    costs = CostTable("kl", clusters, {"a": {2: 0.5, 4: 0.1}, "b": {2: 0.25}})
    (tmp_path / "costs.json").write_text(json.dumps(costs.to_json()))
    rows = describe(tmp_path / "costs.json")["clusters"]
    assert rows[1] == {"cluster": "b", "weights": 10, "2 bits": 0.25, "4 bits": None}
    for name in ("bit_map.json", "costs.json"):
        assert CliRunner().invoke(app, [str(tmp_path / name)]).exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"format": "x"}',
        '{"format": "greenasr bit map 1"}',
        '{"format": "greenasr costs 1"',
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ValueError, match=r"f\.json") as caught:
        describe(tmp_path / "f.json")
    assert "\n" not in str(caught.value)


def test_generated_matrices_are_listed_with_their_seeds(tmp_path: Path) -> None:
    state = {"a.signs": torch.tensor(Signs(7, 3, 8, 16, 26).to_numbers()), "bias": torch.ones(3)}
    pack(tmp_path / "m", "lm", {}, state, {}, None, {}, {})
    found = describe(tmp_path / "m")
    assert found["generated_weights"] == 128 and found["unquantized_bytes"] == 12
    assert found["seeds"] == {"a.weight": "8 x 16, seed 7, layer 3, t = 26/256"}
    assert "seed 7" in CliRunner().invoke(app, [str(tmp_path / "m")]).stdout
