"""Acoustic scale and word penalty of the fewest errors on a dev set, searched on lists instead of audio.

    E(s, p) = Σ_u errors(u, argmin_h graph(h) + s · acoustic(h) + p · words(h))       h in the list of u

E is counted at every point of a grid (scales a fixed ratio apart, penalties a fixed step), averaged with its
neighbours, since on a few hundred words one point's lead is luck, and the lowest mean wins; of equals the one
nearest to scale 1 and penalty 0.  Lists come from lattices: K-best at the grid's corners and centre, so that
a point far from where the lattice was made finds its words too.  A lattice still lacks what the beam dropped,
so `tune` decodes again where the optimum lies and searches both rounds' lists together until the optimum
stays (Och 2003, §5, does so for machine translation).  Never tune on the set that is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from greenasr.decode.wfst import Decoder, Hypothesis
from greenasr.score.errors import count_errors

Floats = npt.NDArray[np.float64]

SCALES = tuple(float(s) for s in (10 ** (np.arange(-12, 9) / 20)).round(3))  # 0.25 to 2.5, 12 % apart
PENALTIES = tuple(float(p) for p in np.arange(-2, 4.01, 0.5))
Lists = Sequence[Sequence[Hypothesis]]


@dataclass(frozen=True, eq=False)
class ScaleSearch:
    """Dev errors at every (scale, penalty), (S, P), of ``n_ref`` reference words, and the choice."""

    scales: tuple[float, ...]
    penalties: tuple[float, ...]
    errors: Floats
    n_ref: int

    @cached_property
    def at(self) -> tuple[int, int]:
        """Indices of the chosen scale and penalty."""
        mean = smoothed(self.errors)
        far = np.abs(np.log(self.scales))[:, None] / np.log(2) + np.abs(self.penalties)[None, :]
        far = np.where(mean < mean.min() + 1e-9, far, np.inf)
        scale, penalty = np.unravel_index(int(far.argmin()), far.shape)
        return int(scale), int(penalty)

    @property
    def acoustic_scale(self) -> float:
        """The chosen acoustic scale."""
        return self.scales[self.at[0]]

    @property
    def word_penalty(self) -> float:
        """The chosen word penalty."""
        return self.penalties[self.at[1]]

    @property
    def wer(self) -> float:
        """Percent of errors at the choice."""
        return 100 * float(self.errors[self.at]) / self.n_ref

    def to_json(self) -> dict[str, Any]:
        """The choice and the whole grid as a JSON value."""
        return {
            "acoustic_scale": self.acoustic_scale,
            "word_penalty": self.word_penalty,
            "wer": self.wer,
            "n_ref": self.n_ref,
            "scales": self.scales,
            "penalties": self.penalties,
            "errors": self.errors.tolist(),
        }


def smoothed(errors: Floats) -> Floats:
    """Mean of every point and its neighbours, up to nine, (S, P) -> (S, P).

    >>> smoothed(np.array([[0.0, 3.0, 6.0]])).tolist()
    [[1.5, 3.0, 4.5]]
    """
    padded = np.pad(errors, 1)
    count = np.pad(np.ones(errors.shape), 1)
    windows = [(i, j) for i in range(3) for j in range(3)]
    rows, columns = errors.shape
    total = sum(padded[i : i + rows, j : j + columns] for i, j in windows)
    return np.asarray(total / sum(count[i : i + rows, j : j + columns] for i, j in windows))


def search(
    lists: Lists,
    refs: Sequence[Sequence[str]],
    scales: Sequence[float] = SCALES,
    penalties: Sequence[float] = PENALTIES,
) -> ScaleSearch:
    """E(s, p) on lists of hypotheses (of any order) and their references' words."""
    if len(lists) != len(refs) or not all(lists):
        empty = sum(not hyps for hyps in lists)
        raise ValueError(
            f"{len(lists)} lists ({empty} of them empty) and {len(refs)} references, expected as many, none "
            "empty. Give each utterance its list."
        )
    n_ref = sum(len(ref) for ref in refs)
    if not n_ref:
        raise ValueError("no reference word to tune on. Give a dev set with transcripts.")
    points = np.array(list(product(scales, penalties)))  # (S · P, 2)
    total = np.zeros(len(points))
    for hyps, ref in zip(lists, refs, strict=True):
        known: dict[tuple[str, ...], int] = {}
        for hyp in hyps:
            if hyp.words not in known:
                known[hyp.words] = count_errors("", ref, hyp.words).total
        graph = np.array([hyp.graph_cost for hyp in hyps])
        features = np.array([[hyp.acoustic_cost, len(hyp.words)] for hyp in hyps])
        wrong = np.array([known[hyp.words] for hyp in hyps], np.float64)
        total += wrong[(graph + points @ features.T).argmin(axis=1)]
    errors = total.reshape(len(scales), len(penalties))
    return ScaleSearch(tuple(scales), tuple(penalties), errors, n_ref)


def tune(
    decoder: Decoder,
    logits: Sequence[Any],
    refs: Sequence[Sequence[str]],
    scales: Sequence[float] = SCALES,
    penalties: Sequence[float] = PENALTIES,
    n: int = 20,
    rounds: int = 3,
) -> ScaleSearch:
    """Search on lists of ``decoder``'s lattices; decode again at the choice, ``rounds`` times at most."""
    if len(logits) != len(refs):
        raise ValueError(
            f"{len(logits)} utterances of logits and {len(refs)} references, expected as many. Give each "
            "utterance its transcript."
        )
    middle = scales[len(scales) // 2]
    corners = [*product((scales[0], middle, scales[-1]), (penalties[0], penalties[-1])), (middle, 0.0)]
    pool: list[dict[tuple[str, ...], list[Hypothesis]]] = [{} for _ in logits]
    tried: list[tuple[float, float]] = []
    found: ScaleSearch | None = None
    for _ in range(rounds):
        setting = (decoder.acoustic_scale, decoder.word_penalty)
        tried.append(setting)
        for utterance, some in zip(logits, pool, strict=True):
            for hyp in decoder.nbest_at(utterance, [setting, *corners], n):
                same = some.setdefault(hyp.words, [])
                if hyp not in same:
                    same.append(hyp)
        lists = [[hyp for same in some.values() for hyp in same] for some in pool]
        found = search(lists, refs, scales, penalties)
        if (found.acoustic_scale, found.word_penalty) in tried:
            break
        decoder = replace(decoder, acoustic_scale=found.acoustic_scale, word_penalty=found.word_penalty)
    if found is None:
        raise ValueError(f"rounds is {rounds}, it should be at least 1.")
    return found
