"""`greenasr prepare` on every bad corpus: one line that names it, exit code 2, and nothing written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from greenasr.data.audio import samples
from greenasr.data.corpora import load_cuts, speaker

Call = Callable[..., Any]
HEAD = "utt_id\taudio\tspeaker\tsplit\ttext\n"
TIMES = "utt_id\taudio\tstart_sample\tnum_samples\tspeaker\tsplit\ttext\n"
NAMES = ("good", "k8", "k48", "stereo", "nan", "none", "short", "empty", "cut", "words")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of noise in every state, and a manifest of each."""
    folder = tmp_path_factory.mktemp("bad")
    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000)
    soundfile.write(folder / "good.wav", noise[:16_000], 16_000)
    soundfile.write(folder / "k8.wav", noise[:8_000], 8_000)
    soundfile.write(folder / "k48.wav", noise, 48_000)
    soundfile.write(folder / "stereo.wav", noise[:32_000].reshape(-1, 2), 16_000)
    soundfile.write(folder / "nan.wav", np.full(16_000, np.nan), 16_000, "FLOAT")
    soundfile.write(folder / "none.wav", noise[:0], 16_000)
    soundfile.write(folder / "short.wav", noise[:160], 16_000)
    soundfile.write(folder / "whole.flac", noise[:16_000], 16_000)
    (folder / "empty.wav").touch()
    (folder / "cut.wav").write_bytes((folder / "good.wav").read_bytes()[:9_000])
    (folder / "cut.flac").write_bytes((folder / "whole.flac").read_bytes()[:9_000])
    (folder / "words.wav").write_text("no sound at all")
    for name in NAMES:
        (folder / f"{name}.tsv").write_text(
            f"{HEAD}u0\tgood.wav\tann\ttrain\tGO\nu1\t{name}.wav\tbob\ttrain\tON\n"
        )
    made = {
        "flac": f"{HEAD}u1\tcut.flac\tann\ttrain\tGO\n",
        "gone": f"{HEAD}u1\tgone.wav\tann\ttrain\tGO\n",
        "twice": f"{HEAD}u1\tgood.wav\tann\ttrain\tGO\nu1\tgood.wav\tann\ttrain\tGO\n",
        "mute": f"{HEAD}u1\tgood.wav\tann\ttrain\t \n",
        "columns": f"{HEAD}u1\tgood.wav\n",
        "bare": HEAD,
        "beyond": f"{TIMES}u1\tgood.wav\t0\t16001\tann\ttrain\tGO\n",
        "behind": f"{TIMES}u1\tgood.wav\t16000\t800\tann\ttrain\tGO\n",
    }
    for name, text in made.items():
        (folder / f"{name}.tsv").write_text(text)
    for name, files in {
        "kaldi-beyond": {"segments": "u1 r1 0.5 9.0\n"},
        "kaldi-twice": {"segments": "u1 r1 0 0.5\nu1 r1 0.5 1\n"},
        "kaldi-mute": {"text": "u1\n"},
        "kaldi-textless": {"segments": "u1 r1 0 0.5\nu2 r1 0.5 1\n"},
        "kaldi-stranger": {"segments": "u1 r9 0 0.5\n"},
    }.items():
        (folder / name / "train").mkdir(parents=True)
        given = {"wav.scp": f"r1 {folder}/good.wav\n", "segments": "u1 r1 0 1\n", "text": "u1 GO\n"}
        for file, text in (given | files).items():
            (folder / name / "train" / file).write_text(text)
    (folder / "beyond.json").write_text('{"audio_filepath": "good.wav", "duration": 5, "text": "go"}\n')
    (folder / "odd.dic").write_text("GO G OW\nON AX N\n")
    (folder / "alone.dic").write_text("GO\n")
    (folder / "lower.dic").write_text("go G OW\non AA N\n")
    (folder / "phones").write_text("G\nOW\nAA\nN\n")
    return folder


@pytest.fixture
def at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


