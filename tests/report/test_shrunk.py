"""The page of a finished search: what it says, and that it opens anywhere, alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import greenasr
from greenasr.compress.fit import Training
from greenasr.data.files import read_json, write_json
from greenasr.report import shrunk
from greenasr.report.changed_words import changes
from greenasr.score.scored import Scored, said
from greenasr.shrinking.settings import Question, Space
from greenasr.shrinking.task import OwnTask

CHROMIUM = shutil.which("chromium")
WORDS = ["up", "down", "left", "right"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of a layer that tells four words apart."""
    torch.manual_seed(0)
    points = torch.randn(4, 24)

    def speech(split: str) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
        truth = [torch.randint(4, (6,)) for _ in range(40)]
        return [(f"{split}{k}", points[y] + 1.2 * torch.randn(6, 24), y) for k, y in enumerate(truth)]

    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def scorer(model: nn.Module, rows: Any) -> list[Scored]:
        with torch.no_grad():
            heard = [[WORDS[k] for k in model(x).argmax(1)] for _, x, _ in rows]
        pairs = zip(rows, heard, strict=True)
        return [said(u, [WORDS[k] for k in y], hyp, f"s{int(u[-1]) % 5}") for (u, _, y), hyp in pairs]

    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))
    train = [(x, y) for _, x, y in speech("train")]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for batch in train * 3:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    out = tmp_path_factory.mktemp("shrunk")
    task = OwnTask(loss, train, speech("dev"), speech("test"), scorer)
    space = Space(
        training=Training(epochs=1, lr=1e-3, weight_decay=0.0), finer=1.5, cost_batches=2, max_probes=8
    )
    greenasr.shrink(model.eval(), task, out, space=space, question=Question(max_wer_increase=8))
    shrunk.write(out)
    return Path(out)


def test_the_page_holds_the_answer_every_model_and_three_plots(run: Path) -> None:
    page, value = (run / "report.html").read_text(), read_json(run / "answer.json")
    assert value["smallest"] is not None
    assert page.count("<svg") == 3
    for title in ("Models", "Errors before and after", "Where the time went", "Weights against their levels"):
        assert f"{title}</h2>" in page
    assert all(shrunk.label(row) in page for row in value["models"])
    assert "four times in five" in page and " ★" in page


def test_the_page_asks_nothing_of_any_network(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!#)|url\((?!#)|@import|<script', page)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_as_narrow_as_a_phone_opens_the_page_without_complaint(run: Path, tmp_path: Path) -> None:
    probe = (
        "<script>document.title = JSON.stringify({plots: [...document.querySelectorAll('svg')].filter("
        "s => s.getBoundingClientRect().width > 200).length, over: document.documentElement.scrollWidth - "
        "innerWidth, asked: performance.getEntriesByType('resource').length})</script>"
    )
    page = tmp_path / "page.html"
    page.write_text((run / "report.html").read_text().replace("</body>", f"{probe}</body>"))
    shown = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=360,900", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert shown.returncode == 0
    found = json.loads(re.search(r"<title>(.*?)</title>", shown.stdout)[1])  # type: ignore[index]
    assert found["plots"] == 3 and found["over"] <= 0 and found["asked"] == 0
    assert "CONSOLE" not in shown.stderr


def test_words_that_changed_are_told_by_kind() -> None:
    full = [said("1", "go to bed".split(), "go two bed".split()), said("2", ["on"], ["on"])]
    small = [said("1", "go to bed".split(), "so to bed".split()), said("2", ["on"], [])]
    found = changes(full, small)
    assert found.lost == {("go", "go", "so"): 1, ("on", "on", ""): 1}
    assert found.won == {("to", "two", "to"): 1} and found.utterances == 2


def test_the_terminals_table_has_a_line_a_model(run: Path, greenasr: Callable[..., Any]) -> None:
    called = greenasr("report", run)
    value = read_json(run / "answer.json")
    assert called.code == 0
    assert all(shrunk.label(row) in called.out for row in value["models"])
    assert json.loads(greenasr("report", run, "--json").out)["smallest"] == value["smallest"]


def test_folders_without_an_answer_or_of_another_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no answer.json: give the folder of a finished"):
        shrunk.write(tmp_path)
    write_json(tmp_path / "answer.json", {"format": "greenasr shrunk 9"})
    with pytest.raises(ValueError, match="this greenasr reads 'greenasr shrunk 2'"):
        shrunk.write(tmp_path)
