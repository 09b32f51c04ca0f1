"""The aligner against every path of small graphs, enumerated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from greenasr.data.lexicon import Lexicon
from greenasr.decode.align import (
    TranscriptGraph,
    monophone_table,
    transcript_graph,
    viterbi,
)

LEXICON = Lexicon({"AT": (("A", "T"),), "A": (("A",), ("T", "A")), "TOT": (("T", "O", "T"),)})
SIL, A, OH, T = range(4)
LOOP = np.random.default_rng(0).uniform(0.2, 0.9, (4, 3))


def biphone_table() -> np.ndarray:
    """A pdf for each [left, phone, state], but one row for silence."""
    table = np.arange(5 * 4 * 3, dtype=np.int32).reshape(5, 4, 3)
    table[:, SIL] = table[0, SIL]
    return table


def readings(words: list[str], silence_prob: float) -> Iterator[tuple[list[int], float]]:
    """Every phone string of the words with silences put in, and its log probability, by the definition."""
    if not words:
        yield [SIL], 0.0
        return

    def rest(place: int) -> Iterator[tuple[list[int], float]]:
        for gap, p in (([], 1 - silence_prob), ([SIL], silence_prob)):
            if place == len(words):
                yield gap, np.log(p)
                continue
            prons = LEXICON.prons[words[place]]
            for pron in prons:
                here = gap + [LEXICON.phones.index(q) for q in pron]
                for tail, logp in rest(place + 1):
                    yield here + tail, np.log(p / len(prons)) + logp

    yield from rest(0)


def durations(states: int, frames: int) -> Iterator[tuple[int, ...]]:
    if states == 1:
        yield (frames,)
        return
    for first in range(1, frames - states + 2):
        for others in durations(states - 1, frames - first):
            yield (first, *others)


def brute_force(words: list[str], logprobs: np.ndarray, table: np.ndarray, prob: float) -> tuple[float, list]:
    """The best path by trying all: its log probability and its (phone, state) of each frame."""
    best: tuple[float, list] = (-np.inf, [])
    frames = len(logprobs)
    for phones, prior in readings(words, prob):
        lefts = [0] + [1 + p for p in phones]
        states = [(left, p, s) for left, p in zip(lefts, phones, strict=False) for s in range(3)]
        if len(states) > frames:
            continue
        for stay in durations(len(states), frames):
            total, t = prior, 0
            for (left, p, s), n in zip(states, stay, strict=True):
                total += logprobs[t : t + n, table[left, p, s]].sum()
                total += (n - 1) * np.log(LOOP[p, s]) + np.log(1 - LOOP[p, s])
                t += n
            if total > best[0]:
                path = [(p, s) for (_, p, s), n in zip(states, stay, strict=True) for _ in range(n)]
                best = (total, path)
    return best


def scored(graph: TranscriptGraph, frames: int, seed: int, n_pdfs: int) -> tuple[np.ndarray, np.ndarray]:
    every = np.random.default_rng(seed).normal(0, 3, (frames, n_pdfs)).astype(np.float32)
    return every, every[:, graph.pdfs]


CASES = [(["AT"], 8), (["A"], 10), (["A", "A"], 11), (["A", "AT"], 11), (["TOT"], 11), ([], 5), (["A"], 3)]


@pytest.mark.parametrize("table", [monophone_table(4), biphone_table()], ids=["monophones", "biphones"])
def test_viterbi_equals_the_best_of_all_paths(table: np.ndarray) -> None:
    graphs = [transcript_graph(words, LEXICON, table, 0.4) for words, _ in CASES]
    drawn = [
        scored(g, n, seed, int(table.max()) + 1)
        for seed, (g, (_, n)) in enumerate(zip(graphs, CASES, strict=True))
    ]
    found = viterbi(graphs, [mine for _, mine in drawn], LOOP)
    for (words, _), (every, _), alignment in zip(CASES, drawn, found, strict=True):
        best, path = brute_force(words, every, table, 0.4)
        assert alignment is not None
        assert alignment.logprob == pytest.approx(best, rel=1e-6)
        assert list(zip(alignment.phone.tolist(), alignment.state.tolist(), strict=True)) == path


def test_utterances_do_not_see_their_batch() -> None:
    table = biphone_table()
    draw = np.random.default_rng(5)
    graphs = [
        transcript_graph(list(draw.choice(["AT", "A", "TOT"], n)), LEXICON, table) for n in (1, 6, 3, 9)
    ]
    scores = [scored(g, 140 - 20 * i, i, 60)[1] for i, g in enumerate(graphs)]
    together = viterbi(graphs, scores, LOOP)
    for graph, mine, found in zip(graphs, scores, together, strict=True):
        alone = viterbi([graph], [mine], LOOP, cells=1)[0]
        assert alone is not None and found is not None
        assert alone.logprob == found.logprob and (alone.state == found.state).all()


def test_the_path_is_worth_what_it_is_said_to_be() -> None:
    table = biphone_table()
    words = ["A", "TOT", "AT"]
    graph = transcript_graph(words, LEXICON, table, 0.4)
    every, mine = scored(graph, 60, 3, 60)
    found = viterbi([graph], [mine], LOOP)[0]
    assert found is not None
    total = every[np.arange(60), table[found.left, found.phone, found.state]].sum()
    new = np.append(np.diff(found.state) != 0, True)
    p = LOOP[found.phone, found.state]
    total += np.where(new, np.log(1 - p), np.log(p)).sum()
    string = [s.phone for s in found.segments]
    total += max(prior for phones, prior in readings(words, 0.4) if phones == string)
    assert found.logprob == pytest.approx(total, rel=1e-6)


def test_an_utterance_shorter_than_its_phones_has_no_path_and_leaves_the_others_alone() -> None:
    graph = transcript_graph(["TOT", "A"], LEXICON, monophone_table(4))
    assert graph.shortest == 12
    scores = [np.zeros((n, len(graph.pdfs)), np.float32) for n in (11, 12, 20)]
    short, exact, long = viterbi([graph] * 3, scores, LOOP)
    assert short is None and exact is not None and long is not None
    assert [s.phone for s in exact.segments] == [T, OH, T, A]


def test_bad_input_is_named() -> None:
    table = monophone_table(4)
    with pytest.raises(
        ValueError, match="utt7: word 2, 'NONE', has no pronunciation in the lexicon of 3 words"
    ):
        transcript_graph(["A", "NONE"], LEXICON, table, where="utt7")
    graph = transcript_graph(["A"], LEXICON, table)
    bad = np.zeros((9, len(graph.pdfs)), np.float32)
    with pytest.raises(ValueError, match="utterance 0 has log probabilities .9, 2., its transcript has"):
        viterbi([graph], [bad[:, :2]], LOOP)
    bad[3, 0] = np.nan
    with pytest.raises(ValueError, match="utterance 0 has log probabilities that are not finite"):
        viterbi([graph], [bad], LOOP)
