"""Every token is predicted as often as it should be, from what came before it."""

import numpy as np
import pytest
import torch

from greenasr.data.batches import contiguous, n_contiguous, sentences
from greenasr.data.token_rows import IGNORE, overlapping

EOS = 0


def ids(n: int) -> np.ndarray:
    """Distinct ids, so that a token tells its place."""
    return np.arange(1, n + 1, dtype=np.int32)


@pytest.mark.parametrize("n", [12, 50, 101])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_contiguous_pass_predicts_a_token_at_most_once_and_loses_only_the_ends(n: int, seed: int) -> None:
    length = 10
    batches = list(contiguous(ids(n), length, 3, seed))
    for batch in batches:
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        assert torch.equal(batch.inputs + 1, batch.targets)
    seen = torch.cat([batch.targets.flatten() for batch in batches]).sort().values
    assert len(seen.unique()) == len(seen)
    assert torch.equal(seen, torch.arange(int(seen[0]), int(seen[-1]) + 1))
    assert seen[0] <= length + 1 and seen[-1] > n - length
    assert abs(len(batches) - n_contiguous(n, length, 3)) <= 1


def test_seeds_move_cuts_and_order_and_repeat() -> None:
    def first(seed: int) -> list[list[int]]:
        return [batch.inputs.tolist() for batch in contiguous(ids(200), 10, 4, seed)]

    assert first(3) == first(3) != first(4)
    cuts = {min(row[0] for rows in first(seed) for row in rows) for seed in range(30)}
    assert len(cuts) > 5 and cuts <= set(range(1, 11))


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="a text of 11 tokens has no window of 10"):
        list(contiguous(ids(11), 10, 2, 0))


@pytest.mark.parametrize("n", [1, 5, 8, 9, 40, 43])
@pytest.mark.parametrize(("length", "stride"), [(8, 8), (8, 3), (8, 1), (1, 1)])
def test_overlapping_windows_predict_every_token_once_from_enough_before_it(
    n: int, length: int, stride: int
) -> None:
    seen = []
    for many in overlapping(ids(n), length, stride, 2, EOS):
        assert many[0].shape[1] == many[1].shape[1] == length
        for inputs, targets in zip(many[0].tolist(), many[1].tolist(), strict=True):
            for t, target in enumerate(targets):
                if target != IGNORE:
                    assert inputs[t] == target - 1  # and token 1 follows EOS = 0
                    before = inputs[: t + 1]
                    assert before == list(range(target - len(before), target))
                    assert len(before) >= min(target, length - stride + 1)
                    seen.append(target)
    assert seen == list(range(1, n + 1))


def test_a_stride_without_overlap_or_progress_is_refused() -> None:
    for stride in (0, 9):
        with pytest.raises(ValueError, match=f"stride {stride} must lie between 1 and the window of 8"):
            next(overlapping(ids(20), 8, stride, 2, EOS))


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_sentences_are_predicted_whole_once_and_from_their_beginning(seed: int | None) -> None:
    rng = np.random.default_rng(5)
    texts = [list(range(1, 1 + int(n))) for n in rng.integers(0, 12, 40)]
    places = []
    for batch, rows in sentences(texts, EOS, 30, seed):
        places += rows
        assert len(rows) == 1 or batch.inputs.numel() <= 30
        for inputs, targets, place in zip(batch.inputs, batch.targets, rows, strict=True):
            kept = targets[targets != IGNORE].tolist()
            assert kept == [*texts[place], EOS]
            assert inputs[: len(kept)].tolist() == [EOS, *texts[place]]
    assert sorted(places) == list(range(40))


def test_shuffled_sentences_repeat_with_their_seed() -> None:
    texts = [[1] * (i % 7) for i in range(60)]
    orders = [[rows for _, rows in sentences(texts, EOS, 20, seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
