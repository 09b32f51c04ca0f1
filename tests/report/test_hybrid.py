"""GREEN's tables as people see them: the paper beside ours, and a page that needs nothing but itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenasr.data.files import read_json
from greenasr.report import green_paper, hybrid
from greenasr.report.green_tables import headline, sheets, table2, table3
from greenasr.report.hybrid_plots import plots
from greenasr.report.page import to_html, to_markdown

LAYERS = ["input", *(f"layers.{i}" for i in range(3)), "output"]
NAMES = {"float": "full precision", "compact": "pipegumbel bottlenecks", "none": "post-training"}
NAMES |= {"bp": "BP uniform", "acosr": "ACosR", "hessian": "Hessian plan", "kl": "KL plan"}


def compared(difference: float, mark: str) -> dict[str, Any]:
    tests = {"0": {"p": 0.5, "better": None, "changed": 11}, "1": {"p": 0.4, "better": None, "changed": 14}}
    ci95 = [difference - 0.4, difference + 0.5]
    return {"difference": difference, "ci95": ci95, "seeds": tests, "mark": mark}


def row(name: str, wer: float, mb: float, marks: str = "..") -> dict[str, Any]:
    """A row as the pipeline makes it; ``marks`` are against float and compact, "." for none."""
    method, *more = name.split("-")
    plan = {cluster: (8, 4, 2, 4, 16)[i] for i, cluster in enumerate(LAYERS)}
    mixed = method in ("hessian", "kl")
    pairs = zip(("float", "compact"), (12.0, 11.7), marks.replace(".", " "), strict=True)
    return {
        "name": name,
        "method": NAMES[method],
        "fit": (more[1] if len(more) > 1 else "bp") if mixed else None,
        "bits": 3.96 if mixed else float(more[0]) if more else 32,
        "wer": {"clean": [wer - 3, 0.2, 2], "far": [wer + 3, 0.4, 2]},
        "pooled": [wer, 0.25, 2],
        "ci95": [wer - 1, wer + 1.2],
        "words": 6215,
        "against": {n: compared(wer - w, mark.strip()) for n, w, mark in pairs if n != name},
        "parameters": 760e3 if name != "float" else 1.13e6,
        "bytes": mb * 1e6,
        "ratio": 4.52 / mb,
        "rtf_network": 0.0014,
        "rtf_search": 0.0052,
        "plan": plan if mixed else None if not more else dict.fromkeys(LAYERS, int(more[0])),
        "bottlenecks": [80, 80, 80] if name == "float" else [20, 60, 40],
        "seconds_train": 536.0,
        "paper": None,
    }


def page(value: dict[str, Any], recipe: dict[str, Any] | None = None) -> str:
    """The page as HTML."""
    known = recipe or {}
    return to_html(hybrid.contents(value, known), plots(value), hybrid.facts_of(value, known))


def made_up(title: str = "AN4") -> dict[str, Any]:
    rows = [row("float", 12.0, 4.52), row("compact", 11.7, 3.04), row("none-4", 19.5, 0.43, "**")]
    rows += [row("bp-4", 12.9, 0.43, "**"), row("bp-8", 11.9, 0.82), row("acosr-4", 12.6, 0.43, ".*")]
    rows += [row("bp-1", 55.0, 0.14, "**"), row("hessian-4", 12.2, 0.42), row("kl-4-acosr", 12.1, 0.41)]
    parts = ["all", "fold0", "fold1"]
    return {"title": title, "rows": rows, "parts": parts, "seeds": [0, 1]}


def system(name: str, wer: float, mb: float, **more: Any) -> dict[str, Any]:
    sets = {"clean": {"wer": wer - 3, "mark": ""}, "far": {"wer": wer + 3, "mark": "*"}}
    return {"name": name, "sets": sets, "pooled": wer, "bytes": mb * 1e6, "ratio": 9 / mb, **more}


def cells(rows: list[dict[str, str]], first: int) -> list[str]:
    return list(rows[first].values())


def test_table_1_has_the_papers_networks_beside_ours() -> None:
    table1 = sheets(made_up(), {"search": {"target": 0.65, "eta": 0.1}})[0]
    assert [list(line.values()) for line in table1.rows] == [
        ["manual", "–", "80 80 80", "9.00 ± 0.20", "15.00 ± 0.40", "12.00 ± 0.25", "–"]
        + ["15.5", "1.13", "18.6", "–", "–"],
        ["PipeGumbel", "for 65 %", "20 60 40", "8.70 ± 0.20", "14.70 ± 0.40", "11.70 ± 0.25"]
        + ["-0.30 (-0.70 to +0.20)", "15.0", "0.76", "12.4", "33 %", "33 %"],
    ]


def test_table_2_marks_rows_that_are_not_significantly_other_as_the_paper_does() -> None:
    rows = {line["paper system"]: line for line in table2(made_up())}
    assert rows["4"]["all"] == "12.90 ± 0.25"
    assert rows["8"]["all"] == "12.60 ± 0.25†"
    assert rows["11"] == {
        "system": "Hessian plan, BP",
        "bits": "4.0",
        "clean": "9.20 ± 0.20",
        "far": "15.20 ± 0.40",
        "all": "12.20 ± 0.25*†",
        "paper WER": "15.6†",
        "MB": "0.420",
        "paper MB": "6.3",
        "ratio": "10.8x",
        "paper ratio": "11.8x",
        "RTF /1000": "1.40 + 5.20",
        "paper RTF": "0.073",
        "increase": "+0.50 (+0.10 to +1.00)",
        "changed": "12",
        "paper system": "11",
    }


def test_a_row_that_the_paper_lacks_has_dashes_for_its_figures() -> None:
    line = next(line for line in table2(made_up()) if line["system"] == "uniform, post-training")
    assert {line[name] for name in line if name.startswith("paper")} == {"–"}


def test_the_papers_figures_of_a_set_stand_beside_ours_where_the_recipe_names_them() -> None:
    value = made_up()
    value["rows"][3]["paper"] = {"far": 22.5, "mb": 6.4}
    lines = table2(value)
    assert list(lines[3])[2:6] == ["clean", "far", "paper far", "all"]
    assert (lines[3]["paper far"], lines[4]["paper far"]) == ("22.5", "–")
    assert "paper far" in sheets(value, {})[0].rows[0]


def test_table_3_is_there_when_a_system_is_and_stands_beside_the_papers() -> None:
    value = made_up()
    assert len(sheets(value, {})) == 2
    full = {"row": "float", "lm": "float", "bits": [32, 32], "lhuc": False}
    small = {"row": "hessian-4", "lm": "low", "bits": [3.96, 2.0], "lhuc": True, "mark": "†"}
    small |= {"pooled": [9.0, 0.1, 2], "parameters_a_speaker": 1280}
    value["systems"] = [system("float, LM", 11.0, 9.0, **full), system("small + LHUC", 9.0, 0.6, **small)]
    assert len(sheets(value, {})) == 3
    first, second = table3(value)
    assert first["paper Hub5'00"] == "9.6 / 17.8" and first["paper ratio"] == "1.0x"
    assert list(second.values()) == ["small + LHUC", "4.0", "2", "6.00", "12.00*", "9.00 ± 0.10†", "–"] + [
        "8.5 / 15.6", "0.600", "13.3", "15.0x", "13.6x", "1,280 parameters a speaker",
    ]  # fmt: skip


def test_a_system_needs_no_more_than_its_name_sets_and_size() -> None:
    value = made_up() | {"systems": [system("4 bits and LM", 11.0, 0.6, note="2-bit LM")]}
    line = table3(value)[0]
    assert (line["clean"], line["all"], line["note"]) == ("8.00", "11.00", "2-bit LM")


def test_the_first_sentence_names_the_smallest_file_that_is_not_worse() -> None:
    assert "KL plan, QAT (ACosR), 4.0 bits: 11.0 times smaller, 12.10 % WER" in headline(made_up())
    worse = {**made_up(), "rows": [row("float", 12.0, 4.52), row("bp-1", 55.0, 0.14, "**")]}
    assert headline(worse).startswith("No compressed recogniser")
    value = made_up()
    value["rows"] = [{**row, "words": row["words"] - (row["name"] != "float")} for row in value["rows"]]
    assert headline(value).startswith("No compressed recogniser"), "none has recognised all words yet"


def test_markdown_of_a_small_table() -> None:
    value = {**made_up(), "rows": [row("float", 12.0, 4.52), row("bp-8", 11.9, 0.82)]}
    lines = to_markdown(hybrid.contents(value)).splitlines()
    assert lines[0] == "# AN4"
    assert "## Table 1: bottlenecks" in lines and "## Table 2: quantized recognisers" in lines
    table = [line for line in lines if line.startswith("| uniform")]
    assert [part.strip() for part in table[0].strip("|").split("|")] == [
        "uniform, BP", "8", "8.90 ± 0.20", "14.90 ± 0.40", "11.90 ± 0.25*†", "15.8†", "0.820", "12.6",
        "5.5x", "5.9x", "1.40 + 5.20", "0.097", "+0.20 (-0.20 to +0.70)", "12", "5",
    ]  # fmt: skip


def test_nothing_finished_is_said_so(tmp_path: Path) -> None:
    value = {**made_up(), "rows": []}
    hybrid.write(value, tmp_path)
    assert "No row is finished yet" in (tmp_path / "table.md").read_text()
    assert "No row is finished yet" in (tmp_path / "report.html").read_text()


def test_the_page_needs_nothing_beside_itself(read: Callable[[str], Any]) -> None:
    found = read(page(made_up()))
    found.check_whole()
    assert found.tags.count("svg") == 3 and found.tags.count("table") == 2


def test_names_of_the_user_are_text_and_never_markup(read: Callable[[str], Any]) -> None:
    value = made_up(title="<script>alert(1)</script> $x^2$ & co")
    for each in value["rows"]:
        each["wer"] = {"<img src=x onerror=alert(2)>": each["wer"]["clean"]}
        if each["plan"]:
            each["plan"] = {f"<b>{name}$_": bits for name, bits in each["plan"].items()}
    html = page(value, {"corpus": {"source": "<i>here</i>", "hours": 1.0, "speeds": [1.0]}})
    found = read(html)
    assert {"script", "img", "b", "i"}.isdisjoint(found.tags)
    assert "<script>alert(1)</script> $x^2$ & co" in found.text and "<i>here</i>" in found.text


def test_the_page_is_the_same_each_time() -> None:
    assert page(made_up()) == page(made_up())


def test_all_files_are_written_and_say_how_it_was_measured(tmp_path: Path) -> None:
    recipe = {"train": {"epochs": 10}, "search": {"method": "pipegumbel", "dims": [20, 80], "eta": 0.1}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    hybrid.write(made_up(), tmp_path)
    assert read_json(tmp_path / "table.json") == made_up()
    assert "| PipeGumbel | 0.1 |" in re.sub(" +", " ", (tmp_path / "table.md").read_text())
    assert "10 epochs, 536 s" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("key", list(green_paper.TABLE2))
def test_the_papers_own_averages_lie_within_its_sets(key: tuple[str, str, float]) -> None:
    theirs = green_paper.TABLE2[key]
    assert len(theirs.wer) == len(green_paper.SETS)
    assert min(theirs.wer) < theirs.average < max(theirs.wer)
    assert theirs.ratio == pytest.approx(74.4 / theirs.mb, rel=0.02)
