"""`greenasr shrink` on every kind of our models, at the size of a second's work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from greenasr.data.corpora import read_corpus, save_cuts
from greenasr.data.files import read_json
from greenasr.data.grammar import generate
from greenasr.runtime import engine as runtime
from greenasr.runtime.format import read
from greenasr.score.scored import read_scored
from greenasr.shrinking.board import Board
from greenasr.shrinking.recognisers import Hearing, recogniser
from greenasr.shrinking.texts import language_model

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
    assert value["full"]["activations"] == "float32"
    words = greenasr("transcribe", value["model"], heard / "test2.wav", "--arpa", lm)
    assert (
        words.code == 0 and {"LOW", "HIGH"} >= {line.split()[4] for line in words.out.splitlines()} != set()
    )
    check_engines("tdnnf", model, heard, tmp_path, lm)
    assert (tmp_path / "report.html").exists()
    again = greenasr(*command, "--time", "0", "--max-bytes", model.stat().st_size)
    assert again.code == 0 and "full precision" in again.out
    assert "--lm" in greenasr("shrink", model, *sets(heard), "--out", tmp_path / "b").err


def test_a_network_s_bottlenecks_are_cut_under_the_same_budget(
    heard: Path, tones: Path, tmp_path: Path, greenasr: Call
) -> None:
    command = ["shrink", tones / "model.packed", *sets(heard), "--lm", tones / "lm.arpa", *TINY]
    command[command.index("kl")] = "divergence"
    called = greenasr(*command, "--max-wer-increase", "90", "--out", tmp_path, "--json")
    assert called.code == 0, called.err
    rows = json.loads(called.out)["models"]
    cut = next(row for row in rows if row["dims"])
    packed = runtime.load(tmp_path / "models" / cut["name"] / "model.packed")
    assert list(packed.config["bottleneck"]) == [cut["dims"]["layers.0"]] < [16]
    costs = read_json(tmp_path / "costs-divergence" / "costs.json")
    assert list(costs["details"]["cut"]["layers.0"]) == ["16", "4", "8", "12"]
    assert ", 1 bottleneck cut" in greenasr("report", tmp_path).out


def check_engines(kind: str, model: Path, heard: Path, run: Path, lm: Path | None = None) -> None:
    """The same words by torch and by the runtime in float32; a run's words on test by the runtime in int8."""
    cuts = {split: heard / f"{split}.cuts.jsonl.gz" for split in ("train", "dev", "test")}
    network, task, package = recogniser(kind, model, cuts, Board(run), lm, Hearing(2000))
    packed = run / "full" / "model.packed"
    assert task.score(network, "dev") == task.score(runtime.load(packed, "float32").network, "dev")
    name = read_json(run / "answer.json")["models"][-1]["name"]
    judged, activations = package.judged(run / "models" / name / "model.packed", "auto", "cpu")
    assert activations == "int8" and not isinstance(judged, torch.nn.Module)
    assert task.score(judged, "dev") == read_scored(run / "models" / name / "dev.jsonl")
    check_shipped(run, task)


def check_shipped(run: Path, task: Any) -> None:
    """What was judged of every finalist's kinds of activations is what the runtime makes of these files."""
    value = read_json(run / "answer.json")
    finalists = [row for row in value["models"] if row.get("kinds")]
    tested = [row for row in value["models"] if "verdict" in row]
    assert finalists == tested[:1]  # the smallest; the others stand by as they were heard
    for row in finalists:
        for kind in ("static", "float32"):
            folder = run / "activations" / row["name"] / kind
            loaded = runtime.load(folder / "model.packed")
            assert (folder / "model.packed").stat().st_size == row["kinds"][kind]["bytes"]
            assert task.score(loaded.network, "dev") == read_scored(folder / "dev.jsonl")
        assert read(run / row["file"] / "model.packed").rounding.kind == row["activations"]
        assert (run / "test" / row["file"] / "test.jsonl").exists()
    if value["smallest"]:
        row = next(row for row in value["models"] if row["name"] == value["smallest"])
        assert (run / "smallest.packed").read_bytes() == (run / row["file"] / "model.packed").read_bytes()
        assert "int8, static" in (run / "report.html").read_text()


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
    check_engines({"transducer": "rnnt", "ctc": "quartznet"}[kind], model, heard, tmp_path)


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
    assert {row["activations"] for row in value["models"]} <= {"int8", "static", "float32"}
    _, task, package = language_model(model, {s: tmp_path / f"{s}.txt" for s in ("train", "dev", "test")})
    packed = tmp_path / "run" / "full" / "model.packed"
    check_shipped(tmp_path / "run", task)
    network, activations = package.judged(packed, "int8", "cpu")
    assert activations == "float32"  # in full precision
    assert task.score(network, "dev") == task.score(runtime.load(packed, "float32").network, "dev")
    assert value["model"] is None or greenasr("perplexity", value["model"], tmp_path / "test.txt").code == 0


def test_a_recogniser_and_its_language_model_share_one_budget(
    heard: Path, tones: Path, made: Path, tmp_path: Path, greenasr: Call
) -> None:
    for split, repeats in (("train", 8), ("dev", 2), ("test", 3)):
        (tmp_path / f"{split}.txt").write_text("\n".join(TEXTS * repeats) + "\n")
    shape = "--tokenizer words --layers 1 --dim 16 --heads 2 --hidden 16 --length 16 --batch 4".split()
    train = ["train", tmp_path / "train.txt", "--out", tmp_path / "lm", *shape, "--epochs", "2"]
    assert greenasr(*train).code == 0
    texts = sets(tmp_path, "txt")
    margin, lm_run = ["--max-wer-increase", "60"], tmp_path / "lm-run"
    model = tmp_path / "lm" / "model.packed"
    called = greenasr("shrink", model, *texts, *TINY, *margin, "--out", lm_run, "--allow-overlap")
    assert called.code == 0, called.err
    command = ["shrink", tones / "model.packed", *sets(heard), "--lm", tones / "lm.arpa", *TINY, *margin]
    assert "no answer.json" in greenasr(*command, "--out", tmp_path / "a", "--rescore", tmp_path).err
    called = greenasr(*command, "--out", tmp_path / "run", "--rescore", lm_run)
    assert called.code == 0, called.err
    system, page = tmp_path / "run" / "system", tmp_path / "run" / "report.html"
    value = read_json(system / "answer.json")
    answers = [read_json(run / "answer.json") for run in (lm_run, tmp_path / "run")]
    offered = [row for each in answers for row in each["models"] if row["front"] or row["passes_dev"]]
    assert len(value["pairs"]) <= 1 + len(offered)
    row = next(row for row in value["pairs"] if row["name"] == value["smallest"])
    passing = [each["bytes"] for each in value["pairs"] if each["passes_dev"]]
    assert row["bytes"] == min(passing) < value["full"]["bytes"]
    sizes = [(system / name).stat().st_size for name in ("recogniser.packed", "lm.packed")]
    assert sum(sizes) == row["bytes"] == row["bytes_recogniser"] + row["bytes_lm"]
    assert value["looked"] == len(list((system / "test").iterdir())) - 1
    assert "with a language model, in one budget" in called.out
    assert "One budget for recogniser and language model</h2>" in page.read_text()
    before = (system / "answer.json").read_bytes()
    assert greenasr(*command, "--out", tmp_path / "run", "--rescore", lm_run).code == 0
    assert (system / "answer.json").read_bytes() == before


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
        (
            ["shrink", model, *sets(heard), *lm, *out, "--activations", "int4"],
            "activations 'int4': choose auto",
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
