"""N-best lists for generated sentences, as a recogniser that mishears would write them.

    cost of hearing v where w was said  =  sharpness · distance(sounds of w, sounds of v) + noise

Every word said becomes a slot of words that sound alike, the word itself among them; short words may
vanish and short words may appear between others.  Slots are independent, so the N cheapest hypotheses
are exact, and the noise, larger for some speakers, decides how often the wrong word is the cheapest.
There is no language model in the score: that is what rescoring adds.  This is test input with the
structure of real lists (oracle well below first best), not a model of any recogniser.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

from greenasr.data.grammar import default_rules, generate

NAMES_OF_LETTERS = "A bE sE dE E ef jE Ac I jA kA el em en O pE kU ar es tE U vE dubulU eks wI zE".split()
LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz", NAMES_OF_LETTERS, strict=True))
FREQUENT = dict(
    pair.split(">")
    for pair in (
        "the>Tu of>ov to>tU two>tU too>tU do>dU you>yU one>wun are>ar who>hU eight>At my>mI by>bI buy>bI "
        "i>I what>wot"
    ).split()
)
# Spelling to rough sound classes, first match first: enough for "rhymes with", no more.
SPELLINGS = [
    pair.split(">")
    for pair in (
        "tion>SN ough>O igh>I eigh>A ph>f sh>S ch>C th>T ck>k kn>n wr>r wh>w qu>kw x>ks dge>j "
        "ee>E ea>E oo>U ou>W ow>W ai>A ay>A oa>O ce>se ci>si c>k q>k y>i"
    ).split()
]
ALIKE = "bp dt gk vf zs jC SC mn nN Td Tf sS lr ei ae uo Ei Ae Ou Uu Ia".split()
SHORT = ("a", "the", "in", "to", "on", "of", "it", "is", "and", "at", "i", "for")
DROPPED = 0.28  # distance of a short word to silence
N_ALIKE = 8  # words that compete with the one said


@cache
def sounds(word: str) -> str:
    """A rough pronunciation, one character a sound; single letters are their names.

    >>> sounds("phone"), sounds("night"), sounds("b"), sounds("three")
    ('fon', 'nIt', 'bE', 'TrE')
    """
    if known := FREQUENT.get(word) or LETTERS.get(word):
        return known
    out, rest = "", re.sub(r"[^a-z]", "", word)
    rest = re.sub(r"([bcdfgklmnprstz])\1", r"\1", rest)
    rest = re.sub(r"(?<=[a-z]{2}[bdfklmnprstvz])e$", "", rest)
    while rest:
        spelled, sound = next(((s, p) for s, p in SPELLINGS if rest.startswith(s)), (rest[0], rest[0]))
        out, rest = out + sound, rest[len(spelled) :]
    return out


@cache
def _alphabet() -> tuple[Mapping[str, int], np.ndarray]:
    """Index of every sound, and what hearing one as another costs: 0 same, 0.4 alike, 0.6 vowels, else 1."""
    known = "".join(
        sorted({*"".join(p for _, p in SPELLINGS), *"".join(LETTERS.values()), *"abcdefghijklmnopqrstuvwxyz"})
    )
    table = 1.0 - np.eye(len(known))
    vowels = [known.index(c) for c in known if c in "aeiouAEIOUW"]
    table[np.ix_(vowels, vowels)] = 0.6 * table[np.ix_(vowels, vowels)]
    for pair in ALIKE:
        one, other = known.index(pair[0]), known.index(pair[1])
        table[one, other] = table[other, one] = 0.4
    return {c: i for i, c in enumerate(known)}, table


@cache
def _spelled_out(words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Sound indices of all words, (V, L) filled with zeros behind each word's end, and lengths, (V,)."""
    index, _ = _alphabet()
    lengths = np.array([len(sounds(word)) for word in words])
    heard = np.zeros((len(words), int(lengths.max())), dtype=np.int64)
    for row, word in zip(heard, words, strict=True):
        row[: len(sounds(word))] = [index[c] for c in sounds(word)]
    return heard, lengths


