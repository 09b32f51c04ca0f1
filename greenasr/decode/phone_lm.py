"""The phone n-gram of the training transcripts: what the denominator allows, and how likely.

    p(phone | history) = E[c(history phone)] / E[c(history)]     unsmoothed: only what was seen

Counts are expectations over everything that a transcript may sound like: its words' pronunciations, equally
likely, with optional silence between words and at both ends.  (Kaldi's end-to-end recipe draws one such phone
string an utterance, text_to_phones.py, with the same two silence probabilities.)

The model has no back-off arcs, as Kaldi's chain-est-phone-lm: histories of up to two phones are all kept, of
longer ones the ``extra_states`` most frequent; for a history that is not kept its longest kept ending stands.
Symbols are 1 + phone id; 0 is the boundary, before the first phone and after the last.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from greenasr.decode.context import BOUNDARY

Prons = Sequence[Sequence[str]]  # a word's pronunciations
History = tuple[int, ...]
FORMAT = "greenasr phone lm 1"


class PhoneNet(NamedTuple):
    """Every way to say a transcript: from node 0, arcs of symbols to later nodes, and where it may end."""

    arcs: list[list[tuple[int, int, float]]]  # of every node: symbol, next node, probability
    final: dict[int, float]


def phone_net(
    words: Sequence[Prons], phones: Sequence[str], silence: float = 0.2, edge_silence: float = 0.8
) -> PhoneNet:
    """Pronunciations of the words in a row, silence (phone 0) between them and at the ends by chance.

    A silence of probability 0 is left out.  Raises ValueError for a word without a pronunciation, for a phone
    that is not in ``phones``, and for a transcript that can only be empty.

    >>> net = phone_net([[("A",)], [("B", "A"), ("B",)]], ["SIL", "A", "B"], 0.2, 0)
    >>> net.arcs[:3]
    [[(2, 1, 1.0)], [(1, 2, 0.2), (3, 3, 0.4), (3, 5, 0.4)], [(3, 3, 0.5), (3, 5, 0.5)]]
    >>> net.arcs[3:], net.final
    ([[(2, 4, 1.0)], [], []], {4: 1.0, 5: 1.0})
    """
    symbol = {phone: n for n, phone in enumerate(phones, 1)}
    arcs: list[list[tuple[int, int, float]]] = [[]]

    def node() -> int:
        arcs.append([])
        return len(arcs) - 1

    def gap(ends: list[int], chance: float) -> dict[int, float]:
        """Nodes to go on from, each with its probability, after a silence that may be there."""
        if not chance:
            return dict.fromkeys(ends, 1.0)
        after = node()
        for end in ends:
            arcs[end].append((1, after, chance))
        return {end: 1 - chance for end in ends if chance < 1} | {after: 1.0}

    here = gap([0], edge_silence)
    for number, prons in enumerate(words, 1):
        distinct = dict.fromkeys(tuple(pron) for pron in prons)
        if not distinct or not all(distinct):
            raise ValueError(
                f"word {number} of a transcript has an empty pronunciation: give every word phones"
            )
        ends = []
        for pron in distinct:
            try:
                symbols = [symbol[phone] for phone in pron]
            except KeyError as unknown:
                raise ValueError(
                    f"word {number} of a transcript is pronounced {' '.join(pron)}, but {unknown} is none of "
                    f"the {len(phones)} phones. Use the lexicon that the phones are from."
                ) from None
            end = node()
            for start, chance in here.items():
                arcs[start].append((symbols[0], end, chance / len(distinct)))
            for s in symbols[1:]:
                start, end = end, node()
                arcs[start].append((s, end, 1.0))
            ends.append(end)
        here = gap(ends, edge_silence if number == len(words) else silence)
    here.pop(0, None)
    if not here:
        raise ValueError("a transcript without words and without silence has no sound")
    return PhoneNet(arcs, here)


@dataclass(frozen=True, eq=False)
class PhoneLm:
    """A deterministic automaton of histories, state 0 the utterance's start; natural logs.

    Of arcs ``src``, ``symbol``, ``dst`` int64 and ``logprob`` float64 (A,); ``final`` (S,) is -inf where no
    utterance ended.  ``symbol`` is 1 + phone id.
    """

    phones: tuple[str, ...]
    histories: tuple[History, ...]
    src: NDArray[np.int64]
    symbol: NDArray[np.int64]
    dst: NDArray[np.int64]
    logprob: NDArray[np.float64]
    final: NDArray[np.float64]

    @cached_property
    def following(self) -> list[dict[int, tuple[int, float]]]:
        """Of every state: symbol -> next state and log-probability."""
        out: list[dict[int, tuple[int, float]]] = [{} for _ in self.histories]
        arcs = (self.src.tolist(), self.symbol.tolist(), self.dst.tolist(), self.logprob.tolist())
        for src, symbol, dst, logprob in zip(*arcs, strict=True):
            out[src][symbol] = (dst, logprob)
        return out

    @cached_property
    def last(self) -> NDArray[np.int64]:
        """The symbol that each state's history ends in, (S,): the left context of what follows."""
        return np.array([history[-1] for history in self.histories], np.int64)

    def logprob_of(self, phones: Sequence[str]) -> float:
        """Natural log-probability of a phone string and its end; -inf where the model does not allow it."""
        state, total = 0, 0.0
        for phone in phones:
            step = self.following[state].get(1 + self.phones.index(phone)) if phone in self.phones else None
            if step is None:
                return -math.inf
            state, total = step[0], total + step[1]
        return total + float(self.final[state])

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        arcs = (self.src.tolist(), self.symbol.tolist(), self.dst.tolist(), self.logprob.tolist())
        return {
            "format": FORMAT,
            "phones": self.phones,
            "histories": self.histories,
            "final": [None if math.isinf(x) else x for x in self.final.tolist()],
            "arcs": list(zip(*arcs, strict=True)),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PhoneLm:
        """Read what `to_json` wrote."""
        if value.get("format") != FORMAT:
            raise ValueError(f"not a phone lm: 'format' should be '{FORMAT}', it is '{value.get('format')}'.")
        final = [-math.inf if x is None else x for x in value["final"]]
        return _phone_lm(value["phones"], [tuple(h) for h in value["histories"]], value["arcs"], final)


def estimate(
    transcripts: Iterable[Sequence[Prons]],
    phones: Sequence[str],
    order: int = 3,
    *,
    extra_states: int = 2000,
    silence: float = 0.2,
    edge_silence: float = 0.8,
) -> PhoneLm:
    """The phone n-gram of transcripts, each the pronunciations of its words in a row.

    ``phones`` begin with the silence; ``extra_states`` bounds the histories of three phones and more, so it
    matters from order 4.  For aligned phone strings give every utterance as one word and no silence.

    >>> lm = estimate([[[("A",)], [("B",)]], [[("A",)]]], ["SIL", "A", "B"], silence=0, edge_silence=0)
    >>> round(math.exp(lm.logprob_of(["A", "B"])), 3), lm.logprob_of(["B"])
    (0.5, -inf)
    """
    if order < 2:
        raise ValueError(f"the phone n-gram's order is {order}, it should be 2 or more; 3 or 4 are usual")
    counts = expected_counts(transcripts, phones, order, silence, edge_silence)
    if not counts:
        raise ValueError("no transcript to count phones in: the training set is empty")
    long: defaultdict[History, float] = defaultdict(float)
    for ngram, count in counts.items():
        for start in range(len(ngram) - 3):
            long[ngram[start:-1]] += count
    ranked = sorted(long, key=lambda h: (-long[h], len(h), h))  # what begins a kept history is kept
    kept = set(ranked[:extra_states])

    def state_of(history: History) -> History:
        return next((history[k:] for k in range(len(history) - 2) if history[k:] in kept), history[-2:])

    merged: defaultdict[History, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
    for ngram, count in counts.items():
        merged[state_of(ngram[:-1])][ngram[-1]] += count
    number = {history: n for n, history in enumerate(sorted(merged, key=lambda h: (h != (BOUNDARY,), h)))}
    arcs, final = [], [-math.inf] * len(number)
    for history, src in number.items():
        total = sum(merged[history].values())
        for symbol, count in sorted(merged[history].items()):
            logprob = math.log(count / total)
            if symbol == BOUNDARY:
                final[src] = logprob
            else:
                longest = (*history, symbol)[-order + 1 :]
                arcs.append((src, symbol, number[state_of(longest)], logprob))
    return _phone_lm(phones, list(number), arcs, final)


def _phone_lm(
    phones: Sequence[str],
    histories: Sequence[History],
    arcs: Sequence[tuple[int, int, int, float]],
    final: Sequence[float],
) -> PhoneLm:
    src, symbol, dst, logprob = zip(*arcs, strict=True) if arcs else ((), (), (), ())
    return PhoneLm(
        tuple(phones),
        tuple(histories),
        np.array(src, np.int64),
        np.array(symbol, np.int64),
        np.array(dst, np.int64),
        np.array(logprob, np.float64),
        np.array(final, np.float64),
    )


def left_counts(
    transcripts: Iterable[Sequence[Prons]],
    phones: Sequence[str],
    silence: float = 0.2,
    edge_silence: float = 0.8,
) -> dict[tuple[int, int], float]:
    """How often each phone id is expected after each left context, for `PdfMap.left_biphone`."""
    counts = expected_counts(transcripts, phones, 2, silence, edge_silence)
    return {(left, symbol - 1): count for (left, symbol), count in counts.items() if symbol != BOUNDARY}


def expected_counts(
    transcripts: Iterable[Sequence[Prons]],
    phones: Sequence[str],
    order: int,
    silence: float = 0.2,
    edge_silence: float = 0.8,
) -> dict[History, float]:
    """How often n symbols in a row are expected, n = ``order`` or fewer at an utterance's start.

    Keys begin with `BOUNDARY` at the start and end with it at the end; a key's history is all but its last.
    """
    counts: defaultdict[History, float] = defaultdict(float)
    for transcript in transcripts:
        net = phone_net(transcript, phones, silence, edge_silence)
        reached: list[defaultdict[History, float]] = [defaultdict(float) for _ in net.arcs]
        reached[0][(BOUNDARY,)] = 1.0
        for node, histories in enumerate(reached):  # arcs lead to later nodes
            for history, mass in histories.items():
                for symbol, target, chance in net.arcs[node]:
                    ngram = (*history, symbol)
                    counts[ngram] += mass * chance
                    reached[target][ngram[-order + 1 :]] += mass * chance
                if node in net.final:
                    counts[(*history, BOUNDARY)] += mass * net.final[node]
    return dict(counts)
