"""Keywords in streams: planted words are found at their times, noise holds none, and pieces do not matter."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from greenasr.pipeline import engines
from greenasr.pipeline.keyword_models import load_keyword_model
from greenasr.pipeline.spotting import Runs, Spotting, keywords_in
from greenasr.pipeline.units import KeywordUnits

Call = Callable[..., Any]
Say = Callable[..., NDArray[np.float32]]
Heard = tuple[engines.Classifier, KeywordUnits]
PLANTED = [(1.5, "go"), (3.2, "stop"), (4.9, "left"), (6.4, "go")]  # seconds of their middles


@pytest.fixture(scope="module")
def model(spotted: Path) -> Path:
    return spotted / "all" / "seed0" / "float" / "model.packed"


@pytest.fixture(scope="module")
def saved(model: Path) -> Heard:
    return engines.keywords(model, engines.read(model))


@pytest.fixture(scope="module")
def sound(say: Say) -> NDArray[np.float32]:
    """Eight seconds of quiet noise with four words in it, (n,) at 16 kHz."""
    heard = np.random.default_rng(1).normal(0, 0.003, 8 * 16_000)
    for k, (middle, word) in enumerate(PLANTED):
        spoken = say([word], 0.95, seed=90 + k)
        start = round(16_000 * middle) - len(spoken) // 2
        heard[start : start + len(spoken)] += spoken
    return heard.astype(np.float32)


def check(found: list[tuple[float, str]]) -> None:
    assert [word for _, word in found] == [word for _, word in PLANTED]
    assert [time for time, _ in found] == pytest.approx([time for time, _ in PLANTED], abs=0.12)


def test_planted_words_are_found_at_their_times(saved: Heard, sound: NDArray[np.float32]) -> None:
    found = list(keywords_in(*saved, [sound], 16_000, "talk"))
    check([(each.time, each.word) for each in found])
    assert all(0.8 <= each.confidence <= 1 and each.source == "talk" for each in found)


def test_pieces_of_any_size_give_the_same_words(saved: Heard, sound: NDArray[np.float32]) -> None:
    whole = list(keywords_in(*saved, [sound], 16_000, "talk"))
    cuts = np.sort(np.random.default_rng(0).integers(0, len(sound), 60))
    pieces = list(keywords_in(*saved, np.split(sound, cuts), 16_000, "talk"))
    assert [p.word for p in pieces] == [w.word for w in whole]
    assert [p.time for p in pieces] == pytest.approx([w.time for w in whole], abs=1e-4)
    assert [p.confidence for p in pieces] == pytest.approx([w.confidence for w in whole], abs=1e-4)


def test_a_word_is_told_soon_after_it_was_said(saved: Heard, sound: NDArray[np.float32]) -> None:
    heard = 0

    def blocks() -> Any:
        nonlocal heard
        for start in range(0, len(sound), 800):
            heard = start + 800
            yield sound[start : start + 800]

    late = [heard / 16_000 - each.time for each in keywords_in(*saved, blocks(), 16_000, "talk")]
    assert max(late[:-1]) < 0.3 + 0.25 + 0.2 + 0.1, "half a window, half a run, smoothing, a block"


def test_noise_holds_no_word_and_a_clip_shorter_than_a_window_its_own(saved: Heard, say: Say) -> None:
    rng = np.random.default_rng(2)
    for level in (0.0, 0.003, 0.1):
        noise = rng.normal(0, level, 5 * 16_000).astype(np.float32) if level else np.zeros(80_000, np.float32)
        assert list(keywords_in(*saved, [noise], 16_000, "noise")) == []
    clip = say(["go"], 0.95, seed=90)
    (found,) = keywords_in(*saved, [clip], 16_000, "clip")
    assert found.word == "go" and found.time == pytest.approx(len(clip) / 32_000, abs=0.1)


def test_a_word_is_a_run_of_windows_and_the_next_comes_after_the_rest() -> None:
    values = [0.1, 0.6, 0.9, 0.6, 0.2, 0.1, 0.1, 0.95, 0.1, 0.1, 0.1, 0.1, 0.8, 0.7, 0.1, 0.1]

    def found(rest: float) -> list[tuple[float, int, float]]:
        runs = Runs(Spotting(threshold=0.5, rest=rest))
        words = [w for k, value in enumerate(values) for w in runs.push(0.1 * k, np.array([0.0, value]))]
        return [(round(time, 3), word, p) for time, word, p in words + runs.end()]

    last = round((1.2 * 0.8 + 1.3 * 0.7) / 1.5, 3)
    assert found(0.4) == [(0.2, 1, 0.9), (0.7, 1, 0.95), (last, 1, 0.8)]
    assert found(0.8) == [(0.2, 1, 0.9), (last, 1, 0.8)], "0.7 s lies in the rest"


def test_another_word_ends_a_run_and_so_does_a_second() -> None:
    runs = Runs(Spotting(threshold=0.5, rest=0.0))
    two = [w for k in range(6) for w in runs.push(0.1 * k, np.array([0.9, 0.0] if k < 3 else [0.0, 0.8]))]
    assert [(round(time, 2), word) for time, word, _ in two + runs.end()] == [(0.1, 0), (0.4, 1)]
    endless = Runs(Spotting(threshold=0.5, rest=0.5))
    told = [w for k in range(40) for w in endless.push(0.1 * k, np.array([0.9]))]
    assert len(told) == 3


def test_the_command_prints_words_of_files_and_of_a_raw_stream(
    model: Path, sound: NDArray[np.float32], tmp_path: Path, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "talk.wav", sound, 16_000)
    called = greenasr("spot", model, tmp_path / "talk.wav")
    assert called.code == 0, called.err
    rows = [line.split() for line in called.out.splitlines()]
    check([(float(time), word) for _, time, word, _ in rows])
    assert {row[0] for row in rows} == {"talk"} and "4 keywords in 8.0 s; RTF 0." in called.err
    pcm = (32_767 * sound).astype("<i2").tobytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(pcm)))
    called = greenasr("spot", model, "-", "--json")
    values = [json.loads(line) for line in called.out.splitlines()]
    check([(each["time"], each["word"]) for each in values])
    assert all(each["source"] == "stdin" and 0.8 <= each["confidence"] <= 1 for each in values)


def test_sound_that_is_no_numbers_is_refused(
    model: Path, saved: Heard, sound: NDArray[np.float32], tmp_path: Path, greenasr: Call
) -> None:
    for value in (np.nan, np.inf):
        odd = np.where(np.arange(len(sound)) < 30_000, sound, value).astype(np.float32)
        soundfile.write(tmp_path / "odd.wav", odd, 16_000, "FLOAT")
        called = greenasr("spot", model, tmp_path / "odd.wav")
        assert called.code == 2 and "NaN or infinite, the first at 1.875 s" in called.err
        with pytest.raises(ValueError, match="sample 30000 of 128000 is (nan|inf): the audio is damaged"):
            list(keywords_in(*saved, [odd], 16_000, "talk"))


@pytest.mark.parametrize("row", ["float", "rt-bp-8"])
def test_no_torch_is_needed_and_torch_hears_the_same_words(
    row: str, spotted: Path, sound: NDArray[np.float32], tmp_path: Path, greenasr: Call
) -> None:
    soundfile.write(tmp_path / "talk.wav", sound, 16_000)
    given = [spotted / "all" / "seed0" / row / "model.packed", tmp_path / "talk.wav", "--threshold", "0.6"]
    code = "import sys; sys.modules['torch'] = None; from greenasr.cli.app import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "spot", *map(str, given)]
    alone = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    torchs = greenasr("spot", *given, "--engine", "torch").out
    assert alone and [line.split()[:3] for line in alone.splitlines()] == [
        line.split()[:3] for line in torchs.splitlines()
    ]
    assert greenasr("spot", *given, "--engine", "gpu").code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "1.5"], "a confidence is above 0 and below 1"),
        (["--hop", "0"], "windows every 0 s"),
        (["--rate", "10"], "--rate 10: expected 4000"),
    ],
)
def test_odd_settings_are_refused(
    model: Path, tmp_path: Path, greenasr: Call, arguments: list[str], message: str
) -> None:
    soundfile.write(tmp_path / "talk.wav", np.zeros(16_000), 16_000)
    called = greenasr("spot", model, tmp_path / "talk.wav", *arguments)
    assert called.code == 2 and message in called.err


def test_other_files_are_refused_and_a_model_without_background_is_told(
    spotted: Path, model: Path, tmp_path: Path, greenasr: Call
) -> None:
    from greenasr.pipeline.models import save

    soundfile.write(tmp_path / "talk.wav", np.zeros(16_000), 16_000)
    (tmp_path / "x.packed").write_bytes(b"not a model")
    assert greenasr("spot", tmp_path / "x.packed", tmp_path / "talk.wav").code == 2
    saved = load_keyword_model(model)
    words = KeywordUnits(saved.units.features, ("a", "b", "c", "d"), 60, 2)
    save(tmp_path / "four.packed", saved.model, words, {})
    assert "no class for sound" in greenasr("spot", tmp_path / "four.packed", tmp_path / "talk.wav").err
    save(tmp_path / "two.packed", saved.model, KeywordUnits(saved.units.features, ("a", "b")), {})
    called = greenasr("spot", tmp_path / "two.packed", tmp_path / "talk.wav")
    assert called.code == 2 and "4 outputs for 2 words" in called.err


def test_networks_with_nemos_front_end_listen_too(sound: NDArray[np.float32]) -> None:
    import torch

    from greenasr.data.features import Features
    from greenasr.models.matchboxnet import MatchboxNet, MatchboxNetConfig
    from greenasr.models.on_arrays import LogitsOnArrays

    torch.manual_seed(0)
    model = MatchboxNet(MatchboxNetConfig(64, 3, blocks=1, width=8, edge=8)).eval()
    units = KeywordUnits(Features("nemo_mfcc", 64, "none"), ("a", "b", "c"), 128)
    loud = Spotting(threshold=0.34)
    found = list(keywords_in(LogitsOnArrays(model), units, [sound], 16_000, "talk", loud))
    assert found and all(0 <= each.time <= 8 for each in found)
    odd = KeywordUnits(Features("mfcc", 64, "running"), units.words)
    with pytest.raises(ValueError, match="cmvn 'running' are not for clips"):
        list(keywords_in(LogitsOnArrays(model), odd, [sound], 16_000, "talk"))
