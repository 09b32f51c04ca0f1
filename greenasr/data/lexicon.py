"""The lexicon: every word's pronunciations as phones, from a dictionary or from its spelling.

    WORD     PH PH …          CMU format: a line a pronunciation, variants as WORD(2), WORD(3) or repeated
    ;;; …  # …                comments, from ;;; or # at the beginning of a line or " #" within it

A phone is whatever stands between spaces.  The silence phone is one more, used between words and in no
word.  Words that a dictionary lacks are named with the nearest spelling it has, or spelled: a grapheme
lexicon has one unit a letter (Killer, Stüker and Schultz 2003, "Grapheme based speech recognition").
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from greenasr.data.readers.lines import numbered_lines

FORMAT = "greenasr lexicon 1"
SPELLED = "@"  # marks the units of spelled words beside a dictionary's phones
VARIANT = re.compile(r"(.+)\((\d+)\)")
STRESS = re.compile(r"(?<=[A-Za-z])[012]$")
TAG = re.compile(r"[\[<{(].+[\]>})]")  # [noise], <unk>: sounds that no letters spell
Pron = tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """Word -> pronunciations, each a tuple of phones; index in ``phones`` = phone id.

    >>> lexicon = Lexicon({"a": (("ah",), ("ey",)), "be": (("b", "iy"),)})
    >>> lexicon.phones, lexicon.words
    (('SIL', 'ah', 'b', 'ey', 'iy'), ('a', 'be'))
    """

    prons: Mapping[str, tuple[Pron, ...]]
    silence: str = "SIL"

    def __post_init__(self) -> None:
        """Refuse words that cannot be said."""
        if not self.prons:
            raise ValueError("the lexicon has no words: give a dictionary with lines 'WORD PH PH'.")
        for word, prons in self.prons.items():
            if not prons or not all(prons):
                raise ValueError(
                    f"the lexicon has no phones for '{word}': give it some or take the word out."
                )
            if any(self.silence in pron for pron in prons):
                raise ValueError(
                    f"the lexicon says '{word}' with the silence phone {self.silence}: silence is optional "
                    "between words already; take the word out or give its sound a phone of its own."
                )

    @cached_property
    def phones(self) -> tuple[str, ...]:
        """The silence phone, then the others in order of their names."""
        heard = {phone for prons in self.prons.values() for pron in prons for phone in pron}
        return (self.silence, *sorted(heard))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words in order."""
        return tuple(sorted(self.prons))

    def extended(self, more: Lexicon) -> Lexicon:
        """Both lexicons; a word that both have keeps its pronunciations here."""
        return Lexicon({**more.prons, **self.prons}, self.silence)

    def missing(self, words: Iterable[str]) -> list[tuple[str, str]]:
        """(word, suggestion) of every word without a pronunciation, the most frequent first.

        The suggestion is the word in another case or the nearest spelling, "" where nothing is near.

        >>> Lexicon({"LIGHT": (("L",),), "ON": (("AA",),)}).missing(["LIGHTS", "ON", "on", "zzz"])
        [('LIGHTS', 'LIGHT'), ('on', 'ON'), ('zzz', '')]
        """
        counts = Counter(word for word in words if word not in self.prons)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        near = _Nearest(self.words) if ranked else None
        return [(word, near(word)) for word in ranked] if near else []

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        prons = {word: [" ".join(pron) for pron in self.prons[word]] for word in self.words}
        return {"format": FORMAT, "silence": self.silence, "prons": prons}

    @classmethod
    def from_json(cls, value: Any) -> Lexicon:
        """Read what `to_json` wrote."""
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(
                f"not a lexicon: 'format' should be '{FORMAT}'. Write one with `greenasr prepare`."
            )
        prons = {word: tuple(tuple(p.split()) for p in prons) for word, prons in value["prons"].items()}
        return cls(prons, value["silence"])


