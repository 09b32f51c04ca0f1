"""`greenasr transcribe` from sound files and a raw stream to words with times, and every refusal."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from greenasr.data.features import Features
from greenasr.pipeline.acoustic_models import load_acoustic, save_acoustic
from greenasr.pipeline.models import save
from greenasr.pipeline.transducer_models import load_transducer
from greenasr.pipeline.units import Labels

Call = Callable[..., Any]
Hum = Callable[..., NDArray[np.float32]]
SAID = (0.8, "LOW", 0.2, "HIGH", 1.0, "HIGH", 0.7)
WORDS = ["LOW", "HIGH", "HIGH"]


def words(ctm: str) -> list[str]:
    return [line.split()[4] for line in ctm.splitlines() if not line.startswith(";;")]


@pytest.fixture(scope="module")
def folder(
    tones: Path, tones_transducer: Path, hum: Hum, made: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The recognisers, one sound in many forms, and every kind of bad file."""
    folder = tmp_path_factory.mktemp("transcribe")
    for name in ("model.packed", "lm.arpa"):
        shutil.copy(tones / name, folder)
    shutil.copy(made / "lm" / "model.packed", folder / "lm.packed")
    shutil.copytree(made / "lm", folder / "lm")
    sound = hum(*SAID)
    for name in ("a.wav", "a.flac", "b.wav"):
        soundfile.write(folder / name, sound, 16_000)
    soundfile.write(folder / "k8.wav", hum(*SAID, rate=8_000), 8_000)
    soundfile.write(folder / "k48.wav", hum(*SAID, rate=48_000), 48_000)
    soundfile.write(folder / "stereo.wav", np.stack([sound, sound], 1), 16_000)
    soundfile.write(folder / "quiet.wav", np.zeros(32_000), 16_000)
    soundfile.write(folder / "none.wav", sound[:0], 16_000)
    soundfile.write(folder / "short.wav", sound[:100], 16_000)
    soundfile.write(
        folder / "nan.wav", np.where(np.arange(len(sound)) < 30_000, sound, np.nan), 16_000, "FLOAT"
    )
    (folder / "empty.wav").write_bytes(b"")
    for name in ("a.wav", "a.flac"):
        data = (folder / name).read_bytes()
        (folder / f"cut{Path(name).suffix}").write_bytes(data[: len(data) // 2])
    saved = load_acoustic(folder / "model.packed")
    saved.model.output.bias.data[0] = float("inf")
    save_acoustic(folder / "inf.packed", saved.model, saved.units, {})
    shutil.copy(tones_transducer, folder / "hears.packed")
    hears = load_transducer(tones_transducer)
    whole = Labels(Features(bins=16, cmvn="utterance"), hears.units.tokenizer)
    save(folder / "whole.packed", hears.model, whole, {})
    hears.model.output.bias.data[2] = float("nan")  # type: ignore[union-attr]
    save(folder / "nan.packed", hears.model, hears.units, {})
    (folder / "other.arpa").write_text(
        (folder / "lm.arpa").read_text().replace("LOW", "UP").replace("HIGH", "DN")
    )
    return folder


@pytest.fixture
def at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("line", ["a.wav", "a.flac", "k48.wav", "stereo.wav --mix", "a.wav --pause 0.3"])
def test_words_are_printed_with_their_times(at: Path, greenasr: Call, line: str) -> None:
    called = greenasr("transcribe", "model.packed", *shlex.split(line), "--arpa", "lm.arpa")
    assert called.code == 0, called.err
    rows = [row.split() for row in called.out.splitlines()]
    assert [row[4] for row in rows] == WORDS
    assert {(row[0], row[1]) for row in rows} == {(Path(line.split()[0]).stem, "1")}
    assert [float(row[2]) for row in rows] == pytest.approx([0.8, 1.5, 3.0], abs=0.07)
    assert [float(row[3]) for row in rows] == pytest.approx([0.5] * 3, abs=0.1)
    assert re.search(r"3 words in \d utterances of \d\.\d s; RTF 0\.\d+ on one core", called.err)


def test_a_raw_stream_has_the_words_of_the_file(
    at: Path, hum: Hum, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rate, options in ((16_000, []), (32_000, ["--rate", "32000"])):
        pcm = (32_767 * hum(*SAID, rate=rate)).astype("<i2").tobytes()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(pcm)))
        called = greenasr("transcribe", "model.packed", "-", "--arpa", "lm.arpa", *options)
        assert called.code == 0, called.err
        assert words(called.out) == WORDS and called.out.startswith("stdin 1 0.")


def test_json_is_an_object_an_utterance_and_lists_go_on_to_rescoring(at: Path, greenasr: Call) -> None:
    line = "transcribe model.packed a.wav b.wav --arpa lm.arpa --json --nbest 4 --out n.jsonl"
    called = greenasr(*line.split())
    assert called.code == 0, called.err
    found = [json.loads(line) for line in called.out.splitlines()]
    assert [(each["source"], each["text"]) for each in found] == [
        ("a", "LOW HIGH"), ("a", "HIGH"), ("b", "LOW HIGH"), ("b", "HIGH"),
    ]  # fmt: skip
    lists = [json.loads(line) for line in Path("n.jsonl").read_text().splitlines()]
    assert [(each["id"], each["hyps"][0]) for each in lists] == [(each["id"], each["text"]) for each in found]
    Path("w.json").write_text('{"weights": {"first": 1.0, "ngram": 0.5, "words": 0.0, "unknown": 0.0}}')
    line = "rescore n.jsonl --ngram lm.arpa --out r.jsonl --weights w.json --json"
    again = greenasr(*line.split())
    assert again.code == 0, again.err


def test_files_of_one_name_are_told_apart(at: Path, greenasr: Call) -> None:
    called = greenasr("transcribe", "model.packed", "a.wav", "a.flac", "b.wav", "--arpa", "lm.arpa")
    assert [line.split()[0] for line in called.out.splitlines()] == ["a.wav"] * 3 + ["a.flac"] * 3 + ["b"] * 3


def test_the_graph_that_was_built_is_taken_again(at: Path, greenasr: Call) -> None:
    first = greenasr("transcribe", "model.packed", "a.wav", "--arpa", "lm.arpa")
    folders = list(at.glob("model.packed.graph-*"))
    assert len(folders) == 1
    again = greenasr("transcribe", "model.packed", "a.wav", "--graph", folders[0])
    assert (first.code, again.code) == (0, 0) and again.out == first.out


def test_silence_has_no_words_and_low_rates_are_warned_of(at: Path, greenasr: Call) -> None:
    quiet = greenasr("transcribe", "model.packed", "quiet.wav", "--arpa", "lm.arpa")
    assert (quiet.code, quiet.out) == (0, "") and "nothing but silence" in quiet.err
    low = greenasr("transcribe", "model.packed", "k8.wav", "--arpa", "lm.arpa")
    assert low.code == 0 and "k8.wav: 8000 Hz has nothing above 4000 Hz" in low.err


def piped(monkeypatch: pytest.MonkeyPatch, sound: NDArray[np.float32], more: bytes = b"") -> None:
    pcm = (32_767 * sound).astype("<i2").tobytes() + more
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(pcm)))


