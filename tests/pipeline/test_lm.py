"""A teacher in training: its share of the targets, and which models may teach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from greenasr.data.text import Vocabulary
from greenasr.pipeline import lm
from greenasr.pipeline.models import Saved, load, save
from greenasr.pipeline.recipe import Windows
from greenasr.tasks.networks import build

TEXT = [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]] * 8


def saved(path: Path, words: list[list[str]], seed: int) -> Saved:
    torch.manual_seed(seed)
    vocabulary = Vocabulary.from_sentences(words, 10)
    shape = {"layers": 1, "dim": 4, "heads": 1, "hidden": 4, "context": 8, "vocab": vocabulary.size}
    windows = {"length": 8, "batch": 2, "stride": 4, "by_sentence": False}
    save(path, build("transformer", shape), vocabulary, {"windows": windows})
    return load(path)


def test_a_teacher_with_all_of_the_targets_leaves_its_pupils_copy_where_it_is(tmp_path: Path) -> None:
    pupil = saved(tmp_path / "one.packed", TEXT, seed=0)
    plain = lm.make_task(pupil.tokenizer, Windows(8, 2, 4), {"train": TEXT})
    task = lm.taught(plain, tmp_path / "one.packed", 1.0, pupil)
    batch = next(iter(task.batches("train")))
    task.loss(pupil.model, batch).backward()  # type: ignore[arg-type]
    assert max(float(p.grad.abs().max()) for p in pupil.model.parameters() if p.grad is not None) < 1e-2
    pupil.model.zero_grad()
    plain.loss(pupil.model, batch).backward()  # type: ignore[arg-type]
    assert max(float(p.grad.abs().max()) for p in pupil.model.parameters() if p.grad is not None) > 5e-2


def test_a_teacher_of_another_vocabulary_or_without_a_share_is_refused(tmp_path: Path) -> None:
    pupil = saved(tmp_path / "one.packed", TEXT, seed=0)
    saved(tmp_path / "two.packed", [["x", "y"], ["y", "x"]] * 8, seed=1)
    task = lm.make_task(pupil.tokenizer, Windows(8, 2, 4), {"train": TEXT})
    with pytest.raises(ValueError, match=r"two\.packed: the teacher has another vocabulary"):
        lm.taught(task, tmp_path / "two.packed", 0.5, pupil)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="choose above 0 and at most 1"):
            lm.taught(task, tmp_path / "one.packed", share, pupil)
