"""HCLG against everything that can be said, written down; the folder it is kept in; what it refuses."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from greenasr.data.lexicon import Lexicon
from greenasr.decode import graph as graphs
from greenasr.decode.arpa import write_arpa
from greenasr.decode.context import PdfMap
from greenasr.decode.graph import DecodingGraph, build_graph, cached_graph, graph_key
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.lexicon_fst import FIRST, SILENCE

Saying = tuple[tuple[int, ...], tuple[str, ...]]  # the pdf of every frame, the words


def accepted(graph: DecodingGraph, n_frames: int) -> dict[Saying, float]:
    """(pdf a frame, words) -> cheapest cost of every path of ``n_frames`` frames, by walking all of them."""
    fst = graph.fst
    leaving = [np.flatnonzero(fst.src == state).tolist() for state in range(fst.n_states)]
    columns = (fst.dst.tolist(), fst.ilabel.tolist(), fst.olabel.tolist(), fst.weight.tolist())
    arcs = list(zip(*columns, strict=True))
    found: dict[Saying, float] = {}
    stack: list[tuple[int, tuple[int, ...], tuple[str, ...], float]] = [(fst.start, (), (), 0.0)]
    while stack:
        state, pdfs, words, cost = stack.pop()
        if len(pdfs) == n_frames:
            key = (pdfs, words)
            found[key] = min(found.get(key, np.inf), cost + float(fst.final[state]))
        for dst, label, output, weight in (arcs[a] for a in leaving[state]):
            if label == 0 or len(pdfs) < n_frames:
                more = (int(graph.pdf[label - 1]),) if label else ()
                said = (graph.words[output],) if output else ()
                stack.append((dst, pdfs + more, words + said, cost + weight))
    return {key: cost for key, cost in found.items() if np.isfinite(cost)}


@pytest.mark.parametrize("silence_prob", [0.0, 0.5])
def test_the_graph_accepts_what_can_be_said_at_its_cost_and_nothing_else(tiny, silence_prob: float) -> None:
    graph = build_graph(tiny.lexicon, tiny.pdf_map, tiny.arpa, silence_prob)
    for n_frames in (1, 2, 4):
        expected, found = tiny.sayings(n_frames, silence_prob), accepted(graph, n_frames)
        assert found.keys() == expected.keys()
        for key, cost in found.items():
            assert cost == pytest.approx(expected[key], abs=2e-3 * (2 + n_frames)), (
                key
            )  # kaldifst rounds to 1/1024


def test_a_monophone_map_needs_no_more_states_for_its_contexts(biphones) -> None:
    _, triples = graphs.context_fst(PdfMap.monophone(biphones.lexicon.phones), 1)
    assert len(triples) == 2 * len(biphones.lexicon.phones) + 1  # inside, beginning, and silence
    c, _ = graphs.context_fst(PdfMap.monophone(biphones.lexicon.phones), 1)
    assert c.n_states == 1


def test_labels_tell_words_beginnings_and_pauses(biphones) -> None:
    graph = build_graph(biphones.lexicon, biphones.pdf_map, biphones.arpa)
    silent = set(biphones.pdf_map.table[:, 0, 0].tolist())
    assert {p for p, k in zip(graph.pdf, graph.kind, strict=True) if k == SILENCE} <= silent
    first = {p for p, k in zip(graph.pdf, graph.kind, strict=True) if k == FIRST}
    assert first and not first & silent
    assert first <= set(biphones.pdf_map.table[:, 1:, 0].ravel().tolist())


def test_a_saved_graph_is_loaded_as_it_was(biphones, tmp_path: Path) -> None:
    graph = build_graph(biphones.lexicon, biphones.pdf_map, biphones.arpa)
    graph.save(tmp_path / "graph")
    again = DecodingGraph.load(tmp_path / "graph")
    assert (again.words, again.n_pdfs, again.meta) == (graph.words, graph.n_pdfs, graph.meta)
    for name in ("pdf", "kind"):
        assert (getattr(again, name) == getattr(graph, name)).all()
    for name in ("final", "src", "dst", "ilabel", "olabel", "weight"):
        np.testing.assert_allclose(getattr(again.fst, name), getattr(graph.fst, name), rtol=1e-6)
    assert sorted(file.name for file in (tmp_path / "graph").iterdir()) == [
        "HLG.fst",
        "meta.json",
        "words.txt",
    ]


def test_a_kept_graph_is_used_while_its_inputs_are_the_same_and_whole(
    biphones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    real = graphs.build_graph
    monkeypatch.setattr(graphs, "build_graph", lambda *inputs: built.append(inputs) or real(*inputs))
    folder = tmp_path / "graph"

    def times(silence_prob: float = 0.5) -> int:
        before = len(built)
        cached_graph(folder, biphones.lexicon, biphones.pdf_map, biphones.arpa, silence_prob)
        return len(built) - before

    assert [times(), times(), times(0.25), times(0.25)] == [1, 0, 1, 0]
    (folder / "HLG.fst").write_bytes((folder / "HLG.fst").read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"HLG.fst: digest .* cut short"):
        DecodingGraph.load(folder)
    assert [times(0.25), times(0.25)] == [1, 0]
    (folder / "meta.json").unlink()  # as after a kill in the middle of saving
    assert [times(0.25), times(0.25)] == [1, 0]
    shutil.rmtree(folder)
    assert times(0.25) == 1


def test_the_key_follows_every_input(biphones) -> None:
    base = (biphones.lexicon, biphones.pdf_map, biphones.arpa, 0.5, None)
    more = Lexicon({**biphones.lexicon.prons, "c": (("X",),)})
    other = PdfMap.monophone(biphones.lexicon.phones[::-1])
    keys = {graph_key(*base), graph_key(more, *base[1:]), graph_key(base[0], other, *base[2:])}
    keys |= {graph_key(*base[:3], 0.25, None), graph_key(*base[:4], "<unk>")}
    assert len(keys) == 5
    biphones.arpa.write_text(biphones.arpa.read_text() + "\n")
    assert graph_key(*base) not in keys


def test_words_of_one_side_only_are_counted_and_can_share_the_unknown_words_mass(
    biphones, tmp_path: Path
) -> None:
    text = [line.split() for line in ("a b zoo", "b zoo", "a", "b a")]
    write_arpa(kneser_ney(text, order=2).lm, tmp_path / "zoo.arpa.gz")
    graph = build_graph(biphones.lexicon, biphones.pdf_map, tmp_path / "zoo.arpa.gz")
    assert graph.words == ("<eps>", "a", "b")
    assert graph.meta["lm_words_left_out_first"] == ["<unk>", "zoo"]
    assert graph.meta["lexicon_words_unlisted"] == 2  # ab and ba
    more = build_graph(biphones.lexicon, biphones.pdf_map, tmp_path / "zoo.arpa.gz", unk="<unk>")
    assert more.words == ("<eps>", "a", "ab", "b", "ba") and set(more.fst.olabel.tolist()) == {0, 1, 2, 3, 4}


def test_inputs_that_do_not_fit_are_named(biphones, tmp_path: Path) -> None:
    def build(lexicon: Lexicon = biphones.lexicon, **settings) -> DecodingGraph:
        return build_graph(lexicon, biphones.pdf_map, **{"arpa": biphones.arpa, **settings})

    with pytest.raises(ValueError, match="silence probability is 1"):
        build(silence_prob=1)
    with pytest.raises(ValueError, match="no unigram '<oov>' to share"):
        build(unk="<oov>")
    with pytest.raises(ValueError, match="none of its 8 words is among the lexicon's 1, e.g. 'A'"):
        build(Lexicon({"A": (("X",),)}))
    with pytest.raises(ValueError, match="has the phone 'Q'.*not among the pdf map's 3"):
        build(Lexicon({"a": (("Q",),)}))
    with pytest.raises(ValueError, match="lexicon's silence is 'sil', the pdf map's 'SIL'"):
        build(Lexicon(biphones.lexicon.prons, silence="sil"))
    with pytest.raises(ValueError, match="has the word '#0'"):
        build(Lexicon({**biphones.lexicon.prons, "#0": (("X",),)}))
    endless = (
        biphones.arpa.read_text().replace("</s>", "ENDS").replace("\\1-grams:", "\\1-grams:\n-99\t</s>\t0")
    )
    (tmp_path / "endless.arpa").write_text(endless.replace("ngram 1=8", "ngram 1=9"))
    with pytest.raises(ValueError, match="no sentence of the lexicon's words has a probability"):
        build(arpa=tmp_path / "endless.arpa")
    (tmp_path / "cut.arpa.gz").write_bytes(gzip.compress(biphones.arpa.read_bytes())[:60])
    with pytest.raises(ValueError, match="gzip data is damaged"):
        build(arpa=tmp_path / "cut.arpa.gz")
