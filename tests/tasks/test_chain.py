"""The chain task: targets of frames at any speed, copies' graphs, a loss that falls, logits in order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from greenasr.data.feature_store import FeatureStore
from greenasr.data.features import Features
from greenasr.data.speech_batches import SpeechBatch
from greenasr.decode.alignment import Alignment, equal_alignment
from greenasr.decode.chain_graphs import denominator_graph, numerator_graph
from greenasr.decode.context import PdfMap
from greenasr.decode.phone_lm import estimate
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig
from greenasr.ops.lfmmi import lfmmi
from greenasr.tasks.chain import UNALIGNED, Chain, frame_targets, original
from greenasr.tasks.flat_start import chain_states

PHONES = ("SIL", "A", "B", "C")
COUNTS = {(0, 1): 20, (2, 1): 20, (1, 2): 20, (0, 3): 3, (1, 3): 20}
PDFS = PdfMap.left_biphone(PHONES, COUNTS, 10)


def an_alignment(seed: int, frames: int = 61) -> Alignment:
    draw = np.random.default_rng(seed)
    phones = [0, *draw.integers(1, len(PHONES), 6).tolist(), 0]
    lengths = draw.multinomial(frames - 3 * len(phones), np.full(len(phones), 1 / len(phones))) + 3
    parts = [equal_alignment(int(n), [p]) for n, p in zip(lengths, phones, strict=True)]
    return Alignment(np.concatenate([a.phone for a in parts]), np.concatenate([a.state for a in parts]))


def slow_targets(alignment: Alignment, speed: float) -> list[int]:
    """Frame by frame, segment by segment."""
    n = len(alignment.phone)
    pdfs, last = [], -1
    for t in range(0, round(n / speed), 3):
        at = min(n - 1, round(t * speed))
        number = max(k for k, s in enumerate(alignment.segments) if s.start <= at)
        phone = alignment.segments[number].phone
        left = 1 + alignment.segments[number - 1].phone if number else 0
        pdfs.append(int(PDFS.table[left, phone, int(number == last)]))
        last = number
    return pdfs


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_frame_targets_equal_a_loop_over_frames(speed: float) -> None:
    for seed in range(20):
        one = an_alignment(seed, 55 + seed)
        assert frame_targets(one, PDFS, speed).tolist() == slow_targets(one, speed)


def test_targets_at_speed_one_are_the_tree_s_view_of_the_alignment() -> None:
    for seed in range(20):
        one = an_alignment(seed)
        state = chain_states(one, 3)
        assert (frame_targets(one, PDFS) == PDFS.table[one.left[::3], one.phone[::3], state]).all()


def test_a_copy_at_another_speed_has_as_many_targets_as_its_network_has_frames() -> None:
    one = an_alignment(0, 100)
    assert [len(frame_targets(one, PDFS, s)) for s in (0.9, 1.0, 1.1)] == [37, 34, 31]


@pytest.mark.parametrize(
    ("utt_id", "expected"),
    [
        ("sp0.9-ann-1", ("ann-1", 0.9)),
        ("sp1.1-u", ("u", 1.1)),
        ("ann-1", ("ann-1", 1.0)),
        ("sp1-utt7", ("sp1-utt7", 1.0)),  # somebody's speaker 1
        ("speech-3", ("speech-3", 1.0)),
        ("spinf-3", ("spinf-3", 1.0)),
        ("sp-0.9-x", ("sp-0.9-x", 1.0)),
        ("sp0.9", ("sp0.9", 1.0)),
        ("sp0.9-sp0.9-x", ("sp0.9-x", 0.9)),
    ],
)
def test_the_original_of_a_copy_is_found_by_its_name(utt_id: str, expected: tuple[str, float]) -> None:
    assert original(utt_id) == expected


TEXTS = {"u1": "AB", "u2": "BA", "u3": "C", "u4": "ACB"}


def spell(text: str) -> list[tuple[tuple[str, ...], ...]]:
    return [((letter,),) for letter in text]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """Four utterances and one copy, each phone a direction of the features; u3 has no alignment."""
    draw = np.random.default_rng(0)
    means = 2 * draw.normal(0, 1, (len(PHONES), 5))
    alignments = {
        utt_id: equal_alignment(12 * (len(text) + 2) + 3 * k, [0, *(PHONES.index(p) for p in text), 0])
        for k, (utt_id, text) in enumerate(TEXTS.items())
    }
    feats = {u: means[a.phone] + 0.3 * draw.normal(0, 1, (len(a.phone), 5)) for u, a in alignments.items()}
    feats["sp0.9-u1"] = feats["u1"][np.minimum((np.arange(53) * 0.9).astype(int), 47)]
    ids = ("u3", "sp0.9-u1", "u1", "u4", "u2")
    store = FeatureStore(
        tmp_path, Features(bins=5, cmvn="none"), ids, ("ann",) * 5, tuple(TEXTS[i[-2:]] for i in ids),
        np.array([len(feats[i]) for i in ids]), np.concatenate([feats[i] for i in ids]).astype(np.float32),
        np.zeros((5, 5), np.float32),
    )  # fmt: skip
    phone_lm = estimate([spell(text) for text in TEXTS.values()], PHONES)
    targets = {i: frame_targets(alignments[original(i)[0]], PDFS, original(i)[1]) for i in ids if i != "u3"}
    numerators = {u: numerator_graph(spell(text), phone_lm, PDFS) for u, text in TEXTS.items()}
    return Chain(
        {"train": store}, denominator_graph(phone_lm, PDFS), numerators, targets, frames=150, augment=None
    )


def network(**changes: int) -> Tdnnf:
    torch.manual_seed(0)
    shape = {"layers": 2, "dim": 16, "bottleneck": 4, "prefinal": 8, "strides": (1, 3)} | changes
    return Tdnnf(TdnnfConfig(feat_dim=5, n_pdfs=PDFS.n_pdfs, **shape))  # type: ignore[arg-type]


def test_the_loss_is_lfmmi_plus_cross_entropy_over_aligned_frames(chain: Chain) -> None:
    model = network().eval()
    torch.nn.init.normal_(model.output.weight)
    torch.nn.init.normal_(model.output_xent.weight)  # type: ignore[union-attr]
    batch = largest(chain)
    logits, xent, lens = model.with_xent(batch.feats, batch.feat_lens)
    graphs = [chain.numerators[i.removeprefix("sp0.9-")] for i in batch.ids]
    mmi = lfmmi(logits, lens, chain.denominator, graphs, leaky=chain.leaky, l2=chain.l2).loss
    frames = [
        -xent[row, t].log_softmax(0)[int(pdf)]
        for row, utt_id in enumerate(batch.ids)
        for t, pdf in enumerate(chain.targets.get(utt_id, ()))
    ]
    torch.testing.assert_close(chain.loss(model, batch), mmi + 0.1 * torch.stack(frames).mean())
    none = replace(chain, targets={})
    torch.testing.assert_close(none.loss(model, batch), mmi)
    torch.testing.assert_close(chain.loss(model.without_xent(), batch), mmi)


def largest(chain: Chain) -> SpeechBatch:
    """A batch with the copy in it, and with the utterance that has no alignment if they are of a size."""
    return next(b for b in replace(chain, frames=10_000).batches("train") if "sp0.9-u1" in b.ids)


def test_a_teacher_s_share_of_the_loss_is_the_divergence_of_true_frames(chain: Chain) -> None:
    pupil, teacher = network(), network(bottleneck=6).eval()
    for parameter in [*pupil.parameters(), *teacher.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)  # the output layer begins at zero
    batch, taught = largest(chain), replace(chain, teacher=teacher, share=0.3)
    own = float(chain.loss(pupil.train(), batch).detach())
    with torch.no_grad():
        (p, lens), (q, _) = teacher(batch.feats, batch.feat_lens), pupil(batch.feats, batch.feat_lens)
    frames = [
        float((a.softmax(0) * (a.log_softmax(0) - b.log_softmax(0))).sum())
        for row in range(len(lens))
        for a, b in zip(p[row, : int(lens[row])], q[row, : int(lens[row])], strict=True)
    ]
    assert sum(frames) > 0.01
    expected = 0.7 * own + 0.3 * sum(frames) / len(frames)
    assert taught.loss(pupil, batch).item() == pytest.approx(expected, rel=1e-5)
    assert taught.loss(pupil.eval(), batch).item() == chain.loss(pupil, batch).item()


def test_frames_without_an_alignment_have_no_target(chain: Chain) -> None:
    found = chain._targets(["u3", "u1"], 20)
    assert (found[0] == UNALIGNED).all()
    assert (found[1, :16] == torch.from_numpy(chain.targets["u1"]).long()).all()
    assert (found[1, 16:] == UNALIGNED).all(), "padding is no frame"
    assert chain._targets(["u1"], 3).shape == (1, 3)


def test_a_copy_has_the_graph_of_its_original(chain: Chain) -> None:
    assert chain._numerator("sp0.9-u1") is chain.numerators["u1"]
    own = replace(chain, numerators={**chain.numerators, "sp0.9-u1": chain.numerators["u2"]})
    assert own._numerator("sp0.9-u1") is chain.numerators["u2"], "an id's own graph comes first"
    with pytest.raises(ValueError, match="no numerator graph for 'sp0.9-u9': make one of its transcript"):
        chain._numerator("sp0.9-u9")


def test_training_lowers_the_loss_and_finds_the_phones(chain: Chain) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = chain.evaluate(model, "train")["loss"]
    for epoch in range(12):
        for batch in chain.batches("train", epoch):
            optimizer.zero_grad()
            chain.loss(model, batch).backward()
            optimizer.step()
    assert chain.evaluate(model, "train")["loss"] < 0.3 * before
    assert model.training, "evaluation leaves the network as it was"
    right: list[NDArray[np.bool_]] = []
    for batch in chain.batches("train"):
        with torch.no_grad():
            _, xent, _ = model.eval().with_xent(batch.feats, batch.feat_lens)
        for row, utt_id in enumerate(batch.ids):
            if utt_id in chain.targets:
                pdfs = chain.targets[utt_id]
                right.append(xent[row, : len(pdfs)].argmax(1).numpy() == pdfs)
    assert np.concatenate(right).mean() > 0.8


def test_logits_come_in_the_store_s_order_whatever_the_batches(chain: Chain) -> None:
    model = network().eval()
    torch.nn.init.normal_(model.output.weight)
    told: list[tuple[int, int]] = []
    found = chain.logits(model, "train", lambda done, of: told.append((done, of)))
    store = chain.stores["train"]
    assert tuple(found) == store.ids and told[-1] == (5, 5)
    for utt_id, logits in found.items():
        alone, lens = model(torch.from_numpy(store[utt_id])[None])
        assert len(logits) == int(lens[0]) == -(-len(store[utt_id]) // 3)
        np.testing.assert_allclose(logits, alone[0].detach().numpy(), rtol=1e-4, atol=1e-4)
    some = replace(chain, ids={"train": ["u2", "u3"]})
    assert list(some.logits(model, "train")) == ["u2", "u3"]


def test_a_pass_has_about_as_many_batches_as_it_says(chain: Chain) -> None:
    assert abs(chain.n_batches("train") - len(list(chain.batches("train", 3)))) <= 2
    assert replace(chain, ids={"train": ["u2"]}).n_batches("train") == 1
    with pytest.raises(ValueError, match="no speech for the split 'dev'; there is train"):
        chain.n_batches("dev")


def test_an_utterance_too_short_for_its_phones_adds_nothing_and_is_no_nan(chain: Chain) -> None:
    model = network()
    short = replace(chain, numerators={**chain.numerators, "u3": chain.numerators["u4"]}, targets={})
    store = short.stores["train"]
    cut = replace(store, frames=store.frames.copy())
    cut.frames[0] = 6  # two output frames for three phones
    cut = replace(cut, array=np.delete(store.array, np.arange(6, store.frames[0]), 0))
    short = replace(short, stores={"train": cut})
    loss = sum(short.loss(model, batch) for batch in short.batches("train"))
    assert isinstance(loss, torch.Tensor) and bool(loss.isfinite())
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
