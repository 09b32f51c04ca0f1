"""The splits of generated corpora: who speaks, where, and what is said.

    domain     split          who          where
    speech     train, dev     train, dev   40 % clean, 30 % noise at 8-22 dB, 30 % a room and 5-15 dB
               test_clean     test         a noise floor at 35-45 dB
               test_noisy     test         noise or babble at 10-20 dB
               test_far       test         a room of 0.25-0.5 s, noise or babble at 5-10 dB
    assistant  train, dev     train, dev   50 % clean, 30 % noise at 12-25 dB, 20 % a room and 10-20 dB
               frequent       test         the same, and the same requests
               appliances     test         the same; requests that train and dev lack
               entertainment  test         the same; requests that train and dev lack
    commands   train, dev     train, dev   single words, one a clip: the same rooms and noise as "speech"
               test           test         noise or babble at 5-25 dB, half of it in a room
    digits     train, dev     train, dev   strings of two to four digits; a noise floor at 35-45 dB
               test           test         the same

"speech" says what the grammar does, "assistant" has ACosR's three test sets (see `assistant.py`) and
312 training speakers: every variant in every accent, twice.  "commands" says the `COMMANDS` of Google Speech
Commands v1 (Warden 2018), each as often as any other, by 104 training speakers; "digits" strings of the ten
of them that are digits, by the same speakers.
No speaker and no vocal tract is in two of train, dev and test.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from greenasr.data.assistant import KINDS, rules_of
from greenasr.data.grammar import Rule, default_rules, sentence

COMMANDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
    *("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"),
)
DIGITS, STRING = COMMANDS[:10], (2, 4)  # how many digits a string has
WITH_LETTERS = ("LETTER", "SPELLED", "FLIGHT", "HALFDAY")  # rules that say the letter a


@dataclass(frozen=True)
class Condition:
    """Where an utterance is said: ranges of SNR in dB and of reverberation time in s, uniform."""

    name: str
    snr: tuple[float, float]
    noises: tuple[str, ...] = ("white", "pink", "brown", "babble")
    rt60: tuple[float, float] | None = None


CLEAN = Condition("clean", (35, 45), ("pink",))
Where = Sequence[tuple[float, Condition]]  # shares of a split's utterances
ALL: Where = (
    (0.4, CLEAN),
    (0.3, Condition("noisy", (8, 22))),
    (0.3, Condition("far", (5, 15), rt60=(0.2, 0.6))),
)
QUIET: Where = ((1.0, CLEAN),)
HOME: Where = (
    (0.5, CLEAN),
    (0.3, Condition("noisy", (12, 25))),
    (0.2, Condition("far", (10, 20), rt60=(0.15, 0.4))),
)

LOUD: Where = (
    (0.5, Condition("noisy", (5, 25))),
    (0.5, Condition("far", (5, 25), rt60=(0.2, 0.4))),
)


@dataclass(frozen=True)
class Part:
    """A split: its roster of speakers, conditions by share, kind of requests, "" for any, how many speak.

    ``speakers`` is 0 for as many as the roster has by default.
    """

    roster: str
    where: Where
    kind: str = ""
    speakers: int = 0


DOMAINS: Mapping[str, Mapping[str, Part]] = {
    "speech": {
        "train": Part("train", ALL),
        "dev": Part("dev", ALL),
        "test_clean": Part("test", ((1.0, CLEAN),)),
        "test_noisy": Part("test", ((1.0, Condition("noisy", (10, 20))),)),
        "test_far": Part("test", ((1.0, Condition("far", (5, 10), rt60=(0.25, 0.5))),)),
    },
    "assistant": {
        "train": Part("train", HOME, "frequent", speakers=312),
        "dev": Part("dev", HOME, "frequent"),
        **{kind: Part("test", HOME, kind) for kind in KINDS},
    },
    "commands": {
        "train": Part("train", ALL, "commands", speakers=104),
        "dev": Part("dev", LOUD, "commands", speakers=16),
        "test": Part("test", LOUD, "commands", speakers=40),
    },
    "digits": {
        "train": Part("train", QUIET, "digits", speakers=104),
        "dev": Part("dev", QUIET, "digits", speakers=16),
        "test": Part("test", QUIET, "digits", speakers=40),
    },
}


def parts_of(domain: str) -> Mapping[str, Part]:
    """The splits of a generated corpus; ValueError for a domain that there is not.

    >>> list(parts_of("assistant"))
    ['train', 'dev', 'frequent', 'appliances', 'entertainment']
    """
    if domain not in DOMAINS:
        raise ValueError(f"no generated speech of the domain '{domain}': choose from {', '.join(DOMAINS)}.")
    return DOMAINS[domain]


@cache
def spelling_rules(kind: str = "") -> dict[str, Rule]:
    """The rules of a kind with "a_" for the letter a, which sounds unlike the article, else unchanged."""
    rules = dict(rules_of(kind) if kind else default_rules())
    for name in WITH_LETTERS:
        choices = tuple(re.sub(r"(?<![a-z])a(?![a-z])", "a_", choice) for choice in rules[name].choices)
        rules[name] = Rule(choices, rules[name].cumulative)
    return rules


def sayings(kind: str, rng: random.Random) -> Iterator[str]:
    """What is said in a split of a kind, without end; all commands are said once before one is said again."""
    while True:
        if kind == "digits":
            yield " ".join(rng.choices(DIGITS, k=rng.randint(*STRING)))
            continue
        if kind != "commands":
            yield sentence(rng, spelling_rules(kind))
            continue
        deck = list(COMMANDS)
        rng.shuffle(deck)
        yield from deck
