"""The demo: from nothing to the tables, with as little of everything as makes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import greenasr.cli.demo as command
from greenasr.cli.demo import demo_recipe
from greenasr.data.files import read_json
from greenasr.pipeline.hybrid_recipe import HybridRecipe

KEPT = ("float", "compact", "none-4", "hessian-4", "kl-4")


def tiny(hours: float, seed: int) -> HybridRecipe:
    """The demo's own recipe, made small in every way; beams are narrow, as its networks know nothing."""
    made = demo_recipe(hours, seed)
    return replace(
        made,
        align=replace(made.align, passes=2, gaussians=60, min_count=1000),
        model={**made.model, "layers": 2, "dim": 24, "bottleneck": 8, "strides": (3, 3), "front": 8},
        train=replace(made.train, epochs=4),
        search=replace(made.search, dims=(4, 8), epochs=1, choice_epochs=1, target=0.0),
        compress=replace(made.compress, epochs=0, cost_batches=1, cost_frames=300, max_probes=4),
        decode=replace(made.decode, order=2, beam=4.0, lattice_beam=1.0, nbest=2, tune=False),
        rows=tuple(row for row in made.rows if row.name in KEPT),
        lm=type(made.lm)(),
        lhuc=type(made.lhuc)(),
    )


def test_the_recipe_is_in_the_package_with_the_rows_of_the_tables() -> None:
    made = demo_recipe(0.5, 7)
    names = [row.name for row in made.rows]
    assert {"float", "compact", "none-4", "bp-4", "acosr-4", "bp-2", "hessian-4", "kl-4"} <= set(names)
    assert {"hessian-8"} <= set(names)
    assert (made.corpus.source, made.corpus.hours, made.corpus.seeds) == ("", 0.5, (7,))


@pytest.mark.parametrize("hours, seed", [(0.0, 0), (float("nan"), 0), (float("inf"), 0), (1.0, -1)])
def test_odd_numbers_are_refused(hours: float, seed: int) -> None:
    with pytest.raises(ValueError, match=r"--(hours|seed) .*: give"):
        demo_recipe(hours, seed)


def test_from_nothing_to_the_tables_and_no_stage_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(command, "demo_recipe", tiny)
    command.demo(tmp_path, hours=0.008, seed=3, jobs=1)
    shown = capsys.readouterr().out
    assert "## Table 1" in shown and "## Table 2" in shown and "report.html" in shown
    value = read_json(tmp_path / "table.json")
    assert [row["name"] for row in value["rows"]] == list(KEPT)
    assert {name for row in value["rows"] for name in row["wer"]} == {"test_clean", "test_noisy", "test_far"}
    assert all(row["ratio"] > 1.5 for row in value["rows"][2:])
    assert "<svg" in (tmp_path / "report.html").read_text()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    command.demo(tmp_path, hours=0.008, seed=3, jobs=1, as_json=True)
    assert json.loads(capsys.readouterr().out) == value
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == written
