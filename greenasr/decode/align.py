"""Forced alignment: the best path of an utterance's frames through the HMM of its transcript.

    δ_0(s) = log π(s) + log p(x_0 | s)
    δ_t(s) = max_r [ δ_{t-1}(r) + log a(r, s) ] + log p(x_t | s)          Viterbi 1967; no beam: exact

The HMM holds every pronunciation of every word and optional silence before, between and after words.
Each phone, silence too, is states 0, 1, 2 from left to right, none skipped, so that a phone takes at least
three frames.  A word's first phone is copied once for each different row of pdfs that the possible left
phones give it, hence the same code aligns monophones and states tied by left context.

Many utterances run at once.  Within a phone a transition is a shift by one place; only a phone's first
state has other predecessors, and those are gathered from a table.  Scores of all frames are kept instead of
back-pointers, and the choices are made again along the best path alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from greenasr.data.lexicon import Lexicon
from greenasr.decode.alignment import N_STATES, Alignment
from greenasr.decode.context import BOUNDARY

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Feats = npt.NDArray[np.float32]

NEVER = -np.inf


@dataclass(frozen=True, eq=False)
class TranscriptGraph:
    """The HMM of one transcript: S states, in each phone one after the other.

    ``phone``, ``state`` (S,), and ``column`` (S,): the state's place in ``pdfs`` (U,), the different pdfs.
    ``entries`` are the states that a phone begins with; ``before`` (D, E) the states that may come before
    each, padded with S, and ``weight`` (D, E) the arcs' log probabilities.  ``initial`` and ``final`` (S,)
    are log probabilities, -inf where a path neither begins nor ends.  ``shortest`` counts the frames of the
    shortest path.
    """

    phone: Ints
    state: Ints
    column: Ints
    pdfs: Ints
    entries: Ints
    before: Ints
    weight: Floats
    initial: Floats
    final: Floats
    shortest: int


class _Exit(NamedTuple):
    """Where the next phone may go: after phone number ``place`` (-1 the start), of context ``left``."""

    place: int
    left: int
    logprob: float
    frames: int


def monophone_table(n_phones: int) -> npt.NDArray[np.int32]:
    """Pdf of [left, phone, state] without context, (P + 1, P, 3).

    >>> monophone_table(2)[0].tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    one = np.arange(n_phones * N_STATES, dtype=np.int32).reshape(1, n_phones, N_STATES)
    return np.repeat(one, n_phones + 1, axis=0)


def transcript_graph(
    words: Sequence[str],
    lexicon: Lexicon,
    table: npt.NDArray[np.integer],
    silence_prob: float = 0.5,
    where: str = "transcript",
) -> TranscriptGraph:
    """The HMM of ``words``; ``table`` (P + 1, P, 3) gives the pdf of [left, phone, state].

    Pronunciations of a word are equally probable, silence between words has probability ``silence_prob``.
    No words at all are silence.  ``where`` names the transcript in errors.
    """
    ids = {phone: index for index, phone in enumerate(lexicon.phones)}
    phones: list[int] = []
    pdfs: list[npt.NDArray[np.integer]] = []
    arcs: list[list[tuple[int, float]]] = []  # into each phone: (place of the phone before, log probability)

    def followed(exits: Sequence[_Exit], phone: int, logprob: float) -> list[_Exit]:
        """Put ``phone`` after the exits: one copy for each different row of pdfs."""
        copies: dict[bytes, list[_Exit]] = {}
        for exit_ in exits:
            copies.setdefault(table[exit_.left, phone].tobytes(), []).append(exit_)
        made = []
        for group in copies.values():
            arcs.append([(e.place, e.logprob + logprob) for e in group])
            phones.append(phone)
            pdfs.append(table[group[0].left, phone])
            frames = min(e.frames for e in group) + N_STATES
            made.append(_Exit(len(phones) - 1, 1 + phone, 0.0, frames))
        return made

    def silence(exits: Sequence[_Exit]) -> list[_Exit]:
        loud = [e._replace(logprob=e.logprob + np.log1p(-silence_prob)) for e in exits]
        return loud + followed(exits, ids[lexicon.silence], np.log(silence_prob))

    exits = [_Exit(-1, BOUNDARY, 0.0, 0)]
    if not words:
        exits = followed(exits, ids[lexicon.silence], 0.0)
    for place, word in enumerate(words):
        if not lexicon.prons.get(word):
            raise ValueError(
                f"{where}: word {place + 1}, '{word}', has no pronunciation in the lexicon of "
                f"{len(lexicon.prons)} words. Add it to the lexicon or leave the utterance out."
            )
        exits = silence(exits)
        ends: list[_Exit] = []
        for pron in lexicon.prons[word]:
            path = exits
            for k, phone in enumerate(pron):
                path = followed(path, ids[phone], -np.log(len(lexicon.prons[word])) if k == 0 else 0.0)
            ends += path
        exits = ends
    if words:
        exits = silence(exits)
    return _packed(np.array(phones), np.array(pdfs, np.int64), arcs, exits)


