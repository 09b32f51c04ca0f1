"""Two processes of torchrun give the weights and tables of one; one that dies ends the run, which goes on."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import HashStore

from greenasr.cli.app import main
from greenasr.compress import shared
from greenasr.ops import crew
from greenasr.pipeline import together
from greenasr.pipeline.run import Stage, claimed, run_stages

MEMBER = Path(__file__).with_name("member.py")
Ended = tuple[Path, subprocess.CompletedProcess[str]]
RECIPE = """
title = "Micro"
ngram_order = 2
[data]
sentences = 60
vocab = 100
[model]
layers = 1
dim = 8
heads = 2
hidden = 16
dropout = 0.0
[task]
length = 16
batch = 8
stride = 16
by_sentence = true
[train]
epochs = 2
leg = 2
[compress]
epochs = 1
[[row]]
method = "float"
[[row]]
method = "admm"
bits = 2
"""


def torchrun(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Two processes of `member`, one thread each, that speak over the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    address = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1",
         *address, str(MEMBER), *map(str, arguments)],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **loopback},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@pytest.fixture(scope="module")
def member() -> ModuleType:
    spec = importlib.util.spec_from_file_location("member", MEMBER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, member: ModuleType) -> Ended:
    """Two processes trained all cases, one of them begun by one process, and made a table; one was killed."""
    out = tmp_path_factory.mktemp("two")
    member.stopped(out / "work" / "begun by one")
    (out / "micro.toml").write_text(RECIPE)
    return out, torchrun(out, out, "table", "micro.toml", "--out", "two")


@pytest.fixture(scope="module")
def two(ended: Ended) -> Path:
    """The folder of what they trained."""
    return ended[0]


@pytest.fixture(scope="module")
def one(member: ModuleType) -> dict[str, dict[str, torch.Tensor]]:
    """What one process trains."""
    cases: dict[str, dict[str, torch.Tensor]] = member.cases()
    return cases


def test_two_processes_hold_the_same_bits(two: Path) -> None:
    first, second = (torch.load(two / f"{rank}.pt") for rank in (0, 1))
    for case, state in first.items():
        for name, value in state.items():
            assert torch.equal(value, second[case][name]), f"{case}: {name}"


def test_two_processes_train_the_weights_of_one(
    two: Path, one: dict[str, dict[str, torch.Tensor]], member: ModuleType
) -> None:
    """Float, BP, ADMM, ACosR and searches; batches whose last is too small for two; norms of few frames."""
    found = torch.load(two / "0.pt")
    dropped, alone = found.pop("dropout"), dict(one).pop("dropout")
    assert found.keys() == one.keys() - {"dropout"} | {"begun by one"}
    for case, state in found.items():
        expected = one["lm float" if case == "begun by one" else case]
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5, msg=lambda m, c=case: f"{c}: {m}")
    apart = max(float((dropped[n] - alone[n]).abs().max()) for n in alone if n.endswith("weight"))
    assert apart > 1e-3, "processes drop units of their own"
    begun = member.language_model()[1].state_dict()
    assert not torch.allclose(begun["output.weight"], one["lm float"]["output.weight"], atol=1e-3)
    assert all(float((share - 0.5).abs().max()) > 1e-4 for share in one["search of bits"].values())


def test_one_process_goes_on_where_two_were_stopped(
    two: Path, one: dict[str, dict[str, torch.Tensor]], member: ModuleType
) -> None:
    torch.testing.assert_close(
        member.resumed(two / "work" / "begun by two"), one["lm float"], atol=1e-5, rtol=1e-5
    )


def test_a_table_whose_process_is_killed_says_so_and_goes_on_to_the_table_of_one(ended: Ended) -> None:
    folder, result = ended
    assert result.returncode == 0, result.stderr
    ours = [line for line in result.stderr.splitlines() if line.startswith("greenasr: ")]
    assert ours == [f"greenasr: {crew.LOST}"]
    assert result.stdout.count("table.md, table.json and plots are in two") == 1, "one process prints"
    assert not list(folder.rglob(".*.process*"))
    with contextlib.chdir(folder), pytest.raises(SystemExit) as end:
        main(["table", "micro.toml", "--out", "one"])
    assert end.value.code == 0
    tables = [json.loads((folder / run / "table.json").read_text()) for run in ("one", "two")]
    for ours_alone, row in zip(*(table["rows"] for table in tables), strict=True):
        assert row["plan"] == ours_alone["plan"] and row["bytes"] == pytest.approx(
            ours_alone["bytes"], rel=0.01
        )
        assert row["ppl_test"] == pytest.approx(ours_alone["ppl_test"], rel=2e-3), "bf16 rounds shares apart"


@pytest.fixture
def second_of_two() -> Iterator[Any]:
    """This process as the second of a run, with a store that the test writes to."""
    store = HashStore()
    together._run = together._Run(1, 2, store)
    yield store
    together._run = None


def test_others_take_the_leader_s_word_and_touch_no_run_folder(second_of_two: Any, tmp_path: Path) -> None:
    second_of_two.set("said 1", "true")
    second_of_two.set("said 2", '{"ppl": 3.5}')
    stage = Stage("float", (), lambda folder, tell: pytest.fail("finished stages are not repeated"))
    with claimed(tmp_path / "run", {"title": "any"}):
        assert run_stages([stage], tmp_path / "run", lambda *told: None, jobs=3) == {"float": {"ppl": 3.5}}
    assert not (tmp_path / "run").exists()


def test_the_first_to_fail_says_why_and_ends_the_others(
    second_of_two: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for expected in ("greenasr: process 1 of 2: no/such.toml: no such file", ""):
        with pytest.raises(SystemExit) as end:
            main(["table", "no/such.toml"])
        assert end.value.code == 2
        assert capsys.readouterr().err.startswith(expected)
    with pytest.raises(ChildProcessError, match="another process of this run is lost"):
        together.said(None)


def test_a_task_that_cannot_be_shared_is_refused() -> None:
    with crew.working(0, 2), pytest.raises(ValueError, match="list cannot be shared by processes"):
        shared.share_of_loss(type("T", (), {"means": None})(), nn.Linear(1, 1), [1])


def test_weights_that_differ_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)
    monkeypatch.setattr(crew, "from_first", lambda sums: sums + torch.tensor([0, 1]))
    with crew.working(1, 2), pytest.raises(ValueError, match="after step 7 bias is not the same on all"):
        shared.check_alike(model, 7)


def test_buckets_keep_order_kind_and_size() -> None:
    tensors = [torch.zeros(n, dtype=kind) for n, kind in [(2, torch.float32)] * 3 + [(9, torch.float64)]]
    found = shared.buckets(tensors, 4)
    assert [len(bucket) for bucket in found] == [2, 1, 1]
    assert [id(p) for bucket in found for p in bucket] == [id(p) for p in tensors]


def test_without_torchrun_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    together.begin()
    assert together.size() == 1 and together.first() and together.said([1]) == [1]
    assert not {"accelerate", "torch.distributed.run"} & sys.modules.keys(), (
        "only the processes of a crew pay"
    )
