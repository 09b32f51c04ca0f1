"""`greenasr shrink` on every kind of our models, at the size of a second's work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from greenasr.data.corpora import read_corpus, save_cuts
from greenasr.data.files import read_json
from greenasr.data.grammar import generate

Call = Callable[..., Any]
TINY = "--epochs 1 --widths 2,8 --finer 4 --costs kl --step cluster --frames 2000".split()
TEXTS = "LOW;HIGH;LOW HIGH;HIGH LOW;LOW LOW HIGH;HIGH HIGH".split(";")


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory, hum: Callable[..., NDArray[np.float32]]) -> Path:
    """Cuts of three sets of tones, six utterances of two speakers each."""
    folder = tmp_path_factory.mktemp("heard")
    lines = ["utt_id\taudio\tspeaker\tsplit\ttext"]
    for number, split in enumerate(("train", "dev", "test")):
        for k, text in enumerate(TEXTS):
            said = [part for word in text.split() for part in (word, 0.2 + 0.03 * k)]
            soundfile.write(folder / f"{split}{k}.wav", hum(0.15 + 0.05 * number, *said), 16_000)
            lines.append(f"{split}{k}\t{split}{k}.wav\t{split}-{k % 2}\t{split}\t{text}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    for split, cuts in read_corpus(folder / "manifest.tsv").items():
        save_cuts(folder / f"{split}.cuts.jsonl.gz", cuts)
    return folder


def sets(folder: Path, ending: str = "cuts.jsonl.gz") -> list[str | Path]:
    found: list[str | Path] = []
    for split in ("train", "dev", "test"):
        found += [f"--{split}", folder / f"{split}.{ending}"]
    return found


def test_a_hybrid_is_shrunk_and_still_transcribes(
    heard: Path, tones: Path, tmp_path: Path, greenasr: Call
) -> None:
    model, lm = tones / "model.packed", tones / "lm.arpa"
    command = [
        "shrink",
        model,
        *sets(heard),
        "--lm",
        lm,
        *TINY,
        "--max-wer-increase",
        "40",
        "--out",
        tmp_path,
    ]
    called = greenasr(*command, "--json")
    assert called.code == 0, called.err
    value = json.loads(called.out)
    assert Path(value["model"]).stat().st_size < 0.7 * model.stat().st_size
    assert value["full"]["dev"]["wer"] == 0
    words = greenasr("transcribe", value["model"], heard / "test2.wav", "--arpa", lm)
    assert (
        words.code == 0 and {"LOW", "HIGH"} >= {line.split()[4] for line in words.out.splitlines()} != set()
    )
    assert (tmp_path / "report.html").exists()
    again = greenasr(*command, "--time", "0", "--max-bytes", model.stat().st_size)
    assert again.code == 0 and "full precision" in again.out
    assert "--lm" in greenasr("shrink", model, *sets(heard), "--out", tmp_path / "b").err


@pytest.mark.parametrize("kind", ["transducer", "ctc"])
def test_networks_without_a_graph_are_shrunk(
    kind: str, heard: Path, request: pytest.FixtureRequest, tmp_path: Path, greenasr: Call
) -> None:
    model = request.getfixturevalue(f"tones_{kind}")
    command = ["shrink", model, *sets(heard), *TINY, "--out", tmp_path]
    called = greenasr(*command)
    assert called.code == 0, called.err
    value = read_json(tmp_path / "answer.json")
    assert value["full"]["dev"]["wer"] < 50 and value["models"]
    assert "not worse" in called.out or "No smaller model" in called.out
    assert "leave --lm out" in greenasr(*command, "--lm", heard / "manifest.tsv").err


def test_a_language_model_is_shrunk_by_the_tokens_it_foretells(
    made: Path, tmp_path: Path, greenasr: Call
) -> None:
    (tmp_path / "train.txt").write_text((made / "train.txt").read_text())
    (tmp_path / "dev.txt").write_text((made / "dev.txt").read_text())
    (tmp_path / "test.txt").write_text("\n".join(generate("test", 40, seed=0)) + "\n")
    model = made / "lm" / "model.packed"
    called = greenasr("shrink", model, *sets(tmp_path, "txt"), *TINY, "--out", tmp_path / "run", "--json")
    assert called.code == 0, called.err
    value = json.loads(called.out)
    assert value["full"]["test"]["del"] == value["full"]["test"]["ins"] == 0
    assert value["model"] is None or greenasr("perplexity", value["model"], tmp_path / "test.txt").code == 0


def test_bad_input_is_one_line(heard: Path, tones: Path, made: Path, tmp_path: Path, greenasr: Call) -> None:
    model, out = tones / "model.packed", ["--out", tmp_path / "a"]
    lm = ["--lm", tones / "lm.arpa"]
    cases: list[tuple[list[str | Path], str]] = [
        (
            ["shrink", model, *sets(heard), *lm, *out, "--time", "soon"],
            "--time soon: expected a number with s",
        ),
        (["shrink", model, *sets(heard), *lm, *out, "--widths", "2,x"], "--widths 2,x: expected numbers"),
        (
            ["shrink", model, *sets(heard), *lm, *out, "--costs", "luck"],
            "costs are luck: give different ones",
        ),
        (["shrink", made / "small" / "model.packed", *sets(made, "txt"), *out], "is quantized already"),
        (
            [
                *(
                    "shrink",
                    model,
                    "--train",
                    heard / "train.cuts.jsonl.gz",
                    "--dev",
                    heard / "dev.cuts.jsonl.gz",
                ),
                *("--test", heard / "dev.cuts.jsonl.gz", *lm, *out),
            ],
            "dev and test share 6 of 6 utterances",
        ),
    ]
    for command, message in cases:
        called = greenasr(*command)
        assert called.code == 2 and message in called.err and called.err.count("\n") == 1, called.err
