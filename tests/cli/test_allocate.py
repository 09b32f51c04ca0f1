"""`greenasr allocate` writes what `allocate` finds, and says in one line what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from greenasr.cli.allocate import allocate, pins
from greenasr.roles import BitMap, Cluster, CostTable, Span

app = typer.Typer()
app.command()(allocate)


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    names = ["embedding.weight", "layers.0.weight", "layers.1.weight"]
    clusters = tuple(Cluster(name, (Span(name, 0, 10, 10),)) for name in names)
    table = CostTable(
        "kl", clusters, {name: {b: (i + 1) * 4.0**-b for b in (1, 2, 4, 8)} for i, name in enumerate(names)}
    )
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(table.to_json()))
    return path


def test_a_plan_and_the_front_are_written(costs: Path, tmp_path: Path) -> None:
    out, front = tmp_path / "bit_map.json", tmp_path / "front.json"
    options = ["--bits", "2.4", "--pin", "layers.1*=4", "--front", str(front), "--json", "--step", "row"]
    found = CliRunner().invoke(app, [str(costs), "--out", str(out), *options], catch_exceptions=False)
    result = json.loads(found.stdout)
    bit_map = BitMap.from_json(json.loads(out.read_text()))
    assert (
        bit_map.bits == {"embedding.weight": 1, "layers.0.weight": 2, "layers.1.weight": 4} == result["bits"]
    )
    assert bit_map.step == "row" and result["average_bits"] == bit_map.average_bits <= 2.4
    assert result["bytes"] == 13 + 20 + 50 + 4 * 30
    plans = json.loads(front.read_text())["plans"]
    assert len(plans) == result["front_plans"] > 3
    assert all(plan["bits"]["layers.1.weight"] == 4 for plan in plans)


def test_a_line_for_people_names_the_plan(costs: Path, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, [str(costs), "--out", str(tmp_path / "b.json"), "--bytes", "120"])
    assert found.exit_code == 0 and "bits on average" in found.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one budget: --bits AVERAGE or --bytes N"),
        (["--bits", "2", "--bytes", "9"], "give one budget"),
        (
            ["--bits", "0.5"],
            "budget of 0.5 bits on average is impossible: the smallest plan takes 1, the largest 8",
        ),
        (["--bits", "2", "--pin", "embedding.wieght=2"], "close names are embedding.weight"),
        (["--bits", "2", "--pin", "embedding.weight"], "expected NAME=BITS"),
    ],
)
def test_bad_options_are_said(costs: Path, tmp_path: Path, options: list[str], message: str) -> None:
    found = CliRunner().invoke(app, [str(costs), "--out", str(tmp_path / "b.json"), *options])
    assert isinstance(found.exception, ValueError) and message in str(found.exception)
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"format": "greenasr costs 1"}', '{"format": "greenasr costs 1", "clu']
)
def test_a_file_that_is_no_cost_table_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)
    found = CliRunner().invoke(app, [str(path), "--out", str(tmp_path / "b.json"), "--bits", "2"])
    assert isinstance(found.exception, ValueError) and str(found.exception).startswith(str(path))


def test_later_pins_win() -> None:
    assert pins(["*=4", "b=2"], ["a", "b"]) == {"a": 4, "b": 2}
