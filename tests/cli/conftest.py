"""A small trained model with everything around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenasr.data.confusions import generate_nbest
from greenasr.data.grammar import generate

SHAPE = "--layers 1 --dim 16 --heads 2 --hidden 32 --epochs 1 --length 16 --batch 8".split()


Call = Callable[..., Any]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, greenasr: Call) -> Path:
    """Texts, nbest.jsonl, lm.arpa, costs.json, plan.json, and model.packed in lm, narrow and small."""
    folder = tmp_path_factory.mktemp("made")
    for split, amount in (("train", 120), ("dev", 40)):
        (folder / f"{split}.txt").write_text("\n".join(generate(split, amount, seed=0)) + "\n")
    lines = [json.dumps(entry) + "\n" for entry in generate_nbest(30, seed=1)]
    (folder / "nbest.jsonl").write_text("".join(lines))
    text, model = folder / "train.txt", folder / "lm" / "model.packed"
    for arguments in (
        ["train", text, "--out", folder / "lm", *SHAPE],
        ["train", text, "--out", folder / "narrow", *SHAPE, "--dim", "8"],
        ["ngram", text, "--out", folder / "lm.arpa", "--order", "3"],
        ["costs", model, text, "--out", folder / "costs.json", "--method", "kl", "--widths", "1,2,4"],
        ["allocate", folder / "costs.json", "--bits", "2", "--out", folder / "plan.json"],
        [
            "compress",
            model,
            text,
            "--bit-map",
            folder / "plan.json",
            "--epochs",
            "1",
            "--out",
            folder / "small",
        ],
    ):
        called = greenasr(*arguments)
        assert called.code == 0, called.err
    return folder
