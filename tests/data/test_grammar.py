"""The embedded corpus: repeatable, with something in it to learn."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest

from greenasr.data import grammar
from greenasr.data.grammar import generate


def test_the_same_seed_gives_the_same_text_on_every_machine() -> None:
    text = "\n".join(generate("train", 200, seed=1))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "48eff1384646aa45"


def test_splits_and_seeds_are_different_streams() -> None:
    texts = [tuple(generate(split, 50, seed)) for split in grammar.SPLITS for seed in (0, 1)]
    assert len(set(texts)) == 6


def test_long_sentences_of_test_are_not_in_train() -> None:
    train = set(generate("train", 3000))
    long = [line for line in generate("test", 600) if len(line.split()) >= 14]
    assert sum(line in train for line in long) <= 0.02 * len(long)


def test_text_is_lower_case_words_apart_by_single_spaces() -> None:
    for line in generate("dev", 2000):
        assert re.fullmatch(r"[a-z']+( [a-z']+)*", line), line


def test_every_rule_is_reached_and_every_form_is_there() -> None:
    rules = grammar.default_rules()
    used = {
        name for rule in rules.values() for choice in rule.choices for name in re.findall("[A-Z]{2,}", choice)
    }
    assert set(rules) - used == {"REQUEST"}
    forms = {name: min(choice.count("/") for choice in rule.choices) for name, rule in rules.items()}
    for rule in rules.values():
        for choice in rule.choices:
            for name, form in re.findall(r"([A-Z]{2,})\.(\d)", choice):
                assert int(form) <= forms[name], f"{name}.{form} in '{choice}'"


def test_few_words_make_up_most_of_the_text() -> None:
    counts = Counter(word for line in generate("train", 5000) for word in line.split())
    top = sum(count for _, count in counts.most_common(50)) / counts.total()
    assert 900 < len(counts) < 1500
    assert 0.45 < top < 0.75


def test_pronouns_agree_with_names_said_before() -> None:
    lines = [
        line
        for line in generate("train", 20000)
        if re.search(r"^if (mary|emma|james|oscar) calls tell", line)
    ]
    assert lines
    for line in lines:
        name, pronoun = re.findall(r"^if (\w+) calls tell (\w+) that i will call (?:\2) back", line)[0]
        assert pronoun == ("her" if name in ("mary", "emma") else "him")


def test_a_before_a_vowel_is_an() -> None:
    text = " ".join(generate("train", 3000))
    assert "schedule an interview" in text
    assert not re.search(r"schedule a [aeiou]", text)


def test_odd_requests_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="split 'valid' is not one of train, dev, test"):
        next(generate("valid", 1))
    with pytest.raises(ValueError, match="uses DRINK, which has no rule"):
        grammar.parse("ORDER: bring me DRINK")
