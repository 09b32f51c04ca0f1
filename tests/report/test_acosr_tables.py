"""ACosR's tables as people read them: figures are those of the JSON, and the paper's stand beside ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from greenasr.data.files import read_json
from greenasr.pipeline.transducer_recipe import load_transducers
from greenasr.report import acosr
from greenasr.report.acosr_tables import (
    headline,
    label,
    layers_table,
    main_table,
    paper_change,
    pooled_table,
    rescored_table,
    sheets,
)
from greenasr.report.page import to_markdown

RECIPES = Path(__file__).parents[2] / "recipes"
LAYERS = ["encoder.layers.0.input.weight", "embedding.weight", "output.weight"]
METHODS = {"float": "full precision", "acosr": "ACosR", "bp": "BP uniform", "hessian": "Hessian plan"}
FREQUENT, FAR = 4.0, 20.0  # full precision's WER


def row(name: str, frequent: float = FREQUENT, far: float = FAR, marks: str = "  ") -> dict[str, Any]:
    """A row as the pipeline makes it."""
    method, *tail = name.split("-")
    bits = float(tail[0]) if tail else 32.0
    full, watched = method == "float", "acosr" in name
    compared = {
        "difference": (frequent + far - FREQUENT - FAR) / 2,
        "ci95": [-0.25, 0.75],
        "seeds": {"0": {"p": 0.2, "better": None, "changed": 7}},
        "mark": marks[1].strip(),
    }
    return {
        "name": name,
        "method": METHODS[method] + (", as published" if "published" in name else ""),
        "fit": "acosr" if method == "hessian" else None,
        "bits": bits,
        "wer": {"frequent": [frequent, 0.1, 2], "far": [far, 0.0, 1]},
        "degradation": {}
        if full
        else {"frequent": 100 * (frequent / FREQUENT - 1), "far": 100 * (far / FAR - 1)},
        "marks": {} if full else dict(zip(("frequent", "far"), (m.strip() for m in marks), strict=True)),
        "pooled": [(frequent + far) / 2, 0.0, 1],
        "ci95": [5.0, 15.0],
        "words": 1234,
        "rescored": None,
        "against": None if full else compared,
        "wgtc": {"total": 0.9961, "layers": dict(zip(LAYERS, (1.0, 0.999999, 0.25), strict=True))}
        if watched
        else None,
        "parameters": 1.5e6,
        "bytes": 6e6 * bits / 32,
        "ratio": 32 / bits,
        "rtf": 0.0123,
        "left_out": 0,
        "plan": None
        if full
        else dict(zip(LAYERS, (2, 4, 8) if method == "hessian" else [bits] * 3, strict=True)),
        "seconds_train": 100.0,
        "paper": None,
    }


def made_up() -> dict[str, Any]:
    rows = [row("float"), row("acosr-8", 4.01, 20.1), row("acosr-6", 4.2, 20.0, "* ")]
    rows += [row("acosr-6-published", 4.8, 21.0, "**"), row("bp-6", 3.6, 20.0, "† ")]
    rows += [row("hessian-4-acosr", 4.0, 20.3)]
    return {"title": "Requests", "rows": rows, "systems": [], "parts": ["all"], "seeds": [0, 1]}


def with_paper(*papers: dict[str, Any] | None) -> dict[str, Any]:
    value = made_up()
    for each, paper in zip(value["rows"], papers, strict=False):
        each["paper"] = paper
    return value


def test_every_figure_of_the_main_table_is_that_of_the_json() -> None:
    value = made_up()
    for line, found in zip(main_table(value), value["rows"], strict=True):
        assert line["frequent"] == f"{found['wer']['frequent'][0]:.2f} ± 0.10"
        assert line["far"] == f"{found['wer']['far'][0]:.2f}"
        for name in ("frequent", "far") if found["degradation"] else ():
            assert line[f"{name} rel. %"] == f"{found['degradation'][name]:+.2f}{found['marks'][name]}"
        assert line["WgtC %"] == ("99.61" if found["wgtc"] else "–")
        assert float(line["MB"]) == pytest.approx(found["bytes"] / 1e6, abs=1e-3)
        assert line["ratio"] == f"{found['ratio']:.1f}x" and line["RTF"] == "0.0123"


def test_degradations_bear_mapsswes_marks_and_full_precision_has_none() -> None:
    lines = main_table(made_up())
    assert [line["frequent rel. %"] for line in lines] == [
        "–",
        "+0.25",
        "+5.00*",
        "+20.00*",
        "-10.00†",
        "+0.00",
    ]
    assert [line["far rel. %"] for line in lines] == ["–", "+0.50", "+0.00", "+5.00*", "+0.00", "+1.50"]


def test_a_paper_of_one_test_set_has_one_column_of_each_figure() -> None:
    lines = main_table(with_paper(None, {"fp": 8.68, "wer": 8.70, "wgtc": 99.3}))
    assert [(line["paper WER"], line["paper rel. %"], line["paper WgtC %"]) for line in lines] == [
        ("8.68", "–", "–"), ("8.70", "+0.23", "99.3"), *[("–", "–", "–")] * 4,
    ]  # fmt: skip


def test_a_paper_that_prints_wers_of_each_set_is_compared_set_by_set() -> None:
    lines = main_table(with_paper({"wer": {"far": 21.27}}, {"wer": {"far": 21.41}, "wgtc": 99.3}))
    assert list(lines[0])[2:8] == [
        "frequent",
        "frequent rel. %",
        "far",
        "far rel. %",
        "paper far",
        "paper far rel. %",
    ]
    assert (lines[0]["paper far"], lines[1]["paper far"], lines[1]["paper far rel. %"]) == (
        "21.27",
        "21.41",
        "+0.66",
    )
    assert "paper WER" not in lines[0] and "paper frequent" not in lines[0]


def test_a_paper_that_prints_degradations_alone_is_quoted_as_printed() -> None:
    lines = main_table(with_paper(None, {"degradation": {"frequent": -2.01, "entertainment": 1.0}}))
    assert [line["paper frequent rel. %"] for line in lines[:3]] == ["–", "-2.01", "–"]
    assert not {"paper frequent", "paper far rel. %", "paper WgtC %", "paper rel. %"} & set(lines[0])


def test_without_the_papers_figures_there_are_no_columns_of_them() -> None:
    assert not any(name.startswith("paper") for name in main_table(made_up())[0])
    assert "paper" not in to_markdown(acosr.contents(made_up()))


def test_the_papers_table_4_in_the_recipe_degrades_as_the_paper_says() -> None:
    """§5: "Largest relative degradations for 8-bit and 6-bit QAT are 0.66% and 2.68%"."""
    recipe = load_transducers(RECIPES / "librispeech" / "rnnt.toml")
    value = {"rows": [{"name": each.name, "paper": each.paper} for each in recipe.rows]}
    for name, worst in (("acosr-8", 0.66), ("acosr-6", 2.68), ("acosr-8-published", 0.66)):
        quoted = next(each for each in value["rows"] if each["name"] == name)
        changes = [paper_change(value, quoted, test) for test in recipe.corpus.tests]
        assert max(change for change in changes if change is not None) == pytest.approx(worst, abs=5e-3)
        assert None not in changes


def test_the_papers_table_3_in_the_recipe_has_every_test_set() -> None:
    recipe = load_transducers(RECIPES / "assistant" / "acosr.toml")
    quoted = {each.name: each.paper for each in recipe.rows if each.paper}
    assert set(quoted) == {"acosr-8", "acosr-8-float32", "acosr-6", "acosr-8-published"}
    assert all(set(paper["degradation"]) == set(recipe.corpus.tests) for paper in quoted.values())
    assert quoted["acosr-8"]["degradation"]["entertainment"] == -3.02 and quoted["acosr-6"]["wgtc"] == 99.2


def test_differences_have_their_interval_and_the_verdict_of_all_words() -> None:
    lines = pooled_table(made_up())
    assert (lines[0]["difference"], lines[0]["changed"], lines[0]["interval"]) == ("–", "–", "5.00 to 15.00")
    assert lines[1]["difference"] == "+0.05 (-0.25 to +0.75)" and lines[1]["changed"] == "7"
    assert lines[3]["difference"] == "+0.90 (-0.25 to +0.75), worse"


def test_rescored_lists_are_a_table_of_the_rows_that_have_them() -> None:
    value = made_up()
    assert rescored_table(value) == []
    full, other = value["rows"][0], value["rows"][2]
    full["rescored"] = {"wer": {"frequent": [3.0, 0.0, 1]}, "degradation": {}, "marks": {}}
    other["rescored"] = {
        "wer": {"frequent": [3.3, 0.0, 1]}, "degradation": {"frequent": 10.0}, "marks": {"frequent": "*"},
    }  # fmt: skip
    lines = rescored_table(value)
    assert [line["system"] for line in lines] == ["full precision", "ACosR"]
    assert [line["frequent + n-gram"] for line in lines] == ["3.00", "3.30"]
    assert [line["frequent rel. %"] for line in lines] == ["–", "+10.00*"]
    assert lines[1]["far + n-gram"] == lines[1]["far rel. %"] == "–", "a set that was not rescored"


def test_wgtc_of_layers_is_a_column_of_each_row_that_acosr_trained() -> None:
    lines = layers_table(made_up())
    assert [line["layer"] for line in lines] == ["encoder 0 input", "embedding", "output", "all"]
    assert list(lines[0])[1:] == [
        *("ACosR, 8 bits", "ACosR, 6 bits", "ACosR, as published, 6 bits", "Hessian plan, ACosR, 4 bits"),
    ]
    assert [line["ACosR, 8 bits"] for line in lines] == ["100", "99.99", "25.00", "99.61"]
    alone = made_up()
    alone["rows"] = [alone["rows"][0], alone["rows"][4]]
    assert layers_table(alone) == []


def test_the_first_sentences_say_what_acosr_costs_and_what_is_smallest() -> None:
    found = headline(with_paper(None, {"degradation": {"frequent": -2.0, "far": 0.1}}))
    assert found.startswith(
        "ACosR, 8 bits: at worst +0.50 % relative, on far (the paper: +0.10 %), significant on none; "
        "99.61 % of its weights converged. ACosR, 6 bits: at worst +5.00 % relative, on frequent, "
        "significant on frequent; "
    )
    assert (
        "The smallest recogniser without a significant increase is Hessian plan, ACosR, 4 bits: 8.0 times"
        in found
    )


def test_full_precision_alone_and_without_errors_is_no_division_by_zero() -> None:
    value = {**made_up(), "rows": [row("float", 0.0, 0.0), row("acosr-8", 0.0, 1.0)]}
    value["rows"][1]["degradation"] = {"frequent": None, "far": None}
    assert main_table(value)[1]["far rel. %"] == "–"
    assert headline(value).startswith("ACosR, 8 bits: full precision makes no errors to compare with.")
    alone = {**made_up(), "rows": [row("float")]}
    assert headline(alone).startswith("No compressed recogniser")
    assert [sheet.title[:6] for sheet in sheets(alone)] == ["Tables", "All te"]


def test_rows_before_full_precision_is_done_are_shown_with_dashes() -> None:
    lone = row("acosr-8") | {"degradation": {}, "marks": {}, "against": None, "ratio": None}
    value = {**made_up(), "rows": [lone]}
    (line,) = main_table(value)
    assert (line["frequent rel. %"], line["ratio"], line["WgtC %"]) == ("–", "–", "99.61")
    assert "difference" in pooled_table(value)[0] and headline(value).startswith("No compressed")


def test_systems_with_language_models_quote_no_paper() -> None:
    system = {
        "name": "float, full-precision LM",
        "row": "float",
        "lm": "float",
        "lhuc": False,
        "bits": [32, 32],
    }
    system |= {"sets": {"far": {"wer": 11.0, "mark": ""}}, "pooled": [11.0, 0.0, 1], "mark": "", "bytes": 9e6}
    (*_, last) = sheets(made_up() | {"systems": [system]})
    assert last.title == "With language model" and last.rows[0]["far"] == "11.00"
    assert not any(name.startswith("paper") for name in last.rows[0])


def test_rows_that_differ_in_more_than_bits_have_names_that_differ() -> None:
    assert (
        label({"name": "float-continued", "method": "full precision", "fit": None})
        == "full precision, continued"
    )
    assert label({"name": "acosr-6-row", "method": "ACosR", "fit": None}) == "ACosR, row"
    assert label({"name": "kl-3.5", "method": "KL plan", "fit": "bp"}) == "KL plan, BP"


def test_nothing_finished_is_said_so_and_files_hold_what_they_should(tmp_path: Path) -> None:
    acosr.write({**made_up(), "rows": []}, tmp_path)
    for name in ("table.md", "report.html"):
        assert "No row is finished yet" in (tmp_path / name).read_text()
    recipe = {"train": {"epochs": 10}, "model": {"encoder_layers": 2, "encoder_dim": 64, "joint": "addition"}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    acosr.write(made_up(), tmp_path)
    assert read_json(tmp_path / "table.json") == made_up()
    assert (tmp_path / "table.md").read_text() == to_markdown(acosr.contents(made_up()))
    html = (tmp_path / "report.html").read_text()
    assert "RNN-T: encoder 2 x LSTM-64 of 40 ms frames" in html and "10 epochs, 100 s" in html
