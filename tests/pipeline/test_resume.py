"""A run that is killed ends with the figures of one that was not; a full disk loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from greenasr.cli.app import main
from greenasr.data.grammar import generate

RECIPE = """
title = "Micro"
ngram_order = 2
[data]
sentences = 100
vocab = 200
[model]
layers = 1
dim = 8
heads = 2
hidden = 16
[task]
length = 16
batch = 8
stride = 16
by_sentence = true
[train]
epochs = 2
leg = 2
[compress]
widths = [2, 4]
epochs = 1
cost_batches = 2
max_probes = 4
[rescore]
generate = 40
[[row]]
method = "float"
[[row]]
method = "admm"
teach = 0.5
bits = 2
[[row]]
method = "hessian"
bits = 3.0
"""


def start(folder: Path, *arguments: str, largest_file: int | None = None) -> subprocess.Popen[str]:
    """The command in a process of its own, on one thread; files may be limited, as on a full disk."""

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.Popen(
        [sys.executable, "-m", "greenasr.cli.app", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def run_here(folder: Path, *arguments: str) -> None:
    """The command in this process, undisturbed."""
    with contextlib.chdir(folder), pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0


def kill_when_there(process: subprocess.Popen[str], path: Path) -> None:
    """SIGKILL as soon as ``path`` exists, or when the process ended before anyone saw it."""
    began = time.monotonic()
    while not path.exists() and process.poll() is None and time.monotonic() - began < 300:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def figures(run: Path) -> list[dict[str, Any]]:
    """The rows of a table without how long they took."""
    rows = json.loads((run / "table.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a table that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "micro.toml").write_text(RECIPE)
    run_here(folder, "table", "micro.toml", "--out", "run")
    return folder


def test_a_table_killed_again_and_again_has_the_same_figures(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "micro.toml").write_text(RECIPE)
    run = tmp_path / "run"
    command = ("table", "micro.toml", "--out", "run")
    for moment in ("float/checkpoint.pt", "admm-2/checkpoint.pt"):
        kill_when_there(start(tmp_path, *command), run / moment)
    kept = {path: path.stat().st_mtime_ns for path in run.glob("*/result.json")}
    assert run / "float" / "result.json" in kept
    run_here(tmp_path, *command)
    assert figures(run) == figures(whole / "run")
    for path, written in kept.items():
        assert path.stat().st_mtime_ns == written, f"{path.parent.name} was repeated"


def test_stages_side_by_side_give_the_same_figures_even_when_killed(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "micro.toml").write_text(RECIPE)
    command = ("table", "micro.toml", "--out", "run", "--jobs", "2")
    kill_when_there(start(tmp_path, *command), tmp_path / "run" / "float" / "checkpoint.pt")
    run_here(tmp_path, *command)
    assert figures(tmp_path / "run") == figures(whole / "run")


def test_training_and_compressing_go_on_after_being_killed(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(generate("train", 60, seed=0)) + "\n")
    shape = "--layers 1 --dim 8 --heads 2 --hidden 16 --length 2 --batch 1 --epochs 1.6".split()
    for out in ("a", "b"):
        command = ("train", "train.txt", "--out", out, *shape)
        if out == "b":
            kill_when_there(start(tmp_path, *command), tmp_path / out / "checkpoint.pt")
            assert not (tmp_path / out / "model.packed").exists()
        run_here(tmp_path, *command)
    assert (tmp_path / "a/model.packed").read_bytes() == (tmp_path / "b/model.packed").read_bytes()
    for out in ("a2", "b2"):
        command = ("compress", "a/model.packed", "train.txt", "--bits", "2", "--out", out, "--epochs", "1.6")
        if out == "b2":
            kill_when_there(start(tmp_path, *command), tmp_path / out / "checkpoint.pt")
            assert not (tmp_path / out / "model.packed").exists()
        run_here(tmp_path, *command)
    assert (tmp_path / "a2/model.packed").read_bytes() == (tmp_path / "b2/model.packed").read_bytes()
    assert not list(tmp_path.glob("*/checkpoint.pt"))


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "micro.toml").write_text(RECIPE)
    command = ("table", "micro.toml", "--out", "run")
    process = start(tmp_path, *command, largest_file=10_000)
    _, err = process.communicate(timeout=300)
    last = err.strip().splitlines()[-1]
    assert process.returncode == 2 and last.startswith("greenasr: cannot write run/float/checkpoint.pt: ")
    assert (tmp_path / "run" / "ngram" / "result.json").exists()
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".part" or p.name.startswith(".checkpoint")]
