"""A miniature of Switchboard's releases: Kaldi's splits, ids, words and segments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenasr.data.audio import samples
from greenasr.data.corpora import corpus_lexicon, guess_kind, read_corpus, speaker, with_subsets, words
from greenasr.data.readers.rows import Row
from greenasr.data.readers.switchboard import grow, plain_word, thin

Tone = Callable[..., Path]  # writes a file of tones
Pitch = Callable[..., float]


def row(utt_id: str, start: float = 0.0, end: float = 1.0, text: str = "uh-huh") -> Row:
    return Row(utt_id, None, text, "x:1", "train", utt_id.partition("_")[0], start, end)


@pytest.fixture
def switchboard(tmp_path: Path, sound: Tone) -> Path:
    """Two conversations to train on, and three test sets of one conversation."""
    how = {"seconds": 12.0, "rate": 8_000, "channels": 2, "format": "NIST", "subtype": "ULAW"}
    for name in ("sw02001", "sw02005"):
        sound(f"LDC97S62/disc1/{name}.sph", 300, 900, **how)
        call = name.replace("sw0", "sw")
        for side in "AB":
            lines = ["0.000000 1.004999 [silence]"]
            lines += [f"{t}.006 {t}.9951 [laughter-yeah] i them_1 [noise] <b_aside>" for t in range(1, 11)]
            folder = tmp_path / "swb_ms98_transcriptions" / call[2:4] / call[2:]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{call}{side}-ms98-a-trans.text").write_text(
                "".join(f"{call}{side}-ms98-a-{i:04d} {line}\n" for i, line in enumerate(lines, 1))
            )
    tests = {
        "LDC2002T43/reference/hub5e00.english.000405.stm": ("en_4156", "LDC2002S09/english"),
        "LDC2004S11/references/eval02/english/cts/r.stm": ("sw_30003", "LDC2004S11/audio/eval02/english/cts"),
        "LDC2007S10/data/references/eval03/english/cts/r.stm": ("fsh_60262", "LDC2007S10/data/audio"),
    }
    for stm, (name, audio) in tests.items():
        sound(f"{audio}/{name}.sph", 300, 900, **how)
        a, b = ("A", "B") if "hub5" in stm else ("1", "2")
        (tmp_path / stm).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stm).write_text(
            ';; CATEGORY "0" "" ""\n'
            f"{name} {a} {name}_A 1.00 2.00 <O,en,F,en-F>  HE IS (%HESITATION) {{ A / ONE }} OFFICER\n"
            f"{name} {a} {name}_A 2.10 3.00 <O,en,F,en-F> YES\n"
            f"{name} {b} {name}_B 4.555 6.00 <O,en,M,en-M> WELL\n"
            f"{name} {b} {name}_B 6.00 7.00 <O,en,M,en-M> IGNORE_TIME_SEGMENT_IN_SCORING\n"
            f"{name} {b} inter_segment_gap 7.00 8.00 <O,en,M,en-M>\n"
        )
    bn = tmp_path / "LDC2007S10/data/references/eval03/english/bn"
    bn.mkdir(parents=True)
    (bn / "news.stm").write_text("news 1 anchor 0 1 <o,f0> GOOD EVENING\n")
    return tmp_path


def test_the_splits_are_kaldis(switchboard: Path) -> None:
    assert guess_kind(switchboard) == "switchboard"
    corpus = read_corpus(switchboard)
    assert {split: len(cuts) for split, cuts in corpus.items()} == {
        "dev": 4, "train": 36, "eval2000": 3, "rt02": 3, "rt03": 3,
    }  # fmt: skip
    first = corpus["dev"][0]
    assert (first.id, speaker(first)) == ("sw02001-A_000101-000200", "sw02001-A")
    assert words(first) == ["yeah", "i", "them", "[noise]"]
    assert not {cut.id for cut in corpus["dev"]} & {cut.id for cut in corpus["train"]}
    assert corpus["rt03"][0].id == "fsh_60262-A_000100-000200"


def test_a_side_is_its_channel(switchboard: Path, pitch: Pitch) -> None:
    corpus = read_corpus(switchboard)
    for cuts in (corpus["train"], corpus["rt02"]):
        for cut in (cuts[0], cuts[-1]):
            assert round(pitch(samples(cut)), -1) == {"A": 300, "B": 900}[speaker(cut)[-1]]
            assert len(samples(cut)) == pytest.approx(16_000 * cut.duration, abs=2)


def test_a_test_sets_words_are_plain_and_its_labels_are_kept(switchboard: Path) -> None:
    corpus = read_corpus(switchboard)
    first = corpus["eval2000"][0]
    assert words(first) == "he is %hesitation a officer".split()
    assert first.supervisions[0].custom == {"labels": "O,en,F,en-F", "subset": "callhm"}


def test_a_test_sets_subsets_are_those_that_kaldi_scores_apart(switchboard: Path) -> None:
    found = read_corpus(switchboard)
    splits = with_subsets(found, ["eval2000.callhm", "rt02", "rt03.fsh"])
    assert list(splits) == [*found, "eval2000.callhm", "rt03.fsh"]
    assert [cut.id for cut in splits["rt03.fsh"]] == [cut.id for cut in found["rt03"]]
    both = with_subsets(found, ["rt02+eval2000.callhm", "rt02+rt04"])
    assert list(both) == [*found, "rt02+eval2000.callhm"]
    ids = [cut.id for part in ("rt02", "eval2000.callhm") for cut in splits[part]]
    assert [cut.id for cut in both["rt02+eval2000.callhm"]] == ids
    with pytest.raises(ValueError, match="'eval2000' has no subset 'swbd', it has callhm"):
        with_subsets(found, ["eval2000.swbd"])


def test_releases_on_other_disks_may_be_linked(switchboard: Path, tmp_path_factory: Any) -> None:
    linked = tmp_path_factory.mktemp("linked")
    for release in switchboard.iterdir():
        (linked / release.name).symlink_to(release)
    (switchboard / "LDC97S62" / "loop").symlink_to(linked)
    assert guess_kind(linked) == "switchboard"
    there, here = read_corpus(linked), read_corpus(switchboard)
    assert {s: [c.id for c in cuts] for s, cuts in there.items()} == {
        s: [c.id for c in cuts] for s, cuts in here.items()
    }


def test_the_dictionary_has_the_words_of_the_transcripts(tmp_path: Path) -> None:
    """Lines as in sw-ms98-dict.text; what Kaldi's swbd1_map_words.pl makes of them is in its comments."""
    (tmp_path / "sw-ms98-dict.text").write_text(
        "# pronunciations\n\n-[40]1k w ah n k ey\n-[a]b[out]- b\n{wolmanized} w ow l m ax n ay z d\n"
        "[yeam/yeah] y ae m\nI ay\nthem dh eh m\nthem_1 eh m\n[laughter-them] dh ax m\n[silence] sil\n"
    )
    lexicon = corpus_lexicon(tmp_path / "sw-ms98-dict.text", "switchboard")
    assert set(lexicon.words) == {"-1k", "-b-", "wolmanized", "yeam", "i", "them"}
    assert lexicon.prons["them"] == (("dh", "eh", "m"), ("eh", "m"), ("dh", "ax", "m"))
    assert "them_1" in corpus_lexicon(tmp_path / "sw-ms98-dict.text", "kaldi").words


