"""The whole search on a model that can be judged in milliseconds."""

from __future__ import annotations

import math
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import greenasr
from greenasr.compress.clusters import make_clusters
from greenasr.data.files import read_json, write_json
from greenasr.roles import BitMap
from greenasr.score.errors import Errors
from greenasr.shrinking.package import OwnClass
from greenasr.shrinking.settings import Question, Space
from greenasr.shrinking.task import OwnTask, Teaching
from greenasr.shrinking.works import Works

Make = Callable[..., OwnTask]
MARGIN = Question(max_wer_increase=1.5)


@pytest.fixture(scope="module")
def finished(planted: nn.Module, make_task: Make, quick: Space, tmp_path_factory: Any) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("run")
    greenasr.shrink(planted, make_task(), out, space=quick, question=MARGIN)
    return Path(out)


def test_the_sensitive_layer_is_found_and_kept_wide(finished: Path) -> None:
    value = read_json(finished / "answer.json")
    row = next(row for row in value["models"] if row["name"] == value["smallest"])
    assert row["plan"]["fine.weight"] > row["plan"]["coarse.weight"]


def test_the_answer_is_the_smallest_that_passes_and_is_tested_once(finished: Path) -> None:
    value = read_json(finished / "answer.json")
    passing = [row for row in value["models"] if row["passes_dev"]]
    assert value["smallest"] == passing[0]["name"]
    assert value["looked"] == len(list((finished / "test" / "models").iterdir())) <= 4
    tested = [row for row in value["models"] if "verdict" in row]
    assert value["looked"] == len(tested) and all(row["passes_dev"] for row in tested)
    assert any(row["bytes"] < passing[0]["bytes"] for row in value["models"])  # smaller ones were tried
    assert "four times in five" in value["sentence"] and "lossless" in value["sentence"]


def test_few_sizes_are_trained_and_their_price_is_told_in_trainings(finished: Path) -> None:
    effort = read_json(finished / "answer.json")["effort"]
    trained = [p.parent for p in finished.glob("models/*-bp/result.json")]
    assert effort["trainings"] == len(trained) <= 2
    assert len(list(finished.glob("models/*-brief/result.json"))) <= 2
    seconds = [read_json(p / "result.json")["seconds_cpu"] for p in trained]
    assert effort["one"] == max(seconds) and effort["all"] > effort["search"] > len(trained) - 1


def test_the_models_own_class_loads_the_file(finished: Path, planted: nn.Module, make_task: Make) -> None:
    model = type(planted)()
    greenasr.load_into(model, finished / "smallest.packed")
    value = read_json(finished / "answer.json")
    row = next(row for row in value["models"] if row["name"] == value["smallest"])
    wrong = sum(each.errors.total for each in make_task().score(model, "test"))
    assert wrong == row["test"]["sub"]
    with pytest.raises(ValueError, match="holds a .*Planted, not a torch.nn"):
        greenasr.load_into(nn.Linear(2, 2), finished / "smallest.packed")