@pytest.mark.parametrize("file", ["a.wav", "a.flac", "k48.wav"])
def test_a_transducer_needs_no_graph(at: Path, greenasr: Call, file: str) -> None:
    called = greenasr("transcribe", "hears.packed", file)
    assert called.code == 0, called.err
    assert words(called.out) == WORDS and ";;" not in called.out
    assert re.search(r"3 words in 2 utterances of \d\.\d s; RTF 0\.\d+ on one core", called.err)


@pytest.mark.parametrize("rate", [16_000, 8_000, 44_100])
def test_of_a_stream_a_transducer_tells_words_while_they_are_said(
    at: Path, hum: Hum, greenasr: Call, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    piped(monkeypatch, hum(*SAID, rate=rate))
    called = greenasr("transcribe", "hears.packed", "-", "--rate", rate)
    assert called.code == 0, called.err
    lines = called.out.splitlines()
    assert words(called.out) == WORDS
    partial = [line.split()[2:] for line in lines if line.startswith(";;")]
    assert [["LOW"], ["LOW", "HIGH"], ["HIGH"]] == [each for each in partial if each]
    assert lines.index(next(line for line in lines if line.endswith(" LOW HIGH"))) < lines.index(
        next(line for line in lines if line.startswith("stdin 1"))
    )


def test_json_tells_partial_words_from_utterances_and_lists_have_utterances_alone(
    at: Path, hum: Hum, greenasr: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    piped(monkeypatch, hum(*SAID))
    called = greenasr(
        "transcribe", "hears.packed", "-", "--json", "--nbest", "3", "--out", tmp_path / "n.jsonl"
    )
    assert called.code == 0, called.err
    found = [json.loads(line) for line in called.out.splitlines()]
    assert [each["text"] for each in found if "text" in each] == ["LOW HIGH", "HIGH"]
    assert {"partial", "source", "start", "time"} == set(found[0]) and found[0]["partial"] == "LOW"
    lists = [json.loads(line) for line in (tmp_path / "n.jsonl").read_text().splitlines()]
    assert [each["hyps"][0] for each in lists] == ["LOW HIGH", "HIGH"]
    weights = tmp_path / "w.json"
    weights.write_text('{"weights": {"first": 1.0, "ngram": 0.5, "words": 0.0, "unknown": 0.0}}')
    line = f"rescore {tmp_path}/n.jsonl --ngram lm.arpa --out {tmp_path}/r.jsonl --weights {weights} --json"
    assert greenasr(*line.split()).code == 0


@pytest.mark.parametrize("model", ["hears.packed", "model.packed --arpa lm.arpa"])
def test_a_stream_that_ends_within_a_sample_loses_no_word_of_what_came_before(
    at: Path, hum: Hum, greenasr: Call, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    piped(monkeypatch, hum(0.8, "LOW", 0.2, "HIGH", 0.1), b"\0")
    called = greenasr("transcribe", *f"{model} -".split())
    assert called.code == 2 and words(called.out) == ["LOW", "HIGH"]
    assert re.search(r"standard input: ends in the middle of a sample, behind 33,600", called.err)


def test_features_that_cannot_stream_wait_for_utterances_and_say_so(
    at: Path, hum: Hum, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, hum(*SAID))
    called = greenasr("transcribe", "whole.packed", "-")
    assert called.code == 0 and ";;" not in called.out
    assert "whole.packed: its features have cmvn 'utterance', which needs whole utterances" in called.err
    again = greenasr("transcribe", "whole.packed", "a.wav")
    assert "cmvn" not in again.err and words(again.out) == words(called.out)


def test_a_silent_stream_is_no_word(at: Path, greenasr: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, np.zeros(16_000 * 60, np.float32))
    called = greenasr("transcribe", "hears.packed", "-")
    assert (called.code, called.out) == (0, "") and "nothing but silence" in called.err


BAD = [
    ("hears.packed a.wav --beam 0", r"--beam 0: a transducer's is a number of hypotheses, 1 or more"),
    ("hears.packed a.wav --beam nan", r"--beam nan: a transducer's is a number"),
    ("hears.packed a.wav --arpa lm.arpa", r"hears.packed: a transducer has no graph, so no --graph, --arpa"),
    ("hears.packed a.wav --word-penalty 1", r"leave them out, and rescore its lists"),
    ("hears.packed a.wav --beam 2 --nbest 3 --out new.jsonl", r"nbest is 3, it should be 1 to 2, the beam"),
    ("hears.packed a.wav --label-reward nan", r"label_reward is nan, it should be a finite number of nats"),
    ("model.packed a.wav --arpa lm.arpa --label-reward 1", r"--label-reward is of a transducer, this is"),
    ("nan.packed a.wav", r"a, utterance at 0.\d+ s: the network's outputs are not numbers"),
    ("hears.packed -", r"standard input: no samples in it"),
    ("model.packed empty.wav --arpa lm.arpa", r"empty.wav: the file is empty \(0 bytes\)"),
    ("model.packed cut.wav --arpa lm.arpa", r"cut.wav: cut short: .* its header promises"),
    ("model.packed cut.flac --arpa lm.arpa", r"cut.flac: .* again"),
    ("model.packed a.wav stereo.wav --arpa lm.arpa", r"stereo.wav: 2 channels, expected one; .*--mix"),
    ("model.packed a.wav nan.wav --arpa lm.arpa", r"nan.wav: .* NaN or infinite, the first at 1.875 s"),
    ("model.packed none.wav --arpa lm.arpa", r"none.wav: has no samples \(length 0\)"),
    ("model.packed short.wav --arpa lm.arpa", r"short.wav: 6.25 ms long, expected 25"),
    ("model.packed nowhere.wav --arpa lm.arpa", r"nowhere.wav: no such file"),
    ("model.packed lm.arpa --arpa lm.arpa", r"lm.arpa: not a sound file"),
    ("model.packed a.wav a.wav --arpa lm.arpa", r"a.wav: given twice"),
    ("lm.packed a.wav --arpa lm.arpa", r"lm.packed: a packed file, but no acoustic model"),
    ("a.wav a.wav --arpa lm.arpa", r"a.wav: not a packed model"),
    ("nowhere.packed a.wav --arpa lm.arpa", r"nowhere.packed: no such file"),
    ("inf.packed a.wav --arpa lm.arpa", r"a, utterance at 0.\d+ s: .* logits are not finite"),
    ("model.packed a.wav", r"needs one decoding graph: give --graph FOLDER, or --arpa FILE"),
    ("model.packed a.wav --graph lm", r"lm: no decoding graph there"),
    ("model.packed a.wav --graph lm --arpa lm.arpa", r"needs one decoding graph"),
    ("model.packed a.wav --arpa nowhere.arpa", r"nowhere.arpa: no such file"),
    ("model.packed a.wav --arpa other.arpa", r"other.arpa: none of its \d+ words is among the lexicon's 2"),
    ("model.packed a.wav --arpa lm.arpa --nbest 4", r"give --nbest N and --out FILE"),
    ("model.packed a.wav --arpa lm.arpa --out new.jsonl", r"give --nbest N and --out FILE"),
    ("model.packed a.wav --arpa lm.arpa --nbest 4 --out lm", r"cannot write lm: it is a folder"),
    ("model.packed a.wav --arpa lm.arpa --beam nan", r"beam is nan"),
    ("model.packed a.wav --arpa lm.arpa --pause 0", r"a pause of 0 s: expected 0.1"),
    ("model.packed - --arpa lm.arpa --rate 0", r"--rate 0: expected 4000 to 192000"),
    ("model.packed - --arpa lm.arpa", r"standard input: no samples in it"),
    ("model.packed", r"Missing argument 'audio'"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_ends_with_one_line_and_exit_code_2(
    line: str, message: str, at: Path, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    called = greenasr("transcribe", *shlex.split(line))
    assert called.code == 2, called.out
    assert re.fullmatch(rf"(?i)greenasr: [^\n]*{message}[^\n]*\n", called.err), called.err
    assert called.out == "" and not (at / "new.jsonl").exists()


def test_a_terminal_is_no_microphone(at: Path, greenasr: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(b""))
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    called = greenasr("transcribe", "model.packed", "-", "--arpa", "lm.arpa")
    assert called.code == 2 and "standard input is a terminal" in called.err


@pytest.mark.parametrize("kind", ["hybrid", "transducer"])
def test_no_torch_is_needed_and_torch_hears_the_same_words(
    kind: str, tones: Path, tones_transducer: Path, tmp_path: Path, hum: Any, greenasr: Any
) -> None:
    soundfile.write(tmp_path / "talk.wav", hum(0.6, "LOW", 0.3, "HIGH", 0.8), 16_000)
    given = [tones / "model.packed"] if kind == "hybrid" else [tones_transducer]
    given += [tmp_path / "talk.wav", *(["--arpa", tones / "lm.arpa"] if kind == "hybrid" else [])]
    code = "import sys; sys.modules['torch'] = None; from greenasr.cli.app import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "transcribe", *map(str, given)]
    alone = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [line.split()[-1] for line in alone.splitlines()] == ["LOW", "HIGH"]
    assert greenasr("transcribe", *given, "--engine", "torch").out == alone
    assert greenasr("transcribe", *given, "--engine", "gpu").code == 2