def _packed(
    phones: Ints, pdfs: Ints, arcs: Sequence[Sequence[tuple[int, float]]], exits: Sequence[_Exit]
) -> TranscriptGraph:
    states = len(phones) * N_STATES
    used, column = np.unique(pdfs.ravel(), return_inverse=True)
    initial, final = np.full(states, NEVER), np.full(states, NEVER)
    entries = np.arange(len(phones)) * N_STATES
    inner = [[(r, p) for r, p in into if r >= 0] for into in arcs]
    before = np.full((max(map(len, inner), default=0), len(phones)), states)
    weight = np.full(before.shape, NEVER)
    for n, into in enumerate(arcs):
        for r, logprob in into:
            if r < 0:
                initial[n * N_STATES] = logprob
        for d, (r, logprob) in enumerate(inner[n]):
            before[d, n], weight[d, n] = r * N_STATES + N_STATES - 1, logprob
    for exit_ in exits:
        final[exit_.place * N_STATES + N_STATES - 1] = exit_.logprob
    return TranscriptGraph(
        phone=np.repeat(phones, N_STATES),
        state=np.tile(np.arange(N_STATES), len(phones)),
        column=column.reshape(-1),
        pdfs=used,
        entries=entries,
        before=before,
        weight=weight,
        initial=initial,
        final=final,
        shortest=min(e.frames for e in exits),
    )


def viterbi(
    graphs: Sequence[TranscriptGraph], logprobs: Sequence[Feats], loop: Floats, cells: int = 4_000_000
) -> list[Alignment | None]:
    """Best paths of utterances, the i-th from ``graphs[i]`` and ``logprobs[i]`` (T_i, U_i) of its ``pdfs``.

    ``loop`` (P, 3) is the probability of staying in a state of a phone.  None stands where an utterance is
    shorter than its shortest path.  At most ``cells`` scores (8 bytes each) are held at once, or one
    utterance's.  Raises ValueError for log probabilities that are not finite.
    """
    for i, (graph, scores) in enumerate(zip(graphs, logprobs, strict=True)):
        if scores.shape[1:] != graph.pdfs.shape:
            raise ValueError(
                f"utterance {i} has log probabilities {scores.shape}, its transcript has "
                f"{len(graph.pdfs)} pdfs. Score its frames against graph.pdfs."
            )
        if not np.isfinite(scores).all():
            raise ValueError(
                f"utterance {i} has log probabilities that are not finite. Look for NaN in its features."
            )
    log_loop, log_leave = np.log(loop), np.log1p(-loop)
    found: list[Alignment | None] = [None] * len(graphs)
    long_enough = [i for i, g in enumerate(graphs) if len(logprobs[i]) >= g.shortest]
    for batch in _batches(graphs, logprobs, long_enough, cells):
        paths = _best_paths([graphs[i] for i in batch], [logprobs[i] for i in batch], log_loop, log_leave)
        for i, (path, logprob) in zip(batch, paths, strict=True):
            found[i] = Alignment(graphs[i].phone[path], graphs[i].state[path], logprob)
    return found


