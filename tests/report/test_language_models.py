"""Tables and plots of a finished result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from greenasr.data.files import read_json
from greenasr.report import language_models as report

PNG = b"\x89PNG\r\n\x1a\n"


def made_up_table(full_ppl: float = 60.0, full_mb: float = 66.0, layers: int = 6) -> dict[str, Any]:
    clusters = ["embedding.0", "embedding.1", "embedding.2"]
    clusters += [f"layers.{i}.{part}" for i in range(layers) for part in ("attention", "feed_forward")]
    rows: list[dict[str, Any]] = []

    def row(
        method: str, bits: float, relative: float, theirs: tuple[float, float, float] | None, **more: Any
    ) -> None:
        size = int(full_mb * 1e6 * bits / 32 * 1.03)
        rows.append(
            {
                "method": method,
                "bits": bits,
                "ppl_test": full_ppl * relative,
                "ppl_dev": None,
                "relative": relative,
            }
            | {
                "bytes": size,
                "ratio": full_mb * 1e6 / size,
                "seconds_train": 10.0,
                "rescoring": None,
                "plan": None,
            }
            | {"paper": dict(zip(("ppl", "mb", "ratio"), theirs, strict=True)) if theirs else None}
            | more
        )

    row("full precision", 32, 1.0, (55.26, 66, 1.0))
    for bits, bp, admm, mb, ratio, ours in (
        (1, 82.10, 65.41, 2.3, 28.7, (1.30, 1.16)),
        (2, 58.94, 58.06, 4.6, 14.3, (1.06, 1.035)),
        (4, 56.86, 56.84, 9.4, 7.0, (1.012, 1.011)),
        (8, 56.80, 56.75, 17.0, 3.9, (1.004, 1.003)),
    ):
        row("BP uniform", bits, ours[0], (bp, mb, ratio))
        row("ADMM", bits, ours[1], (admm, mb, ratio))
    plan = {name: (4, 2, 1, 8)[i % 4] for i, name in enumerate(clusters)}
    row("Hessian plan", 2.0, 1.012, (56.82, 6.5, 10.2), plan=plan)
    row("search plan", 2.2, 1.02, (58.23, 4.8, 13.8), plan={**plan, "embedding.0": 16})
    traces = {name: [10.0 ** (3 - i % 5), 0.2 * 10.0 ** (3 - i % 5)] for i, name in enumerate(clusters)}
    traces[clusters[4]] = [-0.3, 0.5]
    return {
        "title": "Penn Treebank",
        "model": "made up",
        "rows": rows,
        "traces": traces,
        "clusters": clusters,
    }


def cells(markdown: str, method: str, bits: str) -> list[str]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    return next(line for line in lines if line[:2] == [method, bits])


def test_the_paper_stands_beside_our_figures() -> None:
    text = report.size_table(made_up_table())
    ours = ["ADMM", "2", "62.10", "1.035", "58.06", "1.051", "4.25", "4.6", "15.5", "14.3"]
    assert cells(text, "ADMM", "2") == ours
    assert cells(text, "Hessian plan", "2.0")[4] == "56.82"


def test_a_row_without_figures_is_dashes() -> None:
    table = made_up_table()
    table["rows"].append({"method": "KL plan", "bits": None})
    assert cells(report.size_table(table), "KL plan", "–") == ["KL plan", *["–"] * 9]


def test_rescored_sets_have_their_marks_and_intervals() -> None:
    table = made_up_table()
    table["rows"][3] |= {
        "rescoring": {"atis": {"wer": 7.5, "ci95": [6.9, 8.1], "mark": "*"}},
        "ppl_4gram": 58.5,
    }
    text = report.table_markdown(table)
    method, bits = table["rows"][3]["method"], report.row_bits(table["rows"][3])
    assert cells(report.rescoring_table(table), method, bits)[3:5] == ["58.50", "7.50*"]
    assert cells(report.rescoring_table(table), "full precision", "32")[4] == "–"
    assert f"{method}, {bits} bit, atis: 7.50 [6.90, 8.10]" in text


def test_a_uniform_plan_is_not_called_an_average() -> None:
    assert report.row_bits({"bits": 2.0, "plan": {"a": 2, "b": 2}}) == "2"
    assert report.row_bits({"bits": 2.0, "plan": {"a": 1, "b": 3}}) == "2.0"


def test_a_plan_over_other_clusters_has_a_panel_with_its_own_names(tmp_path: Path) -> None:
    table = made_up_table()
    table["rows"][-1] |= {"plan": {"embedding": 4, "layers.0": 2}, "name": "search-2.2"}
    report.plot_bits(table, tmp_path / "bits.png")
    assert (tmp_path / "bits.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("ppl, mb", [(57.0, 66.0), (8.0, 1.3)], ids=["near the paper", "far from it"])
def test_all_files_are_written(tmp_path: Path, ppl: float, mb: float) -> None:
    table = made_up_table(ppl, mb)
    report.write(table, tmp_path)
    assert read_json(tmp_path / "table.json") == table
    assert "![sizes](sizes.png)" in (tmp_path / "table.md").read_text()
    for name in ("sizes.png", "bits.png", "traces.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_a_table_of_which_nothing_is_done_yet_still_prints(tmp_path: Path) -> None:
    table = {"title": "t", "model": "m", "rows": [{"method": "full precision", "bits": 32}], "clusters": []}
    report.write(table, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sizes.png", "table.json", "table.md"]
    report.plot_bits(table, tmp_path / "bits.png")
    report.plot_traces(table, tmp_path / "traces.png")
