"""The two graphs of LF-MMI: what was said, and all that the phone n-gram allows.

    denominator = H ∘ C ∘ P            H one state a phone, C left context, P the phone n-gram
    numerator   = H ∘ C ∘ (P ∘ W)      W every way to say the transcript, each phone string once

Both take arcs and weights from the same P, and W is made deterministic before it is composed, so each path of
the numerator is one of the denominator with the same weight, and ln p_num <= ln p_den for every utterance.

A path begins in the start state of P and ends with P's end: graphs stand for whole utterances.  Kaldi trains
on chunks, which begin with the state occupancy of 100 frames and may end anywhere; here that occupancy is
only where the leak goes (`Graph.occupancy`).  A state goes on or stays with probability 1/2 each; Kaldi has 1
and 1, which adds the same constant a frame to both graphs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from greenasr.decode.context import PdfMap
from greenasr.decode.phone_lm import PhoneLm, PhoneNet, Prons, phone_net
from greenasr.ops.lfmmi import Graph

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
HALF = math.log(0.5)  # to stay, or to go on


def denominator_graph(phone_lm: PhoneLm, pdf_map: PdfMap) -> Graph:
    """Everything that the phone n-gram allows, as pdfs."""
    _check_phones(phone_lm, pdf_map)
    arcs = (phone_lm.src, phone_lm.symbol, phone_lm.dst, phone_lm.logprob)
    return _chain(*arcs, phone_lm.last, phone_lm.final, pdf_map)


def numerator_graph(
    words: Sequence[Prons], phone_lm: PhoneLm, pdf_map: PdfMap, *, optional_silence: bool = True
) -> Graph:
    """What the pronunciations of a transcript's words can emit, weighted by the phone n-gram.

    Silence may stand between words and at both ends.  Of a transcript that the n-gram does not allow (phones
    in an order never seen in training) a graph without arcs remains; the loss skips and counts it.
    """
    _check_phones(phone_lm, pdf_map)
    chance = 0.5 if optional_silence else 0.0  # only whether it may be there matters
    arcs, states, final = _compose(phone_net(words, phone_lm.phones, chance, chance), phone_lm)
    if not arcs:
        nothing = torch.full((1,), -math.inf)
        none = torch.zeros(0, dtype=torch.int64)
        return Graph(none, none, none, torch.zeros(0), nothing, nothing)
    src, symbol, dst = np.array([arc[:3] for arc in arcs], np.int64).T
    logprob = np.array([arc[3] for arc in arcs])
    return _chain(src, symbol, dst, logprob, phone_lm.last[states], np.array(final), pdf_map)


def _check_phones(phone_lm: PhoneLm, pdf_map: PdfMap) -> None:
    if phone_lm.phones != pdf_map.phones:
        raise ValueError(
            f"the phone n-gram has {len(phone_lm.phones)} phones, the pdf map {len(pdf_map.phones)}, or in "
            "another order: make both from one lexicon"
        )


def _compose(
    net: PhoneNet, phone_lm: PhoneLm
) -> tuple[list[tuple[int, int, int, float]], list[int], list[float]]:
    """P ∘ W, deterministic and without dead ends: arcs, and of each state that of P and the final weight.

    A state is the nodes of W that the phones so far may have led to, and the state of P.
    """
    following, lm_final = phone_lm.following, phone_lm.final
    todo: list[tuple[tuple[int, ...], int]] = [((0,), 0)]
    number = {todo[0]: 0}
    arcs: list[tuple[int, int, int, float]] = []
    final = []
    for src, (nodes, state) in enumerate(todo):  # grows
        targets: dict[int, set[int]] = {}
        for node in nodes:
            for symbol, target, _ in net.arcs[node]:
                targets.setdefault(symbol, set()).add(target)
        for symbol, reached in targets.items():
            step = following[state].get(symbol)
            if step is not None:
                key = (tuple(sorted(reached)), step[0])
                dst = number.setdefault(key, len(todo))
                if dst == len(todo):
                    todo.append(key)
                arcs.append((src, symbol, dst, step[1]))
        ends = any(node in net.final for node in nodes)
        final.append(float(lm_final[state]) if ends else -math.inf)
    return _trim(arcs, [state for _, state in todo], final)


def _trim(
    arcs: list[tuple[int, int, int, float]], states: list[int], final: list[float]
) -> tuple[list[tuple[int, int, int, float]], list[int], list[float]]:
    """Drop states that lead to no end, number the rest anew; state 0 stays."""
    into: list[list[int]] = [[] for _ in states]
    for src, _, dst, _ in arcs:
        into[dst].append(src)
    todo = [s for s, weight in enumerate(final) if weight > -math.inf]
    alive = set(todo)
    while todo:
        for src in into[todo.pop()]:
            if src not in alive:
                alive.add(src)
                todo.append(src)
    if len(alive) == len(states):
        return arcs, states, final
    if 0 not in alive:
        return [], [], []
    order = sorted(alive)
    new = {old: n for n, old in enumerate(order)}
    kept = [(new[src], symbol, new[dst], w) for src, symbol, dst, w in arcs if src in new and dst in new]
    return kept, [states[s] for s in order], [final[s] for s in order]


def _chain(
    src: Ints, symbol: Ints, dst: Ints, logprob: Floats, last: Ints, final: Floats, pdf_map: PdfMap
) -> Graph:
    """H ∘ C of a phone automaton whose states remember their ``last`` symbol; state 0 begins.

    A state of the result is a phone in context: the automaton's state after it, and the symbol before.  Every
    arc into it emits the entry pdf, its loop the loop pdf.
    """
    n_left = len(pdf_map.phones) + 1
    pairs, place = np.unique(dst * n_left + last[src], return_inverse=True)
    state = np.concatenate([[0], pairs // n_left])  # of the automaton; 0 is the start
    left = pairs % n_left
    phone = last[state[1:]] - 1

    order = np.argsort(src, kind="stable")
    counts = np.bincount(src, minlength=len(last))
    first = np.cumsum(counts) - counts
    out = counts[state]
    begin = np.repeat(np.arange(len(state)), out)
    offset = np.arange(len(begin)) - np.repeat(np.cumsum(out) - out, out)
    arc = order[np.repeat(first[state], out) + offset]

    stay = np.arange(1, len(state))
    leave = np.where(np.arange(len(state)) == 0, 0.0, HALF)
    initial = np.full(len(state), -math.inf)
    initial[0] = 0.0
    return Graph(
        _ids(begin, stay),
        _ids(place[arc] + 1, stay),
        _ids(pdf_map.table[last[src[arc]], symbol[arc] - 1, 0], pdf_map.table[left, phone, 1]),
        _weights(logprob[arc] + leave[begin], np.full(len(stay), HALF)),
        _weights(initial),
        _weights(final[state] + leave),
    )


def _ids(*parts: NDArray[np.integer]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def _weights(*parts: Floats) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))
