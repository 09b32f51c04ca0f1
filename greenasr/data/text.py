"""Text for language models: one sentence a line, into words, into ids.

Two tokenizers with one interface.  `Vocabulary` is a word list sorted by frequency, so that rows of
an embedding come in frequency bands; `WordPieces` is a sentencepiece model, of pieces or of letters.
``<eos>`` ends every sentence and begins the next.  Nothing is normalised: text is scored as it is written.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sentencepiece
from numpy.typing import NDArray

EOS, UNK = "<eos>", "<unk>"
LONGEST_LINE = 100_000  # characters; a longer line is a file that is not one sentence a line
Words = Sequence[str]


def read_sentences(path: str | Path) -> list[list[str]]:
    """The words of every non-empty line; ValueError names file, line and cure."""
    return [words for _, words in _lines(path)]


def _lines(path: str | Path) -> list[tuple[int, list[str]]]:
    """Number and words of every non-empty line."""
    sentences = []
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            if len(raw) > LONGEST_LINE:
                raise ValueError(
                    f"{path}:{number}: a line of {len(raw):,} bytes; text is one sentence a line, split it."
                )
            try:
                words = raw.decode("utf-8").split()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: not UTF-8 at byte {error.start + 1}: convert the file, for example "
                    "with `iconv -f latin1 -t utf-8`."
                ) from None
            if words:
                sentences.append((number, words))
    if not sentences:
        raise ValueError(f"{path}: no words in it; give a text with one sentence a line.")
    return sentences


def check_covers(
    known: Container[str], path: str | Path, sentences: Iterable[Words], share: float = 0.5
) -> None:
    """Refuse a word list that lacks more than ``share`` of a text's words: it is another text's."""
    counts = Counter(word for words in sentences for word in words)
    unknown = sum(n for word, n in counts.items() if word not in known)
    if unknown > share * counts.total():
        raise ValueError(
            f"{path}: the word list lacks {unknown:,} of the text's {counts.total():,} words: it belongs to "
            "another text, or case or spelling differ; give this text's list or none."
        )


class Tokenizer(Protocol):
    """Words to ids; every word becomes one id or several."""

    @property
    def size(self) -> int:
        """Number of ids."""
        ...

    @property
    def eos(self) -> int:
        """The id that ends and begins a sentence."""
        ...

    def word_ids(self, words: Words) -> list[list[int]]:
        """The ids of each word."""
        ...

    def words_of(self, ids: Sequence[int]) -> list[str]:
        """The words that ids spell."""
        ...

    def begins_word(self, i: int) -> bool:
        """Whether a word begins with the id."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Everything that `tokenizer_from_json` needs."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """A word list, most frequent first; unknown words become ``<unk>``.

    >>> v = Vocabulary.from_sentences([["a", "b"], ["a"], ["a", "c"]])
    >>> v.words, v.word_ids(["c", "x"])
    (('<eos>', 'a', 'b', 'c', '<unk>'), [[3], [4]])
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse lists that cannot serve."""
        if len(set(self.words)) != len(self.words):
            twice = next(word for word, n in Counter(self.words).items() if n > 1)
            raise ValueError(f"the word list has '{twice}' twice: keep one.")
        if missing := {EOS, UNK} - set(self.words):
            raise ValueError(f"the word list lacks {' and '.join(sorted(missing))}: add it.")

    @classmethod
    def from_sentences(cls, sentences: Iterable[Words], largest: int | None = None) -> Vocabulary:
        """All words, or the ``largest`` - 2 most frequent ones beside ``<eos>`` and ``<unk>``."""
        if largest is not None and largest < 3:
            raise ValueError(
                f"a word list of {largest} has no room beside {EOS} and {UNK}: make it 3 or more."
            )
        counts: Counter[str] = Counter()
        n_sentences = 0
        for words in sentences:
            counts.update(words)
            n_sentences += 1
        unk, eos = counts.pop(UNK, 0), counts.pop(EOS, 0)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if largest is not None:
            unk += sum(n for _, n in ranked[largest - 2 :])
            ranked = ranked[: largest - 2]
        ranked += [(EOS, n_sentences + eos), (UNK, unk)]
        return cls(tuple(word for word, _ in sorted(ranked, key=lambda item: (-item[1], item[0]))))

    @classmethod
    def from_file(cls, path: str | Path) -> Vocabulary:
        """A word list, one word a line, most frequent first."""
        first: dict[str, int] = {}
        for number, row in _lines(path):
            if len(row) != 1:
                raise ValueError(f"{path}:{number}: {len(row)} words; a word list has one word a line.")
            if row[0] in first:
                raise ValueError(
                    f"{path}:{number}: '{row[0]}' stands on line {first[row[0]]} already: keep one."
                )
            first[row[0]] = number
        try:
            return cls(tuple(first))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def __contains__(self, word: object) -> bool:
        """Whether the list has the word."""
        return word in self._ids

    @property
    def size(self) -> int:
        """Number of words, ``<eos>`` and ``<unk>`` included."""
        return len(self.words)

    @property
    def eos(self) -> int:
        """The id of ``<eos>``."""
        return self._ids[EOS]

    def word_ids(self, words: Words) -> list[list[int]]:
        """One id a word."""
        unk = self._ids[UNK]
        return [[self._ids.get(word, unk)] for word in words]

    def words_of(self, ids: Sequence[int]) -> list[str]:
        """One word an id."""
        return [self.words[i] for i in ids]

    def begins_word(self, i: int) -> bool:
        """Every id does."""
        return True

    def to_json(self) -> dict[str, Any]:
        """The list itself."""
        return {"kind": "words", "words": " ".join(self.words)}