BAD = [
    ("empty.tsv", r"empty.wav: the file is empty \(0 bytes\); make or copy it again"),
    ("cut.tsv", r"cut.wav: cut short: 9,000 bytes, its header promises 32,044"),
    ("flac.tsv", r"cut.flac: .*'u1'.* again"),
    ("stereo.tsv", r"stereo.wav: 2 channels, expected one; .*--mix"),
    ("nan.tsv", r"nan.wav: cut 'u1' has 16,000 samples of 16,000 that are NaN or infinite"),
    ("none.tsv", r"none.wav: has no samples \(length 0\)"),
    ("short.tsv", r"short.tsv:3: utterance 'u1' is 10 ms long, expected 25 or more"),
    ("words.tsv", r"words.wav: not a sound file that can be read \(it begins b'no s'\)"),
    ("gone.tsv", r"gone.tsv:2: there is no audio file \S*gone.wav \(utterance 'u1'\)"),
    ("twice.tsv", r"twice.tsv:3: utterance 'u1' is there already, at twice.tsv:2; give every utterance"),
    ("mute.tsv", r"mute.tsv:2: utterance 'u1' has an empty transcript; add one or take it out"),
    ("columns.tsv", r"columns.tsv:2: 2 columns, the header has 5"),
    ("bare.tsv", r"bare.tsv: no utterances found, read as tsv"),
    ("beyond.tsv", r"beyond.tsv:2: utterance 'u1' ends at 1.00006 s, but \S*good.wav ends at 1 s"),
    ("behind.tsv", r"behind.tsv:2: utterance 'u1' ends at 1.05 s, but \S*good.wav ends at 1 s"),
    ("beyond.json --kind nemo", r"beyond.json:1: utterance 'good' ends at 5 s, but \S*good.wav ends at 1 s"),
    ("kaldi-beyond", r"text:1: utterance 'u1' ends at 9 s, but \S*good.wav ends at 1 s"),
    ("kaldi-twice", r"segments:2: 'u1' is there already, at \S*segments:1"),
    ("kaldi-mute", r"text:1: utterance 'u1' has an empty transcript"),
    ("kaldi-textless", r"segments:2: utterance 'u2' has no transcript"),
    ("kaldi-stranger", r"segments:1: 'u1' is of the recording 'r9', which wav.scp lacks"),
    ("nowhere", r"nowhere: no such file or folder"),
    ("good.wav", r"good.wav: not a corpus of a known format \(kaldi, "),
    ("good.tsv --lexicon odd.dic --phones phones", r"odd.dic:2: 'ON' has the phone 'AX', .* \(near is "),
    ("good.tsv --lexicon alone.dic", r"alone.dic:1: 'GO' stands alone, expected 'WORD PH PH'"),
    ("good.tsv --lexicon lower.dic", r"lower.dic: the word list lacks 2 of the text's 2 words"),
    ("good.tsv --phones phones", r"--phones phones is for a dictionary: give one with --lexicon"),
    ("good.tsv --splits dev", r"good.tsv: no split 'dev', expected some of train"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_a_bad_corpus_ends_with_one_line_exit_code_2_and_no_file(
    line: str, message: str, at: Path, greenasr: Call
) -> None:
    called = greenasr("prepare", *shlex.split(line), "--out", "new")
    assert called.code == 2, called.out
    assert re.fullmatch(rf"(?i)greenasr: [^\n]*{message}[^\n]*\n", called.err), called.err
    assert called.out == "" and not list(at.glob("new/*"))


@pytest.mark.parametrize("name", ["k8", "k48", "stereo"])
def test_other_rates_are_taken_as_they_are_and_stereo_when_asked(
    name: str, at: Path, tmp_path: Path, greenasr: Call
) -> None:
    called = greenasr("prepare", f"{name}.tsv", "--out", tmp_path, "--mix", "--json")
    assert called.json["splits"]["train"]["hours"] == pytest.approx(2 / 3600)
    one, two = load_cuts(tmp_path / "train.cuts.jsonl.gz")
    assert len(samples(one)) == len(samples(two)) == 16_000
    assert (speaker(one), speaker(two)) == ("ann", "bob"), "speakers of one utterance"


def test_bad_utterances_are_left_out_and_listed_when_asked(at: Path, tmp_path: Path, greenasr: Call) -> None:
    rows = [f"u{i}\t{name}.wav\tann\ttrain\tGO\n" for i, name in enumerate((*NAMES, "good"))]
    Path("all.tsv").write_text(HEAD + "".join(rows) + rows[0])
    called = greenasr("prepare", "all.tsv", "--out", tmp_path, "--drop-bad", "--json")
    assert called.json["splits"]["train"]["utterances"] == len(load_cuts(tmp_path / "train.cuts.jsonl.gz"))
    assert [cut.id for cut in load_cuts(tmp_path / "train.cuts.jsonl.gz")] == ["u0", "u1", "u2", "u10"]
    dropped = (tmp_path / "dropped.txt").read_text().splitlines()
    assert called.json["dropped"] == len(dropped) == 8
    for name in ("stereo.wav", "nan.wav", "none.wav", "empty.wav", "cut.wav", "words.wav", "all.tsv:13"):
        assert len([line for line in dropped if f"{name}: " in line]) == 1, name
    assert all(line in called.err for line in dropped)
