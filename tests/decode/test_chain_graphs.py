"""Numerator and denominator hold the paths of the phone n-gram, each with its weight, in pdfs."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from greenasr.decode.chain_graphs import denominator_graph, numerator_graph
from greenasr.decode.context import PdfMap
from greenasr.decode.phone_lm import PhoneLm, Prons, estimate, left_counts, phone_net
from greenasr.ops.lfmmi import Graph, lfmmi

PHONES = ("SIL", "A", "B", "C")
TRANSCRIPTS: list[list[Prons]] = [
    [[("A", "B")], [("C",), ("B", "A")]],
    [[("A",), ("A", "B")], [("B", "C"), ("C",)], [("A",)]],  # A|BC and AB|C sound the same
    [[("C", "C", "A")]],
]
BIPHONES = PdfMap.left_biphone(PHONES, left_counts(TRANSCRIPTS, PHONES), 0.5)
MAPS = [PdfMap.monophone(PHONES), BIPHONES]


def pdf_strings(graph: Graph, frames: int) -> Counter[tuple[int, ...]]:
    """Pdf sequence of every path -> probability, and no path twice."""
    out: Counter[tuple[int, ...]] = Counter()
    arcs = list(
        zip(graph.src.tolist(), graph.dst.tolist(), graph.pdf.tolist(), graph.logprob.tolist(), strict=True)
    )
    todo = [(int(s), (), float(graph.initial[s])) for s in graph.initial.isfinite().nonzero()[:, 0]]
    while todo:
        state, pdfs, weight = todo.pop()
        if len(pdfs) == frames:
            if graph.final[state] > -math.inf:
                out[pdfs] += math.exp(weight + float(graph.final[state]))  # type: ignore[assignment]
        else:
            todo += [(d, (*pdfs, pdf), weight + w) for s, d, pdf, w in arcs if s == state]
    return out


def emitted(phones: tuple[str, ...], frames: int, pdf_map: PdfMap, weight: float) -> Counter[tuple[int, ...]]:
    """The pdf sequences of a phone string: every way to share the frames out."""
    out: Counter[tuple[int, ...]] = Counter()
    for cuts in itertools.combinations(range(1, frames), len(phones) - 1):
        left, pdfs = 0, []
        for phone, begin, end in zip(phones, (0, *cuts), (*cuts, frames), strict=True):
            entry, loop = pdf_map.table[left, PHONES.index(phone)].tolist()
            pdfs += [entry] + [loop] * (end - begin - 1)
            left = 1 + PHONES.index(phone)
        out[tuple(pdfs)] += weight * 0.5**frames  # type: ignore[assignment]
    return out


def sounds(words: list[Prons], silence: bool) -> set[tuple[str, ...]]:
    """Every phone string of a transcript, once."""
    net = phone_net(words, PHONES, 0.5 * silence, 0.5 * silence)
    out, todo = set(), [(0, ())]
    while todo:
        node, said = todo.pop()
        out |= {said} if node in net.final else set()
        todo += [(target, (*said, PHONES[symbol - 1])) for symbol, target, _ in net.arcs[node]]
    return out


@pytest.mark.parametrize("pdf_map", MAPS, ids=["monophone", "biphone"])
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("silence", [False, True])
def test_a_numerator_is_every_sound_of_its_words_once(pdf_map: PdfMap, order: int, silence: bool) -> None:
    lm = estimate(TRANSCRIPTS, PHONES, order, extra_states=3)
    for words in TRANSCRIPTS:
        expected: Counter[tuple[int, ...]] = Counter()
        for said in sounds(words, silence):
            expected.update(emitted(said, 5, pdf_map, math.exp(lm.logprob_of(said))))
        graph = numerator_graph(words, lm, pdf_map, optional_silence=silence)
        assert pdf_strings(graph, 5) == pytest.approx(dict(expected), rel=1e-5)


@pytest.mark.parametrize("pdf_map", MAPS, ids=["monophone", "biphone"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_denominator_is_every_phone_string_that_the_ngram_allows(pdf_map: PdfMap, order: int) -> None:
    lm = estimate(TRANSCRIPTS, PHONES, order, extra_states=3)
    expected: Counter[tuple[int, ...]] = Counter()
    for n in range(1, 5):
        for said in itertools.product(PHONES, repeat=n):
            if (logprob := lm.logprob_of(said)) > -math.inf:
                expected.update(emitted(said, 4, pdf_map, math.exp(logprob)))
    assert pdf_strings(denominator_graph(lm, pdf_map), 4) == pytest.approx(dict(expected), rel=1e-5)


def outgoing(graph: Graph) -> torch.Tensor:
    return graph.final.exp().index_add(0, graph.src, graph.logprob.exp())


@pytest.mark.parametrize("order", [2, 3, 4])
def test_what_leaves_a_state_of_the_denominator_sums_to_one(order: int) -> None:
    graph = denominator_graph(estimate(TRANSCRIPTS, PHONES, order, extra_states=3), BIPHONES)
    torch.testing.assert_close(outgoing(graph), torch.ones(graph.n_states))


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("leaky", [0.0, 1e-5])
def test_no_numerator_is_above_the_denominator(order: int, leaky: float) -> None:
    lm = estimate(TRANSCRIPTS, PHONES, order, extra_states=3)
    den = denominator_graph(lm, BIPHONES)
    nums = [numerator_graph(words, lm, BIPHONES) for words in TRANSCRIPTS] * 4
    for spread in (0.1, 3.0, 30.0):
        logits = spread * torch.randn(len(nums), 9, BIPHONES.n_pdfs, dtype=torch.float64)
        found = lfmmi(logits, torch.randint(5, 10, (len(nums),)), den, nums, leaky=leaky)
        assert found.skipped == 0 and (found.num <= found.den + 1e-9).all()


def test_a_language_of_one_sound_has_equal_numerator_and_denominator() -> None:
    words: list[Prons] = [[("A", "B")], [("C",)]]
    lm = estimate([words], PHONES, silence=0.0, edge_silence=0.0)
    den = denominator_graph(lm, BIPHONES)
    logits = torch.randn(1, 7, BIPHONES.n_pdfs, dtype=torch.float64)
    found = lfmmi(logits, torch.tensor([7]), den, [numerator_graph(words, lm, BIPHONES)], leaky=0.0, l2=0.0)
    torch.testing.assert_close(found.loss, torch.zeros_like(found.loss), atol=1e-9, rtol=0)


def test_a_transcript_in_an_unseen_order_has_no_path_and_is_skipped() -> None:
    lm = estimate(TRANSCRIPTS, PHONES)
    words: list[Prons] = [[("B", "B")], [("A",)]]
    graphs = [numerator_graph(w, lm, BIPHONES) for w in (words, TRANSCRIPTS[0])]
    assert graphs[0].n_arcs == 0
    logits = torch.randn(2, 8, BIPHONES.n_pdfs)
    found = lfmmi(logits, torch.tensor([8, 8]), denominator_graph(lm, BIPHONES), graphs)
    assert found.skipped == 1 and found.loss.isfinite()


def test_a_pronunciation_the_ngram_does_not_allow_leaves_no_dead_end() -> None:
    lm = estimate(TRANSCRIPTS, PHONES)
    both = numerator_graph([[("A", "B"), ("A", "C", "C", "C")], TRANSCRIPTS[0][1]], lm, BIPHONES)
    one = numerator_graph(TRANSCRIPTS[0], lm, BIPHONES)
    assert (both.n_states, both.n_arcs) == (one.n_states, one.n_arcs)


def test_an_utterance_takes_at_least_one_frame_a_phone() -> None:
    lm = estimate(TRANSCRIPTS, PHONES)
    den, num = denominator_graph(lm, BIPHONES), numerator_graph([[("C", "C", "A")]], lm, BIPHONES)
    logits = torch.randn(2, 3, BIPHONES.n_pdfs)
    found = lfmmi(logits, torch.tensor([3, 2]), den, [num, num])
    assert found.skipped == 1 and found.num.isfinite().tolist() == [True, False]


def test_the_leak_draws_from_all_states_but_the_start() -> None:
    graph = denominator_graph(estimate(TRANSCRIPTS, PHONES), BIPHONES)
    occupancy = graph.occupancy()
    assert occupancy[0] == 0 and (occupancy[1:] > 0).all() and float(occupancy.sum()) == pytest.approx(1)


def test_models_of_other_phones_are_refused() -> None:
    lm: PhoneLm = estimate(TRANSCRIPTS, PHONES)
    with pytest.raises(ValueError, match="n-gram has 4 phones, the pdf map 2"):
        denominator_graph(lm, PdfMap.monophone(("SIL", "A")))