def test_another_question_to_a_finished_run_trains_nothing(
    finished: Path, planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = {path.name for path in (out / "models").iterdir()}
    size = read_json(out / "answer.json")["models"][-1]["bytes"]
    question = Question(seconds=0, max_bytes=size)
    found = greenasr.shrink(planted, make_task(), out, space=quick, question=question)
    assert found.path.stat().st_size <= size
    new = {path.name for path in (out / "models").iterdir()} - before
    assert all(name.endswith("-none") for name in new)


class Stop(Exception):
    pass


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_file(
    finished: Path, planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    stops, left = 0, 5

    def tell(*news: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Stop

    while True:
        try:
            found = greenasr.shrink(planted, make_task(), tmp_path, space=quick, question=MARGIN, tell=tell)
            break
        except Stop:
            stops, left = stops + 1, 5 + 4 * stops  # ever later, lest a job without checkpoints never ends
    assert stops > 3
    assert found.path.read_bytes() == (finished / "smallest.packed").read_bytes()
    models = [p.name for p in (tmp_path / "models").iterdir()]
    assert sorted(models) == sorted(p.name for p in (finished / "models").iterdir())
    for name in models:
        packed = [run / "models" / name / "model.packed" for run in (finished, tmp_path)]
        assert packed[0].read_bytes() == packed[1].read_bytes()


def test_workers_leave_the_answer_to_the_other_call(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path, finished: Path
) -> None:
    settings: dict[str, Any] = {"space": quick, "question": MARGIN}
    assert greenasr.shrink(planted, make_task(), tmp_path, **settings, worker=True) is None
    assert not (tmp_path / "test").exists() and not (tmp_path / "answer.json").exists()
    found = greenasr.shrink(planted, make_task(), tmp_path, **settings)
    assert found.path.read_bytes() == (finished / "smallest.packed").read_bytes()


def test_sets_that_overlap_are_refused_unless_it_is_said(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="dev and test share 200 of 200 utterances"):
        greenasr.shrink(planted, make_task(test="dev"), tmp_path, space=quick)
    assert not (tmp_path / "full").exists()
    task = make_task(test="dev")
    found = greenasr.shrink(planted, task, tmp_path, space=quick, question=MARGIN, allow_overlap=True)
    assert "too good" in found.answer["notes"][0]


def test_a_small_test_set_is_said_to_be_too_small(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    question = Question(max_wer_increase=0.1)
    found = greenasr.shrink(planted, make_task(size=12), tmp_path, space=quick, question=question)
    assert "too few to tell" in found.answer["sentence"]
    rows = [row for row in found.answer["models"] if "verdict" in row]
    assert {row["verdict"] for row in rows} <= {"undecided", "worse"}


def test_a_scorer_that_gives_nan_stops_the_search(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    def scorer(model: nn.Module, data: Any) -> list[Errors]:
        return [Errors("u1", 5, math.nan, 0, 0)]  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="dev: the scorer gave n_sub = nan for 'u1'"):
        greenasr.shrink(planted, make_task(scorer=scorer), tmp_path, space=quick)


def test_models_that_cannot_be_quantized_are_refused(make_task: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no linear, embedding or convolution weight"):
        greenasr.shrink(nn.LSTM(2, 2), make_task(), tmp_path / "a")
    with pytest.raises(ValueError, match="'weight' is torch.float16: give the model in float32"):
        greenasr.shrink(nn.Linear(2, 2).half(), make_task(), tmp_path / "b")
    broken = nn.Linear(2, 2)
    nn.init.constant_(broken.weight, math.nan)
    with pytest.raises(ValueError, match="'weight' holds weights that are not finite"):
        greenasr.shrink(broken, make_task(), tmp_path / "c")


def test_folders_of_other_runs_and_versions_are_refused(
    finished: Path, planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="this folder holds a run with other settings .space"):
        greenasr.shrink(planted, make_task(), finished, space=replace(quick, finer=1.4))
    write_json(tmp_path / "shrink.json", {"format": "greenasr shrink 99"})
    with pytest.raises(ValueError, match="begun by another version of greenasr .'greenasr shrink 99'"):
        greenasr.shrink(planted, make_task(), tmp_path, space=quick)


def test_a_full_disk_is_seen_before_the_work(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 0, 100))
    with pytest.raises(ValueError, match="make room or choose another --out"):
        greenasr.shrink(planted, make_task(), tmp_path, space=quick)


def test_a_training_that_diverges_fails_alone(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    def loss(model: Any, batch: Any) -> torch.Tensor:
        found = torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())
        return found * math.nan if model.training else found

    found = greenasr.shrink(
        planted, replace(make_task(), loss_of=loss), tmp_path, space=quick, question=MARGIN
    )
    assert any("could not be trained: the loss is nan" in note for note in found.answer["notes"])
    assert {row["estimator"] for row in found.answer["models"]} == {"none"}


def test_the_full_model_teaches_and_its_pupil_stays_nearer_to_it(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    task = make_task()
    assert Works(planted, task, OwnClass(planted), quick, tmp_path).teaching == Teaching(0.8, 0.0)
    clusters = make_clusters(planted, "matrix")
    plan = BitMap(clusters, {cluster.name: 2 for cluster in clusters}, "cluster")
    write_json(tmp_path / "plans" / "2" / "bit_map.json", plan.to_json())
    far = {}
    for share in (0.0, 1.0):
        works = Works(planted, task, OwnClass(planted), replace(quick, teach=share), tmp_path)
        pupil, _ = works.trained("2", "bp", quick.training, tmp_path / str(share), lambda *news: None)
        far[share] = works.away(pupil)
    assert 0 < far[1.0] < far[0.0]


class Sharp(nn.Module):
    """The layer ``sharp`` has weights on a silent input that are so large that rounding leaves no others."""

    def __init__(self, planted: nn.Module) -> None:
        super().__init__()
        self.sharp, self.mild = nn.Linear(17, 16), nn.Linear(16, 12)
        with torch.no_grad():
            self.sharp.weight[:, :16], self.sharp.weight[:, 16] = torch.eye(16), 1e4
            self.sharp.bias.zero_()
            self.mild.weight.copy_(planted.fine.weight)  # type: ignore[union-attr, arg-type]
            self.mild.bias.copy_(planted.fine.bias)  # type: ignore[union-attr, arg-type]

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.mild(self.sharp(torch.nn.functional.pad(frames, (0, 1))))


def test_a_part_that_no_width_can_round_is_found_and_stays_in_16_bits(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    found = greenasr.shrink(Sharp(planted), make_task(), tmp_path, space=quick, question=MARGIN)
    parts = found.answer["parts"]
    assert parts["weights"]["sharp.weight"]["distance"] > 100 * parts["weights"]["mild.weight"]["distance"]
    assert set(parts["rest"]) == {"sharp.bias", "mild.bias"}
    row = next(row for row in found.answer["models"] if row["name"] == found.answer["smallest"])
    assert set(row["plan"]) == {"mild.weight"}
    assert any("'sharp.weight' stays in 16 bits" in note for note in found.answer["notes"])
    model = Sharp(planted)
    greenasr.load_into(model, found.path)
    assert (model.sharp.weight[:, :16].diagonal() > 0.9).all()


def test_a_teacher_is_refused_where_outputs_are_unknown(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    task = make_task(logits=None)
    assert Works(planted, task, OwnClass(planted), quick, tmp_path).teaching == Teaching(0.0, None)
    with pytest.raises(ValueError, match="teach is 0.5, but the outputs of this task cannot be compared"):
        greenasr.shrink(planted, task, tmp_path, space=replace(quick, teach=0.5))
    assert not (tmp_path / "full").exists()


class Tied(nn.Module):
    """One matrix at two sites, a layer of its own kind, and a weight that is normalised by nature."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.second.weight = self.first.weight
        self.own = nn.Parameter(torch.ones(40, 16))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
        self.out = nn.Linear(16, 12)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        hidden = self.second(self.first(frames).relu()) * self.own.mean(0)
        return self.out(self.normed(hidden).relu())


def test_tied_weights_count_once_and_layers_of_other_kinds_stay(
    make_task: Make, quick: Space, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Tied()
    space = replace(quick, training=replace(quick.training, epochs=0.5))
    found = greenasr.shrink(model, make_task(), tmp_path, space=space, question=MARGIN)
    full = found.answer["full"]
    assert full["quantizable"] == 16 * 16 + 16 * 12
    assert full["kept"]["own"] == 640
    assert any("in no linear, embedding or convolution layer" in note for note in found.answer["notes"])
    other = Tied()
    greenasr.load_into(other, found.path)
    assert other.first.weight is other.second.weight
    assert hasattr(other.normed, "parametrizations")


def test_costs_that_a_model_cannot_have_are_left_out_and_said_so(
    planted: nn.Module, make_task: Make, quick: Space, tmp_path: Path
) -> None:
    def flat(model: Any, batch: Any) -> torch.Tensor:  # once differentiable: CTC in torch is no better
        logits = model.fine(batch[0]) + 1e-4 * nn.functional.linear(batch[0], model.coarse.weight)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())

    task = replace(make_task(), loss_of=flat)
    found = greenasr.shrink(planted, task, tmp_path, space=quick, question=MARGIN)
    assert any(note.startswith("kl costs could not be measured") for note in found.answer["notes"])
    assert {row["cost"] for row in found.answer["models"]} == {"hessian"}
