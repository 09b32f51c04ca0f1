from __future__ import annotations

import json
from pathlib import Path

import pytest

from greenasr.cli.score import score
from greenasr.score.errors import read_errors


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    texts = {
        "ref.txt": "s1-a the cat sat on the mat\ns2-b\ns2-c good morning to you all\n",
        "one.txt": "s1-a the cat sat on a mat\ns2-b uh\ns2-c good morning you all\n",
        "two.txt": "s1-a the cat sat on the mat\ns2-b\ns2-c good morning to you all\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [tmp_path / name for name in texts]


def test_json_has_the_counts_and_the_interval(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    score(files[0], files[1], json=True, errors=files[0].with_name("errors.jsonl"))
    result = json.loads(capsys.readouterr().out)
    counts = {key: result[key] for key in ("sub", "del", "ins", "ref_words", "utterances")}
    assert counts == {"sub": 1, "del": 1, "ins": 1, "ref_words": 11, "utterances": 3}
    assert result["wer"] == pytest.approx(300 / 11)
    assert result["ci95"][0] <= result["wer"] <= result["ci95"][1]
    assert (result["ci95_over"], result["normalisation"]) == ("utterances", "as written")
    assert sum(e.total for e in read_errors(files[0].with_name("errors.jsonl"))) == 3


def test_two_systems_are_compared_by_every_test(
    files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    score(*files, json=True, speakers="spu_id")
    result = json.loads(capsys.readouterr().out)
    assert set(result["mapsswe"]) == {"segments", "mean", "std", "z", "p", "better"}
    assert (result["mapsswe"]["segments"], result["mapsswe"]["mean"]) == (3, 1.0)
    assert result["difference"] == pytest.approx(300 / 11)
    assert (result["mcnemar"]["wr"], result["signed_pairs"]["higher"]) == (3, 2)
    assert result["against"]["wer"] == 0


def test_a_person_sees_both_systems_and_the_verdict(
    files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    score(*files, by_speaker=True, speakers="spu_id")
    shown = capsys.readouterr().out
    for part in ("27.27", "s1", "s2", "MAPSSWE", "signed pairs", "no difference shown"):
        assert part in shown
