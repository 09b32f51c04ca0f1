"""K-best word sequences against every path of small lattices."""

from __future__ import annotations

import numpy as np
import pytest

from greenasr.decode.fst import Lattice
from greenasr.decode.lattice import kbest, topological


def random_lattice(rng: np.random.Generator, n_states: int = 9, n_arcs: int = 22) -> Lattice:
    """States in no useful order; half of the arcs carry one of two words, a third no input."""
    name = rng.permutation(n_states)
    ends = np.sort(np.array([rng.choice(n_states, 2, replace=False) for _ in range(n_arcs)]), axis=1)
    ends = np.concatenate([ends, [[i, i + 1] for i in range(n_states - 1)]])
    src, dst = name[ends].T
    order = np.argsort(src, kind="stable")
    count = len(src)
    olabel = rng.integers(0, 3, count) * rng.integers(0, 2, count)
    ilabel = rng.integers(1, 9, count) * (rng.random(count) < 0.67)
    final = np.full((n_states, 2), np.inf)
    final[name[-1]], final[name[-3]] = rng.normal(size=2), rng.normal(size=2)
    return Lattice(
        int(name[0]),
        final,
        src[order],
        dst[order],
        ilabel,
        olabel,
        rng.normal(size=count),
        rng.normal(size=count),
    )


def every_path(lattice: Lattice) -> list[tuple[tuple[int, ...], tuple[int, ...], float, float]]:
    """(words, inputs, graph, acoustic) of all paths."""
    paths = []
    stack = [(lattice.start, (), (), 0.0, 0.0)]
    while stack:
        state, words, inputs, graph, acoustic = stack.pop()
        if np.isfinite(lattice.final[state]).all():
            g, a = lattice.final[state]
            paths.append((words, inputs, graph + g, acoustic + a))
        for at in np.flatnonzero(lattice.src == state):
            word, label = int(lattice.olabel[at]), int(lattice.ilabel[at])
            stack.append(
                (
                    int(lattice.dst[at]),
                    words + ((word,) if word else ()),
                    inputs + ((label,) if label else ()),
                    graph + lattice.graph[at],
                    acoustic + lattice.acoustic[at],
                )
            )
    return paths


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("scale", "penalty"), [(1.0, 0.0), (0.3, -0.7), (2.0, 1.5)])
def test_kbest_equals_enumeration(seed: int, scale: float, penalty: float) -> None:
    lattice = random_lattice(np.random.default_rng(seed))
    cheapest: dict[tuple[int, ...], tuple[float, tuple[int, ...], float, float]] = {}
    for words, inputs, graph, acoustic in every_path(lattice):
        entry = (graph + scale * acoustic + penalty * len(words), inputs, graph, acoustic)
        cheapest[words] = min(entry, cheapest.get(words, (np.inf, (), 0.0, 0.0)))
    expected = sorted((entry, words) for words, entry in cheapest.items())
    for n in (1, 3, 20, 10_000):
        found = kbest(lattice, n, scale, penalty)
        assert [path.words for path in found] == [words for _, words in expected[:n]]
        for path, ((_, inputs, graph, acoustic), _) in zip(found, expected[:n], strict=True):
            assert tuple(path.ilabels) == inputs
            assert (path.graph, path.acoustic) == (pytest.approx(graph), pytest.approx(acoustic))


def test_topological_order_puts_every_state_after_those_that_lead_to_it() -> None:
    lattice = random_lattice(np.random.default_rng(3))
    place = np.argsort(topological(lattice))
    assert (place[lattice.src] < place[lattice.dst]).all()


def test_a_cycle_and_a_list_of_none_are_refused_and_an_empty_lattice_has_no_path() -> None:
    one, zero = np.ones(1, np.int64), np.zeros(1, np.int64)
    loop = Lattice(0, np.zeros((1, 2)), zero, zero, one, one, np.zeros(1), np.zeros(1))
    with pytest.raises(ValueError, match="cycle among 1 of 1 states"):
        kbest(loop, 1)
    with pytest.raises(ValueError, match="0 hypotheses"):
        kbest(loop, 0)
    nothing = zero[:0]
    empty = Lattice(0, np.zeros((0, 2)), nothing, nothing, nothing, nothing, np.zeros(0), np.zeros(0))
    assert kbest(empty, 5) == []
