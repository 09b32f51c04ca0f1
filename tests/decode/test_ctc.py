"""CTC searches against the enumeration of all alignments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from greenasr.decode.ctc import PrefixBeam, align, collapse, greedy, prefix_beam


def logprobs(frames: int, classes: int, seed: int) -> NDArray[np.float64]:
    logits = np.random.default_rng(seed).normal(0, 2, (frames, classes))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def every_path(logp: NDArray[np.float64]) -> list[tuple[tuple[int, ...], float]]:
    paths = itertools.product(range(logp.shape[1]), repeat=len(logp))
    return [(path, sum(float(logp[t, k]) for t, k in enumerate(path))) for path in paths]


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_holds_everything_finds_every_labelling_with_its_probability(seed: int) -> None:
    logp = logprobs(5, 3, seed)
    expected: dict[tuple[int, ...], float] = {}
    for path, score in every_path(logp):
        labels = collapse(path)[0]
        expected[labels] = expected.get(labels, 0.0) + math.exp(score)
    found = prefix_beam(logp, 1000)
    assert {labels: math.exp(score) for labels, score in found} == pytest.approx(expected)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_wider_beams_find_more_of_the_probability_and_never_more_than_there_is() -> None:
    logp = logprobs(6, 3, 7)
    every = dict(prefix_beam(logp, 10_000))
    found = [sum(math.exp(score) for _, score in prefix_beam(logp, beam)) for beam in (1, 4, 16, 10_000)]
    assert found == sorted(found) and found[-1] == pytest.approx(1.0)
    for labels, score in prefix_beam(logp, 4):
        assert score <= every[labels] + 1e-9
    pruned = PrefixBeam(beam=16, nbest=3, prune=3.0)(logp)
    assert len(pruned) == 3 and all(hyp.logprob <= every[hyp.labels] + 1e-9 for hyp in pruned)


def test_alignments_of_one_labelling_add_up_where_greedy_takes_the_best_alone() -> None:
    """Graves's example: blank is likeliest in both frames, the label in one of them likelier."""
    logp = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert greedy(logp).labels == ()
    best = PrefixBeam(beam=4, nbest=2)(logp)
    assert best[0].labels == (1,) and math.exp(best[0].logprob) == pytest.approx(0.64)
    assert math.exp(best[1].logprob) == pytest.approx(0.36)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_says_the_likeliest_path(seed: int) -> None:
    logp = logprobs(5, 3, seed)
    path, score = max(every_path(logp), key=lambda item: item[1])
    found = greedy(logp)
    assert (found.labels, found.frames) == collapse(path) and found.logprob == pytest.approx(score)


@pytest.mark.parametrize("labels", [(1, 2), (1, 1), (), (2, 1, 2), (2, 2, 1)])
def test_an_alignment_is_the_likeliest_path_of_its_labels(labels: tuple[int, ...]) -> None:
    logp = logprobs(6, 3, 3)
    said = [(path, score) for path, score in every_path(logp) if collapse(path)[0] == labels]
    path, score = max(said, key=lambda item: item[1])
    assert align(logp, labels) == (pytest.approx(score), collapse(path)[1])


def test_labels_without_frames_have_no_alignment() -> None:
    with pytest.raises(ValueError, match="2 labels do not fit into 2 frames"):
        align(logprobs(2, 3, 0), (1, 1))
    with pytest.raises(ValueError, match="do not fit into 0 frames"):
        align(np.zeros((0, 3)), (1,))
    assert align(np.zeros((0, 3)), ()) == (0.0, ())


def test_an_utterance_of_no_frames_says_nothing() -> None:
    nothing = np.zeros((0, 3))
    assert greedy(nothing).labels == () and PrefixBeam()(nothing)[0].labels == ()


def test_outputs_that_are_not_numbers_are_refused() -> None:
    for search in (PrefixBeam(), PrefixBeam(beam=1, nbest=1)):
        with pytest.raises(ValueError, match="not numbers"):
            search(np.full((3, 4), np.nan))


def test_a_search_that_cannot_move_is_refused() -> None:
    with pytest.raises(ValueError, match="the beam must be 1 or more"):
        PrefixBeam(beam=4, nbest=5)
