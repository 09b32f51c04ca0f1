from __future__ import annotations

import random
from pathlib import Path

import pytest

from greenasr.score.formats import Settings, guess_format, normalisation, score_files, with_speakers
from greenasr.score.sgml import read_sgml

STM = """;; LABEL "O" "Overall" "Overall"
f1 A spk1 0.0 2.0 <o> hello { um / @ } world
f1 A spk1 2.0 4.0 ignore_time_segment_in_scoring
f1 A spk1 4.0 6.0 good bye
f1 B spk2 0.0 9.0
"""
CTM = """f1 A 0.5 0.2 HELLO
f1 A 1.9 0.3 noise
f1 A 2.5 0.2 world
f1 A 3.9 0.1 dropped
f1 A 4.0 * good
f1 A 9.0 0.2 by
f1 A 9.5 0.2 bye
f1 B 1.0 0.1 uh
"""
SGML = """<SYSTEM title="x" format="2.4">
<SPEAKER id="s1">
<PATH id="(s1-1)" word_cnt="3">
C,"the","the",0.1+0.2,0.5:S,"cat:s","hat",0.2+0.3,0.5:D,"sat",,,:I,,"on",0.3+0.4,0.5
</PATH>
<PATH id="(s1-2)" word_cnt="0">

</PATH>
</SPEAKER>
</SYSTEM>
"""


def written(folder: Path, **files: str) -> list[Path]:
    """Files named by keyword, an underscore standing for the dot."""
    paths = []
    for name, text in files.items():
        paths.append(folder / name.replace("_", "."))
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def test_the_same_words_score_the_same_in_every_format(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [[[draw.choice("abc") for _ in range(5)] for _ in range(2)] for _ in range(9)]
    files: dict[str, str] = {}
    for side, role in enumerate(("ref", "hyp")):
        lines = [(f"u{i}", " ".join(row[side])) for i, row in enumerate(rows)]
        files[f"{role}_trn"] = "".join(f"{words} ({utt})\n" for utt, words in lines)
        files[f"{role}_txt"] = "".join(f"{utt} {words}\n" for utt, words in lines)
        files[f"{role}_jsonl"] = "".join(f'{{"id": "{utt}", "{role}": "{words}"}}\n' for utt, words in lines)
    written(tmp_path, **files)
    trn, txt, jsonl = (
        score_files(tmp_path / f"ref.{ext}", tmp_path / f"hyp.{ext}") for ext in ("trn", "txt", "jsonl")
    )
    assert trn == txt == jsonl == score_files(tmp_path / "ref.trn", tmp_path / "hyp.jsonl")


def test_words_of_a_ctm_go_to_the_segment_that_holds_their_midpoint(tmp_path: Path) -> None:
    """2.05 is past the first segment's end: the ignored one takes it, the last one everything left."""
    ref, hyp = written(tmp_path, r_stm=STM, h_ctm=CTM)
    got = {a.utt_id: (a.ops, a.speaker) for a in score_files(ref, hyp)}
    assert got == {"spk1-000": ("CD", "spk1"), "spk1-001": ("CIC", "spk1"), "spk2-000": ("I", "spk2")}


def test_alternatives_of_a_ctm_go_together_by_their_latest_midpoint(tmp_path: Path) -> None:
    ctm = "f A 0 1 <ALT_BEGIN>\nf A 0.1 0.2 a\nf A 2.5 0.2 b\nf A 0 0 <ALT>\nf A 1 1 <ALT_END>\n"
    ref, hyp = written(tmp_path, r_stm="f A s 0 1 a\nf A s 1 3 b\n", h_ctm=ctm)
    assert [a.ops for a in score_files(ref, hyp)] == ["D", "IC"]


def test_a_channel_without_words_is_deleted_and_words_without_a_channel_are_refused(tmp_path: Path) -> None:
    ref, hyp, more = written(tmp_path, r_stm="f A s 0 1 a b\n", h_ctm="", m_ctm="g A 0 1 x\n")
    assert [a.ops for a in score_files(ref, hyp)] == ["DD"]
    with pytest.raises(ValueError, match=r"m\.ctm:1: found words of file 'g' channel 'a'"):
        score_files(ref, more)


def test_reducing_leaves_out_segments_without_words_and_words_without_segments(tmp_path: Path) -> None:
    ref, hyp = written(tmp_path, r_stm="f A s 0 1 a\nf A s 5 6 b\n", h_ctm="f A 5.1 0.2 b\nf A 8 1 x\n")
    paths = {
        m: [a.ops for a in score_files(ref, hyp, settings=Settings(reduce=m))]
        for m in ((), ("ref",), ("hyp",))
    }
    assert paths == {(): ["D", "CI"], ("ref",): ["CI"], ("hyp",): ["D", "C"]}


def test_sclite_formats_ignore_case_and_others_do_not(tmp_path: Path) -> None:
    a, b, c, d = written(
        tmp_path, a_trn="Yes;tag (u-1)\n", b_trn="yes (U-1)\n", c_txt="u Yes\n", d_txt="u yes\n"
    )
    assert score_files(a, b)[0].ops == "C"
    assert score_files(c, d)[0].ops == "S"
    assert score_files(c, d, settings=Settings(ignore_case=True))[0].ops == "C"


def test_turkish_folds_dotted_and_dotless_i_apart(tmp_path: Path) -> None:
    a, b = written(tmp_path, a_trn="IŞIK İZ (s-1)\n", b_trn="ışık iz (s-1)\n")
    settings = Settings(language="tr")
    assert score_files(a, b, settings=settings)[0].ops == "CC"
    assert normalisation(a, b, settings=settings) == "lower case (tr)"


def test_characters_are_scored_when_asked_for(tmp_path: Path) -> None:
    a, b = written(tmp_path, a_txt="u cat\n", b_txt="u cut\n")
    assert score_files(a, b, settings=Settings(chars=True))[0].ops == "CSC"


def test_sgml_is_taken_as_it_is(tmp_path: Path) -> None:
    (path,) = written(tmp_path, a_sgml=SGML)
    assert [(a.utt_id, a.ops) for a in score_files(path, path)] == [("s1-1", "CSDI"), ("s1-2", "")]
    assert read_sgml(path)[0].pairs[1:3] == (("S", "cat:s", "hat"), ("D", "sat", None))


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("the words (id)\n", "trn"),
        (";; comment\n\n(id)\n", "trn"),
        ("id the words\n", "kaldi"),
        ('{"id": "a", "hyp": ""}\n', "jsonl"),
        ("{ a / b } c (id)\n", "trn"),
        ("f A 0.1 0.2 word\n", "ctm"),
        ("f A spk 0.1 0.2 the words\n", "stm"),
        (SGML, "sgml"),
    ],
)
def test_formats_are_told_by_their_first_line(tmp_path: Path, text: str, format: str) -> None:
    (path,) = written(tmp_path, file=text)
    assert guess_format(path) == format


