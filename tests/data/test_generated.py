"""The generated corpus: the same bytes for the same call, resumed, with a pronunciation for every word."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import numpy as np
import pytest

from greenasr.data import generated
from greenasr.data.audio import samples
from greenasr.data.confusions import vocabulary
from greenasr.data.corpora import load_cuts, read_corpus
from greenasr.data.files import read_json
from greenasr.data.generated import degrade, generate_speech, grammar_lexicon
from greenasr.data.generated_splits import CLEAN, DOMAINS, Condition, spelling_rules
from greenasr.data.grammar import sentence
from greenasr.data.lexicon import Lexicon

TINY = {"hours": 0.006, "utterances": 4}
SPEECH = DOMAINS["speech"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    out = tmp_path_factory.mktemp("corpus")
    generate_speech(out, jobs=1, **TINY)
    return out


def contents(out: Path) -> dict[str, str]:
    """Digest of every audio file, text and lexicon; cuts name their folder."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.endswith(".gz")
    }


def test_the_lexicon_has_every_word_of_the_grammar_and_no_other() -> None:
    lexicon = grammar_lexicon()
    assert set(lexicon.words) == set(vocabulary())
    assert len(lexicon.phones) == 1 + 39  # those of the CMU dictionary
    assert lexicon.prons["read"] == (("R", "IY", "D"),)
    assert lexicon.prons["a"] == (("AH",), ("EY",))


def test_words_that_differ_are_said_differently_but_for_homophones() -> None:
    by_sound: dict[tuple[str, ...], set[str]] = {}
    for word, prons in grammar_lexicon().prons.items():
        by_sound.setdefault(prons[0], set()).add(word)
    shared = {frozenset(words) for words in by_sound.values() if len(words) > 1}
    known = (
        "are r,b be,buy by,c see,cereal serial,for four,know no,o oh,one won,t tea,their there,to too two,"
        "u you,why y"
    )
    assert shared == {frozenset(group.split()) for group in known.split(",")}


def test_the_letter_a_is_marked_and_nothing_else_changes() -> None:
    plain, marked = random.Random("x"), random.Random("x")
    spelled = 0
    for _ in range(3000):
        line = sentence(marked, spelling_rules())
        assert line.replace("a_", "a") == sentence(plain)
        spelled += line.count("a_")
        assert not re.search(r"\b(a [b-hj-z]|[b-hj-z] a)\b", line), line  # beside letters but i, it is one
        assert not re.search(r"\ba_ (timer|song|joke|flight|recipe|minute)", line), line
    assert spelled > 50


@pytest.mark.parametrize(
    "condition", [CLEAN, Condition("far", (5, 10), rt60=(0.3, 0.5))], ids=lambda c: c.name
)
def test_the_stated_snr_is_that_of_the_samples(condition: Condition) -> None:
    rng = np.random.default_rng(99)  # not one of the seeds below, whose noise would be this speech
    speech = (rng.standard_normal(40_000) * np.sin(np.arange(40_000) / 3000) ** 2).astype(np.float32)
    talkers = [rng.standard_normal(9000).astype(np.float32)]
    for seed in range(4):
        heard, facts = degrade(speech, condition, talkers, np.random.default_rng(seed))
        one, two = condition.snr
        assert one <= facts["snr"] <= two and np.abs(heard).max() <= 0.951
        loud = degrade_with_snr(speech, condition, talkers, seed)  # the same without noise to speak of
        loud *= np.dot(heard, loud) / np.dot(loud, loud)
        written = np.rint(heard * 32767) / 32767
        snr = 10 * np.log10((loud**2).sum() / ((written - loud) ** 2).sum())
        assert snr == pytest.approx(facts["snr"], abs=0.1)


def degrade_with_snr(
    speech: np.ndarray, condition: Condition, talkers: list[np.ndarray], seed: int
) -> np.ndarray:
    quiet = Condition(condition.name, (150, 150), condition.noises, condition.rt60)
    return degrade(speech, quiet, talkers, np.random.default_rng(seed))[0]


def test_the_test_sets_grow_harder() -> None:
    (_, clean), (_, noisy), (_, far) = (part.where[0] for part in list(SPEECH.values())[2:])
    assert clean.snr[0] > noisy.snr[1] and noisy.snr[0] >= far.snr[1]
    assert far.rt60 and not noisy.rt60 and not clean.rt60
    parts = [part for domain in DOMAINS.values() for part in domain.values()]
    assert all(sum(share for share, _ in part.where) == pytest.approx(1) for part in parts)


