"""ARPA files: round trips, someone else's reader, and every way to be wrong."""

from __future__ import annotations

import gzip
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.ngram import LN10, NGram, perplexity

TINY = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.5\t</s>
-0.4\ta\t-0.2

\\2-grams:
-0.3\t<s> a
-0.2\ta </s>

\\end\\
"""


@pytest.fixture(scope="module")
def lm() -> NGram:
    draw = np.random.default_rng(0)
    text = [[f"w{i}" for i in draw.zipf(1.4, draw.integers(0, 9)) % 20] for _ in range(200)]
    return kneser_ney(text, 4).lm


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_what_is_written_is_read_back(lm: NGram, tmp_path: Path, name: str) -> None:
    write_arpa(lm, tmp_path / name)
    again = read_arpa(tmp_path / name)
    assert again.words == lm.words and again.counts == lm.counts
    for a, b in zip(lm.keys, again.keys, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip((*lm.logprobs, *lm.backoffs), (*again.logprobs, *again.backoffs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_rows_may_stand_in_any_order(lm: NGram, tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    write_arpa(lm, path)
    lines = path.read_text().split("\n")
    start = lines.index("\\3-grams:") + 1
    stop = start + lm.counts[2]
    path.write_text("\n".join([*lines[:start], *reversed(lines[start:stop]), *lines[stop:]]))
    np.testing.assert_allclose(read_arpa(path).logprobs[2], lm.logprobs[2], atol=1e-6)


def test_a_hand_made_model_scores_as_written(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(TINY)
    lm = read_arpa(path)
    (known, unknown) = lm.score([["a"], ["b", "a"]])
    np.testing.assert_allclose(known / LN10, [-0.3, -0.2])
    np.testing.assert_allclose(unknown / LN10, [-0.5 - 1.0, -0.4, -0.2])
    assert perplexity([known]) == pytest.approx(10**0.25)


def test_unknown_words_of_a_model_without_unk_get_what_kenlm_gives(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(TINY.replace("ngram 1=4", "ngram 1=3").replace("-1.0\t<unk>\n", ""))
    assert read_arpa(path).score([["b"]])[0][0] == pytest.approx(LN10 * (-0.5 - 100))


def test_scores_equal_those_of_kenlm(lm: NGram, tmp_path: Path) -> None:
    if importlib.util.find_spec("kenlm") is None:
        pytest.skip("needs the package kenlm")
    kenlm = importlib.import_module("kenlm")
    write_arpa(lm, tmp_path / "lm.arpa")
    model = kenlm.Model(str(tmp_path / "lm.arpa"))
    draw = np.random.default_rng(1)
    sentences = [[f"w{i}" for i in draw.integers(0, 25, draw.integers(0, 8))] for _ in range(200)]
    for ours, sentence in zip(lm.score(sentences), sentences, strict=True):
        theirs = [score for score, _, _ in model.full_scores(" ".join(sentence))]
        np.testing.assert_allclose(ours / LN10, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", r"lm.arpa:1: no line \\data\\"),
        ("ngram 2=2", "ngram 2=3", r"lm.arpa:11: \\data\\ promises 3 2-grams and 2 are listed"),
        ("ngram 2=2", "ngram 3=2", "lm.arpa:3: found 'ngram 3=2' where 'ngram 2=COUNT'"),
        ("ngram 1=4\nngram 2=2\n", "", "no 'ngram 1=COUNT'"),
        ("-0.3\t<s> a", "-0.3\t<s>", "lm.arpa:12: 2 fields where a 2-gram has 3"),
        ("-0.3\t<s> a", "x\t<s> a", "lm.arpa:12: 'x' is not a number"),
        ("-0.3\t<s> a", "nan\t<s> a", "lm.arpa:12: a probability is not a number"),
        ("-0.3\t<s> a", "0.3\t<s> a", "lm.arpa:12: log10 probability 0.3 is above 0"),
        ("-0.3\t<s> a", "-0.3\t<s> b", "lm.arpa:12: the word 'b' is not among the unigrams"),
        ("-0.3\t<s> a", "-0.3\ta </s>", "lm.arpa:13: the 2-gram 'a </s>' is listed twice"),
        ("-0.5\t</s>", "-0.5\t<s>", "lm.arpa:8: the word '<s>' is listed twice"),
        ("-0.5\t</s>", "-0.5\tb", "no unigram </s>"),
        ("\\2-grams:", "\\3-grams:", r"where \\2-grams: was expected"),
        ("\\end\\", "", r"no line \\end\\"),
    ],
)
def test_a_file_that_does_not_fit_together_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(TINY.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_arpa(path)


def test_a_missing_context_is_named(lm: NGram, tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    write_arpa(lm, path)
    lines = path.read_text().split("\n")
    start, stop = lines.index("\\2-grams:") + 1, lines.index("\\3-grams:") - 1
    context = " ".join(lm.words[i] for i in lm.grams(3)[0][:2])
    at = next(i for i in range(start, stop) if lines[i].split("\t")[1] == context)
    del lines[at]
    text = "\n".join(lines).replace(f"ngram 2={lm.counts[1]}", f"ngram 2={lm.counts[1] - 1}")
    path.write_text(text)
    with pytest.raises(ValueError, match=f"the context '{context}' is not listed as a 2-gram"):
        read_arpa(path)


def test_damaged_bytes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress(TINY.encode())[:-20])
    with pytest.raises(ValueError, match="gzip data is damaged"):
        read_arpa(path)
    path.write_bytes(TINY.encode().replace(b"\ta\t", b"\t\xff\t"))
    with pytest.raises(ValueError, match=r"lm.arpa.gz:9: not UTF-8"):
        read_arpa(path)


def test_perplexity_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="the text is empty"):
        perplexity([])
    assert math.isclose(perplexity([np.log([0.5, 0.5])]), 2.0)