@dataclass(frozen=True)
class WordPieces:
    """A sentencepiece model; words are split one by one, so pieces never cross a space."""

    model: bytes

    @classmethod
    def train(
        cls, sentences: Iterable[Words], size: int, seed_words: int = 1_000_000, kind: str = "unigram"
    ) -> WordPieces:
        """Train ``size`` pieces; ValueError when the text has too few distinct characters or words.

        Of ``kind`` "char" the pieces are at most ``size`` characters, one of them the beginning of a word.

        >>> letters = WordPieces.train([["go", "stop"]], 100, kind="char")
        >>> letters.words_of([i for word in letters.word_ids(["stop", "go"]) for i in word])
        ['stop', 'go']
        """
        out = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(" ".join(words) for words in sentences),
                model_writer=out,
                vocab_size=size,
                model_type=kind,
                hard_vocab_limit=kind != "char",
                character_coverage=1.0,
                normalization_rule_name="identity",
                input_sentence_size=seed_words,
                shuffle_input_sentence=False,
                bos_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"cannot train {size} word pieces on this text: {str(error).splitlines()[-1]}"
            ) from None
        return cls(out.getvalue())

    @cached_property
    def _processor(self) -> Any:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    @property
    def size(self) -> int:
        """Number of pieces."""
        return int(self._processor.vocab_size())

    @property
    def eos(self) -> int:
        """The id of the end of a sentence."""
        return int(self._processor.eos_id())

    def word_ids(self, words: Words) -> list[list[int]]:
        """The pieces of each word; the unknown piece for a word that has none."""
        return [ids or [int(self._processor.unk_id())] for ids in self._processor.encode(list(words))]

    def words_of(self, ids: Sequence[int]) -> list[str]:
        """The words that the pieces join to."""
        return str(self._processor.decode(list(ids))).split()

    def begins_word(self, i: int) -> bool:
        """Whether the piece begins with a space, as sentencepiece writes it."""
        return str(self._processor.id_to_piece(i)).startswith("\u2581")

    @property
    def pieces(self) -> list[str]:
        """The pieces by id, as sentencepiece writes them."""
        return [str(self._processor.id_to_piece(i)) for i in range(self.size)]

    def to_json(self) -> dict[str, Any]:
        """The model as base64."""
        return {"kind": "pieces", "model": base64.b64encode(self.model).decode()}


@dataclass(frozen=True)
class Letters:
    """Letters in a given order, one of them the space, with which every word begins: NeMo's labels.

    >>> letters = Letters((" ", "a", "b"))
    >>> letters.word_ids(["ab", "b"]), letters.words_of([1, 2, 0, 2])
    ([[0, 1, 2], [0, 2]], ['ab', 'b'])
    """

    letters: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse lists that cannot spell words."""
        if " " not in self.letters or len(set(self.letters)) != len(self.letters):
            raise ValueError("letters want a space to part words, and every letter once.")

    @property
    def size(self) -> int:
        """Number of letters, the space included."""
        return len(self.letters)

    @property
    def eos(self) -> int:
        """Raise ValueError: there is no end of a sentence among letters."""
        raise ValueError("letters have no end of a sentence: a language model wants words or pieces.")

    def word_ids(self, words: Words) -> list[list[int]]:
        """A space and the letters of each word; ValueError for a letter that there is not."""
        place = {letter: i for i, letter in enumerate(self.letters)}
        for word in words:
            if odd := [letter for letter in word if letter not in place]:
                raise ValueError(
                    f"'{word}' has the letter '{odd[0]}', the network's are {''.join(self.letters)}: "
                    "spell the text in these."
                )
        return [[place[" "], *(place[letter] for letter in word)] for word in words]

    def words_of(self, ids: Sequence[int]) -> list[str]:
        """The words that letters spell."""
        return "".join(self.letters[i] for i in ids).split()

    def begins_word(self, i: int) -> bool:
        """Whether it is the space."""
        return self.letters[i] == " "

    def to_json(self) -> dict[str, Any]:
        """The letters in their order."""
        return {"kind": "letters", "letters": list(self.letters)}


def tokenizer_from_json(value: dict[str, Any]) -> Vocabulary | WordPieces | Letters:
    """What ``to_json`` of any tokenizer wrote."""
    if value.get("kind") == "letters":
        return Letters(tuple(value["letters"]))
    if value.get("kind") == "words":
        return Vocabulary(tuple(value["words"].split(" ")))
    if value.get("kind") == "pieces":
        return WordPieces(base64.b64decode(value["model"]))
    raise ValueError(
        f"unknown tokenizer kind {value.get('kind')!r}: this version reads 'words', 'pieces' and 'letters'."
    )


def stream(sentences: Iterable[Words], tokenizer: Tokenizer) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """All sentences as one row of ids, ``<eos>`` after each, (n,); and which of them end a word, (n,)."""
    ids: list[int] = []
    ends: list[bool] = []
    memo: dict[str, list[int]] = {}
    for words in sentences:
        for word in words:
            if word not in memo:
                memo[word] = tokenizer.word_ids([word])[0]
            ids += memo[word]
            ends += [False] * (len(memo[word]) - 1) + [True]
        ids.append(tokenizer.eos)
        ends.append(True)
    return np.array(ids, dtype=np.int32), np.array(ends)