def test_segments_of_eval2000_grow_and_those_of_the_others_do_not(switchboard: Path) -> None:
    corpus = read_corpus(switchboard)
    times = [(round(cut.start, 3), round(cut.end, 3)) for cut in corpus["eval2000"]]
    assert times == [(0.9, 2.05), (2.05, 3.1), (4.455, 6.1)]
    assert [(cut.start, cut.end) for cut in corpus["rt02"]][0] == (1.0, 2.0)


def test_a_conversation_without_its_sound_is_named(switchboard: Path) -> None:
    (switchboard / "LDC97S62/disc1/sw02005.sph").unlink()
    with pytest.raises(ValueError, match=r"trans.text:\d+: there is no audio file sw02005.sph"):
        read_corpus(switchboard)


def test_a_converted_sound_is_read_before_its_sph(switchboard: Path, sound: Tone, pitch: Pitch) -> None:
    sound("wav/sw02001.wav", 500, 700, seconds=12.0, rate=8_000, channels=2)
    cut = read_corpus(switchboard, splits=["dev"])["dev"][0]
    assert round(pitch(samples(cut)), -1) == 500


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("x-trans.text", "sw2001A-ms98-a-0001 zero 1 yes", "expected 'sw2001A-ms98-a-0001 start end words'"),
        ("x-trans.text", "sw2001C-ms98-a-0001 0 1 yes", "the channel 'C' of sw02001, expected A or B"),
        ("rt03.stm", "fsh_60262 3 spk 0 1 <o> YES", "the channel '3' of fsh_60262"),
        ("rt03.stm", "fsh_60262 1 spk", "expected 'file channel speaker start end <labels> words'"),
    ],
)
def test_an_odd_line_is_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    (tmp_path / name).write_text(line + "\n")
    with pytest.raises(ValueError, match=f"{name}:1: .*{message}"):
        read_corpus(tmp_path, "switchboard")


def test_marks_of_the_transcribers_become_words() -> None:
    marked = "-[an]y ex[specially]-/especially] {yuppiedom} ammu[n]it- [lem[guini]-/linguini] [laughter] a-"
    plain = [plain_word(word) for word in marked.split()]
    assert plain == ["-y", "ex", "yuppiedom", "ammu-it-", "lem-", "[laughter]", "a-"]


def test_growing_equals_kaldis_own_examples() -> None:
    """The three examples in the comments of extend_segments.pl."""
    for given, expected in (
        ([("a_1", 0, 1), ("a_2", 3, 4), ("b_1", 0, 1), ("b_2", 2, 3)], [(0, 2), (2, 5), (0, 1.5), (1.5, 4)]),
        ([("a_1", 0, 2), ("a_2", 1, 3)], [(0, 2), (1, 4)]),
        ([("a_1", 0, 2), ("a_2", 5, 6), ("a_3", 3, 4)], [(0, 2.5), (4.5, 7), (2.5, 4.5)]),
    ):
        grown = grow([row(*segment) for segment in given], 1.0)
        assert [(r.start, r.end) for r in grown] == expected


def test_rare_texts_all_stay_and_frequent_ones_are_thinned_to_about_the_limit() -> None:
    rows = [row(f"u_{i}", text="uh-huh" if i % 2 else f"text {i % 70}") for i in range(4_000)]
    kept = list(thin(rows, 100))
    assert sum(r.text != "uh-huh" for r in kept) == 2_000
    assert 90 <= sum(r.text == "uh-huh" for r in kept) <= 110
    assert kept == list(thin(rows, 100)), "the same rows every time"