def test_a_corpus_is_five_splits_of_cuts_whose_words_the_lexicon_has(corpus: Path) -> None:
    lexicon = Lexicon.from_json(read_json(corpus / "lexicon.json"))
    speakers: dict[str, set[str]] = {}
    for split in SPEECH:
        cuts = list(load_cuts(corpus / f"{split}.cuts.jsonl.gz"))
        lines = (corpus / f"{split}.text").read_text().splitlines()
        assert lines == [f"{cut.id} {cut.supervisions[0].text}" for cut in cuts]
        for cut in cuts:
            heard = samples(cut)
            assert len(heard) == cut.num_samples and 0.005 < np.sqrt(np.mean(heard**2)) < 0.2
            assert set(cut.supervisions[0].text.split()) <= set(lexicon.words)
            where = [c for _, c in SPEECH[split].where if c.name == cut.supervisions[0].custom["condition"]]
            assert where[0].snr[0] <= cut.supervisions[0].custom["snr"] <= where[0].snr[1]
        speakers[split] = {cut.supervisions[0].speaker for cut in cuts}
    assert sum(cut.duration for cut in load_cuts(corpus / "train.cuts.jsonl.gz")) >= 3600 * TINY["hours"]
    assert len(load_cuts(corpus / "test_far.cuts.jsonl.gz")) >= TINY["utterances"]
    assert not speakers["train"] & speakers["dev"] and not speakers["train"] & speakers["test_far"]
    assert not speakers["dev"] & speakers["test_far"] and speakers["test_clean"] == speakers["test_far"]
    assert set(read_corpus(corpus)) == set(SPEECH)


def test_the_same_call_gives_the_same_bytes_however_many_jobs_there_are(corpus: Path, tmp_path: Path) -> None:
    generate_speech(tmp_path, jobs=3, **TINY)
    assert contents(tmp_path) == contents(corpus)
    for split in SPEECH:
        one, other = (
            [(cut.start, cut.supervisions[0].to_dict()) for cut in load_cuts(out / f"{split}.cuts.jsonl.gz")]
            for out in (corpus, tmp_path)
        )
        assert one == other


def test_another_seed_says_other_things(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "parts_of", lambda domain: {"test_clean": SPEECH["test_clean"]})
    generate_speech(tmp_path, seed=1, **TINY)
    assert (tmp_path / "test_clean.text").read_text() != (corpus / "test_clean.text").read_text()


def test_a_finished_split_is_not_made_again_and_an_unfinished_one_is(corpus: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.wav")}
    made = contents(corpus)
    (corpus / "dev.cuts.jsonl.gz").unlink()
    (corpus / "audio" / "dev" / ".dev00.killed.wav").write_bytes(b"RIFF")
    told: list[tuple[int, int, str]] = []
    generate_speech(corpus, jobs=1, tell=lambda *news: told.append(news), **TINY)
    assert {split for _, _, split in told} == {"dev"}
    assert told[0][0] == 0 and told[-1][0] == told[-1][1]
    again = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert again == {path for path in before if path.parent.name == "dev"}
    assert contents(corpus) == made


def test_other_settings_and_other_corpora_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"corpus.json: the corpus there has seed = 0, asked for is 1; give"):
        generate_speech(corpus, seed=1, **TINY)
    (tmp_path / "dev.cuts.jsonl.gz").touch()
    with pytest.raises(ValueError, match="holds another corpus's cuts"):
        generate_speech(tmp_path, **TINY)
    with pytest.raises(ValueError, match="hours = 0, .* each must be above zero"):
        generate_speech(tmp_path, hours=0)


def test_the_assistants_test_sets_hold_requests_that_training_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(generated, "TALKERS", 1)  # babble of one, to be quick
    generate_speech(tmp_path, jobs=1, domain="assistant", **TINY)
    lexicon = Lexicon.from_json(read_json(tmp_path / "lexicon.json"))
    found = {split: list(load_cuts(tmp_path / f"{split}.cuts.jsonl.gz")) for split in DOMAINS["assistant"]}
    assert list(found) == ["train", "dev", "frequent", "appliances", "entertainment"]
    said = {split: {cut.supervisions[0].text for cut in cuts} for split, cuts in found.items()}
    assert said["appliances"] and not (said["appliances"] | said["entertainment"]) & said["train"]
    assert {word for texts in said.values() for text in texts for word in text.split()} <= set(lexicon.words)
    speakers = {split: {cut.supervisions[0].speaker for cut in cuts} for split, cuts in found.items()}
    assert speakers["frequent"] == speakers["appliances"] == speakers["entertainment"]
    assert not speakers["train"] & (speakers["dev"] | speakers["frequent"])
    assert not speakers["dev"] & speakers["frequent"]
    with pytest.raises(ValueError, match='there has domain = "assistant", asked for is null'):
        generate_speech(tmp_path, **TINY)


def test_a_domain_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no generated speech of the domain 'hotel': choose from speech, ass"
    ):
        generate_speech(tmp_path / "out", domain="hotel")
    assert not (tmp_path / "out").exists()
