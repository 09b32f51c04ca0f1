"""The embedded corpus: a seeded grammar of requests to a voice assistant, in any amount.

    P(choice k of a rule) ∝ 1 / k^s          Zipf, as words and phrasings are in real text

`grammar.txt` beside this file holds the rules and explains their notation.  A sentence depends on
(seed, split, position) alone, through `random.Random(text).random()`, the one generator Python promises
to keep; the same call gives the same text on every machine.  Splits are independent streams of
one distribution: long sentences never meet, short ones ("stop") occur in all of them, as in life.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import accumulate

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
TOKEN = re.compile(r"[A-Z]{2,}(?:\.\d)?|#\d+-\d+|[^A-Z#]+")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Rule:
    """What one name of the grammar may become, with cumulative weights for drawing."""

    choices: tuple[str, ...]
    cumulative: tuple[float, ...]

    @classmethod
    def zipf(cls, choices: list[str], exponent: float) -> Rule:
        """Choice k (from 1) with weight 1 / k^exponent."""
        weights = [(k + 1) ** -exponent for k in range(len(choices))]
        return cls(tuple(choices), tuple(accumulate(weights)))

    def draw(self, rng: random.Random) -> str:
        """One choice."""
        point = rng.random() * self.cumulative[-1]
        return self.choices[min(bisect(self.cumulative, point), len(self.choices) - 1)]


def parse(text: str) -> dict[str, Rule]:
    r"""Rules by name, from lines ``NAME exponent: choice | choice`` (indented lines go on).

    >>> parse("COLOR 1: red | blue\n  | green")["COLOR"].choices
    ('red', 'blue', 'green')
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\n\s+", " ", "\n".join(lines))
    rules: dict[str, Rule] = {}
    for line in joined.splitlines():
        head, _, body = line.partition(":")
        name, _, exponent = head.partition(" ")
        if name in rules:
            raise ValueError(f"grammar: {name} is there twice")
        rules[name] = Rule.zipf([choice.strip() for choice in body.split("|")], float(exponent or 0.8))
    for name, rule in rules.items():
        for used in re.findall(r"[A-Z]{2,}", " ".join(rule.choices)):
            if used not in rules:
                raise ValueError(f"grammar: {name} uses {used}, which has no rule")
    return rules


@cache
def default_rules() -> dict[str, Rule]:
    """The rules of `grammar.txt`."""
    return parse(resources.files("greenasr.data").joinpath("grammar.txt").read_text(encoding="utf-8"))


def spoken(number: int) -> str:
    """The words of a number from 0 to 99.

    >>> spoken(7), spoken(12), spoken(40), spoken(85)
    ('seven', 'twelve', 'forty', 'eighty five')
    """
    if number < 20:
        return ONES[number]
    return TENS[number // 10] + (f" {ONES[number % 10]}" if number % 10 else "")


@cache
def _numbers(low: int, high: int) -> Rule:
    """Numbers low..high; weight n^-0.5, multiples of ten four times and of five 2.5 times that."""
    weights = [n**-0.5 * (4.0 if n % 10 == 0 else 2.5 if n % 5 == 0 else 1.0) for n in range(low, high + 1)]
    return Rule(tuple(map(spoken, range(low, high + 1))), tuple(accumulate(weights)))


def _forms(name: str, rules: dict[str, Rule], rng: random.Random) -> list[str]:
    """Draw a choice of ``name`` and expand it; its forms, the first of which is what is said."""
    drawn: dict[str, list[str]] = {}  # what this choice has named so far
    parts: list[str] = []
    for token in TOKEN.findall(rules[name].draw(rng)):
        if token[0] == "#":
            low, high = token[1:].split("-")
            parts.append(_numbers(int(low), int(high)).draw(rng))
        elif token[0].isupper():
            inner, _, form = token.partition(".")
            if not form or inner not in drawn:
                drawn[inner] = _forms(inner, rules, rng)
            parts.append(drawn[inner][int(form or 0)])
        else:
            parts.append(token)
    return "".join(parts).split("/")


def sentence(rng: random.Random, rules: dict[str, Rule] | None = None, start: str = "REQUEST") -> str:
    """One sentence from ``start``, lower case, words apart by one space."""
    words = _forms(start, rules or default_rules(), rng)[0].split()
    for i, word in enumerate(words[:-1]):
        if word == "a(n)":
            words[i] = "an" if words[i + 1][0] in "aeiou" else "a"
    return " ".join(words)


def generate(split: str, sentences: int, seed: int = 0) -> Iterator[str]:
    """That many sentences of "train", "dev" or "test", one line each without its line end.

    A longer text begins with the shorter one of the same split and seed.

    >>> list(generate("dev", 2, seed=3)) == list(generate("dev", 5, seed=3))[:2]
    True
    """
    if split not in SPLITS:
        raise ValueError(f"split '{split}' is not one of {', '.join(SPLITS)}")
    if sentences < 0:
        raise ValueError(f"{sentences} sentences asked for: give 0 or more")
    rng = random.Random(f"greenasr grammar 1, {split}, {seed}")
    for _ in range(sentences):
        yield sentence(rng)
