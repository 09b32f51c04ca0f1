"""Batches hold every utterance once and whole, within their budget, and repeat with their seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from greenasr.data.augment import SpecAugment
from greenasr.data.feature_store import FeatureStore
from greenasr.data.features import Features
from greenasr.data.speech_batches import SpeechBatch, groups, pad, speech_batches

LENGTHS = np.random.default_rng(0).integers(30, 400, 60)


@pytest.fixture
def store() -> FeatureStore:
    """Frames whose first value is the utterance's place and whose second is the frame's."""
    rows = [np.stack([np.full(n, place), np.arange(n)], 1) for place, n in enumerate(LENGTHS)]
    names = tuple(f"u{place}" for place in range(60))
    texts = tuple(f"text {place}" for place in range(60))
    array, means = np.concatenate(rows).astype(np.float32), np.stack([row.mean(0) for row in rows])
    features = Features(cmvn="none")
    return FeatureStore(
        Path("store"), features, names, names, texts, LENGTHS, array, means.astype(np.float32)
    )


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("max_padding", [0.0, 0.05, 0.3])
def test_groups_hold_everything_once_within_budget_and_padding(seed: int | None, max_padding: float) -> None:
    made = groups(LENGTHS, 1200, seed, max_padding)
    assert sorted(place for group in made for place in group) == list(range(60))
    for group in made:
        padded = len(group) * max(LENGTHS[group])
        assert padded <= 1200
        assert 1 - sum(LENGTHS[group]) / padded <= max_padding + 1e-9
    if max_padding == 0.3:
        assert len(made) < 1.5 * sum(LENGTHS) / 1200


def test_seeds_repeat_and_change_members_as_well_as_order() -> None:
    def members(seed: int) -> set[tuple[int, ...]]:
        return {tuple(sorted(group)) for group in groups(LENGTHS, 1200, seed)}

    assert groups(LENGTHS, 1200, 1) == groups(LENGTHS, 1200, 1) != groups(LENGTHS, 1200, 2)
    assert members(1) != members(2)
    lengths = [max(LENGTHS[group]) for group in groups(LENGTHS, 1200)]
    assert lengths == sorted(lengths)


def test_an_utterance_beyond_the_budget_is_a_batch_of_its_own() -> None:
    assert groups([50, 5000, 51], 200) == [[0, 2], [1]]
    assert groups([], 200) == []


@pytest.mark.parametrize("context", [(0, 0), (3, 5)])
def test_utterances_are_whole_and_their_edges_repeated(store: FeatureStore, context: tuple[int, int]) -> None:
    left, right = context
    seen = []
    for batch in speech_batches(store, 1500, seed=3, context=context):
        assert batch.feats.shape == (len(batch), left + int(batch.feat_lens.max()) + right, 2)
        for row, utt_id in enumerate(batch.ids):
            place, n = int(utt_id[1:]), int(batch.feat_lens[row])
            assert n == LENGTHS[place] and batch.texts[row] == f"text {place}"
            assert (batch.feats[row, :, 0] == place).all()
            expected = (torch.arange(batch.feats.shape[1]) - left).clamp(0, n - 1).float()
            assert torch.equal(batch.feats[row, :, 1], expected)
        seen += batch.ids
    assert sorted(seen) == sorted(store.ids)


def test_ids_choose_and_ivectors_follow_their_utterance(store: FeatureStore) -> None:
    vectors = {f"u{place}": np.full(3, place, np.float32) for place in range(50)}
    chosen = [f"u{place}" for place in range(0, 50, 7)]
    batches = list(speech_batches(store, 1000, 1, ids=chosen, ivectors=vectors))
    assert sorted(utt_id for batch in batches for utt_id in batch.ids) == sorted(chosen)
    for batch in batches:
        assert batch.ivectors is not None and torch.equal(batch.ivectors[:, 0], batch.feats[:, 0, 0])
    moved = batches[0].to("meta")
    assert isinstance(moved, SpeechBatch) and moved.feats.is_meta and moved.ids == batches[0].ids
    assert moved.ivectors is not None and moved.ivectors.is_meta and moved.feat_lens.is_meta


def test_masks_repeat_with_the_seed_and_leave_the_store_alone(store: FeatureStore) -> None:
    def masked(seed: int) -> dict[str, torch.Tensor]:
        batches = speech_batches(store, 900, seed, augment=SpecAugment(freq_masks=0))
        rows = [zip(b.ids, b.feats, b.feat_lens.tolist(), strict=True) for b in batches]
        return {utt_id: feats[:n] for row in rows for utt_id, feats, n in row}

    before = np.array(store.array)
    one, same, other = masked(5), masked(5), masked(6)
    assert all(torch.equal(one[utt_id], same[utt_id]) for utt_id in store.ids)
    assert not all(torch.equal(one[utt_id], other[utt_id]) for utt_id in store.ids)
    np.testing.assert_array_equal(store.array, before)


def test_padding_one_utterance_adds_nothing() -> None:
    feats = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    padded, lens = pad([feats])
    assert np.array_equal(padded[0].numpy(), feats) and lens.tolist() == [9]


def test_what_is_lacking_is_refused_before_the_first_batch(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="store: no features of 2 utterances, the first is 'x'"):
        speech_batches(store, 900, ids=["u1", "x", "y"])
    with pytest.raises(ValueError, match="no i-vectors of 59 utterances, the first is 'u0'"):
        speech_batches(store, 900, ivectors={"u9": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="give batches a seed"):
        speech_batches(store, 900, augment=SpecAugment())
    with pytest.raises(ValueError, match="max_padding 1.0"):
        speech_batches(store, 900, max_padding=1.0)
