"""K best different word sequences of a lattice, each by its best path, with graph and acoustic costs apart.

    D(s) = the K cheapest of { (h·o, c + w) : arc r --o/w--> s, (h, c) in D(r) }, one entry a word sequence
    w = graph + scale · acoustic + penalty · (o is a word)

Exact: a sequence that K others precede at a state is preceded by K wherever the state leads.  The lattice
is acyclic, so every state is settled once, after all that lead to it; a state with one way in takes over its
predecessor's list with a shift, which is most states of a raw lattice.  This is what determinization would do
to the words, kept to K (Mohri and Riley 2002, "An efficient algorithm for the n-best-strings problem").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from greenasr.decode.fst import Ints, Lattice


@dataclass(frozen=True, eq=False)
class Path:
    """One way through a lattice: word labels, input labels (one a frame), costs without scale and penalty."""

    words: tuple[int, ...]
    ilabels: Ints
    graph: float
    acoustic: float


def topological(lattice: Lattice) -> list[int]:
    """The states, each after all that lead to it; ValueError if the lattice has a cycle."""
    waiting = np.bincount(lattice.dst, minlength=lattice.n_states).tolist()
    first = np.searchsorted(lattice.src, np.arange(lattice.n_states + 1)).tolist()
    dst = lattice.dst.tolist()
    order = [state for state, ways in enumerate(waiting) if not ways]
    for state in order:
        for a in range(first[state], first[state + 1]):
            to = dst[a]
            waiting[to] -= 1
            if not waiting[to]:
                order.append(to)
    if len(order) < lattice.n_states:
        raise ValueError(
            f"the lattice has a cycle among {lattice.n_states - len(order)} of {lattice.n_states} states; a "
            "raw lattice of the decoder has none."
        )
    return order


def kbest(lattice: Lattice, n: int, acoustic_scale: float = 1.0, word_penalty: float = 0.0) -> list[Path]:
    """The ``n`` cheapest paths of different word sequences, cheapest first; fewer where there are fewer."""
    if n < 1:
        raise ValueError(f"{n} hypotheses are asked for, expected at least 1.")
    if not lattice.n_states:
        return []
    arc_cost = lattice.graph + acoustic_scale * lattice.acoustic + word_penalty * (lattice.olabel > 0)
    src, olabel, weight = lattice.src.tolist(), lattice.olabel.tolist(), arc_cost.tolist()
    by_dst = np.argsort(lattice.dst, kind="stable").tolist()
    first = np.searchsorted(lattice.dst[by_dst], np.arange(lattice.n_states + 1)).tolist()
    # A state's list: costs (less its shift) in order, their word sequences as nodes of a tree, and
    # for each the arc and the place in the list before that it came by (None: the only arc, the same place).
    costs: list[list[float]] = [[] for _ in range(lattice.n_states)]
    nodes: list[list[int]] = [[] for _ in range(lattice.n_states)]
    shift = [0.0] * lattice.n_states
    came: list[list[tuple[int, int]] | None] = [None] * lattice.n_states
    tree: dict[tuple[int, int], int] = {}  # (sequence, word) -> sequence one word longer; 0 is empty
    costs[lattice.start], nodes[lattice.start] = [0.0], [0]
    for state in topological(lattice):
        ways = [a for a in by_dst[first[state] : first[state + 1]] if costs[src[a]]]
        if len(ways) == 1:
            a = ways[0]
            before, word = src[a], olabel[a]
            costs[state], shift[state] = costs[before], shift[before] + weight[a]
            nodes[state] = nodes[before]
            if word:
                nodes[state] = [tree.setdefault((node, word), len(tree) + 1) for node in nodes[before]]
            came[state] = [(a, -1)]
        elif ways:
            best: dict[int, tuple[float, int, int]] = {}
            for a in ways:
                before, word = src[a], olabel[a]
                more = shift[before] + weight[a]
                for place, (cost, node) in enumerate(zip(costs[before], nodes[before], strict=True)):
                    if word:
                        node = tree.setdefault((node, word), len(tree) + 1)
                    known = best.get(node)
                    if known is None or cost + more < known[0]:
                        best[node] = (cost + more, a, place)
            ranked = sorted(best.items(), key=lambda item: item[1])[:n]
            costs[state] = [entry[0] for _, entry in ranked]
            nodes[state] = [node for node, _ in ranked]
            came[state] = [(entry[1], entry[2]) for _, entry in ranked]
    last = (lattice.final @ np.array([1.0, acoustic_scale])).tolist()
    ends: dict[int, tuple[float, int, int]] = {}
    for state in np.flatnonzero(np.isfinite(lattice.final).all(axis=1)).tolist():
        for place, (cost, node) in enumerate(zip(costs[state], nodes[state], strict=True)):
            total = cost + shift[state] + last[state]
            if node not in ends or total < ends[node][0]:
                ends[node] = (total, state, place)
    ranked_ends = sorted(ends.values())[:n]
    return [_path(lattice, _trace(state, place, came, src)[::-1], state) for _, state, place in ranked_ends]


def _trace(state: int, place: int, came: list[list[tuple[int, int]] | None], src: list[int]) -> list[int]:
    """The arcs that led to one entry of a state's list, last first."""
    arcs = []
    while (ways := came[state]) is not None:
        only = ways[0][1] < 0
        arc, before = ways[0] if only else ways[place]
        arcs.append(arc)
        place = place if only else before
        state = src[arc]
    return arcs


def _path(lattice: Lattice, arcs: list[int], state: int) -> Path:
    ilabels, olabels = lattice.ilabel[arcs], lattice.olabel[arcs]
    graph = math.fsum([*lattice.graph[arcs], lattice.final[state, 0]])
    acoustic = math.fsum([*lattice.acoustic[arcs], lattice.final[state, 1]])
    return Path(tuple(olabels[olabels > 0].tolist()), ilabels[ilabels > 0], graph, acoustic)
