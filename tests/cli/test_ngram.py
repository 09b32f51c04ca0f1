"""The ngram command from text to ARPA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from greenasr.cli.ngram import ngram
from greenasr.decode.arpa import read_arpa
from greenasr.decode.ngram import perplexity

TEXT = "turn the light on\nturn the radio on\nplay the next song\nturn it off\n" * 3


def call(*arguments: str) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(ngram)
    result = CliRunner().invoke(app, [*arguments, "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def test_the_written_model_has_the_printed_counts_and_perplexity(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "dev.txt").write_text("turn the song off\n")
    out = tmp_path / "lm.arpa.gz"
    printed = call(
        str(tmp_path / "a.txt"), "--out", str(out), "--order", "3", "--dev", str(tmp_path / "dev.txt")
    )
    lm = read_arpa(out)
    assert printed["counts"] == list(lm.counts)
    assert printed["perplexity"] == pytest.approx(
        perplexity(lm.score(["turn the song off".split()])), rel=1e-5
    )
    assert printed["unknown"] == 0


def test_pruning_and_a_word_list_make_it_smaller(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT + "never again\n")
    (tmp_path / "words").write_text("turn the\nlight")
    text, out = str(tmp_path / "a.txt"), str(tmp_path / "lm.arpa")
    whole = call(text, "--out", out)["counts"]
    assert sum(call(text, "--out", out, "--prune", "0 0 1")["counts"]) < sum(whole)
    assert sum(call(text, "--out", out, "--entropy-prune", "1e-2")["counts"]) < sum(whole)
    assert call(text, "--out", out, "--vocab", str(tmp_path / "words"))["counts"][0] == 6


def test_bad_options_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    text, out = str(tmp_path / "a.txt"), str(tmp_path / "lm.arpa")
    with pytest.raises(ValueError, match="--prune x: expected whole counts"):
        call(text, "--out", out, "--prune", "x")
    with pytest.raises(ValueError, match="a.txt: n-gram order is 9"):
        call(text, "--out", out, "--order", "9")
