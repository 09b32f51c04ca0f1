"""The CTC decoding graph: its paths are alignments of sentences, its search finds what enumeration does."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from greenasr.decode.arpa import write_arpa
from greenasr.decode.ctc import collapse
from greenasr.decode.ctc_graph import build_ctc_graph, cached_ctc_graph
from greenasr.decode.graph import DecodingGraph
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.ngram import NGram
from greenasr.decode.wfst import Decoder

SPELLED = {"a": (1,), "ab": (1, 2), "bb": (2, 2), "ba": (2, 1)}
TEXT = ["a ab", "ab a", "bb", "ba bb a", "a a", "ba ab", "bb bb"]


@pytest.fixture(scope="module")
def bigram() -> NGram:
    return kneser_ney([line.split() for line in TEXT], 2).lm


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory, bigram: NGram) -> Path:
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    write_arpa(bigram, path)
    return path


@pytest.fixture(scope="module")
def graph(arpa: Path) -> DecodingGraph:
    return build_ctc_graph(SPELLED, 3, arpa)


def logits(path: list[int], peak: float = 20.0) -> np.ndarray:
    return (peak * np.eye(3)[path]).astype(np.float32)


@pytest.mark.parametrize(
    ("path", "words", "times"),
    [
        ([1], "a", [(0, 1)]),
        ([0, 1, 1, 0, 1, 0], "a a", [(1, 3), (4, 5)]),
        ([1, 0, 0, 2, 2], "ab", [(0, 5)]),
        ([2, 0, 2, 0, 0, 2, 1, 0], "bb ba", [(0, 3), (5, 7)]),
        ([0, 0], "", []),
    ],
)
def test_an_alignment_says_its_words_at_their_times_without_the_blanks_behind(
    graph: DecodingGraph, path: list[int], words: str, times: list[tuple[int, int]]
) -> None:
    decoder = Decoder(graph, frame_shift=1.0)
    for hyp in (decoder.best(logits(path)), decoder.nbest(logits(path), 3)[0]):
        assert (" ".join(hyp.words), hyp.complete) == (words, True)
        assert hyp.word_times == tuple(times)
        assert hyp.acoustic_cost == pytest.approx(-20.0 * len(path))


def test_equal_neighbours_need_a_blank_even_across_words(graph: DecodingGraph) -> None:
    """Two frames of "a" are one word, however much the n-gram would like two."""
    assert Decoder(graph).best(logits([1, 1])).words == ("a",)
    assert ("a", "a") not in {hyp.words for hyp in Decoder(graph, lattice_beam=100).nbest(logits([1, 1]), 50)}


def test_lists_equal_those_of_trying_every_alignment(graph: DecodingGraph, bigram: NGram) -> None:
    frames, said = np.random.default_rng(3).normal(0, 2, (5, 3)).astype(np.float32), {}
    for n_words in range(4):
        for words in itertools.product(SPELLED, repeat=n_words):
            said.setdefault(tuple(itertools.chain(*(SPELLED[w] for w in words))), []).append(words)
    best: dict[tuple[str, ...], float] = {}
    for path in itertools.product(range(3), repeat=5):
        score = float(frames[np.arange(5), list(path)].sum())
        for words in said.get(collapse(path)[0], []):
            total = score + float(bigram.score([list(words)])[0].sum())
            best[words] = max(total, best.get(words, -np.inf))
    expected = dict(sorted(best.items(), key=lambda item: -item[1])[:8])
    found = Decoder(graph, beam=1000, lattice_beam=1000).nbest(frames, 8)
    assert {hyp.words: -hyp.cost() for hyp in found} == pytest.approx(expected, abs=1e-3)


def test_words_that_the_model_lacks_share_its_unknown_mass(arpa: Path) -> None:
    graph = build_ctc_graph({**SPELLED, "c": (3,)}, 4, arpa, unk="<unk>")
    assert graph.words[1:] == ("a", "ab", "bb", "ba", "c")
    assert graph.meta["lexicon_words_unlisted"] == 1
    found = Decoder(graph).best(20 * np.eye(4, dtype=np.float32)[[1, 3, 3]])
    assert found.words == ("a", "c")


def test_a_graph_is_built_once_and_again_for_other_spellings(arpa: Path, tmp_path: Path) -> None:
    first = cached_ctc_graph(tmp_path, SPELLED, 3, arpa)
    assert cached_ctc_graph(tmp_path, SPELLED, 3, arpa).meta["seconds"] == first.meta["seconds"]
    other = cached_ctc_graph(tmp_path, {"a": (2,), "ab": (1,)}, 3, arpa)
    assert other.meta["key"] != first.meta["key"] and other.meta["lm_words_left_out"] == 3, "two, and <unk>"


@pytest.mark.parametrize("labels", [(), (0,), (1, 3)])
def test_labels_that_the_network_lacks_are_refused(arpa: Path, labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="'a' is spelled .* labels are 1 to 2"):
        build_ctc_graph({"a": labels}, 3, arpa)
