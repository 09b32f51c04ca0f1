"""Requests to an assistant: three kinds, of which the training text has one."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter

import pytest

from greenasr.data.assistant import DOMAINS, KINDS, LOOKUPS, names, requests, rules_of, vocabulary
from greenasr.data.grammar import ONES, TENS, default_rules, sentence

ABOUT_WORDS = re.compile(r"\b(spell|mean|define|say \w+ in|word for)\b")


def test_the_same_seed_gives_the_same_requests_on_every_machine() -> None:
    text = "\n".join(line for kind in KINDS for line in requests(kind, 100, seed=1))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "3f02193e8cded559"
    streams = [tuple(requests("frequent", 20, seed, stream)) for seed in (0, 1) for stream in ("train", "x")]
    assert len(set(streams)) == 4


def test_no_request_of_the_other_domains_is_in_a_large_training_text() -> None:
    train = set(requests("frequent", 10_000, stream="train"))
    for kind in DOMAINS:
        assert not train & set(requests(kind, 2000, stream="test"))
    told = re.compile(
        r"\b(turn|switch) (on|off)\b|\blights\b|\bplay\b|\bsong\b|\bdishwasher\b|\bthermostat\b"
    )
    for line in filter(told.search, train):
        assert ABOUT_WORDS.search(line), line


def test_every_request_of_a_domain_is_one_of_it() -> None:
    for kind, held in DOMAINS.items():
        rules = rules_of(kind)
        assert all(names(choice, held) for rule in ("ASK", "DOIT") for choice in rules[rule].choices)


def test_nearly_every_word_of_the_other_domains_is_known_from_training() -> None:
    train = {word for line in requests("frequent", 12_000, stream="train") for word in line.split()}
    for kind in DOMAINS:
        said = Counter(word for line in requests(kind, 2000) for word in line.split())
        new = sum(count for word, count in said.items() if word not in train)
        assert new < 0.015 * said.total()


def test_what_frequent_keeps_has_the_weights_of_the_whole_grammar() -> None:
    """P(choice | not of a domain) = P(choice) / Σ P(choices kept), rule by rule."""
    whole, kept = default_rules(), rules_of("frequent")
    for name in ("DOIT", "TIMER", "CHORE", "VOLUME"):
        weights = dict(zip(whole[name].choices, gaps(whole[name].cumulative), strict=True))
        for choice, weight in zip(kept[name].choices, gaps(kept[name].cumulative), strict=True):
            assert weight == pytest.approx(weights.pop(choice))
        held = [word for words in DOMAINS.values() for word in words]
        assert all(names(choice, held) for choice in weights)
    asks = dict(zip(kept["ASK"].choices, gaps(kept["ASK"].cumulative), strict=True))
    assert asks["LOOKUP"] / sum(asks.values()) == pytest.approx(1 / LOOKUPS)


def gaps(cumulative: tuple[float, ...]) -> list[float]:
    return [high - low for low, high in zip((0.0, *cumulative), cumulative, strict=False)]


def test_the_vocabulary_holds_what_is_said() -> None:
    numbers = {*ONES, *TENS}
    for kind in KINDS:
        rules, rng = rules_of(kind), random.Random(3)
        said = {word for _ in range(1500) for word in sentence(rng, rules).split()}
        assert said - numbers - {"a", "an"} <= vocabulary(rules)


def test_an_unknown_kind_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="kind 'travel': choose from frequent, appliances, entertainment"):
        next(requests("travel", 1))
