"""Every command explains itself, says one JSON object when asked, and is what the README says."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from greenasr.cli.app import make_app

Call = Callable[..., Any]
ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
EXAMPLES = re.findall(r"`greenasr ([^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_fits_a_terminal_and_explains_every_option(
    name: str, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = greenasr(name, "--help")
    assert shown.code == 0
    assert f"Example: greenasr {name} " in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert [p.name for p in COMMANDS[name].params if not p.help] == []
    assert "--json" in shown.out


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_readmes_examples_have_real_options(line: str) -> None:
    name, *rest = shlex.split(line)
    COMMANDS[name].make_context(name, rest)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_helps_own_example_has_real_options(name: str) -> None:
    text = " ".join((COMMANDS[name].help or "").split())
    example = re.search(r"Example: greenasr (.+)$", text)
    assert example is not None
    first, *rest = shlex.split(example[1])
    assert first == name
    COMMANDS[name].make_context(name, rest)


@pytest.mark.parametrize(
    "line",
    [
        "train train.txt --out lm --layers 1 --dim 16 --heads 2 --hidden 32 --epochs 1 --length 16 --batch 8",
        "costs lm/model.packed train.txt --out h.json --max-probes 4 --batches 2 --widths 2,4",
        "costs lm/model.packed train.txt --out s.json --method search --widths 2,4 --bits 3 --epochs 0.2 "
        "--trained 2=small/model.packed --trained 4=small/model.packed",
        "allocate costs.json --bits 2 --out p.json --front front.json",
        "compress lm/model.packed train.txt --bits 2 --method none --out packed --dev dev.txt",
        "perplexity small/model.packed dev.txt --ngram lm.arpa --dev train.txt",
        "ngram train.txt --out n.arpa.gz --order 2 --dev dev.txt",
        "rescore nbest.jsonl --lm small/model.packed --ngram lm.arpa --mix --out r.jsonl",
        "score nbest.jsonl nbest.jsonl --against nbest.jsonl",
        "inspect small/model.packed",
    ],
)
def test_json_is_one_object_and_nothing_else_on_standard_output(
    line: str, made: Path, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    called = greenasr(*shlex.split(line), "--json")
    assert called.code == 0, called.err
    assert isinstance(json.loads(called.out), dict)
    assert called.out.count("\n") == 1


def test_sizes_are_those_of_the_files(made: Path, greenasr: Call) -> None:
    for name in ("lm", "small"):
        path = made / name / "model.packed"
        assert greenasr("inspect", path, "--json").json["file_bytes"] == path.stat().st_size


def test_a_command_alone_shows_the_commands(greenasr: Call) -> None:
    shown = greenasr()
    assert shown.code == 2
    assert all(name in shown.out for name in COMMANDS)
