"""The one loop: its rates, its legs, its checkpoints and what it refuses."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.fit import Training, fit_, make_optimizer
from greenasr.compress.none import NoCompression

SETTINGS = Training(epochs=3, lr=0.05, leg=7)


class Line:
    """Least squares; every pass has batches of its own order."""

    def __init__(self, n_batches: int = 8):
        g = torch.Generator().manual_seed(0)
        self.x = torch.randn(n_batches, 16, 4, generator=g)
        self.w = torch.tensor([1.0, -2.0, 0.5, 3.0])
        self.seeds: list[int] = []

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return torch.as_tensor((model(batch).squeeze(-1) - batch @ self.w).square().mean())

    def batches(self, split: str, seed: int = 0) -> Iterator[Tensor]:
        self.seeds.append(seed)
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        yield from self.x[order]

    def n_batches(self, split: str) -> int:
        return len(self.x)


class Stop(Exception):
    """The run is killed."""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 1))


def test_the_rate_rises_in_a_line_and_falls_on_half_a_cosine() -> None:
    settings = Training(lr=2.0, warmup=0.1, final=0.25)
    rates = [settings.rate(step, 200) for step in range(200)]
    assert rates[:20] == pytest.approx([2.0 * (i + 1) / 20 for i in range(20)])
    assert max(rates) == rates[19] == rates[20] == 2.0
    assert rates[110] == pytest.approx(2.0 * (0.25 + 0.75 / 2))  # half way down
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert settings.rate(200, 200) == pytest.approx(0.5)
    assert Training(warmup=0).rate(0, 1) == Training().lr


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"lr": 0.0}, {"leg": 0}, {"lr": math.nan}])
def test_settings_that_cannot_train_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="epochs and seed must not be negative, lr and leg must be positive"):
        replace(SETTINGS, **wrong)  # type: ignore[arg-type]


def test_weights_decay_and_vectors_do_not() -> None:
    model = network()
    model[0].bias.requires_grad_(False)
    decayed, kept = make_optimizer(model, SETTINGS).param_groups
    assert decayed["weight_decay"] == SETTINGS.weight_decay and kept["weight_decay"] == 0
    assert [p.shape for p in decayed["params"]] == [(8, 4), (1, 8)] and [p.shape for p in kept["params"]] == [
        (1,)
    ]


def test_training_lowers_the_loss_step_by_step(tmp_path: Path) -> None:
    task, model, seen = Line(), network(), []
    fit_(model, task, NoCompression(), SETTINGS, run=tmp_path / "new", on_step=lambda *row: seen.append(row))
    assert [step for step, _, _ in seen] == list(range(1, 25)) and {total for _, total, _ in seen} == {24}
    rows = [json.loads(line) for line in (tmp_path / "new" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [7, 14, 21, 24]
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["of"] == 24
    assert rows[0]["loss"] == pytest.approx(seen[6][2])
    assert task.seeds == [0, 1, 2] and not model.training


def test_without_epochs_nothing_is_trained() -> None:
    model, task = network(), Line()
    assert fit_(model, task, NoCompression(), replace(SETTINGS, epochs=0)) == {}
    assert task.seeds == [] and torch.equal(model[0].weight, network()[0].weight)


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 4), (1.25, 10), (0.01, 1)])
def test_parts_of_a_pass_are_counted(epochs: float, steps: int) -> None:
    seen: list[int] = []
    settings = replace(SETTINGS, epochs=epochs)
    fit_(network(), Line(), NoCompression(), settings, on_step=lambda *row: seen.append(row[0]))
    assert seen == list(range(1, steps + 1))


@pytest.mark.parametrize("at", [3, 7, 8, 20, 24])
def test_a_killed_run_goes_on_from_its_last_leg_and_ends_the_same(at: int, tmp_path: Path) -> None:
    def stop(step: int, total: int, mean: float) -> None:
        if step == at:
            raise Stop

    whole = network()
    fit_(whole, Line(), NoCompression(), SETTINGS, run=tmp_path / "whole")
    with pytest.raises(Stop):
        fit_(network(), Line(), NoCompression(), SETTINGS, run=tmp_path / "cut", on_step=stop)
    model, seen = network(), []
    fit_(model, Line(), NoCompression(), SETTINGS, run=tmp_path / "cut", on_step=lambda *r: seen.append(r[0]))
    assert seen == list(range((at - 1) // 7 * 7 + 1, 25))
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    losses = [
        [
            (row["step"], row["loss"])
            for row in map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())
        ]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, again = network(), network()
    fit_(first, Line(), NoCompression(), SETTINGS, run=tmp_path)
    task = Line()
    fit_(
        again,
        task,
        NoCompression(),
        SETTINGS,
        run=tmp_path,
        on_step=lambda *row: pytest.fail("a step was made"),
    )
    assert torch.equal(first[0].weight, again[0].weight)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    fit_(network(), Line(), NoCompression(), SETTINGS, run=tmp_path)
    with pytest.raises(
        ValueError, match=r"checkpoint.pt: begun with other settings \(lr, seed\): use another folder"
    ):
        fit_(network(), Line(), NoCompression(), replace(SETTINGS, lr=0.1, seed=3), run=tmp_path)


def test_a_loss_that_is_not_a_number_ends_the_run_with_a_cure() -> None:
    task = Line()
    task.w[0] = math.nan
    with pytest.raises(ValueError, match=r"the loss is nan at step 7 of 24: lower lr \(now 0.05\)"):
        fit_(network(), task, NoCompression(), SETTINGS)


def test_a_text_without_a_batch_is_refused_instead_of_waited_for() -> None:
    task = Line()
    task.x = task.x[:0]
    with pytest.raises(ValueError, match="the training split has no batch"):
        fit_(network(), task, NoCompression(), SETTINGS)


def test_seeds_change_the_run_and_repeat_it() -> None:
    found = []
    for seed in (1, 1, 2):
        model = network()
        fit_(model, Line(), NoCompression(), replace(SETTINGS, seed=seed))
        found.append(model[0].weight.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_mixed_precision_learns_as_float32_does_and_its_weights_stay_float32() -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        model, task = network(), Line()
        fit_(model, task, NoCompression(), replace(SETTINGS, epochs=20, precision=precision))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        losses[precision] = float(sum(task.loss(model, batch).detach() for batch in task.x))
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.3)
    assert losses["bfloat16"] != losses["float32"]
    with pytest.raises(ValueError, match="precision is 'half': choose float32 or bfloat16"):
        Training(precision="half")


def test_checkpoints_older_than_mixed_precision_are_of_float32(tmp_path: Path) -> None:
    task = Line()

    def stop(step: int, total: int, loss: float) -> None:
        if step == 10:
            raise Stop

    with pytest.raises(Stop):
        fit_(network(), task, NoCompression(), SETTINGS, run=tmp_path, on_step=stop)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["settings"]["precision"]
    torch.save(state, tmp_path / "checkpoint.pt")
    fit_(network(), task, NoCompression(), SETTINGS, run=tmp_path)
    with pytest.raises(ValueError, match="other settings .precision"):
        fit_(network(), task, NoCompression(), replace(SETTINGS, precision="bfloat16"), run=tmp_path)
