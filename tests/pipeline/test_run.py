"""A run folder: in order, once each, one run at a time, and a failure loses nothing that was finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from greenasr.pipeline.run import Stage, check_same, claimed, finished, needed, run_stages


def quiet(stage: str, done: int, of: int, note: str) -> None: ...


def stage(name: str, needs: str, log: list[str], fails: bool = False) -> Stage:
    def work(folder: Path, tell: Callable[[int, int, str], None]) -> Mapping[str, Any]:
        log.append(name)
        if fails:
            raise ValueError(f"{name} cannot be")
        return {"figure": len(log)}

    return Stage(name, tuple(needs.split()), work)


def test_stages_run_after_what_they_need(tmp_path: Path) -> None:
    log: list[str] = []
    stages = [stage("c", "b a", log), stage("b", "a", log), stage("a", "", log)]
    results = run_stages(stages, tmp_path, quiet)
    assert log == ["a", "b", "c"]
    assert {name: r["figure"] for name, r in results.items()} == {"a": 1, "b": 2, "c": 3}


def test_a_finished_stage_is_not_repeated(tmp_path: Path) -> None:
    log: list[str] = []
    stages = [stage("a", "", log), stage("b", "a", log)]
    first = run_stages(stages, tmp_path, quiet)
    assert run_stages(stages, tmp_path, quiet) == first == finished(stages, tmp_path)
    assert log == ["a", "b"]


def test_a_failure_keeps_what_is_finished_and_starts_nothing_new(tmp_path: Path) -> None:
    log: list[str] = []
    stages = [stage("a", "", log), stage("b", "a", log, fails=True), stage("c", "b", log)]
    with pytest.raises(ValueError, match="b cannot be"):
        run_stages(stages, tmp_path, quiet)
    assert log == ["a", "b"] and list(finished(stages, tmp_path)) == ["a"]
    run_stages([stage("a", "", log), stage("b", "a", log), stage("c", "b", log)], tmp_path, quiet)
    assert log == ["a", "b", "b", "c"]


def test_needs_that_nothing_makes_and_circles_are_refused_before_any_work(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match="'b' needs 'nothing', which the recipe does not have"):
        run_stages([stage("a", "", log), stage("b", "nothing", log)], tmp_path, quiet, jobs=2)
    with pytest.raises(ValueError, match="b, c wait for each other"):
        run_stages([stage("b", "c", log), stage("c", "b", log)], tmp_path, quiet, jobs=2)
    with pytest.raises(ValueError, match="--jobs 0: expected 1 or more"):
        run_stages([], tmp_path, quiet, jobs=0)
    assert log == []


def test_needed_adds_what_a_stage_stands_on() -> None:
    stages = [stage("a", "", []), stage("b", "a", []), stage("c", "b", []), stage("d", "a", [])]
    assert [s.name for s in needed(stages, ["c"])] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no stage 'x'; there are a, b, c, d"):
        needed(stages, ["x"])


def test_a_folder_holds_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        claimed(tmp_path, {"lr": 1}),
        pytest.raises(ValueError, match="another greenasr is working here"),
        claimed(tmp_path, {"lr": 1}),
    ):
        pass


def test_a_folder_holds_one_recipe(tmp_path: Path) -> None:
    with claimed(tmp_path, {"lr": 1, "seed": 0}):
        (tmp_path / "model").touch()
    with pytest.raises(ValueError, match="other settings"), claimed(tmp_path, {"lr": 2}):
        pass
    with claimed(tmp_path, {"seed": 0, "lr": 1}):
        pass


def test_a_run_that_made_nothing_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="never began"), claimed(tmp_path, {"lr": 1}):
        raise ValueError("never began")
    with claimed(tmp_path, {"lr": 2}):
        pass


def test_settings_are_compared_as_json(tmp_path: Path) -> None:
    check_same(tmp_path / "r.json", {"widths": (1, 2)})
    check_same(tmp_path / "r.json", {"widths": [1, 2]})
