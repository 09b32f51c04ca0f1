"""N-best lists: both formats there and back, and every way to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenasr.decode import nbest as lists
from greenasr.decode.nbest import (
    NBest,
    rank_scores,
    read_kaldi_nbest,
    read_nbest,
    write_kaldi_nbest,
    write_nbest,
)

TWO = [
    NBest("spk-1-u1", "a b", ("a b", "a", ""), (-1.5, -2.25, -3.0)),
    NBest("u2", "", ("é",), (0.1,)),
]
GOOD = '{"id": "u1", "ref": "a", "hyps": ["a", "b"], "scores": [0, -1]}\n'


def test_json_lines_are_read_as_written(tmp_path: Path) -> None:
    write_nbest(tmp_path / "n.jsonl", TWO)
    assert read_nbest(tmp_path / "n.jsonl") == TWO


def test_kaldi_files_are_read_as_written(tmp_path: Path) -> None:
    text, scores, refs = (tmp_path / name for name in ("text", "scores", "refs"))
    write_kaldi_nbest(TWO, text, scores, refs)
    assert text.read_text().splitlines()[:3] == ["spk-1-u1-1 a b", "spk-1-u1-2 a", "spk-1-u1-3"]
    assert read_kaldi_nbest(text, scores, refs) == TWO
    text.write_text("\n".join(reversed(text.read_text().splitlines())))
    assert sorted(read_kaldi_nbest(text, scores, refs), key=lambda e: e.id) == TWO


def test_lists_without_scores_are_ranked_on_request(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text('{"id": "u1", "ref": "a", "hyps": ["a", "b"]}\n\n')
    with pytest.raises(ValueError, match=r"n.jsonl:1: no 'scores' for 'u1'. .*--first-pass rank"):
        read_nbest(path)
    assert read_nbest(path, first_pass="rank")[0].scores == rank_scores(2)
    (tmp_path / "text").write_text("u1-1 a\nu1-2 b\n")
    with pytest.raises(ValueError, match="--first-pass rank"):
        read_kaldi_nbest(tmp_path / "text")
    assert read_kaldi_nbest(tmp_path / "text", first_pass="rank")[0].scores == rank_scores(2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "n.jsonl:2: not JSON"),
        ("[1]", "n.jsonl:2: no text 'id'"),
        ('{"id": "u2", "ref": "a", "scores": []}', "n.jsonl:2: 'hyps' of 'u2' is not a list"),
        (
            '{"id": "u2", "ref": "a", "hyps": [], "scores": []}',
            "n.jsonl:2: 'hyps' of 'u2' is empty.*\"\" for one",
        ),
        (
            '{"id": "u2", "ref": "a", "hyps": ["a"], "scores": [1, 2]}',
            "n.jsonl:2: 2 scores for 1 hyps of 'u2'",
        ),
        (
            '{"id": "u2", "ref": "a", "hyps": ["a"], "scores": ["x"]}',
            "score 'x' of 'u2' is not a finite number",
        ),
        (
            '{"id": "u2", "ref": "a", "hyps": ["a"], "scores": [NaN]}',
            "score nan of 'u2' is not a finite number",
        ),
        ('{"id": "u2", "hyps": ["a"], "scores": [1]}', "n.jsonl:2: no 'ref' for 'u2'"),
        ('{"id": "u2", "ref": 3, "hyps": ["a"], "scores": [1]}', "'ref' of 'u2' is not a text"),
        (GOOD, "n.jsonl:2: id 'u1' was given on line 1"),
        ("\xff", "n.jsonl:2: not UTF-8.*iconv"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "n.jsonl"
    path.write_bytes(GOOD.encode() + line.encode("latin1"))
    with pytest.raises(ValueError, match=message):
        read_nbest(path)


def test_an_empty_file_and_a_huge_line_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text("\n")
    with pytest.raises(ValueError, match="no N-best list in the file"):
        read_nbest(path)
    path.write_text(GOOD * 2)
    monkeypatch.setattr(lists, "MAX_LINE", 20)
    with pytest.raises(ValueError, match="n.jsonl:1: the line is longer than 20 bytes"):
        read_nbest(path)


def test_lists_without_references_can_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text('{"id": "u1", "hyps": ["a"], "scores": [1]}\n')
    entry = read_nbest(path, need_ref=False)
    assert entry[0].ref is None
    write_nbest(path, entry)
    assert read_nbest(path, need_ref=False) == entry


@pytest.mark.parametrize(
    ("text", "scores", "refs", "message"),
    [
        ("u1 a\n", "", "", "text:1: 'u1' is not 'utt-N'"),
        ("", "", "", "text:1: no hypothesis"),
        ("u1-1 a\nu1-1 b\n", "", "", "text:2: 'u1-1' was given on line 1"),
        ("u1-1 a\nu1-3 b\n", "u1-1 0\nu1-3 0\n", "u1 a\n", "numbered 1, 3, they should be 1 to 2"),
        ("u1-1 a\nu1-2 b\n", "u1-1 0\n", "u1 a\n", "scores: no score for 'u1-2'"),
        ("u1-1 a\n", "u1-1 0\nu1-2 0\n", "u1 a\n", "scores:2: a score for 'u1-2', which has no hypothesis"),
        ("u1-1 a\n", "u1-1 0\nu1-1 0\n", "u1 a\n", "scores:2: a second score"),
        ("u1-1 a\n", "u1-1 x\n", "u1 a\n", "scores:1: score 'x' of 'u1-1' is not a finite number"),
        ("u1-1 a\n", "u1-1 0\n", "u2 a\n", "refs: no reference for 'u1' of .*text:1"),
        ("u1-1 a\n", "u1-1 0\n", "u1 a\nu1 b\n", "refs:2: 'u1' is given twice"),
    ],
)
def test_kaldi_files_that_do_not_match_are_named(
    tmp_path: Path, text: str, scores: str, refs: str, message: str
) -> None:
    for name, content in (("text", text), ("scores", scores), ("refs", refs)):
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_kaldi_nbest(tmp_path / "text", tmp_path / "scores", tmp_path / "refs")


def test_an_unknown_first_pass_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first pass is 'best'"):
        read_nbest(tmp_path / "none", first_pass="best")
