"""Search: hand-made logits give the hand-made words, and lists equal those of trying everything."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from greenasr.data.lexicon import Lexicon
from greenasr.decode import rescore
from greenasr.decode.arpa import read_arpa
from greenasr.decode.graph import DecodingGraph, build_graph
from greenasr.decode.nbest import read_nbest, write_nbest
from greenasr.decode.wfst import Decoder, Hypothesis, to_nbest


def posterior(tiny, said: list[tuple[str, int]], peak: float = 30.0) -> np.ndarray:
    """Logits that leave no doubt about (phone, frames), …"""
    pdfs: list[int] = []
    left = 0
    for phone, frames in said:
        p = tiny.lexicon.phones.index(phone)
        entry, loop = tiny.pdf_map.table[left, p].tolist()
        pdfs += [entry] + [loop] * (frames - 1)
        left = 1 + p
    logits = np.zeros((len(pdfs), tiny.pdf_map.n_pdfs), np.float32)
    logits[np.arange(len(pdfs)), pdfs] = peak
    return logits


def graph_of(tiny) -> DecodingGraph:
    return build_graph(tiny.lexicon, tiny.pdf_map, tiny.arpa)


@pytest.mark.parametrize(
    ("said", "words", "times"),
    [
        ([("X", 2)], "a", [(0, 2)]),
        ([("Y", 1)], "a", [(0, 1)]),  # its variant
        ([("SIL", 3), ("X", 2), ("SIL", 1), ("Y", 1), ("X", 4), ("SIL", 2)], "a b", [(3, 5), (6, 11)]),
        ([("X", 1), ("Y", 2), ("SIL", 1)], "ab", [(0, 3)]),
        ([("Y", 1), ("X", 1), ("X", 1), ("X", 1), ("SIL", 1)], "b a a", [(0, 2), (2, 3), (3, 4)]),
        ([("SIL", 4)], "", []),
    ],
)
def test_a_hand_made_posterior_gives_the_hand_made_words_at_their_times(tiny, said, words, times) -> None:
    decoder = Decoder(graph_of(tiny))
    logits = posterior(tiny, said)
    for hyp in (decoder.best(logits), decoder.nbest(logits)[0]):
        assert (" ".join(hyp.words), hyp.complete) == (words, True)
        assert hyp.word_times == tuple(pytest.approx((0.03 * s, 0.03 * e)) for s, e in times)
        assert hyp.acoustic_cost == pytest.approx(-30.0 * len(logits))


@pytest.mark.parametrize(("scale", "penalty"), [(1.0, 0.0), (0.4, 0.0), (1.0, 1.7), (1.6, -0.9)])
def test_lists_equal_those_of_trying_everything(tiny, scale: float, penalty: float) -> None:
    """Every way to say anything in four frames, its costs apart, at any scale and penalty."""
    logits = np.random.default_rng(5).normal(scale=2, size=(4, tiny.pdf_map.n_pdfs)).astype(np.float32)
    cheapest: dict[tuple[str, ...], tuple[float, float, float]] = {}
    for (pdfs, words), graph in tiny.sayings(4, 0.5).items():
        acoustic = -float(logits[np.arange(4), list(pdfs)].astype(np.float64).sum())
        entry = (graph + scale * acoustic + penalty * len(words), acoustic, graph)
        cheapest[words] = min(entry, cheapest.get(words, (math.inf, 0.0, 0.0)))
    expected = sorted((entry, words) for words, entry in cheapest.items())
    decoder = Decoder(graph_of(tiny), scale, penalty, beam=100, lattice_beam=100)
    found = decoder.nbest(logits, 1000)
    assert {hyp.words for hyp in found} == set(cheapest) and len(found) == len(cheapest)
    by_words = {words: entry for entry, words in expected}
    for hyp in found:
        total, acoustic, graph = by_words[hyp.words]
        assert hyp.cost(scale, penalty) == pytest.approx(total, abs=0.01)
        assert (hyp.acoustic_cost, hyp.graph_cost) == (
            pytest.approx(acoustic, abs=0.01),
            pytest.approx(graph, abs=0.01),
        )
    totals = [hyp.cost(scale, penalty) for hyp in found]
    assert all(a <= b + 1e-5 for a, b in pairwise(totals))
    assert decoder.best(logits).cost(scale, penalty) == pytest.approx(expected[0][0][0], abs=0.01)
    assert [hyp.words for hyp in decoder.nbest(logits, 5)] == [hyp.words for hyp in found[:5]]


def test_another_scale_and_penalty_reorder_one_lattice_as_another_search_would(biphones) -> None:
    logits = np.random.default_rng(1).normal(scale=2, size=(6, biphones.pdf_map.n_pdfs)).astype(np.float32)
    graph = graph_of(biphones)
    wide = Decoder(graph, beam=100, lattice_beam=100)
    for scale, penalty in ((0.5, 0.0), (2.0, 3.0), (1.0, -3.0)):
        there = Decoder(graph, scale, penalty, beam=100, lattice_beam=100)
        once, anew = wide.nbest_at(logits, [(scale, penalty)], 10), there.nbest(logits, 10)
        assert [hyp.words for hyp in once] == [hyp.words for hyp in anew]
        assert [hyp.cost() for hyp in once] == [pytest.approx(hyp.cost(), abs=1e-3) for hyp in anew]
    longer = Decoder(graph, 1.0, -9.0, beam=100).best(logits)
    assert len(longer.words) > len(Decoder(graph, 1.0, 9.0, beam=100).best(logits).words)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused_before_the_search(biphones, value: float) -> None:
    decoder = Decoder(graph_of(biphones))
    logits = posterior(biphones, [("X", 2), ("SIL", 2)])
    logits[2, 1] = logits[3, 0] = value
    for search in (decoder.best, decoder.nbest, decoder.lattice):
        with pytest.raises(ValueError, match=f"2 of .* not finite, the first is {value} at frame 2, pdf 1"):
            search(logits)


def test_logits_of_another_network_and_odd_settings_are_refused(biphones) -> None:
    graph = graph_of(biphones)
    n_pdfs = biphones.pdf_map.n_pdfs
    with pytest.raises(ValueError, match=rf"logits are \(4, {n_pdfs + 1}\), expected \(frames, {n_pdfs}\)"):
        Decoder(graph).best(np.zeros((4, n_pdfs + 1)))
    with pytest.raises(ValueError, match="logits are"):
        Decoder(graph).best(np.zeros((1, 4, n_pdfs)))
    with pytest.raises(ValueError, match="acoustic_scale is 0"):
        Decoder(graph, 0.0)
    with pytest.raises(ValueError, match="beam is nan"):
        Decoder(graph, beam=math.nan)
    with pytest.raises(ValueError, match="word_penalty is inf"):
        Decoder(graph, word_penalty=math.inf)
    with pytest.raises(ValueError, match="max_active is 1"):
        Decoder(graph, max_active=1)
    with pytest.raises(ValueError, match="jobs is 0"):
        Decoder(graph).decode_many([], jobs=0)


def test_no_frames_are_no_words_and_too_few_frames_are_no_sentence(biphones) -> None:
    decoder = Decoder(graph_of(biphones))
    nothing = np.zeros((0, biphones.pdf_map.n_pdfs), np.float32)
    assert decoder.best(nothing) == decoder.nbest(nothing)[0] == Hypothesis((), 0.0, 0.0, (), complete=False)
    long_words = Lexicon({"b": (("Y", "X"),)})
    decoder = Decoder(build_graph(long_words, biphones.pdf_map, biphones.arpa, silence_prob=0))
    logits = posterior(biphones, [("Y", 1), ("X", 2)])
    assert decoder.best(logits).words == ("b",) and decoder.best(logits).complete
    for hyp in (decoder.best(logits[:1]), decoder.nbest(logits[:1])[0]):
        assert not hyp.complete and len(hyp.word_times) == len(hyp.words) <= 1
        assert math.isfinite(hyp.cost())


def test_a_decoder_that_was_sent_elsewhere_finds_the_same(biphones) -> None:
    logits = np.random.default_rng(2).normal(size=(9, biphones.pdf_map.n_pdfs)).astype(np.float32)
    decoder = Decoder(graph_of(biphones), 0.8)
    assert decoder.nbest_many([logits], 3) == [decoder.nbest(logits, 3)]
    sent = pickle.loads(pickle.dumps(decoder))  # kaldi-decoder's graph stays here
    assert sent.decode_many([logits] * 2) == [decoder.best(logits)] * 2


@pytest.mark.slow  # two new interpreters
def test_processes_find_what_one_finds_and_in_order(biphones) -> None:
    rng = np.random.default_rng(2)
    many = [rng.normal(size=(n, biphones.pdf_map.n_pdfs)).astype(np.float32) for n in (3, 9, 0, 5, 7)]
    decoder = Decoder(graph_of(biphones))
    assert decoder.decode_many(many, jobs=2) == decoder.decode_many(many) == [decoder.best(x) for x in many]
    assert decoder.nbest_many(many, 3, jobs=2) == [decoder.nbest(x, 3) for x in many]


def test_lists_are_written_for_rescoring(biphones, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    decoder = Decoder(graph_of(biphones), 0.7, 0.5)
    lists = []
    for i in range(8):
        logits = rng.normal(size=(8, biphones.pdf_map.n_pdfs)).astype(np.float32)
        hyps = decoder.nbest(logits)
        entry = to_nbest(f"u{i}", hyps, " ".join(hyps[-1].words) or "a", 0.7, 0.5)
        assert list(entry.hyps) == [" ".join(hyp.words) for hyp in hyps] and len(set(entry.hyps)) == len(hyps)
        assert entry.scores == tuple(-hyp.cost(0.7, 0.5) for hyp in hyps)
        lists.append(entry)
    write_nbest(tmp_path / "nbest.jsonl", lists)
    assert read_nbest(tmp_path / "nbest.jsonl") == lists
    found = rescore.run(lists, read_arpa(biphones.arpa), guard=False)
    assert len(found.nbest) == len(lists)
    upside_down = to_nbest("u", decoder.nbest(logits)[::-1], None, 0.7, 0.5)
    assert upside_down.hyps == lists[-1].hyps
