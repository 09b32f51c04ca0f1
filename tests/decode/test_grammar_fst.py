"""G: along listed n-grams a sentence costs what the model says; Kaldi's own compiler agrees."""

from __future__ import annotations

from pathlib import Path

import kaldifst
import kaldilm
import numpy as np
import pytest

from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.fst import Fst, from_kaldi
from greenasr.decode.grammar_fst import grammar
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.ngram import NGram


def walk(fst: Fst, labels: list[int], backoff: int) -> float:
    """Cost of a sentence that backs off only where no arc has its next word: the model's own path."""
    state, cost = fst.start, 0.0
    for label in [*labels, 0]:
        while True:
            arcs = np.flatnonzero(fst.src == state)
            exact = [a for a in arcs if label and fst.ilabel[a] == label]
            if not label and np.isfinite(fst.final[state]):
                return cost + float(fst.final[state])
            arc = exact[0] if exact else next(a for a in arcs if fst.ilabel[a] == backoff)
            state, cost = int(fst.dst[arc]), cost + float(fst.weight[arc])
            if exact:
                break
    raise AssertionError("unreachable")


@pytest.fixture(params=[(1, (0,)), (2, (0, 0)), (3, (0, 0, 1)), (4, (0, 0, 0, 0))], ids=str)
def lm(request: pytest.FixtureRequest, tmp_path: Path) -> NGram:
    order, prune = request.param
    rng = np.random.default_rng(order)
    text = [[f"w{min(int(rng.zipf(1.5)), 9)}" for _ in range(rng.integers(0, 7))] for _ in range(80)]
    write_arpa(kneser_ney(text, order=order, prune=prune).lm, tmp_path / "lm.arpa")
    return read_arpa(tmp_path / "lm.arpa")


def sentences(words: list[str]) -> list[list[str]]:
    rng = np.random.default_rng(7)
    return [[], *([words[int(i)] for i in rng.integers(len(words), size=n)] for n in (1, 2, 3, 5, 8, 9))]


def test_the_path_that_follows_listed_ngrams_costs_what_the_model_says(lm: NGram) -> None:
    words = sorted(set(lm.words) - {"<s>", "</s>", "<unk>"})
    ids = {word: i for i, word in enumerate(words, 1)}
    g = grammar(lm, ids, len(words) + 1, {})
    for sentence in sentences(words):
        cost = walk(g, [ids[word] for word in sentence], len(words) + 1)
        assert cost == pytest.approx(-lm.score([sentence])[0].sum(), abs=1e-6)


def test_it_costs_the_same_in_the_grammar_that_kaldis_arpa2fst_makes(lm: NGram, tmp_path: Path) -> None:
    words = sorted(set(lm.words) - {"<s>", "</s>", "<unk>"})
    ids = {word: i for i, word in enumerate(words, 1)}
    backoff = len(words) + 1
    table = {"<eps>": 0, **ids, "#0": backoff, "<s>": backoff + 1, "</s>": backoff + 2}
    (tmp_path / "words.txt").write_text("".join(f"{word} {i}\n" for word, i in table.items()))
    text = kaldilm.arpa2fst(
        str(tmp_path / "lm.arpa"), disambig_symbol="#0", read_symbol_table=str(tmp_path / "words.txt")
    )
    theirs = from_kaldi(kaldifst.compile(text))
    ours = grammar(lm, ids, backoff, {})
    assert ours.n_states <= theirs.n_states
    for sentence in sentences(words):
        labels = [ids[word] for word in sentence]
        assert walk(ours, labels, backoff) == pytest.approx(walk(theirs, labels, backoff), abs=1e-3)


def test_unlisted_words_share_the_unknown_words_probability_evenly(lm: NGram) -> None:
    words = sorted(set(lm.words) - {"<s>", "</s>", "<unk>"})
    ids = {word: i for i, word in enumerate([*words, "new", "newer"], 1)}
    g = grammar(lm, ids, len(ids) + 1, {"<unk>": [ids["new"], ids["newer"]]})
    for sentence in ([words[0], "new", words[1]], ["newer"]):
        cost = walk(g, [ids[word] for word in sentence], len(ids) + 1)
        assert cost == pytest.approx(np.log(2) - lm.score([sentence])[0].sum(), abs=1e-6)


def test_words_without_a_label_and_impossible_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text(
        "\\data\\\nngram 1=5\nngram 2=2\n\n\\1-grams:\n-99 <s> -0.3\n-0.5 </s>\n-0.5 a -0.2\n-99 b 0\n"
        "-0.6 c -0.1\n\n\\2-grams:\n-0.2 <s> a\n-0.3 c a\n\n\\end\\\n"
    )
    g = grammar(read_arpa(tmp_path / "lm.arpa"), {"a": 1, "b": 2}, 3, {})
    assert set(g.olabel.tolist()) == {0, 1}
    assert walk(g, [1], 3) == pytest.approx(np.log(10) * 0.9)  # a is no state: its back-off is in its arc
