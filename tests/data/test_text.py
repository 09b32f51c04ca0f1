"""Words to ids and back, and what is said about text that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest

from greenasr.data.text import EOS, UNK, Vocabulary, WordPieces, read_sentences, stream, tokenizer_from_json

TEXT = [["the", "cat", "sat"], ["the", "dog"], ["the", "cat", "the", "cat"], ["ça", "va"]]


def pieces(size: int = 16) -> WordPieces:
    return WordPieces.train(TEXT * 30, size)


def test_sentences_are_the_words_of_every_line_that_has_some(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("the cat  sat\r\n\n\t ça va \nlast".encode())
    assert read_sentences(path) == [["the", "cat", "sat"], ["ça", "va"], ["last"]]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "no words in it; give a text with one sentence a line"),
        (b"\n \n", "no words in it"),
        (b"good\nb\xe9d\n", r":2: not UTF-8 at byte 2: convert the file"),
        (b"good\n" + b"a " * 60_000, r":2: a line of 120,000 bytes; text is one sentence a line"),
    ],
)
def test_text_that_cannot_be_read_is_named_by_file_and_line(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=f"bad.txt.*{message}"):
        read_sentences(path)


def test_a_vocabulary_is_sorted_by_frequency_with_ends_of_sentence_counted() -> None:
    vocabulary = Vocabulary.from_sentences(TEXT)
    assert vocabulary.words == (EOS, "the", "cat", "dog", "sat", "va", "ça", UNK)
    assert vocabulary.word_ids(["cat", "zebra"]) == [[2], [7]]
    assert vocabulary.words[vocabulary.eos] == EOS and "cat" in vocabulary and "zebra" not in vocabulary


def test_the_largest_vocabulary_gives_the_rest_to_unk() -> None:
    vocabulary = Vocabulary.from_sentences(TEXT, largest=4)
    assert vocabulary.size == 4
    assert vocabulary.words == (UNK, EOS, "the", "cat") or set(vocabulary.words[:2]) == {UNK, EOS}
    with pytest.raises(ValueError, match="a word list of 2 has no room beside <eos> and <unk>"):
        Vocabulary.from_sentences(TEXT, largest=2)


def test_a_word_list_is_read_as_it_stands_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("<eos>\nb\na\n<unk>\n")
    assert Vocabulary.from_file(path).words == (EOS, "b", "a", UNK)
    path.write_text("<eos>\nb a\n<unk>\n")
    with pytest.raises(ValueError, match="words:2: 2 words; a word list has one word a line"):
        Vocabulary.from_file(path)
    with pytest.raises(ValueError, match="the word list has 'a' twice"):
        Vocabulary((EOS, UNK, "a", "a"))
    with pytest.raises(ValueError, match="the word list lacks <eos> and <unk>"):
        Vocabulary(("a",))


def test_pieces_of_a_word_do_not_depend_on_its_neighbours() -> None:
    tokenizer = pieces()
    words = ["the", "cat", "dog", "cats"]
    assert tokenizer.word_ids(words) == [tokenizer.word_ids([word])[0] for word in words]
    for word, ids in zip(words[:3], tokenizer.word_ids(words), strict=False):
        assert tokenizer._processor.decode(ids) == word


def test_every_word_has_at_least_one_piece_even_if_nothing_of_it_is_known() -> None:
    assert all(len(ids) >= 1 for ids in pieces().word_ids(["\u2581", "\u200b", "zebra", UNK]))


def test_too_many_pieces_for_the_text_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"cannot train 500 word pieces on this text: .*too high") as error:
        pieces(500)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tokenizer", [Vocabulary.from_sentences(TEXT), pieces()], ids=["words", "pieces"])
def test_tokenizers_survive_json(tokenizer: Vocabulary | WordPieces) -> None:
    again = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again == tokenizer and again.word_ids(["cat", "ça"]) == tokenizer.word_ids(["cat", "ça"])
    with pytest.raises(ValueError, match="unknown tokenizer kind 'bytes'"):
        tokenizer_from_json({"kind": "bytes"})


@pytest.mark.parametrize("tokenizer", [Vocabulary.from_sentences(TEXT), pieces()], ids=["words", "pieces"])
def test_a_stream_is_every_sentence_and_its_end(tokenizer: Vocabulary | WordPieces) -> None:
    ids, ends = stream(TEXT, tokenizer)
    slow = [
        i for words in TEXT for i in [*(i for word in tokenizer.word_ids(words) for i in word), tokenizer.eos]
    ]
    assert ids.tolist() == slow and ids.dtype == np.int32
    assert len(ends) == len(ids) and ends[ids == tokenizer.eos].all()
    assert ends.sum() == sum(len(words) + 1 for words in TEXT)  # a mark a word, and one a sentence


def test_a_word_begins_with_a_piece_that_begins_with_a_space() -> None:
    tokenizer = pieces()
    ids = [i for word in tokenizer.word_ids(["the", "cats", "zebra", "the"]) for i in word]
    begin = [k for k, i in enumerate(ids) if tokenizer.begins_word(i)]
    spans = [ids[first:stop] for first, stop in zip(begin, [*begin[1:], len(ids)], strict=True)]
    assert (
        begin[0] == 0 and tokenizer.words_of(spans[0]) == ["the"] and tokenizer.words_of(spans[1]) == ["cats"]
    )
    assert [word for span in spans for word in tokenizer.words_of(span)] == tokenizer.words_of(ids)
    words = Vocabulary.from_sentences(TEXT)
    assert all(words.begins_word(i) for i in range(words.size))