def _batches(
    graphs: Sequence[TranscriptGraph], logprobs: Sequence[Feats], which: Sequence[int], cells: int
) -> Iterator[list[int]]:
    """Utterances of like length together, as many as ``cells`` hold."""
    batch: list[int] = []
    frames = states = 0
    for i in sorted(which, key=lambda i: (len(logprobs[i]), i)):
        longer, wider = max(frames, len(logprobs[i])), max(states, len(graphs[i].phone))
        if batch and longer * wider * (len(batch) + 1) > cells:
            yield batch
            batch, longer, wider = [], len(logprobs[i]), len(graphs[i].phone)
        batch.append(i)
        frames, states = longer, wider
    if batch:
        yield batch


def _best_paths(
    graphs: Sequence[TranscriptGraph], logprobs: Sequence[Feats], log_loop: Floats, log_leave: Floats
) -> list[tuple[Ints, float]]:
    n, s_max = len(graphs), 1 + max(len(g.phone) for g in graphs)  # the last place is never reached
    lens = np.array([len(scores) for scores in logprobs])
    t_max = int(lens.max())
    d_max = max((len(g.before) for g in graphs), default=0)
    e_max = max(len(g.entries) for g in graphs)

    emit: Feats = np.full((t_max, n, s_max), NEVER, np.float32)
    stay, shift, leave, initial, final = (np.full((n, s_max), NEVER) for _ in range(5))
    before, weight = np.full((d_max, n, e_max), s_max - 1), np.full((d_max, n, e_max), NEVER)
    entry, entries = np.full((n, s_max), e_max), np.full((n, e_max), s_max - 1)
    for i, (graph, scores) in enumerate(zip(graphs, logprobs, strict=True)):
        s, e, d = len(graph.phone), len(graph.entries), len(graph.before)
        emit[: len(scores), i, :s] = scores[:, graph.column]
        stay[i, :s] = log_loop[graph.phone, graph.state]
        leave[i, :s] = log_leave[graph.phone, graph.state]
        shift[i, :s] = np.where(graph.state < N_STATES - 1, leave[i, :s], NEVER)
        initial[i, :s] = graph.initial
        final[i, :s] = graph.final + leave[i, :s]
        before[:d, i, :e] = np.where(graph.before < s, graph.before, s_max - 1)
        weight[:d, i, :e] = graph.weight + leave[i, before[:d, i, :e]]
        entry[i, graph.entries] = np.arange(e)
        entries[i, :e] = graph.entries

    row = np.arange(n)[:, None] * s_max
    flat_before, flat_entries = (before + row).reshape(d_max, n * e_max), (entries + row).ravel()
    flat_weight = weight.reshape(d_max, n * e_max)
    delta = np.empty((t_max, n, s_max))
    delta[0] = initial + emit[0]
    for t in range(1, t_max):
        last, now = delta[t - 1], delta[t]
        np.add(last, stay, out=now)
        np.maximum(now[:, 1:], last[:, :-1] + shift[:, :-1], out=now[:, 1:])
        if d_max:
            arrive = (last.ravel()[flat_before] + flat_weight).max(0)
            # entries are distinct but for padding, whose place is -inf before and after
            flat = now.reshape(-1)
            flat[flat_entries] = np.maximum(flat[flat_entries], arrive)
        now += emit[t]

    lane = np.arange(n)
    ends = delta[lens - 1, lane] + final
    place = ends.argmax(1)
    total = ends[lane, place]
    path = np.empty((n, t_max), np.int64)
    # one more column for states that are no entry
    pads = [(0, 0), (0, 0), (0, 1)]
    before, weight = (
        np.pad(before, pads, constant_values=s_max - 1),
        np.pad(weight, pads, constant_values=NEVER),
    )
    for t in range(t_max - 1, -1, -1):
        path[:, t] = place
        if t == 0:
            break
        last, e = delta[t - 1], entry[lane, place]
        come = np.vstack([place, np.maximum(place - 1, 0), before[:, lane, e]])
        cost = np.vstack([stay[lane, place], shift[lane, come[1]], weight[:, lane, e]])
        cost[1, place == 0] = NEVER
        choice = (last[lane, come] + cost).argmax(0)
        place = np.where(t < lens, come[choice, lane], place)
    return [(path[i, : lens[i]], float(total[i])) for i in range(n)]
