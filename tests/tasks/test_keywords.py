"""The keyword task: its batches, its loss, its answers, and the class of no word."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from greenasr.data.augment import SpecAugment
from greenasr.data.clip_augment import ClipAugment
from greenasr.data.clip_features import BACKGROUND, EMPTY, bins_below, seen
from greenasr.data.features import Features
from greenasr.tasks.keywords import AWAY, Clips, Keywords

WORDS = ("go", "no", "up")
BINS, FRAMES = 16, 30


class Reader(nn.Module):
    """Logits that are the first features of the first frame, times a weight."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.classes = classes

    def forward(self, feats: Tensor, feat_lens: Tensor | None) -> Tensor:
        return self.weight * feats[:, 0, : self.classes]


def clips(count: int = 50) -> Clips:
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(count, FRAMES, BINS, generator=generator).half()
    said = tuple(WORDS[k % 3] for k in range(count))
    return Clips(tuple(f"c{k}" for k in range(count)), tuple(f"s{k % 5}" for k in range(count)), said, feats)


def task(words: tuple[str, ...] = WORDS, **more: Any) -> Keywords:
    plain = Features("fbank", BINS, "none")
    return Keywords({"train": clips(), "test": clips(11)}, words, plain, torch.ones(60, BINS), 8, **more)


def test_a_pass_holds_every_clip_once_in_batches_of_about_one_size() -> None:
    made = task()
    batches = list(made.batches("train", 3))
    assert len(batches) == made.n_batches("train") == 6 and {len(b) for b in batches} == {8, 9}
    got = torch.cat([b.feats for b in batches]).flatten(1).sort(0).values
    torch.testing.assert_close(got, made.clips["train"].feats.float().flatten(1).sort(0).values)
    again = list(made.batches("train", 3))
    assert all(torch.equal(a.feats, b.feats) for a, b in zip(batches, again, strict=True))
    other = next(iter(made.batches("train", 4)))
    assert not torch.equal(other.feats, batches[0].feats)


def test_the_loss_is_the_cross_entropy_of_the_logits() -> None:
    made, model = task(), Reader(3)
    batch = next(iter(made.batches("test")))
    logits = batch.feats[:, 0, :3].double().numpy()
    slow = -np.mean(
        [
            row[t] - math.log(sum(math.exp(x) for x in row))
            for row, t in zip(logits, batch.targets, strict=True)
        ]
    )
    assert made.loss(model, batch).item() == pytest.approx(slow, abs=1e-6)
    smoothed = replace(made, smoothing=0.3)
    assert smoothed.loss(model.train(), batch).item() != pytest.approx(slow, abs=1e-3)
    assert smoothed.loss(model.eval(), batch).item() == pytest.approx(slow, abs=1e-6)
    assert smoothed.loss(model.train(), batch, twice_differentiable=True).item() == pytest.approx(
        slow, abs=1e-6
    )


def test_answers_are_words_by_their_logits_and_never_no_word() -> None:
    made, model = task((*WORDS, BACKGROUND)), Reader(4)
    held = made.clips["test"]
    logits = held.feats[:, 0, :4].float().clone()
    logits[:, 3] = 50.0
    held.feats[:, 0, 3] = 50.0
    logprobs = made.logprobs(model, "test")
    np.testing.assert_allclose(logprobs, logits[:, :3].log_softmax(1).numpy(), atol=1e-5)
    lists = made.nbest(logprobs, "test", 2)
    assert [entry.hyps[0] for entry in lists] == [WORDS[k] for k in logits[:, :3].argmax(1).tolist()]
    assert [entry.ref for entry in lists] == list(held.words)
    wrong = np.mean([entry.hyps[0] != entry.ref for entry in lists])
    assert made.evaluate(model, "test")["error"] == pytest.approx(100 * wrong)


def test_background_is_noise_and_what_is_left_of_words_that_moved_away() -> None:
    none = ClipAugment(0, 0.0, (0.0, 0.0), 0.0, 0.0, SpecAugment(0, 0, 0, 0))
    made = task((*WORDS, BACKGROUND), augment=none, background=0.5)
    made.clips["train"].feats[:] = 0.0
    made.clips["train"].feats[:, :, 0] = torch.arange(FRAMES).half() / 10  # a ramp tells where a frame was
    batches = list(made.batches("train", 1))
    counts = Counter(int(k) for b in batches for k in b.targets)
    assert counts[3] == sum(round(0.5 * (len(b) / 1.5)) for b in batches) and sum(counts.values()) > 70
    extra = torch.cat([b.feats[b.targets == 3] for b in batches])
    ramp = extra[:, :, 0]
    moving = (ramp[:, -1] - ramp[:, 0]).abs() > 0.05
    assert 0.2 < float(moving.float().mean()) < 0.6, "every second one is noise alone"
    stay = ((ramp[moving].diff(dim=1)).abs() > 1e-3).sum(1)
    assert int(stay.max()) <= math.ceil((1 - AWAY) * FRAMES)


def test_features_of_the_network_are_those_of_the_extractor() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    stored = Features("fbank", 64, "none").raw(samples)[None]
    for cmvn in ("none", "utterance"):
        wanted = Features("mfcc", 64, cmvn)  # type: ignore[arg-type]
        np.testing.assert_allclose(seen(stored, wanted)[0], wanted(samples), atol=2e-3)


def test_above_the_band_there_is_nothing_and_below_it_all() -> None:
    feats = np.random.default_rng(0).standard_normal((2, 5, 64)).astype(np.float32)
    plain = Features("fbank", 64, "none")
    low = seen(feats, plain, 4000.0)
    kept = bins_below(4000.0, 64)
    assert np.array_equal(low[..., :kept], feats[..., :kept])
    assert (low[..., kept:] == EMPTY).all() and 45 < kept < 50
    time = np.arange(8000) / 16_000
    for hz, heard in ((3500.0, True), (4600.0, False)):
        tone = plain.raw((0.3 * np.sin(2 * np.pi * hz * time)).astype(np.float32))
        assert (int(tone[20].argmax()) < kept) == heard


def test_clips_add_up() -> None:
    both = clips(3) + clips(5)
    assert len(both) == 8 and both.words == clips(3).words + clips(5).words
    torch.testing.assert_close(both.feats[3:], clips(5).feats)


def test_unknown_words_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="clip 'c2' of train says 'up', which is none of the 2 words"):
        task(("go", "no"))
    with pytest.raises(ValueError, match="no clips for the split 'dev'; there is train, test"):
        list(task().batches("dev"))
    with pytest.raises(ValueError, match="background 2"):
        task(background=2.0)
