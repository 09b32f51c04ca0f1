"""The prepare command from a folder to cuts, texts and a lexicon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from greenasr.cli.prepare import prepare
from greenasr.data.audio import samples
from greenasr.data.corpora import load_cuts, speaker
from greenasr.data.files import read_json
from greenasr.data.lexicon import Lexicon


def call(*arguments: str | Path) -> Any:
    """What the command prints: one JSON object, or the text where there is no --json."""
    app = typer.Typer()
    app.command()(prepare)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four utterances of two speakers, noise, and a dictionary that lacks OFF and STOP."""
    rng = np.random.default_rng(0)
    rows = ["utt_id\taudio\tspeaker\tsplit\ttext"]
    for i, (split, text) in enumerate(
        [("train", "TURN ON"), ("train", "TURN OFF"), ("train", "OFF"), ("test", "STOP")]
    ):
        noise = 0.1 * rng.standard_normal(16_000)
        soundfile.write(tmp_path / f"u{i}.wav", noise.astype(np.float32), 16_000)
        rows.append(f"u{i}\tu{i}.wav\ts{i % 2}\t{split}\t{text}")
    (tmp_path / "manifest.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "a.dic").write_text("TURN T ER N\nON AA N\nON(2) AO N\nOF AH V\n")
    (tmp_path / "phones").write_text("T\nER\nN\nAA\nAO\nAH\nV\n")
    return tmp_path


def test_a_corpus_becomes_cuts_texts_and_a_lexicon(corpus: Path) -> None:
    out = corpus / "out"
    result = call(
        corpus, "--lexicon", corpus / "a.dic", "--phones", corpus / "phones", "--out", out, "--json"
    )
    train = result["splits"]["train"]
    assert (train["utterances"], train["speakers"], train["words"]) == (3, 2, 5)
    assert train["hours"] == pytest.approx(3 / 3600)
    assert result["missing"] == [["OFF", 2, "OF"], ["STOP", 1, ""]]
    assert result["lexicon"] == {"words": 3, "phones": 8}
    cuts = load_cuts(out / "train.cuts.jsonl.gz")
    assert [(cut.id, speaker(cut)) for cut in cuts] == [("u0", "s0"), ("u1", "s1"), ("u2", "s0")]
    assert len(samples(cuts[0])) == 16_000
    assert (out / "text.train.txt").read_text() == "TURN ON\nTURN OFF\nOFF\n"
    assert (out / "missing.tsv").read_text() == "word\tcount\tnear\nOFF\t2\tOF\nSTOP\t1\t\n"
    assert Lexicon.from_json(read_json(out / "lexicon.json")).prons["ON"] == (("AA", "N"), ("AO", "N"))


def test_people_see_hours_utterances_speakers_and_what_is_missing(corpus: Path) -> None:
    text = call(corpus, "--lexicon", corpus / "a.dic", "--out", corpus / "out")
    for part in (
        "train",
        "utterances",
        "speakers",
        "2 words without a pronunciation",
        "OFF (2 times), near OF",
    ):
        assert part in text


def test_spelling_covers_training_words_and_leaves_the_tests_unknown(corpus: Path) -> None:
    result = call(corpus, "--lexicon", corpus / "a.dic", "--grapheme", "--out", corpus / "out", "--json")
    prons = Lexicon.from_json(read_json(corpus / "out" / "lexicon.json")).prons
    assert prons["TURN"] == (("T", "ER", "N"),) and prons["OFF"] == (("@o", "@f", "@f"),)
    assert result["missing"] == [["STOP", 1, ""]]
    call(corpus, "--grapheme", "--out", corpus / "spelled", "--json")
    spelled = Lexicon.from_json(read_json(corpus / "spelled" / "lexicon.json"))
    assert spelled.phones == ("SIL", "f", "n", "o", "r", "t", "u")


def test_only_the_splits_that_are_asked_for_are_written(corpus: Path) -> None:
    call(corpus, "--splits", "test", "--out", corpus / "out", "--json")
    written = sorted(file.name for file in (corpus / "out").iterdir())
    assert written == ["dropped.txt", "test.cuts.jsonl.gz", "text.test.txt"]


def test_a_bad_utterance_is_refused_before_anything_is_written_or_left_out_when_asked(corpus: Path) -> None:
    out = corpus / "out"
    soundfile.write(corpus / "u1.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"u1.wav: cut 'u1' has 16,000 samples of 16,000 that are NaN"):
        call(corpus, "--out", out)
    assert list(out.iterdir()) == []
    result = call(corpus, "--drop-bad", "--out", out, "--json")
    assert result["dropped"] == 1 and result["splits"]["train"]["utterances"] == 2
    assert "u1.wav" in (out / "dropped.txt").read_text()
    assert call(corpus, "--trust", "--out", out, "--json")["dropped"] == 0


def test_a_split_of_bad_utterances_alone_is_refused(corpus: Path) -> None:
    (corpus / "u3.wav").write_bytes(b"")
    soundfile.write(corpus / "u3.wav", np.full(800, np.nan, np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match="no utterance of test can be used; the first: .*u3.wav"):
        call(corpus, "--drop-bad", "--out", corpus / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--phones", "phones"], "--phones phones is for a dictionary"),
        (["--lexicon", "lower.dic"], "lower.dic: the word list lacks 6 of the text's 6 words"),
        (["--lexicon", "odd.dic", "--phones", "phones"], "odd.dic:1: 'TURN' has the phone 'URN'"),
        (["--kind", "wav"], "no corpus format 'wav'"),
        (["--splits", "dev"], "no split 'dev', expected some of train, test"),
    ],
)
def test_options_that_do_not_fit_are_named(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(corpus)
    Path("lower.dic").write_text("turn T ER N\non AA N\n")
    Path("odd.dic").write_text("TURN T URN\n")
    with pytest.raises(ValueError, match=message):
        call(corpus, "--out", corpus / "out", *options)