def distances(word: str, vocabulary: Sequence[str]) -> np.ndarray:
    """Edit distance of the sounds of ``word`` to those of every word, (V,), as a share of the longer one."""
    index, table = _alphabet()
    said = [index[c] for c in sounds(word)]
    heard, lengths = _spelled_out(tuple(vocabulary))
    above = np.tile(np.arange(heard.shape[1] + 1.0), (len(vocabulary), 1))
    for i, sound in enumerate(said):
        here = np.empty_like(above)
        here[:, 0] = i + 1
        for j in range(heard.shape[1]):
            swap = above[:, j] + table[sound, heard[:, j]]
            here[:, j + 1] = np.minimum(np.minimum(above[:, j + 1], here[:, j]) + 1, swap)
        above = here
    found: np.ndarray = above[np.arange(len(vocabulary)), lengths] / np.maximum(lengths, len(said))
    return found


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word that the grammar may say, sorted."""
    text = "".join(" ".join(generate("train", 4000, seed=-1)))
    rules = " ".join(choice for rule in default_rules().values() for choice in rule.choices)
    said = re.sub(r"[A-Z]{2,}(\.\d)?|#\d+-\d+|a\(n\)|/", " ", rules)
    return tuple(sorted({*said.split(), *text.split()}))


@cache
def alike(word: str) -> tuple[tuple[str, float], ...]:
    """The `N_ALIKE` other words nearest in sound, with their distances, nearest first.

    >>> [w for w, _ in alike("boston")][:2], "to" in dict(alike("two"))
    (['houston', 'austin'], True)
    """
    words = vocabulary()
    far = distances(word, words)
    order = sorted(range(len(words)), key=lambda i: (round(float(far[i]), 6), words[i]))
    return tuple((words[i], float(far[i])) for i in order if words[i] != word)[:N_ALIKE]


def cheapest(slots: Sequence[Sequence[tuple[str, float]]], n: int) -> list[tuple[str, float]]:
    """The ``n`` cheapest distinct ways to take one word of every slot ("" is no word), cheapest first.

    Exact, since costs add up: the best n of the whole extend the best n of the beginning.

    >>> cheapest([[("a", 0.0), ("b", 1.0)], [("c", 0.0), ("", 0.5)]], 3)
    [('a c', 0.0), ('a', 0.5), ('b c', 1.0)]
    """
    best = {"": 0.0}
    for slot in slots:
        grown: dict[str, float] = {}
        for said, cost in best.items():
            for word, extra in slot:
                hyp = f"{said} {word}".strip()
                grown[hyp] = min(grown.get(hyp, float("inf")), cost + extra)
        best = dict(sorted(grown.items(), key=lambda item: (item[1], item[0]))[:n])
    return list(best.items())


def _slots(ref: str, sharpness: float, loudness: float, rng: random.Random) -> list[list[tuple[str, float]]]:
    """What may have been heard at every word of ``ref`` and, here and there, between two words."""

    def noise() -> float:
        return loudness * NormalDist().inv_cdf(rng.random() or 0.5)

    slots = []
    for word in ref.split():
        heard = [(word, noise())]
        heard += [(other, sharpness * far + noise()) for other, far in alike(word)]
        if len(sounds(word)) <= 3:
            heard.append(("", DROPPED * sharpness + noise()))
        slots.append(heard)
        if rng.random() < 0.25:
            short = SHORT[int(rng.random() * len(SHORT))]
            slots.append([("", noise()), (short, DROPPED * sharpness + noise())])
    return slots


def generate_nbest(
    utterances: int,
    seed: int = 0,
    n: int = 20,
    split: str = "test",
    sharpness: float = 11.0,
    speakers: int = 10,
) -> Iterator[dict[str, Any]]:
    """N-best lists of generated sentences: ``id``, ``speaker``, ``ref``, ``hyps``, ``scores`` (best first).

    ``scores`` are log-likelihoods up to a constant, larger is better, at most ``n`` a list and fewer for
    a short sentence.  More ``sharpness`` makes fewer errors.  The sentences are those of a seed of their
    own, hence not the ones `generate` gives for the same ``split`` and ``seed``.

    >>> first = next(generate_nbest(1, seed=5))
    >>> sorted(first), len(first["hyps"]) == len(first["scores"]) == 20
    (['hyps', 'id', 'ref', 'scores', 'speaker'], True)
    """
    if n < 1 or speakers < 1 or sharpness <= 0:
        raise ValueError(f"n = {n}, speakers = {speakers}, sharpness = {sharpness}: each must be above zero")
    rng = random.Random(f"greenasr nbest 1, {split}, {seed}")
    loudness = [0.7 + 0.8 * rng.random() for _ in range(speakers)]
    for i, ref in enumerate(generate(split, utterances, seed=seed + 1_000_003)):
        speaker = i * speakers // utterances
        best = cheapest(_slots(ref, sharpness, loudness[speaker], rng), n)
        yield {
            "id": f"spk{speaker:02d}-{i:05d}",
            "speaker": f"spk{speaker:02d}",
            "ref": ref,
            "hyps": [hyp for hyp, _ in best if hyp],
            "scores": [round(-cost, 4) for hyp, cost in best if hyp],
        }
