"""The page of keyword models: Table 1, compressed rows, Fig. 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from greenasr.report.keywords import contents, facts_of, headline, plots, write


def row(
    name: str, error: float, thousands: float, shape: tuple[str, float | None] | None, **more: Any
) -> Any:
    size, threshold = shape or ("6x1x64", 0.5)
    against = {
        "difference": error - 3.0, "ci95": [error - 3.5, error - 2.5], "seeds_p": 0.008, "mark": "†",
        "seeds": {"0": {"p": 0.1, "changed": 4}, "1": {"p": 0.01, "changed": 6}},
    }  # fmt: skip
    return {
        "name": name, "method": "full precision", "fit": None, "bits": 32, "start": None,
        "shape": size, "threshold": threshold, "structured": False, "skips": "trained",
        "pooled": [error, 0.2, 2], "rates": {"0": error - 0.2, "1": error + 0.2}, "words": 1000, "wer": {},
        "parameters": 1e3 * thousands, "bytes": 4e3 * thousands, "ratio": 1.0, "plan": None, "rtf": 0.001,
        "ci95": [error - 1, error + 1], "seconds_train": 30.0, "paper": None,
        "against": None if name == "float" else against, "parent": None, **more,
    }  # fmt: skip


def value() -> dict[str, Any]:
    full = row("float", 3.0, 77, ("3x1x64", None), paper={"accuracy": 97.21, "parameters": 77})
    ternary = row("rt", 2.5, 77, ("6x1x64", 0.5), paper={"accuracy": 97.41, "parameters": 77})
    small = row(
        "rt-kl-3", 2.6, 77, None, method="KL plan", fit="bp", bits=2.9, start="rt", bytes=20e3, ratio=15.0,
        plan={"a.weight": 2, "b.weight": 8}, parent={**ternary["against"], "mark": "", "difference": 0.1},
    )  # fmt: skip
    clips = {"train": {"clips": 9, "shorter": 2, "longer": 0, "silent": 1, "clipped": 0}}
    return {
        "title": "Words", "rows": [full, ternary, small], "parts": ["all"], "seeds": [0, 1], "clips": clips,
        "recorded_noise": 0, "classes": 30,
    }  # fmt: skip


def test_the_first_sentence_compares_networks_and_names_the_smallest_file() -> None:
    text = headline(value())
    assert (
        "6x1x64, ternary, t = 0.5: 2.50 % errors with 77K trained parameters where 3x1x64, floating" in text
    )
    assert (
        "p = 0.008 over 2 seeds" in text
        and "6x1x64, ternary, t = 0.5: KL plan, BP, 2.9 bits: 15.0 times smaller" in text
    )


def test_tables_have_the_papers_figures_and_what_each_row_is_held_against() -> None:
    networks, compressed = contents(value()).sheets
    assert [line["paper accuracy"] for line in networks.rows] == ["97.21", "97.41"]
    assert networks.rows[1]["accuracy"] == "97.50 ± 0.20" and networks.rows[1]["p"] == "0.008"
    assert networks.rows[1]["difference"] == "-0.50 (-1.00 to +0.00), better"
    (line,) = compressed.rows
    assert (line["network"], line["kB"], line["ratio"]) == ("6x1x64, ternary, t = 0.5", "20.0", "15.4x")
    assert line["difference"].startswith("+0.10") and line["changed"] == "5"
    assert "9 clips, 2 shorter, 1 silent" in contents(value()).note
    one = value()
    one["rows"][1]["against"]["seeds"] = {"0": {"p": 0.5, "changed": 3}}
    assert contents(one).sheets[0].rows[1]["p"] == "–", "of one seed nothing follows"


def test_the_page_is_whole_and_has_the_plots(tmp_path: Path, read: Any) -> None:
    write(value(), tmp_path)
    page = read((tmp_path / "report.html").read_text())
    page.check_whole()
    titles = [title for title, _ in plots(value())]
    assert titles[0] == "Fig. 3: error against parameters" and len(titles) == 3
    assert all(title in page.text for title in titles)


def test_a_run_without_rows_or_recipe_says_so() -> None:
    empty = {"title": "Words", "rows": []}
    assert contents(empty).lead == "No row is finished yet." and plots(empty) == [] == facts_of(empty, {})
    assert facts_of(value(), {})[0][0] == "Tested on"
