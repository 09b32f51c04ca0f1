"""A language small enough to write down whole: three words, all their ways of being said, all their costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, product
from pathlib import Path

import numpy as np
import pytest

from greenasr.data.lexicon import Lexicon
from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.context import PdfMap
from greenasr.decode.fst import Fst
from greenasr.decode.grammar_fst import grammar
from greenasr.decode.kneser_ney import kneser_ney

TEXT = ["a b", "b a", "ab", "a a b", "ba", "", "b", "ab b", "a b", "aa"]


Saying = tuple[tuple[int, ...], tuple[str, ...]]  # the pdf of every frame, the words


class TinyLanguage:
    """Variants (a), homophones (b, ba), a word that begins another (a, ab); a bigram; tied biphones."""

    def __init__(self, folder: Path, biphone: bool):
        self.lexicon = Lexicon(
            {"a": (("X",), ("Y",)), "ab": (("X", "Y"),), "b": (("Y", "X"),), "ba": (("Y", "X"),)}
        )
        self.arpa = folder / "tiny.arpa"
        write_arpa(kneser_ney([line.split() for line in TEXT], order=2).lm, self.arpa)
        phones = self.lexicon.phones
        counts = {(0, 1): 50, (1, 1): 50, (2, 1): 2, (3, 1): 50, (0, 2): 50, (2, 2): 50, (1, 2): 2, (3, 2): 3}
        self.pdf_map = PdfMap.left_biphone(phones, counts, 10) if biphone else PdfMap.monophone(phones)
        self.words = ("a", "ab", "b", "ba")
        self.grammar = grammar(
            read_arpa(self.arpa), {word: i for i, word in enumerate(self.words, 1)}, len(self.words) + 1, {}
        )

        self._said: dict[tuple[int, float], dict[Saying, float]] = {}

    def sayings(self, n_frames: int, silence_prob: float) -> dict[Saying, float]:
        """(pdf a frame, words) -> cheapest graph cost, by trying everything of ``n_frames`` frames."""
        if (n_frames, silence_prob) not in self._said:
            self._said[n_frames, silence_prob] = self._sayings(n_frames, silence_prob)
        return self._said[n_frames, silence_prob]

    def _sayings(self, n_frames: int, silence_prob: float) -> dict[Saying, float]:
        costs: dict[Saying, float] = {}
        for n_words in range(n_frames + 1):
            for words in product(self.words, repeat=n_words):
                price = cheapest(self.grammar, [1 + self.words.index(word) for word in words])
                for phones, pauses in self._phones(words):
                    if len(phones) > n_frames:
                        continue
                    cost = price - pauses * np.log(max(silence_prob, 1e-300))
                    cost -= (n_words + 1 - pauses) * np.log(1 - silence_prob)
                    if silence_prob == 0 and pauses:
                        continue
                    for pdfs in self._pdfs(phones, n_frames):
                        key = (pdfs, words)
                        costs[key] = min(cost, costs.get(key, np.inf))
        return costs

    def _phones(self, words: Sequence[str]) -> Iterator[tuple[list[int], int]]:
        """Phone ids and number of pauses of every way to say the words."""
        ids = {phone: i for i, phone in enumerate(self.lexicon.phones)}
        for prons in product(*(self.lexicon.prons[word] for word in words)):
            for pauses in product((False, True), repeat=len(words) + 1):
                phones = [0] if pauses[0] else []
                for pron, pause in zip(prons, pauses[1:], strict=True):
                    phones += [ids[phone] for phone in pron] + [0] * pause
                yield phones, sum(pauses)

    def _pdfs(self, phones: Sequence[int], n_frames: int) -> Iterator[tuple[int, ...]]:
        """The pdfs of every way to spread the phones over the frames."""
        emits = [self.pdf_map.table[left + 1, p].tolist() for left, p in pairwise([-1, *phones])]
        for cuts in combinations(range(1, n_frames), len(phones) - 1) if phones else ():
            pdfs: list[int] = []
            for (entry, loop), (start, end) in zip(emits, pairwise([0, *cuts, n_frames]), strict=True):
                pdfs += [entry] + [loop] * (end - start - 1)
            yield tuple(pdfs)


def cheapest(fst: Fst, labels: Sequence[int]) -> float:
    """Cheapest path of an acceptor that outputs the labels, trying every arc."""

    leaving = [np.flatnonzero(fst.src == state).tolist() for state in range(fst.n_states)]
    arcs = list(zip(fst.dst.tolist(), fst.olabel.tolist(), fst.weight.tolist(), strict=True))

    def from_here(state: int, rest: Sequence[int]) -> float:
        found = float(fst.final[state]) if not rest else np.inf
        for dst, output, weight in (arcs[a] for a in leaving[state]):
            if output == 0 or (rest and output == rest[0]):
                found = min(found, weight + from_here(dst, rest[1:] if output else rest))
        return found

    return from_here(fst.start, labels)


@pytest.fixture(scope="session", params=["monophone", "left biphone"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyLanguage:
    """The language with one pdf map and the other, not to be changed."""
    return TinyLanguage(tmp_path_factory.mktemp("tiny"), request.param == "left biphone")


@pytest.fixture
def biphones(tmp_path: Path) -> TinyLanguage:
    """The language with left biphones."""
    return TinyLanguage(tmp_path, biphone=True)
