"""The ternary paper's tables and plots as people read them: figures are those of the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from greenasr.data.files import read_json
from greenasr.report import ctc
from greenasr.report.ctc_plots import front, lines
from greenasr.report.ctc_tables import compressed_table, headline, named, network_table, pooled_table, sheets
from greenasr.report.page import to_markdown


def row(
    name: str, wer: float, parameters: float, threshold: float | None = None, **more: Any
) -> dict[str, Any]:
    """A row as the pipeline makes it."""
    compared = {
        "difference": wer - 12.0,
        "ci95": [-0.5, 1.5],
        "seeds": {"0": {"p": 0.2, "better": None, "changed": 7}},
        "mark": "",
    }
    full = name == "float"
    return {
        "name": name, "method": "full precision", "fit": None, "bits": 32,
        "shape": "5x2x8", "skips": "trained", "threshold": threshold, "structured": False,
        "parameters": parameters * 1e6, "bytes": parameters * 4e6,
        "wer": {"test": [wer, 0.0, 1]}, "pooled": [wer, 0.0, 1], "ci95": [wer - 2, wer + 2], "words": 773,
        "degradation": {}, "marks": {} if full else {"test": "*" if wer > 15 else ""},
        "rescored": None, "graph": {"wer": {"test": [wer / 2, 0.0, 1]}, "marks": {}, "degradation": {}},
        "start": None if full else "float", "against": None if full else compared,
        "dense": None, "against_dense": compared if threshold else None, "ratio": 0.742 / parameters,
        "plan": None, "rtf": 0.002, "seconds_train": 900.0, "left_out": 3, "runs": 1, "paper": None,
        **more,
    }  # fmt: skip


@pytest.fixture
def value() -> dict[str, Any]:
    rows = [
        row("float", 12.0, 0.742, paper={"parameters": 19, "wer": {"test": 3.90}}),
        row("rt-0", 13.0, 0.374, 0.0),
        row("rt-0.9", 11.5, 0.374, 0.9),
        row("rt-id", 15.5, 0.187, 0.9, skips="identity"),
        row("fp-small", 16.5, 0.3, shape="5x1x8"),
        row("rt-0.9-bp-4", 11.8, 0.374, 0.9, bits=4.0, start="rt-0.9", method="BP uniform", bytes=2e5),
    ]
    return {"title": "Ternary", "rows": rows, "systems": [], "parts": ["all"], "seeds": [0]}


def test_the_networks_stand_with_their_parameters_and_the_papers(value: dict[str, Any]) -> None:
    table = network_table(value)
    assert [line["weights"] for line in table] == [
        "floating point", "ternary, t = 0", "ternary, t = 0.9", "ternary, t = 0.9", "floating point",
    ]  # fmt: skip
    assert (table[0]["params M"], table[0]["paper M"], table[0]["paper test"]) == ("0.742", "19", "3.90")
    assert (table[0]["test"], table[0]["test + graph"], table[1]["paper test"]) == ("12.00", "6.00", "–")
    assert table[3]["test"] == "15.50*" and table[3]["skips"] == "identity"


def test_compressed_rows_are_held_against_the_network_that_they_began_from(value: dict[str, Any]) -> None:
    (line,) = compressed_table(value)
    assert line["system"] == "5x2x8, ternary, t = 0.9: BP, 4 bits"
    assert line["test rel. %"] == f"{100 * (11.8 / 11.5 - 1):+.2f}" and line["MB"] == "0.200"
    assert [each["to dense"] for each in pooled_table(value)][1] == "–"


def test_the_first_sentence_says_how_many_parameters_floating_point_needs_for_the_same(
    value: dict[str, Any],
) -> None:
    said = headline(value)
    assert "t = 0: 13.00 % WER with 0.37M parameters; the smallest floating-point network that is no worse, "
    assert "5x2x8, floating point, has 0.74M and 12.00 %." in said
    assert (
        "t = 0.9: 11.50 % WER with 0.37M parameters, better than every floating-point network here." in said
    )


def test_lines_of_fig_4_go_by_sparsity_and_the_front_of_fig_5_is_what_none_beats(
    value: dict[str, Any],
) -> None:
    found = lines(each for each in value["rows"] if each["bits"] == 32)
    assert {label: [r["threshold"] for r in line] for label, line in found.items()} == {
        "5x2x8": [0.0, 0.9], "5x2x8, identity skips": [0.9],
    }  # fmt: skip
    points = [(2.0, 8.0), (1.0, 9.0), (1.5, 9.5), (3.0, 8.0)]
    assert front(points) == [(1.0, 9.0), (2.0, 8.0)]


def test_the_page_has_both_figures_and_the_json_says_what_it_was_made_of(
    value: dict[str, Any], tmp_path: Path
) -> None:
    ctc.write(value, tmp_path)
    assert read_json(tmp_path / "table.json") == json.loads(json.dumps(value))
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3 and "Fig. 4: WER against sparsity" in page
    text = (tmp_path / "table.md").read_text()
    assert text == to_markdown(ctc.contents(value)) and "Compressed networks" in text


def test_a_run_without_a_finished_row_has_a_page_too(tmp_path: Path) -> None:
    empty = {"title": "Ternary", "rows": [], "systems": [], "parts": ["all"], "seeds": [0]}
    ctc.write(empty, tmp_path)
    assert "No row is finished yet." in (tmp_path / "table.md").read_text()


def test_every_sheet_has_a_row_and_every_name_is_different(value: dict[str, Any]) -> None:
    assert [sheet.title for sheet in sheets(value)] == [
        "Networks: floating point and random ternary", "Compressed networks", "All test sets together",
    ]  # fmt: skip
    assert len({named(each) for each in value["rows"]}) == len(value["rows"])
