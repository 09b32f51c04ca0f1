r"""ARPA: the text file of a back-off language model, plain or gzip.

    \data\            ngram 1=U_1 …      how many n-grams of each order follow
    \1-grams:         log10 p <tab> words <tab> log10 b      b only below the highest order
    \end\

Format: SRILM's ngram-format(5).  Reading is strict: a file whose counts, words or contexts do not
fit together is refused with the line at fault.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from greenasr.data.files import atomic
from greenasr.decode.ngram import BOS, EOS, Floats, Ints, NGram

Fail = Callable[[int, str], ValueError]
ZERO = -99.0  # written for log10 0, as SRILM has it


def write_arpa(lm: NGram, path: str | os.PathLike[str]) -> None:
    """Write the model whole or not at all; a name that ends in .gz is compressed."""
    with atomic(path) as draft, open(draft, "wb") as raw:
        if Path(path).suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed, io.TextIOWrapper(packed, "utf-8") as out:
                out.writelines(_lines(lm))
        else:
            with io.TextIOWrapper(raw, "utf-8") as out:
                out.writelines(_lines(lm))


def _lines(lm: NGram) -> Iterator[str]:
    yield "\\data\\\n"
    for n, count in enumerate(lm.counts, 1):
        yield f"ngram {n}={count}\n"
    texts: list[str] = [""]
    for n in range(1, lm.order + 1):
        yield f"\n\\{n}-grams:\n"
        context, word = np.divmod(lm.keys[n - 1], len(lm.words))
        last = [lm.words[i] for i in word.tolist()]
        texts = last if n == 1 else [f"{texts[c]} {w}" for c, w in zip(context.tolist(), last, strict=True)]
        logprobs = np.maximum(lm.logprobs[n - 1], ZERO).tolist()
        if n == lm.order:
            yield from (f"{p:.8g}\t{text}\n" for p, text in zip(logprobs, texts, strict=True))
        else:
            backoffs = np.maximum(lm.backoffs[n - 1], ZERO).tolist()
            yield from (f"{p:.8g}\t{t}\t{b:.8g}\n" for p, t, b in zip(logprobs, texts, backoffs, strict=True))
    yield "\n\\end\\\n"


def read_arpa(path: str | os.PathLike[str]) -> NGram:
    """Read and check a model; n-grams may stand in any order within their section."""
    lines = _read(path)

    def fail(line: int, found: str) -> ValueError:
        cure = "Write the file again with the program that made it, or with `greenasr ngram`."
        return ValueError(f"{path}:{line}: {found}. {cure}")

    promised, at = _header(lines, fail)
    words: tuple[str, ...] = ()
    ids: dict[str, int] = {}
    keys: list[Ints] = []
    logprobs: list[Floats] = []
    backoffs: list[Floats] = []
    for n, count in enumerate(promised, 1):
        if at >= len(lines) or lines[at].strip() != f"\\{n}-grams:":
            found = lines[at].strip()[:60] if at < len(lines) else "the end of the file"
            raise fail(at + 1, f"found '{found}' where \\{n}-grams: was expected")
        start = at + 1
        end = next((i for i in range(start, len(lines)) if lines[i].startswith("\\")), len(lines))
        while end > start and not lines[end - 1].strip():
            end -= 1
        if end - start != count:
            raise fail(start, f"\\data\\ promises {count} {n}-grams and {end - start} are listed")
        section, widths = lines[start:end], (n + 1,) if n == len(promised) else (n + 1, n + 2)
        columns = _columns(section, max(widths))
        if columns is None:  # not all of one width: slower, line by line
            rows = [line.split() for line in section]
            odd = next((i for i, row in enumerate(rows) if len(row) not in widths), None)
            if odd is not None:
                raise fail(
                    start + odd + 1,
                    f"{len(rows[odd])} fields where a {n}-gram has {' or '.join(map(str, widths))}",
                )
            columns = [
                list(column) for column in zip(*([*row, "0"][: max(widths)] for row in rows), strict=True)
            ]
        p = _floats(columns[0], start, fail)
        b = _floats(columns[n + 1], start, fail) if n < len(promised) else p
        if (p > 0).any():
            raise fail(start + int(np.argmax(p > 0)) + 1, f"log10 probability {p.max():g} is above 0")
        if n == 1:
            words = tuple(columns[1])
            ids = {word: i for i, word in enumerate(words)}
            if len(ids) < len(words):
                first = dict(zip(reversed(words), range(count - 1, -1, -1), strict=True))
                twice = next(i for i, word in enumerate(words) if first[word] != i)
                raise fail(start + twice + 1, f"the word '{words[twice]}' is listed twice")
            if BOS not in ids or EOS not in ids:
                raise fail(start, f"no unigram {BOS if BOS not in ids else EOS}")
            found_keys = np.arange(count)
        else:
            found_keys = _keys(columns[1 : n + 1], ids, keys, start, fail)
        order = np.argsort(found_keys, kind="stable")
        found_keys = found_keys[order]
        same = np.flatnonzero(found_keys[1:] == found_keys[:-1])
        if len(same):
            i = int(order[same[0] + 1])
            raise fail(
                start + i + 1, f"the {n}-gram '{' '.join(c[i] for c in columns[1 : n + 1])}' is listed twice"
            )
        keys.append(found_keys)
        logprobs.append(p[order])
        backoffs.append(b[order])
        at = next((i for i in range(end, len(lines)) if lines[i].strip()), len(lines))
    if at >= len(lines) or lines[at].strip() != "\\end\\":
        raise fail(at + 1, "no line \\end\\ after the last section, so the file may be cut short")
    return NGram(words, tuple(keys), tuple(logprobs), tuple(backoffs[:-1]))


def _read(path: str | os.PathLike[str]) -> list[str]:
    with open(path, "rb") as file:
        data = file.read()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path}: gzip data is damaged ({error}). Copy or write the file again."
            ) from None
    try:
        return data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8. Convert it, e.g. `iconv -f latin1 -t utf-8`.") from None


def _header(lines: list[str], fail: Fail) -> tuple[list[int], int]:
    """The promised counts, and the index of the line after them."""
    at = next((i for i, line in enumerate(lines) if line.strip() == "\\data\\"), None)
    if at is None:
        raise fail(1, "no line \\data\\, so this is not an ARPA language model")
    promised: list[int] = []
    start = at + 1
    for at, line in enumerate(lines[start:], start):
        text = line.strip()
        if text.startswith("\\"):
            break
        if text:
            left, _, right = text.partition("=")
            if left.split() != ["ngram", str(len(promised) + 1)] or not right.strip().isdigit():
                raise fail(
                    at + 1, f"found '{text[:60]}' where 'ngram {len(promised) + 1}=COUNT' was expected"
                )
            promised.append(int(right))
    if not promised:
        raise fail(at + 1, "no 'ngram 1=COUNT' after \\data\\")
    return promised, at


def _columns(section: list[str], width: int) -> list[list[str]] | None:
    """The fields of lines that all have ``width`` of them, column by column; None if they do not."""
    if not section:
        return [[] for _ in range(width)]
    if any(line.count("\t") + line.count(" ") != width - 1 for line in section):
        return None
    fields = "\n".join(section).split()
    return [fields[i::width] for i in range(width)] if len(fields) == width * len(section) else None


def _floats(texts: list[str], start: int, fail: Fail) -> Floats:
    try:
        values = np.array(texts, dtype=np.float64)
    except ValueError:
        values = np.full(len(texts), np.nan)
        for i, text in enumerate(texts):
            try:
                values[i] = float(text)
            except ValueError:
                raise fail(start + i + 1, f"'{text[:40]}' is not a number") from None
    if np.isnan(values).any():
        raise fail(start + int(np.argmax(np.isnan(values))) + 1, "a probability is not a number")
    return values


def _keys(columns: list[list[str]], ids: dict[str, int], keys: list[Ints], start: int, fail: Fail) -> Ints:
    """Key of every n-gram, by looking up its first 1, 2, … n-1 words in the tables below."""
    n = len(columns)
    grams = np.array([[ids.get(word, -1) for word in column] for column in columns], np.int64).T
    if (grams < 0).any():
        i, j = (int(x) for x in np.argwhere(grams < 0)[0])
        raise fail(start + i + 1, f"the word '{columns[j][i]}' is not among the unigrams")
    context = grams[:, 0]
    for m in range(1, n - 1):
        wanted = context * len(ids) + grams[:, m]
        table = keys[m]
        found = np.minimum(np.searchsorted(table, wanted), max(len(table) - 1, 0))
        absent = table[found] != wanted if len(table) else np.ones(len(wanted), bool)
        if absent.any():
            i = int(np.argmax(absent))
            raise fail(
                start + i + 1,
                f"the context '{' '.join(c[i] for c in columns[: m + 1])}' is not listed as a {m + 1}-gram",
            )
        context = found
    return context * len(ids) + grams[:, n - 1]
