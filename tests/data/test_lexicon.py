"""Dictionaries: variants, phones, what is missing, spelling."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from greenasr.data.lexicon import Lexicon, graphemes, read_lexicon, read_phones

DICT = """;;; a comment
# another
A  AH0
A(2)\tEY1
<s> SIL
LIGHT L AY1 T # a noun
THE DH AH0
THE(2) DH IY0
THE(3) DH AH1
"""


def written(folder: Path, text: str, name: str = "a.dic") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_variants_of_a_word_are_its_pronunciations_in_the_files_order(tmp_path: Path) -> None:
    lexicon = read_lexicon(written(tmp_path, DICT))
    assert lexicon.words == ("A", "LIGHT", "THE")
    assert lexicon.prons["A"] == (("AH0",), ("EY1",))
    assert lexicon.prons["LIGHT"] == (("L", "AY1", "T"),)
    assert lexicon.phones == ("SIL", "AH0", "AH1", "AY1", "DH", "EY1", "IY0", "L", "T")


def test_without_stress_pronunciations_that_become_equal_are_one(tmp_path: Path) -> None:
    lexicon = read_lexicon(written(tmp_path, DICT), stress=False)
    assert lexicon.prons["THE"] == (("DH", "AH"), ("DH", "IY"))


def test_json_gives_the_same_lexicon_back(tmp_path: Path) -> None:
    lexicon = read_lexicon(written(tmp_path, DICT))
    assert Lexicon.from_json(lexicon.to_json()) == lexicon
    with pytest.raises(ValueError, match="not a lexicon"):
        Lexicon.from_json({"format": "greenasr costs 1"})


def test_a_compressed_dictionary_reads_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.dic.gz").write_bytes(gzip.compress(DICT.encode()))
    assert read_lexicon(tmp_path / "a.dic.gz") == read_lexicon(written(tmp_path, DICT))
    (tmp_path / "cut.dic.gz").write_bytes(gzip.compress(DICT.encode())[:-12])
    with pytest.raises(ValueError, match=r"cut.dic.gz:\d+: .*cut short"):
        read_lexicon(tmp_path / "cut.dic.gz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A AH\nB\n", r"a.dic:2: 'B' stands alone"),
        ("A AH\nB B IY\nC X IY\n", r"a.dic:3: 'C' has the phone 'X', which is not among the 3 phones"),
        ("A AH\nA(2) IY\nA(2) B\n", r"a.dic:3: 'A\(2\)' stands on line 2 already"),
        ("\n;;; nothing\n", r"a.dic: no words in it"),
        ("A AH SIL\n", r"a.dic: .*'A' with the silence phone SIL"),
    ],
)
def test_an_odd_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    phones = {"AH", "B", "IY"} if "X" in text else None
    with pytest.raises(ValueError, match=message):
        read_lexicon(written(tmp_path, text), phones)


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.dic").write_bytes(b"A AH\nCAF\xe9 K AE F EY\n")
    with pytest.raises(ValueError, match=r"a.dic:2: not UTF-8 at byte 4"):
        read_lexicon(tmp_path / "a.dic")


def test_a_phone_list_is_the_first_column(tmp_path: Path) -> None:
    assert read_phones(written(tmp_path, "AA\tvowel\nB\tstop\n", "phones")) == {"AA", "B"}
    with pytest.raises(ValueError, match=r"phones:2: the phone 'AA' stands on line 1 already"):
        read_phones(written(tmp_path, "AA\nAA\n", "phones"))


def test_missing_words_come_by_frequency_with_the_nearest_spelling() -> None:
    lexicon = Lexicon({w: (("X",),) for w in ("TURN", "LIGHT", "LIGHTS", "RADIO")})
    found = lexicon.missing("turn LIGTH LIGTH RADIO qqq".split())
    assert found == [("LIGTH", "LIGHT"), ("qqq", ""), ("turn", "TURN")]
    assert lexicon.missing(["TURN"]) == []


def test_spelling_folds_case_and_accents_stay_one_letter() -> None:
    spelled = graphemes(["Caf\u0065\u0301", "x-2", "<unk>"])
    assert spelled.prons["Caf\u0065\u0301"] == (("c", "a", "f", "é"),)
    assert spelled.prons["x-2"] == (("x", "2"),)
    assert spelled.prons["<unk>"] == (("<unk>",),)
    with pytest.raises(ValueError, match="'--' has no letter"):
        graphemes(["--"])


def test_spelled_words_beside_a_dictionary_have_phones_of_their_own() -> None:
    dictionary = Lexicon({"A": (("AH",),)})
    both = dictionary.extended(graphemes(["A", "ah"], mark="@"))
    assert both.prons["A"] == (("AH",),), "a word that is there keeps its pronunciation"
    assert both.phones == ("SIL", "@a", "@h", "AH")


def test_a_word_without_phones_is_refused() -> None:
    with pytest.raises(ValueError, match="no phones for 'A'"):
        Lexicon({"A": ((),)})
    with pytest.raises(ValueError, match="no words"):
        Lexicon({})
