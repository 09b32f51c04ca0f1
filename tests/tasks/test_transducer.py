"""The transducer task: labels and back, a loss that is the sum over utterances, words that training finds."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pytest
import torch

from greenasr.compress.clusters import make_clusters
from greenasr.compress.hessian import hessian_costs
from greenasr.compress.kl import kl_costs
from greenasr.data.feature_store import FeatureStore
from greenasr.data.features import Features
from greenasr.data.speech_batches import SpeechBatch
from greenasr.data.text import Vocabulary, WordPieces
from greenasr.decode.labels import labels_of, timed_words
from greenasr.decode.transducer import Greedy, Hypothesis, decode_transducer
from greenasr.models.on_arrays import RnntOnArrays
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.ops.transducer import rnnt_loss
from greenasr.tasks.transducer import Transduction, carried, encoders_own

TEXTS = {"u1": "ab ba", "u2": "ba", "u3": "", "u4": "c ab c", "u5": "ab"}
LETTERS = WordPieces.train([text.split() for text in TEXTS.values()], 20, kind="char")
WORDS = Vocabulary(("<eos>", "ab", "ba", "c", "<unk>"))


def made_of(tokenizer: Vocabulary | WordPieces, folder: Path) -> Transduction:
    """Every word is 12 frames in a direction of its own, an empty text 12 frames of none."""
    draw = np.random.default_rng(0)
    directions = {word: 2 * draw.normal(0, 1, 5) for word in ("ab", "ba", "c", "")}
    feats = {
        utt_id: np.concatenate(
            [directions[w] + 0.2 * draw.normal(0, 1, (12 + k, 5)) for w in text.split() or [""]]
        )
        for k, (utt_id, text) in enumerate(TEXTS.items())
    }
    store = FeatureStore(
        folder, Features(bins=5, cmvn="none"), tuple(TEXTS), ("ann",) * 5, tuple(TEXTS.values()),
        np.array([len(each) for each in feats.values()]),
        np.concatenate(list(feats.values())).astype(np.float32), np.zeros((5, 5), np.float32),
    )  # fmt: skip
    return Transduction({"train": store}, tokenizer, frames=100)


@pytest.fixture
def task(tmp_path: Path) -> Transduction:
    return made_of(LETTERS, tmp_path)


def network(task: Transduction, joint: str = "fc", dim: int = 8) -> Rnnt:
    torch.manual_seed(0)
    shape = {"encoder_layers": 1, "predictor_layers": 1, "embedding_dim": 4, "joint_dim": dim, "dropout": 0.0}
    return Rnnt(
        RnntConfig(5, task.tokenizer.size + 1, encoder_dim=dim, predictor_dim=dim, joint=joint, **shape)  # type: ignore[arg-type]
    )


def everything(task: Transduction) -> SpeechBatch:
    return SpeechBatch(tuple(TEXTS), *padded(task), None, tuple(TEXTS.values()))


def padded(task: Transduction) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [torch.from_numpy(task.stores["train"][utt_id]) for utt_id in TEXTS]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(r) for r in rows])


@pytest.mark.parametrize("joint", ["fc", "addition"])
def test_the_loss_is_the_sum_over_utterances_alone_by_labels_and_ends(task: Transduction, joint: str) -> None:
    model = network(task, joint).eval()
    total, labels = torch.zeros(()), 0
    for utt_id, text in TEXTS.items():
        y = torch.tensor([labels_of(LETTERS, text)], dtype=torch.int64)
        enc, lens, pred = model(torch.from_numpy(task.stores["train"][utt_id])[None], None, y)
        logits = model.joint(enc[:, :, None], pred[:, None])
        total = total + rnnt_loss(logits, y, lens, [y.shape[1]])[0]
        labels += y.shape[1] + 1
    batch = everything(task)
    torch.testing.assert_close(task.loss(model, batch), total / labels)
    torch.testing.assert_close(task.loss(model, batch, twice_differentiable=True), total / labels)


@pytest.mark.parametrize("joint", ["fc", "addition"])
def test_the_encoders_own_loss_is_of_all_strings_of_frames_that_spell_the_labels(joint: str) -> None:
    torch.manual_seed(0)
    model = Rnnt(RnntConfig(3, 3, 1, 4, (1,), 1, 4, 4, joint, 5, 0.0)).double()
    labels, lens = torch.tensor([[1, 2], [2, 2], [1, 0], [2, 2], [0, 0]]), torch.tensor([2, 2, 1, 2, 0])
    frames = torch.tensor([4, 4, 3, 2, 2])  # the fourth has too few: 2 _ 2 needs three
    enc = torch.randn(5, 4, model.config.joint_width, dtype=torch.float64)
    probs = model.joint(enc, torch.zeros(1, 1, enc.shape[2])).detach().float().softmax(2)
    total = 0.0
    for n, (length, wanted) in enumerate(zip(frames.tolist(), labels, strict=True)):
        chance = 0.0
        for string in product(range(3), repeat=length):
            said = [k for k, _ in groupby(string) if k]
            if said == wanted[: lens[n]].tolist():
                chance += float(torch.stack([probs[n, t, k] for t, k in enumerate(string)]).prod())
        total -= math.log(chance) if chance else 0.0
    found = encoders_own(model, enc, frames, labels, lens).detach()
    assert float(found) == pytest.approx(total / 12, rel=1e-5) and total > 0


def test_only_training_hears_of_the_encoders_own_loss(task: Transduction) -> None:
    model, batch = network(task), everything(task)
    both = replace(task, ctc=0.5)
    plain = task.loss(model, batch)
    enc, enc_lens, _ = model(batch.feats, batch.feat_lens, task.labels(batch.texts)[0])
    own = encoders_own(model, enc, enc_lens, *task.labels(batch.texts))
    torch.testing.assert_close(both.loss(model, batch), plain + 0.5 * own)
    torch.testing.assert_close(both.loss(model, batch, twice_differentiable=True), plain)
    torch.testing.assert_close(both.loss(model.eval(), batch), plain)


def test_labels_are_hidden_from_the_prediction_network_in_training_alone(task: Transduction) -> None:
    model, batch = network(task), everything(task)
    seen: list[torch.Tensor] = []
    predict = model.predict
    model.predict = lambda labels, stepwise=False: (seen.append(labels), predict(labels, stepwise))[1]  # type: ignore[method-assign]
    some, all_hidden = replace(task, hidden=0.5), replace(task, hidden=1.0)
    labels, lens = task.labels(batch.texts)
    torch.manual_seed(0)
    some.loss(model, batch)
    inside = torch.arange(labels.shape[1]) < lens[:, None]
    assert 0 < int((seen[-1] != labels)[inside].sum()) < int(lens.sum())
    assert bool((seen[-1].eq(0) | seen[-1].eq(labels)).all())
    blind = all_hidden.loss(model, batch)
    assert not seen[-1].any() and float(blind.detach()) != float(task.loss(model, batch).detach())
    some.loss(model, batch, twice_differentiable=True)
    assert torch.equal(seen[-1], labels)
    some.loss(model.eval(), batch)
    assert torch.equal(seen[-1], labels)


@pytest.mark.parametrize("tokenizer", [LETTERS, WORDS], ids=["letters", "words"])
def test_labels_spell_the_words_again_and_are_never_the_blank(
    tokenizer: WordPieces | Vocabulary, tmp_path: Path
) -> None:
    task = made_of(tokenizer, tmp_path)
    labels, lens = task.labels(list(TEXTS.values()))
    for row, n, text in zip(labels.tolist(), lens.tolist(), TEXTS.values(), strict=True):
        assert task.words(row[:n]) == text and 0 not in row[:n] and not any(row[n:])
    assert labels.max() <= tokenizer.size


def test_training_finds_the_words_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    task = made_of(WORDS, tmp_path)
    model = network(task, dim=24)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    before = task.evaluate(model, "train")["loss"]
    for epoch in range(15):
        for batch in task.batches("train", epoch):
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()
    assert task.evaluate(model, "train")["loss"] < 0.1 * before
    assert model.training
    found = task.decode(model, "train", Greedy())
    assert {utt_id: task.words(hyps[0].labels) for utt_id, hyps in found.items()} == TEXTS
    assert model.training


def test_hypotheses_come_in_the_store_s_order_and_are_those_of_utterances_alone(task: Transduction) -> None:
    model = network(task).eval()
    told: list[tuple[int, int]] = []
    found = task.decode(model, "train", progress=lambda done, of: told.append((done, of)))
    assert tuple(found) == tuple(TEXTS) and told[-1] == (5, 5)
    for utt_id, (hyp,) in found.items():
        ((alone,),) = decode_transducer(RnntOnArrays(model), task.stores["train"][utt_id][None])
        assert hyp.labels == alone.labels and hyp.logprob == pytest.approx(alone.logprob, abs=1e-4)
    assert list(replace(task, ids={"train": ["u4", "u2"]}).decode(model, "train")) == ["u4", "u2"]


def test_every_cost_can_be_measured_on_it(task: Transduction) -> None:
    model = network(task).eval()
    clusters, batches = make_clusters(model), list(task.batches("train"))
    kl = kl_costs(model, task, batches, clusters, [2, 8])
    hessian = hessian_costs(
        model, task, batches, clusters, [2, 8], generator=torch.Generator().manual_seed(0), max_probes=16
    )
    names = {"encoder.layers.0.recurrent.weight", "predictor.layers.0.input.weight", "embedding.weight"}
    for costs in (kl.costs, hessian.costs):
        assert names | {"output.weight", "predictor_fc.weight"} < set(costs)
        assert all(0 < cost[8] < cost[2] for cost in costs.values())


def test_utterances_whose_frames_cannot_carry_their_labels_are_left_out(task: Transduction) -> None:
    store = task.stores["train"]
    counts = {utt_id: len(labels_of(LETTERS, text)) for utt_id, text in TEXTS.items()}
    frames = dict(zip(store.ids, (-(-store.frames // 4)).tolist(), strict=True))
    for most in (1, 2, 3):
        kept = carried(store, list(TEXTS), LETTERS, 4, most)
        assert kept == [u for u in TEXTS if counts[u] <= most * frames[u]]
    assert carried(store, list(TEXTS), LETTERS, 12, 2) == ["u2", "u3", "u4", "u5"]
    assert carried(store, ["u1"], LETTERS, 12, 2) == []


def test_what_does_not_belong_together_is_named(task: Transduction) -> None:
    other = replace(task, tokenizer=WORDS)
    batch = everything(task)
    with pytest.raises(ValueError, match=r"network has \d+ outputs, the tokenizer 5 ids and the blank"):
        other.loss(network(task), batch)
    with pytest.raises(ValueError, match="no speech for the split 'dev'; there is train"):
        task.n_batches("dev")
    spoiled = replace(batch, feats=batch.feats * float("nan"))
    with pytest.raises(ValueError, match="logits.*NaN|NaN"):
        task.loss(network(task), spoiled)


def test_a_word_goes_from_its_first_labels_frame_to_the_end_of_its_last_ones() -> None:
    labels = labels_of(LETTERS, "ab c ba")  # the beginning of a word is a letter of its own
    assert len(labels) == 8
    hyp = Hypothesis(tuple(labels), 0.0, (2, 2, 3, 5, 9, 9, 9, 11), 0.0)
    assert timed_words(LETTERS, hyp, 0.04) == [
        ("ab", pytest.approx(0.08), pytest.approx(0.16)),
        ("c", pytest.approx(0.2), pytest.approx(0.4)),
        ("ba", pytest.approx(0.36), pytest.approx(0.48)),
    ]
    of_words = Hypothesis(tuple(labels_of(WORDS, "c c")), 0.0, (1, 1), 0.0)
    assert timed_words(WORDS, of_words, 1.0) == [("c", 1.0, 2.0), ("c", 1.0, 2.0)]
    assert timed_words(LETTERS, Hypothesis((), 0.0, (), 0.0), 0.04) == []


def test_labels_that_begin_within_a_word_or_say_only_spaces_are_timed_as_they_are_spelled() -> None:
    (begin, a), (_, c) = labels_of(LETTERS, "a"), labels_of(LETTERS, "c")
    for labels in ((a, c, begin, begin, a), (begin,), (begin, begin, c), (c, begin)):
        timed = timed_words(LETTERS, Hypothesis(labels, 0.0, tuple(range(len(labels))), 0.0), 1.0)
        assert [word for word, *_ in timed] == LETTERS.words_of([label - 1 for label in labels])
        assert all(end > start for _, start, end in timed)
    hyp = Hypothesis((a, c, begin, begin, a), 0.0, (0, 1, 2, 3, 4), 0.0)
    assert timed_words(LETTERS, hyp, 1.0) == [("ac", 0.0, 2.0), ("a", 3.0, 5.0)]
