"""L: pronunciations to words, with optional silence between them and symbols that keep homophones apart.

    0 --ε / -ln(1-s)--> 1         1 --first phone:word--> … --last phone:ε / -ln(1-s)--> 1
    0 --ε / -ln s-----> 2         1 --first phone:word--> … --last phone:ε / -ln s-----> 2 --silence:ε--> 1

A pronunciation that is another's, or another's beginning, ends in a disambiguation symbol #1, #2, …; #0
passes the grammar's back-off through.  Mohri, Pereira and Riley 2008, "Speech recognition with weighted
finite-state transducers", §5.  Pronunciations cost nothing, so a word of many variants is no less likely.

Inputs tell a word's first phone from its other phones and both from the optional silence, for P phones:
1 + p inside a word, 1 + P + p at its beginning, 1 + 2P silence, 2 + 2P + k for #k.  The search's alignment
then shows where every word begins.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from greenasr.decode.fst import Fst

Pron = tuple[int, ...]
INSIDE, FIRST, SILENCE, BLANK = 0, 1, 2, 3  # what an input label stands for, besides its phone; BLANK: CTC's


def disambiguate(prons: Sequence[Pron]) -> list[int]:
    """Which #k each pronunciation ends in, 0 for none.

    >>> disambiguate([(1, 2), (1, 2), (1,), (3,)])
    [1, 2, 1, 0]
    """
    same = Counter(prons)
    beginnings = {pron[:n] for pron in same for n in range(1, len(pron))}
    used: Counter[Pron] = Counter()
    symbols = []
    for pron in prons:
        if same[pron] > 1 or pron in beginnings:
            used[pron] += 1
        symbols.append(used[pron])
    return symbols


def n_labels(n_phones: int) -> int:
    """Number of inputs below #0, epsilon included."""
    return 2 + 2 * n_phones


def lexicon_fst(
    prons: Mapping[int, Sequence[Pron]], n_phones: int, silence_prob: float, backoff: int
) -> tuple[Fst, int]:
    """L and the number of disambiguation symbols, #0 included.

    ``prons`` are word label -> pronunciations in phone ids, ``backoff`` is the word label of #0.
    """
    said = [(word, pron) for word, some in prons.items() for pron in dict.fromkeys(some)]
    symbols = disambiguate([pron for _, pron in said])
    zero = n_labels(n_phones)
    speak = -math.log(1 - silence_prob)
    pause = -math.log(silence_prob) if silence_prob > 0 else None
    arcs: list[tuple[int, int, int, int, float]] = [(0, 1, 0, 0, speak), (1, 1, zero, backoff, 0.0)]
    if pause is not None:
        arcs += [(0, 2, 0, 0, pause), (2, 1, 1 + 2 * n_phones, 0, 0.0)]
    state = 3
    for (word, pron), symbol in zip(said, symbols, strict=True):
        labels = [1 + n_phones + pron[0], *(1 + phone for phone in pron[1:])]
        if symbol:
            labels.append(zero + symbol)
        at = 1
        for i, label in enumerate(labels[:-1]):
            arcs.append((at, state, label, 0 if i else word, 0.0))
            at, state = state, state + 1
        out = word if len(labels) == 1 else 0
        arcs.append((at, 1, labels[-1], out, speak))
        if pause is not None:
            arcs.append((at, 2, labels[-1], out, pause))
    final = [math.inf] * state
    final[1] = 0.0
    src, dst, ilabel, olabel, weight = zip(*arcs, strict=True)
    return Fst.of(0, final, src, dst, ilabel, olabel, weight), 1 + max(symbols, default=0)
