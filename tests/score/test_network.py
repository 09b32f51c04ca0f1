from __future__ import annotations

import random

import pytest

from greenasr.score.align import align, ops
from greenasr.score.markup import Alternatives, Token, parse
from greenasr.score.network import Rules, align_networks, network, ops_tokens

BOTH = Rules(optional=True, fragments=True)


def plain_versions(tokens: tuple[Token, ...]) -> list[list[str]]:
    """Every way to read a transcript with alternatives."""
    if not tokens:
        return [[]]
    head, rest = tokens[0], plain_versions(tokens[1:])
    if isinstance(head, Alternatives):
        heads = [version for option in head.options for version in plain_versions(option)]
    else:
        heads = [[] if head == "@" else [head]]
    return [[*h, *r] for h in heads for r in rest]


def cost(path: str) -> int:
    return 4 * path.count("S") + 3 * path.count("D") + 3 * path.count("I")


def test_without_alternatives_the_network_aligns_as_the_plain_recursion_does() -> None:
    draw = random.Random(0)
    for _ in range(300):
        ref, hyp = ([draw.choice("abc") for _ in range(draw.randrange(8))] for _ in range(2))
        assert align_networks(network(ref), network(hyp)) == align(ref, hyp)


@pytest.mark.parametrize(
    "ref",
    [
        "a { b / c d } e",
        "{ a / @ } { b / { c / d e } f }",
        "{ a b / @ }",
        "x { um / uh / @ } y { um / uh / @ } z",
    ],
)
def test_alternatives_cost_as_much_as_the_best_way_to_read_them(ref: str) -> None:
    draw = random.Random(1)
    for _ in range(60):
        hyp = [draw.choice(["a", "b", "c", "d", "um"]) for _ in range(draw.randrange(6))]
        best = min(cost(ops(version, hyp)) for version in plain_versions(parse(ref)))
        assert cost(ops_tokens(parse(ref), hyp)) == best


@pytest.mark.parametrize(
    ("ref", "hyp", "rules", "path"),
    [
        ("a { c / @ } d", "a d", Rules(), "CC"),
        ("a { c / @ } d", "a { x / c } d", Rules(), "CCC"),
        ("b (c) d", "b d", BOTH, "CCC"),  # left out, and counted as right
        ("b (c) d", "b d", Rules(fragments=True), "CDC"),
        ("b (c) d", "b c d", BOTH, "CCC"),
        ("b (c) d", "b x d", BOTH, "CSC"),
        ("fi- th- -icks", "find the ticks", BOTH, "CCC"),
        ("fi- th- -icks", "find the ticks", Rules(), "SSS"),
        ("find", "fi-", BOTH, "C"),
        ("b (c-) d", "b cat d", BOTH, "CCC"),
        ("-", "a", BOTH, "S"),  # a lone hyphen is no fragment
    ],
)
def test_optional_words_and_fragments(ref: str, hyp: str, rules: Rules, path: str) -> None:
    assert ops_tokens(parse(ref), parse(hyp), rules) == path


@pytest.mark.parametrize(("text", "message"), [("a { b / c", "not closed"), ("{ / }", "are empty")])
def test_broken_alternatives_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)