def read_lexicon(
    path: str | Path, phones: Collection[str] | None = None, *, stress: bool = True, silence: str = "SIL"
) -> Lexicon:
    """A dictionary in the CMU format; without ``stress``, AH0, AH1 and AH2 become AH.

    Lines of words that are silence alone (`<sil> SIL`, `<s> SIL`) are passed over.  ``phones`` are those that
    may occur (`read_phones`).  A line with a word alone, a phone not among ``phones`` and a pronunciation
    given twice to a variant's number raise ValueError with file:line.
    """
    found: defaultdict[str, dict[Pron, None]] = defaultdict(dict)
    first: dict[str, int] = {}
    for number, line in numbered_lines(path):
        if line.startswith((";;;", "#")):
            continue
        entry, *said = line.partition(" #")[0].split()
        where = f"{path}:{number}"
        if not said:
            raise ValueError(f"{where}: '{entry}' stands alone, expected 'WORD PH PH'; add its phones.")
        if phones is not None and (odd := [phone for phone in said if phone not in phones]):
            near = difflib.get_close_matches(odd[0], list(phones), 1, 0.3)
            raise ValueError(
                f"{where}: '{entry}' has the phone '{odd[0]}', which is not among the {len(phones)} phones"
                f"{f' (near is {near[0]})' if near else ''}; correct the line or add the phone to their list."
            )
        if set(said) == {silence}:
            continue
        variant = VARIANT.fullmatch(entry)
        if variant and entry in first:
            raise ValueError(
                f"{where}: '{entry}' stands on line {first[entry]} already; number it anew or take it out."
            )
        first.setdefault(entry, number)
        pron = tuple(said if stress else (STRESS.sub("", phone) for phone in said))
        found[variant[1] if variant else entry][pron] = None
    if not found:
        raise ValueError(f"{path}: no words in it; give a dictionary with lines 'WORD PH PH'.")
    try:
        return Lexicon({word: tuple(prons) for word, prons in found.items()}, silence)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_phones(path: str | Path) -> frozenset[str]:
    """A phone list: the first word of every line; ValueError where one stands twice."""
    first: dict[str, int] = {}
    for number, line in numbered_lines(path):
        phone = line.split()[0]
        if phone in first:
            raise ValueError(
                f"{path}:{number}: the phone '{phone}' stands on line {first[phone]} already: keep one."
            )
        first[phone] = number
    if not first:
        raise ValueError(f"{path}: no phones in it; give one phone a line.")
    return frozenset(first)


def graphemes(words: Iterable[str], mark: str = "", silence: str = "SIL") -> Lexicon:
    """Every word spelled: a unit a letter or digit, case folded, ``mark`` before each unit.

    Apostrophes, hyphens and other signs are not said.  A word in brackets is one unit.

    >>> graphemes(["Don't", "[noise]"]).prons
    {"Don't": (('d', 'o', 'n', 't'),), '[noise]': (('[noise]',),)}
    """
    prons = {}
    for word in sorted(set(words)):
        letters = unicodedata.normalize("NFC", word).casefold()
        units = [letters] if TAG.fullmatch(letters) else [c for c in letters if c.isalnum()]
        if not units:
            raise ValueError(
                f"'{word}' has no letter or digit to spell: give a lexicon line for it or take it out "
                "of the transcripts."
            )
        prons[word] = (tuple(mark + unit for unit in units),)
    return Lexicon(prons, silence)


class _Nearest:
    """The nearest of many words, by `difflib` among those that share most letter pairs."""

    def __init__(self, words: Iterable[str]):
        self.folded: dict[str, str] = {}
        self.pairs: defaultdict[str, list[str]] = defaultdict(list)
        for word in words:
            folded = word.casefold()
            if folded not in self.folded:
                self.folded[folded] = word
                for pair in _pairs(folded):
                    self.pairs[pair].append(folded)

    def __call__(self, word: str) -> str:
        folded = word.casefold()
        if folded in self.folded:
            return self.folded[folded]
        shared = Counter(near for pair in _pairs(folded) for near in self.pairs.get(pair, ()))
        likely = sorted(shared, key=lambda w: (abs(len(w) - len(folded)) - 2 * shared[w], w))[:50]
        best = difflib.get_close_matches(folded, likely, 1, 0.6)
        return self.folded[best[0]] if best else ""


def _pairs(word: str) -> set[str]:
    """Pairs of neighbouring letters, the word's ends included."""
    return {a + b for a, b in zip(f"^{word}", f"{word}$", strict=True)}
