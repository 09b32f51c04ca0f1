"""Flat start on a corpus whose boundaries and context dependence are known, since it was made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from greenasr.data.lexicon import Lexicon
from greenasr.decode.alignment import Alignment, equal_alignment
from greenasr.decode.tree import Split
from greenasr.tasks.flat_start import Aligned, FlatStart, Stage, chain_states, flat_start
from greenasr.tasks.flat_start_state import Pass, stay_probs
from greenasr.tasks.gmm_feats import Frontend

LEXICON = Lexicon(
    {
        "ONE": (("W", "A", "N"),),
        "TWO": (("T", "U"),),
        "SIX": (("S", "I", "K", "S"),),
        "TEN": (("T", "E", "N"),),
        "A": (("A",), ("E", "I")),
        "NO": (("N", "O"),),
        "SO": (("S", "O"),),
        "WE": (("W", "E"),),
        "UK": (("U", "K"),),
        "KAT": (("K", "A", "T"),),
    }
)  # every phone has several neighbours: else it could take frames of one and be no less likely
PHONES = LEXICON.phones
SETTINGS = FlatStart(
    frontend=Frontend(cepstra=0, deltas=0),
    monophone=Stage(10, 80, (1, 2, 3, 4, 5, 6, 8)),
    context=Stage(4, 100, (1, 3)),
    min_count=20,
    min_gain=30,
    chain_min_count=10,
    chain_min_gain=20,
)


@dataclass(frozen=True)
class Corpus:
    feats: dict[str, np.ndarray]
    texts: dict[str, list[str]]
    truth: dict[str, list[tuple[int, int]]]  # (phone, first frame)


def corpus(utterances: int = 45, seed: int = 0, dim: int = 8) -> Corpus:
    """Frames around a mean of each phone; an O after S has another mean than an O after N."""
    draw = np.random.default_rng(seed)
    means = draw.normal(0, 2.5, (len(PHONES), dim))
    made = Corpus({}, {}, {})
    for u in range(utterances):
        words = [str(w) for w in draw.choice(LEXICON.words, draw.integers(2, 6))]
        phones = [0]
        for word in words:
            prons = LEXICON.prons[word]
            phones += [PHONES.index(p) for p in prons[draw.integers(len(prons))]]
            phones += [0] * int(draw.random() < 0.4)
        phones += [0] * (phones[-1] != 0)
        frames, truth = [], []
        for k, phone in enumerate(phones):
            mean = means[phone] + 2 * (PHONES[phone] == "O" and PHONES[phones[k - 1]] == "S")
            truth.append((phone, len(frames)))
            n = draw.integers(5, 14) + 12 * (phone == 0)
            frames += list(mean + draw.normal(0, 1, (n, dim)))
        name = f"utt{u:02d}"
        made.feats[name], made.texts[name] = np.array(frames, np.float32), words
        made.truth[name] = truth
    return made


@pytest.fixture(scope="module")
def made() -> Corpus:
    return corpus()


@pytest.fixture(scope="module")
def aligned(made: Corpus) -> Aligned:
    return flat_start(made.feats, made.texts, LEXICON, SETTINGS)


def same(one: Aligned, two: Aligned) -> bool:
    return (
        one.passes == two.passes
        and one.tree == two.tree
        and one.chain_tree == two.chain_tree
        and all((one.gmm.arrays()[name] == value).all() for name, value in two.gmm.arrays().items())
        and list(one.alignments) == list(two.alignments)
        and all((a.state == two.alignments[u].state).all() for u, a in one.alignments.items())
    )


def test_known_boundaries_are_recovered(made: Corpus, aligned: Aligned) -> None:
    right, off = 0, []
    for utt_id, truth in made.truth.items():
        found = aligned.alignments[utt_id].segments
        if [s.phone for s in found] == [phone for phone, _ in truth]:
            right += 1
            off += [
                abs(s.start - start)
                for s, (phone, start), (before, _) in zip(found, truth, [(-1, 0), *truth], strict=False)
                if phone != before  # nothing tells where an S ends and the next begins
            ]
    assert right >= 0.95 * len(made.truth)
    assert np.mean(np.array(off) <= 1) > 0.97 and np.mean(np.array(off) <= 2) > 0.99
    assert not aligned.skipped and list(aligned.alignments) == sorted(made.texts)


def test_planted_dependence_on_the_left_phone_is_in_both_trees(aligned: Aligned) -> None:
    o, after_s, after_n = PHONES.index("O"), 1 + PHONES.index("S"), 1 + PHONES.index("N")
    assert aligned.tree is not None
    for tree in (aligned.tree, aligned.chain_tree):
        root = tree.roots[o]
        assert isinstance(root, Split) and root.ask == "left"
        assert (after_s in root.among) != (after_n in root.among)
    table = aligned.pdf_map.table
    assert not set(table[after_s, o]) & set(table[after_n, o])
    assert aligned.pdf_map.n_pdfs == aligned.chain_tree.n_pdfs == table.max() + 1


def test_passes_raise_the_likelihood_and_report_silence(made: Corpus, aligned: Aligned) -> None:
    monophone = [p for p in aligned.passes if p.stage == "monophone"]
    assert [p.number for p in monophone] == list(range(10))
    assert monophone[-1].logprob > monophone[0].logprob + 1
    silent = sum(
        (len(made.feats[u]) if k + 1 == len(truth) else truth[k + 1][1]) - start
        for u, truth in made.truth.items()
        for k, (phone, start) in enumerate(truth)
        if phone == 0
    )
    share = silent / sum(map(len, made.feats.values()))
    assert aligned.passes[-1].silence == pytest.approx(share, abs=0.01)


def test_every_other_reading_of_the_chain_s_frames_agrees() -> None:
    one = Alignment(
        np.array([2] * 5 + [2] * 4 + [0] * 7), np.array([0, 0, 1, 2, 2, 0, 1, 1, 2, 0, 1, 2, 2, 2, 2, 2])
    )
    slow, last = [], None
    for t in range(0, 16, 3):
        segment = max(k for k, s in enumerate(one.segments) if s.start <= t)
        slow.append(int(segment == last))
        last = segment
    assert chain_states(one, 3).tolist() == slow
    assert chain_states(equal_alignment(30, [1, 2]), 1).sum() == 28


def test_the_probability_to_stay_is_counted() -> None:
    one = equal_alignment(4 * 300, [1] * 100)  # every state lasts four frames
    np.testing.assert_allclose(stay_probs([one], 2)[1], 0.75, atol=0.01)
    np.testing.assert_allclose(stay_probs([one], 2)[0], 0.75)  # never seen


def test_utterances_shorter_than_their_phones_are_skipped_and_counted(made: Corpus) -> None:
    few = sorted(made.texts)[:12]
    feats = {u: made.feats[u] for u in few} | {
        "short": made.feats[few[0]][:11],
        "just": made.feats[few[0]][:12],
    }
    texts = {u: made.texts[u] for u in few} | {"short": ["SIX"], "just": ["SIX"]}
    found = flat_start(
        feats, texts, LEXICON, replace(SETTINGS, monophone=Stage(2, 0, (1,)), context=Stage(0, 0, ()))
    )
    assert found.skipped == {"short": "11 frames, its phones take at least 12"}
    assert [PHONES[s.phone] for s in found.alignments["just"].segments] == ["S", "I", "K", "S"]
    assert found.tree is None and "short" not in found.alignments


def test_a_killed_run_goes_on_to_the_same_result(made: Corpus, tmp_path: Path) -> None:
    texts = {u: made.texts[u] for u in sorted(made.texts)[:15]}
    few = replace(SETTINGS, monophone=Stage(4, 50, (1, 3)), context=Stage(3, 60, (1,)))
    whole = flat_start(made.feats, texts, LEXICON, few)
    for k, killed_after in enumerate([("monophone", 1), ("monophone", 3), ("context", 0), ("context", 2)]):
        folder = tmp_path / str(k)

        def kill(p: Pass, at: tuple[str, int] = killed_after) -> None:
            if (p.stage, p.number) == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            flat_start(made.feats, texts, LEXICON, few, folder, kill)
        told: list[Pass] = []
        assert same(flat_start(made.feats, texts, LEXICON, few, folder, told.append), whole)
        done = [(p.stage, p.number) for p in whole.passes].index(killed_after) + 1
        assert tuple(told) == whole.passes[done:]


def test_a_folder_of_another_run_or_a_damaged_one_is_refused(made: Corpus, tmp_path: Path) -> None:
    quick = replace(SETTINGS, monophone=Stage(1, 0, ()), context=Stage(0, 0, ()))
    few = {u: made.texts[u] for u in sorted(made.texts)[:9]}
    flat_start(made.feats, few, LEXICON, quick, tmp_path)
    with pytest.raises(ValueError, match="a flat start of other settings, lexicon or utterances"):
        flat_start(made.feats, few, LEXICON, replace(quick, seed=1), tmp_path)
    path = tmp_path / "flat_start.npz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"flat_start.npz: damaged .*Remove it to begin anew"):
        flat_start(made.feats, few, LEXICON, quick, tmp_path)


def test_bad_input_is_named(made: Corpus) -> None:
    feats, texts = made.feats, {"utt00": made.texts["utt00"]}
    with pytest.raises(ValueError, match="1 of 2 transcripts have no features, the first is 'lost'"):
        flat_start(feats, texts | {"lost": ["ONE"]}, LEXICON)
    with pytest.raises(ValueError, match="utt01: word 1, 'FOUR', has no pronunciation"):
        flat_start(feats, texts | {"utt01": ["FOUR"]}, LEXICON, SETTINGS)
    nan = feats["utt01"].copy()
    nan[4, 2] = np.nan
    with pytest.raises(ValueError, match="utt01: its features hold values that are not finite"):
        flat_start({**feats, "utt01": nan}, texts | {"utt01": ["ONE"]}, LEXICON, SETTINGS)
    with pytest.raises(
        ValueError, match="no utterance to align: 1 transcripts, 1 of them longer than their audio"
    ):
        flat_start({"utt00": feats["utt00"][:3]}, texts, LEXICON, SETTINGS)
