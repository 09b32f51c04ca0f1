"""The page of ACosR's tables: plots are there where their figures are, and need nothing beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from greenasr.ops import bits as bitpack
from greenasr.report import acosr
from greenasr.report.acosr_plots import PARTS, part_of, plots, slopes
from greenasr.report.acosr_traces import thetas, traces
from greenasr.runtime import format as packed_format
from greenasr.runtime.format import Packed, PackedSpan

LAYERS = ["predictor.layers.0.input.weight", "predictor_fc.weight"]
EVERY = ["encoder_fc.weight", *LAYERS]
EDGES = np.linspace(-4.5, 4.5, 181)


def row(name: str, method: str, bits: float, plan: dict[str, int] | None) -> dict[str, Any]:
    watched = "acosr" in name
    shares = dict.fromkeys(EVERY, 0.75)
    return {
        "name": name, "method": method, "fit": "acosr" if plan and name.startswith("kl") else None,
        "bits": bits, "plan": plan, "wer": {"test": [4.0, 0.0, 1]}, "degradation": {}, "marks": {},
        "pooled": [4.0, 0.0, 1], "ci95": [3.0, 5.0], "words": 100, "rescored": None, "against": None,
        "wgtc": {"total": 0.75, "layers": shares} if watched else None, "parameters": 1e6,
        "bytes": 1e6 * bits / 8, "ratio": 32 / bits, "rtf": 0.01, "left_out": 0, "seconds_train": 1.0,
        "paper": None,
    }  # fmt: skip


def made_up() -> dict[str, Any]:
    rows = [row("float", "full precision", 32, None), row("acosr-8", "ACosR", 8, dict.fromkeys(EVERY, 8))]
    rows += [row("bp-6", "BP uniform", 6, dict.fromkeys(EVERY, 6))]
    rows += [row("kl-4-acosr", "KL plan", 4, dict(zip(EVERY, (2, 4, 8), strict=True)))]
    return {"title": "Requests", "rows": rows, "systems": [], "parts": ["all"], "seeds": [3]}


def pack(path: Path, steps: dict[str, tuple[int, list[float]]]) -> None:
    """A packed file of spans of four weights a row: name -> bits and the step of each row."""
    spans = {}
    for name, (bits, step) in steps.items():
        codes = bitpack.pack(np.ones(4 * len(step), np.int8), bits)
        span = PackedSpan(name, 0, len(step), 4, bits, codes, np.array(step, np.float32)[:, None])
        spans[span.key] = span
    shapes = {name: (len(step), 4) for name, (_, step) in steps.items()}
    packed_format.write(path, Packed("rnnt", {}, {}, spans, {}, {}, {}, shapes))


def trained(folder: Path, levels: bool = True) -> None:
    """What ACosR leaves of eight steps: weights spread evenly, and at the end all on the levels."""
    folder.mkdir(parents=True)
    lines = [
        {"step": step, "of": 8, "total": step / 8, "layers": dict.fromkeys(EVERY, step / 8)}
        for step in range(1, 9)
    ]
    (folder / "wgtc.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pack(folder / "model.packed", {"w": (8, [1 / 16, 1 / 32, 1 / 128]), "b": (1, [1 / 8])})
    if levels:
        even = np.full(180, 5)
        at = np.where(np.abs(EDGES[1:] - EDGES[1:].round()) < 1e-6, 100, 0)
        counts = np.stack([[even, even], [even + at, at], [at, at]])
        np.savez(folder / "levels.npz", edges=EDGES, steps=[0, 4, 8], layers=np.array(LAYERS), counts=counts)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Of two rows that ACosR trained one is without levels: none of its layers was counted."""
    trained(tmp_path / "all" / "seed3" / "acosr-8")
    trained(tmp_path / "all" / "seed3" / "kl-4-acosr", levels=False)
    return tmp_path


def test_thetas_are_one_over_the_spacing_of_every_table(tmp_path: Path) -> None:
    pack(tmp_path / "m.packed", {"w": (8, [1 / 128, 1 / 64, 0.0]), "b": (1, [1 / 8])})
    assert sorted(thetas(tmp_path / "m.packed")) == [4.0, 64.0, 128.0], "at 1 bit levels lie two steps apart"
    assert len(thetas(tmp_path / "none.packed")) == 0


def test_what_training_left_is_read_back(run: Path) -> None:
    found = traces(made_up(), run)
    assert set(found) == {"acosr-8", "kl-4-acosr"}
    levels = found["acosr-8"].levels
    assert levels is not None and found["kl-4-acosr"].levels is None
    assert levels.progress.tolist() == [0, 0.5, 1] and levels.layers == LAYERS
    assert levels.counts.shape == (3, 2, 180) and levels.counts[0, 0].tolist() == [5] * 180
    assert [line["total"] for line in found["acosr-8"].lines] == [step / 8 for step in range(1, 9)]


def test_the_derivative_drives_to_the_level_and_agrees_with_the_squared_distance_there() -> None:
    """Fig. 2: "positive when a weight value is near but larger than a quantization level"."""
    w, ours, squared = slopes(2.0)
    near, above = np.abs(2 * w - 1) < 0.02, 2 * w - np.round(2 * w) > 0.02
    np.testing.assert_allclose(ours[near], squared[near], rtol=2e-3)
    assert np.nanmin(ours[above & np.isfinite(ours)]) > 0
    assert np.nanmax(ours) == pytest.approx(math.pi * 2, rel=1e-3), "its crest is α π θ, half way"
    assert np.isnan(ours[np.isclose(np.abs(2 * w - np.round(2 * w)), 0.5)]).all()


def test_every_plot_is_there_once_its_figures_are(run: Path) -> None:
    titles = [title for title, _ in plots(made_up(), traces(made_up(), run))]
    assert titles == [
        "WER against the size of the file",
        "Weights that have converged, over training",
        "Fig. 2: what pulls a weight to its level",
        "Fig. 4: weights among the levels, ACosR, 8 bits",
        "Bits of every layer",
    ]
    assert plots({**made_up(), "rows": []}, {}) == []


def test_without_traces_there_are_sizes_and_plans(tmp_path: Path) -> None:
    titles = [title for title, _ in plots(made_up(), traces(made_up(), tmp_path))]
    assert titles == ["WER against the size of the file", "Bits of every layer"]


def test_the_page_needs_nothing_beside_itself_and_is_the_same_each_time(
    run: Path, read: Callable[[str], Any]
) -> None:
    acosr.write(made_up(), run)
    html = (run / "report.html").read_text()
    found = read(html)
    found.check_whole()
    assert found.tags.count("svg") == 5 and found.tags.count("table") == 3
    acosr.write(made_up(), run)
    assert (run / "report.html").read_text() == html


def test_every_parameter_of_a_transducer_belongs_to_a_part() -> None:
    names = [*EVERY, "encoder.layers.4.recurrent.weight", "embedding.weight", "output.weight"]
    parts = dict.fromkeys(part_of(name) for name in names)
    assert list(parts) == list(PARTS)