def test_an_absent_hypothesis_is_refused_or_counted_as_deleted(tmp_path: Path) -> None:
    ref, hyp = written(tmp_path, r_txt="a x y\nb z\n", h_txt="a x y\n")
    with pytest.raises(ValueError, match=r"r\.txt:2: utterance 'b' has no hypothesis .* --allow-missing"):
        score_files(ref, hyp)
    assert [a.ops for a in score_files(ref, hyp, settings=Settings(allow_missing=True))] == ["CC", "D"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("h.trn", "no id here\n", r"h\.trn:1: found no id in parentheses"),
        ("h.trn", "a (u)\nb (u)\n", r"h\.trn:2: utterance 'u' is already at line 1"),
        ("h.trn", "a (u)\nb (v)\n", r"h\.trn:2: utterance 'v' has no reference"),
        ("h.trn", "a { b (u)\n", r"h\.trn:1: alternatives are not closed"),
        ("h.trn", "", r"h\.trn: found no utterance"),
        ("h.jsonl", '{"id": "u"}\n', r"h\.jsonl:1: found id, expected"),
        ("h.jsonl", '{"id": "u", "hyp"\n', r"h\.jsonl:1: not JSON"),
        ("h.ctm", "f A 0 1 x\n", r"h\.ctm: found trn against ctm"),
        ("h.sgml", "<PATH >\n", r"h\.sgml:1: found no id"),
        ("h", "\n", "found nothing in the file"),
    ],
)
def test_bad_files_are_named_with_line_and_cure(tmp_path: Path, name: str, text: str, message: str) -> None:
    (ref,) = written(tmp_path, r_trn="a (u)\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        score_files(ref, tmp_path / name)


@pytest.mark.parametrize(
    ("stm", "ctm", "message"),
    [
        ("f A s 0\n", "", r"r\.stm:1: found 'f A s 0'"),
        ("", "", r"r\.stm: found no segment"),
        ("f A s 0 1 x\n", "f A x 1 y\n", r"h\.ctm:1: found 'f A x 1 y'"),
        ("f A s 0 1 x\n", "f A 0 1 <ALT_BEGIN>\n", "without <ALT_END>"),
        ("f A s 0 1 x\n", "f A 0 1 <ALT>\n", "expected <ALT_BEGIN> before it"),
    ],
)
def test_bad_timed_files_are_named_with_line(tmp_path: Path, stm: str, ctm: str, message: str) -> None:
    ref, hyp = written(tmp_path, r_stm=stm, h_ctm=ctm)
    with pytest.raises(ValueError, match=message):
        score_files(ref, hyp)


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (ref,) = written(tmp_path, r_txt="a x\n")
    (tmp_path / "h.txt").write_bytes(b"a x\nb caf\xe9\n")
    with pytest.raises(ValueError, match=r"h\.txt:2: byte 6 of the line is 0xe9, not UTF-8.*iconv"):
        score_files(ref, tmp_path / "h.txt")


def test_speakers_come_from_ids_or_a_table(tmp_path: Path) -> None:
    ref, table = written(tmp_path, r_txt="s1-a x\ns2-b y\n", utt2spk="s1-a one\ns2-b two\n")
    aligned = score_files(ref, ref)
    found = {
        scheme: [a.speaker for a in with_speakers(aligned, scheme)]
        for scheme in ("auto", "spu_id", "wsj", str(table))
    }
    assert list(found.values()) == [[None, None], ["s1", "s2"], ["s1-", "s2-"], ["one", "two"]]
