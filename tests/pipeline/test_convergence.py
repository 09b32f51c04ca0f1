"""What ACosR's training leaves for the figures: WgtC over training, and histograms at the levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from greenasr.compress.acosr import Acosr
from greenasr.compress.clusters import make_clusters
from greenasr.pipeline.convergence import EDGES, Watched, read_wgtc
from greenasr.roles import BitMap

STEPS = 120


def watched(folder: Path, bits: int = 4) -> tuple[nn.Module, Watched]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))
    plan = BitMap.uniform(make_clusters(model), bits)
    return model, Watched(Acosr(plan), folder, STEPS, ["1.weight"])


def trained(folder: Path, upto: int = STEPS, since: int = 0) -> tuple[nn.Module, Watched]:
    """Steps without a gradient: ACosR's pull alone; those before ``since`` are not looked at."""
    model, one = watched(folder)
    one.prepare_(model)
    for step in range(1, upto + 1):
        (one if step > since else one.compressor).after_step_(model, step / STEPS)
    return model, one


def test_lines_and_counts_are_of_the_weights_as_they_move(tmp_path: Path) -> None:
    model, one = trained(tmp_path)
    lines = read_wgtc(tmp_path / "wgtc.jsonl")
    assert [line["step"] for line in lines] == list(range(2, STEPS + 1, 2))
    assert lines[0]["total"] < 0.1 and lines[-1]["total"] > 0.8
    last = lines[-20]
    sizes = {"0.weight": 48, "1.weight": 32}
    assert last["total"] == pytest.approx(sum(sizes[n] * s for n, s in last["layers"].items()) / 80)
    with np.load(tmp_path / "levels.npz") as found:
        assert found["steps"].tolist() == [0, 60, 90, 108, 114, 118, 120]
        assert found["layers"].tolist() == ["1.weight"]
        first, end = found["counts"][0, 0], found["counts"][-1, 0]
    weights = model[1].weight.detach() / one.compressor._grids["1.weight"].get_buffer("step_0")  # type: ignore[index]
    assert end.sum() == int(((weights > -4.5) & (weights < 4.5)).sum())
    middle = (EDGES[:-1] + EDGES[1:]) / 2
    near = np.abs(middle - middle.round()) < 0.06
    assert end[~near].sum() == 0 < first[~near].sum()


def test_a_run_that_was_killed_leaves_the_files_of_one_that_was_not(tmp_path: Path) -> None:
    trained(tmp_path / "whole")
    trained(tmp_path / "killed", upto=95)
    trained(tmp_path / "killed", since=50)  # its checkpoint was of step 50
    for name in ("wgtc.jsonl", "levels.npz"):
        assert (tmp_path / "whole" / name).exists()
    assert read_wgtc(tmp_path / "killed" / "wgtc.jsonl") == read_wgtc(tmp_path / "whole" / "wgtc.jsonl")
    with np.load(tmp_path / "whole/levels.npz") as a, np.load(tmp_path / "killed/levels.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in ("steps", "counts"))


def test_binary_weights_lie_at_whole_numbers_too(tmp_path: Path) -> None:
    model, one = watched(tmp_path, bits=1)
    one.prepare_(model)
    one.finish_(model)
    places = one.compressor.places("0.weight")
    torch.testing.assert_close(places, places.round())
