r"""Transcripts with sclite's markup: alternatives, words that may be left out, fragments, tags.

    { um / uh / @ }     any one of these; @ is nothing at all; alternatives nest
    (the)               optionally deletable, when that is asked for (sclite -D)
    fi-  -icks          a fragment, right when the other word begins (ends) so (sclite -F)
    word;tag1;tag2      tags are dropped; \; is a semicolon; one * at the end of a word is dropped

See "sclite" in SCTK's documentation, and `word.c`, `text.c` of its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NULL = "@"
TAG = re.compile(r"(?<!\\);")


@dataclass(frozen=True)
class Alternatives:
    """``{ a / b c }``: one of several token sequences."""

    options: tuple[tuple[Token, ...], ...]


Token = str | Alternatives


def clean_word(raw: str) -> str:
    r"""A word without tags, escapes and a final star.

    >>> clean_word("They;tag1;tag2"), clean_word(r"a\;s"), clean_word("dog*")
    ('They', 'a;s', 'dog')
    """
    word = TAG.split(raw, maxsplit=1)[0].replace("\\;", ";")
    return word[:-1] if len(word) > 1 and word.endswith("*") else word


def parse(text: str) -> tuple[Token, ...]:
    """Words and alternatives of a transcript.

    >>> parse("so { um / { oh / @ } well } yes;tag")
    ('so', Alternatives(options=(('um',), (Alternatives(options=(('oh',), ('@',))), 'well'))), 'yes')
    """
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "{":
            end = _closing(text, at)
            tokens.append(Alternatives(_options(text[at + 1 : end])))
            at = end + 1
        else:
            start = at
            while at < len(text) and not text[at].isspace():
                at += 1
            tokens.append(clean_word(text[start:at]))
    return tuple(tokens)


def _closing(text: str, start: int) -> int:
    """Where the brace at ``start`` is closed."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at
    raise ValueError(
        f"alternatives are not closed: found '{text[start : start + 20]}', expected '{{ a / b }}'. "
        "Close the brace."
    )


def _options(inside: str) -> tuple[tuple[Token, ...], ...]:
    """The sequences between the slashes of one brace, inner braces left whole; empty ones are none."""
    parts, depth = [""], 0
    for char in inside:
        depth += (char == "{") - (char == "}")
        if char == "/" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    options = tuple(option for option in map(parse, parts) if option)
    if not options:
        raise ValueError(
            f"alternatives are empty: found '{{{inside}}}', expected '{{ a / b }}'. Use @ for nothing."
        )
    return options


def characters(tokens: Iterable[Token]) -> tuple[Token, ...]:
    """Every word as its characters, for a character error rate (sclite -c).

    >>> characters(("to", "be"))
    ('t', 'o', 'b', 'e')
    """
    out: list[Token] = []
    for token in tokens:
        if isinstance(token, str):
            out.extend(token)
        else:
            out.append(Alternatives(tuple(map(characters, token.options))))
    return tuple(out)


def first_option(tokens: Sequence[Token]) -> list[str]:
    """Plain words: of alternatives the first, null words dropped.

    >>> first_option(parse("so { um / uh } { @ / well }"))
    ['so', 'um']
    """
    words: list[str] = []
    for token in tokens:
        if isinstance(token, Alternatives):
            words.extend(first_option(token.options[0]))
        elif token != NULL:
            words.append(token)
    return words
