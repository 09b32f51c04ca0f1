"""The CTC task: a loss summed over utterances, costs by every estimate, words that training finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from greenasr.compress.clusters import make_clusters
from greenasr.compress.fit import Training, fit_
from greenasr.compress.hessian import hessian_costs
from greenasr.compress.kl import kl_costs
from greenasr.compress.none import NoCompression
from greenasr.data.feature_store import FeatureStore
from greenasr.data.features import Features
from greenasr.data.speech_batches import SpeechBatch
from greenasr.data.text import WordPieces
from greenasr.decode.ctc import greedy
from greenasr.decode.labels import labels_of, words_of
from greenasr.models.quartznet import QuartzNet, QuartzNetConfig
from greenasr.ops.ctc import ctc_loss
from greenasr.tasks.ctc import Ctc, alignable_ids

TEXTS = {"u1": "ab ba", "u2": "ba", "u3": "", "u4": "a ab a", "u5": "ab"}
LETTERS = WordPieces.train([text.split() for text in TEXTS.values()], 20, kind="char")


@pytest.fixture
def task(tmp_path: Path) -> Ctc:
    """Every letter is 8 frames in a direction of its own, 4 of none around it; an empty text is 4 of none."""
    draw = np.random.default_rng(0)
    directions = {letter: 2 * draw.normal(0, 1, 5) for letter in "ab "}
    feats = {}
    for utt_id, text in TEXTS.items():
        rows = [np.zeros((4, 5))]
        for letter in text:
            rows += [np.tile(directions[letter], (8, 1)), np.zeros((4, 5))]
        feats[utt_id] = np.concatenate(rows) + draw.normal(0, 0.2, (4 + 12 * len(text), 5))
    store = FeatureStore(
        tmp_path, Features(bins=5, cmvn="none"), tuple(TEXTS), ("ann",) * 5, tuple(TEXTS.values()),
        np.array([len(each) for each in feats.values()]),
        np.concatenate(list(feats.values())).astype(np.float32), np.zeros((5, 5), np.float32),
    )  # fmt: skip
    return Ctc({"train": store}, LETTERS, frames=200)


def network(**changes: object) -> QuartzNet:
    torch.manual_seed(0)
    shape = {"blocks": 1, "repeat": 1, "width": 16, "kernels": (5,), "widths": (16,), "epilogue": (16, 24)}
    return QuartzNet(QuartzNetConfig(5, LETTERS.size + 1, **{**shape, **changes}))  # type: ignore[arg-type]


def batches(task: Ctc) -> list[SpeechBatch]:
    return list(task.batches("train", 0))


def test_a_batchs_loss_is_its_utterances_losses_a_label(task: Ctc) -> None:
    model = network().eval()
    for batch in batches(task):
        total, labels = 0.0, 0
        for utt_id, text in zip(batch.ids, batch.texts, strict=True):
            logits, frames = model(torch.from_numpy(task.stores["train"][utt_id])[None], None)
            y = torch.tensor([labels_of(LETTERS, text)], dtype=torch.int64).view(1, -1)
            lens = torch.tensor([y.shape[1]])
            total += float(ctc_loss(logits.log_softmax(2), y, frames, lens).detach())
            labels += y.shape[1] + 1
        for twice in (False, True):
            loss = task.loss(model, batch, twice_differentiable=twice)
            assert float(loss.detach()) == pytest.approx(total / labels, rel=1e-4)


def test_a_teacher_s_share_of_the_loss_is_the_divergence_of_true_frames(task: Ctc) -> None:
    pupil, teacher = network(), network(width=8, widths=(8,)).eval()
    batch, taught = batches(task)[0], replace(task, teacher=teacher, share=0.3)
    logits, frames = pupil.train()(batch.feats, batch.feat_lens)
    with torch.no_grad():
        told, _ = teacher(batch.feats, batch.feat_lens)
    far = [
        float((p.softmax(0) * (p.log_softmax(0) - q.log_softmax(0))).sum())
        for n, ps, qs in zip(frames.tolist(), told, logits.detach(), strict=True)
        for p, q in zip(ps[:n], qs[:n], strict=True)
    ]
    labels = sum(len(labels_of(LETTERS, text)) + 1 for text in batch.texts)
    (hard, n), (soft, m) = ((term.detach(), count) for term, count in taught.means(pupil, batch))
    assert (n, m) == (labels, int(frames.sum()))
    assert float(soft) == pytest.approx(0.3 * sum(far) / len(far), rel=1e-4) and sum(far) > 0.01
    assert float(hard) == pytest.approx(0.7 * task.loss(pupil, batch).item(), rel=1e-5)
    assert taught.loss(pupil.eval(), batch).item() == task.loss(pupil, batch).item()


def test_training_finds_the_words(task: Ctc) -> None:
    model = network()
    before = task.evaluate(model, "train")["loss"]
    fit_(model, task, NoCompression(), Training(epochs=120, lr=2e-2))
    assert task.evaluate(model, "train")["loss"] < 0.2 < before
    found = task.logprobs(model, "train")
    assert list(found) == list(TEXTS)
    said = {utt_id: words_of(LETTERS, greedy(each).labels) for utt_id, each in found.items()}
    assert said == TEXTS


@pytest.mark.parametrize("ternary", [None, {"threshold": 0.5}])
def test_every_estimate_of_costs_can_be_had_of_the_loss(task: Ctc, ternary: dict[str, float] | None) -> None:
    model = network(ternary=ternary)
    clusters = make_clusters(model)
    assert ("blocks.0.subs.0.pointwise.weight" in {c.name for c in clusters}) == (ternary is None)
    some = batches(task)[:1]
    hessian = hessian_costs(
        model, task, some, clusters, [2, 8], generator=torch.Generator().manual_seed(0), max_probes=4
    )
    kl = kl_costs(model, task, some, clusters, [2, 8])
    for costs in (hessian.costs, kl.costs):
        assert set(costs) == {c.name for c in clusters}
        assert all(np.isfinite(list(each.values())).all() for each in costs.values())
    assert all(each[2] >= each[8] >= 0 for each in kl.costs.values())


def test_utterances_without_frames_for_their_letters_and_blanks_are_told(task: Ctc) -> None:
    store = task.stores["train"]
    assert alignable_ids(store, list(TEXTS), LETTERS, 2) == list(TEXTS)
    fewest = {utt_id: len(labels_of(LETTERS, text)) for utt_id, text in TEXTS.items()}
    for stride in (8, 12, 20):
        room = {utt_id: -(-int(store.frames[store.place[utt_id]]) // stride) for utt_id in TEXTS}
        kept = [utt_id for utt_id in TEXTS if fewest[utt_id] <= room[utt_id]]
        assert alignable_ids(store, list(TEXTS), LETTERS, stride) == kept


def test_a_tokenizer_of_another_size_is_refused(task: Ctc) -> None:
    with pytest.raises(ValueError, match="outputs, the tokenizer 5 ids and the blank"):
        task.loss(QuartzNet(QuartzNetConfig(5, 9, blocks=1, repeat=1, width=4)), batches(task)[0])


def test_mixed_precision_trains_what_float32_trains(task: Ctc) -> None:
    model = network()
    fit_(model, task, NoCompression(), Training(epochs=20, lr=2e-2, precision="bfloat16"))
    full = network()
    fit_(full, task, NoCompression(), Training(epochs=20, lr=2e-2))
    losses = [task.evaluate(each, "train")["loss"] for each in (full, model)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], abs=0.3)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
