"""A virtual assistant's requests, and two kinds of them that its training text lacks.

    frequent        what `grammar.txt` says, but for requests to appliances and for entertainment
    appliances      requests to lights, heaters, dishwashers alone
    entertainment   requests for music, podcasts and scores alone

As ACosR §4.2 has its test sets: the last two are asked for in no training utterance.  A choice of a rule
belongs to a domain when it names one of the domain's rules or words (`DOMAINS`); frequent keeps the other
choices with the weights they have, so it is the embedded grammar given that nothing of a domain is said.
The domains' own words would then be new to a recogniser, which those of a real assistant are not:
one request in `LOOKUPS` asks what one of them means or how it is spelled, each equally often.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import accumulate, pairwise

from greenasr.data.grammar import Rule, default_rules, sentence

DOMAINS: Mapping[str, tuple[str, ...]] = {
    "appliances": ("HOME", "DEVICE", "APPLIANCE", "DOOR", "the lights", "the oven"),
    "entertainment": (
        "MUSIC", "NEWS", "TITLE", "ARTIST", "GENRE", "MOOD", "SPORT", "podcast", "song", "story", "joke"
    ),
}  # fmt: skip
KINDS = ("frequent", *DOMAINS)
ASKING = ("ASK", "DOIT")  # the rules whose every choice is one request
LOOKUPS = 20
LOOKUP = (
    "how do you spell LOOKEDUP",
    "what does LOOKEDUP mean",
    "define LOOKEDUP",
    "how do you say LOOKEDUP in LANGUAGE",
    "what is the LANGUAGE word for LOOKEDUP",
    "what is another word for LOOKEDUP",
)


def requests(kind: str, count: int, seed: int = 0, stream: str = "text") -> Iterator[str]:
    """That many requests of one of `KINDS`, one line each without its line end; other streams say others.

    >>> next(requests("appliances", 1, seed=1))
    'is the heater in the basement on then are the lights in the kitchen on'
    """
    if kind not in KINDS:
        raise ValueError(f"no requests of the kind '{kind}': choose from {', '.join(KINDS)}.")
    rng = random.Random(f"greenasr assistant 1, {kind}, {stream}, {seed}")
    for _ in range(count):
        yield sentence(rng, rules_of(kind))


@cache
def rules_of(kind: str) -> dict[str, Rule]:
    """The rules whose ``REQUEST`` is one of `KINDS`."""
    rules = default_rules()
    if kind in DOMAINS:
        only = {name: _where(rules[name], lambda choice: names(choice, DOMAINS[kind])) for name in ASKING}
        return {**rules, **only}
    held = [word for words in DOMAINS.values() for word in words]
    kept = {
        name: _where(rule, lambda c: not names(c, held)) for name, rule in rules.items() if name not in held
    }
    unknown = sorted(set().union(*(vocabulary(rules_of(domain)) for domain in DOMAINS)) - vocabulary(kept))
    asks = kept["ASK"]
    weight = asks.cumulative[-1] / (LOOKUPS - 1)
    kept["ASK"] = Rule((*asks.choices, "LOOKUP"), (*asks.cumulative, asks.cumulative[-1] + weight))
    return {**kept, "LOOKUP": Rule.zipf(list(LOOKUP), 0), "LOOKEDUP": Rule.zipf(unknown, 0)}


def names(choice: str, words: Iterable[str]) -> bool:
    """Whether a choice has one of these rules or words in it.

    >>> names("turn DEVICE.1 off", ["DEVICE"]), names("sing songs", ["song"])
    (True, False)
    """
    return any(re.search(rf"(?<![A-Za-z]){word}(?![A-Za-z])", choice) for word in words)


def vocabulary(rules: Mapping[str, Rule], start: str = "REQUEST") -> set[str]:
    """Words that ``start`` may become, numbers apart, whatever the forms.

    >>> rules = {"ASK": Rule.zipf(["play a(n) NOTE", "stop"], 0), "NOTE": Rule.zipf(["b/flat"], 0)}
    >>> sorted(vocabulary(rules, "ASK"))
    ['b', 'flat', 'play', 'stop']
    """
    seen, waiting, words = {start}, [start], set[str]()
    while waiting:
        for choice in rules[waiting.pop()].choices:
            words.update(re.findall(r"(?<![\w#(])[a-z']+(?![\w(])", choice))
            inner = set(re.findall(r"[A-Z]{2,}", choice)) - seen
            seen |= inner
            waiting += sorted(inner)
    return words


def _where(rule: Rule, keep: Callable[[str], bool]) -> Rule:
    """The choices to keep, with the weights they have."""
    weights = (high - low for low, high in pairwise((0.0, *rule.cumulative)))
    kept = [(choice, w) for choice, w in zip(rule.choices, weights, strict=True) if keep(choice)]
    return Rule(tuple(choice for choice, _ in kept), tuple(accumulate(w for _, w in kept)))
