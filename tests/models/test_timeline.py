"""Frames of utterances of different lengths, against loops over the utterances."""

import pytest
import torch

from greenasr.models.timeline import pack, shift, splice, unpack

LENS = [5, 1, 7, 3]
X = torch.randn(4, 7, 2, generator=torch.Generator().manual_seed(0))


def utterances() -> list[torch.Tensor]:
    return [X[i, :n] for i, n in enumerate(LENS)]


def test_packing_puts_the_utterances_one_after_another_and_unpacking_gives_them_back() -> None:
    packed, time = pack(X, torch.tensor(LENS))
    assert torch.equal(packed, torch.cat(utterances()))
    assert time.place.tolist() == [t for n in LENS for t in range(n)]
    assert time.rest.tolist() == [n - 1 - t for n in LENS for t in range(n)]
    back = unpack(packed, time, 9)
    assert back.shape == (4, 9, 2)
    for i, utterance in enumerate(utterances()):
        assert torch.equal(back[i, : len(utterance)], utterance) and not back[i, len(utterance) :].any()
    whole, time = pack(X, None)
    assert torch.equal(whole, X.view(-1, 2)) and torch.equal(unpack(whole, time, 7), X)


@pytest.mark.parametrize("by", [-9, -3, -1, 0, 1, 2, 8, 30])
def test_a_shift_stays_within_the_utterance(by: int) -> None:
    packed, time = pack(X, torch.tensor(LENS))
    expected = [
        u[t + by] if 0 <= t + by < len(u) else torch.zeros(2) for u in utterances() for t in range(len(u))
    ]
    assert torch.equal(shift(packed, by, time), torch.stack(expected))
    alone, time = pack(X[:1, :5], None)
    assert torch.equal(shift(alone, by, time), torch.stack(expected[:5]))


def test_splicing_every_third_frame_is_every_third_spliced_frame() -> None:
    packed, time = pack(X, torch.tensor(LENS))
    spliced = splice(packed, 2, time)
    assert torch.equal(spliced[:, 4:6], packed) and torch.equal(spliced[:, 8:], shift(packed, 2, time))
    assert torch.equal(splice(packed, 2, time, 3), spliced[time.every(3)])
    assert [x.tolist() for x in time.thinned(3).place.split([2, 1, 3, 1])] == [[0, 1], [0], [0, 1, 2], [0]]
    assert torch.equal(splice(packed, 0, time), packed)


def test_lengths_that_do_not_fit_are_refused() -> None:
    for lens in ([5, 0, 7, 3], [5, 1, 8, 3], [5, 1, 7]):
        with pytest.raises(ValueError, match="do not fit 4 utterances padded to 7 frames"):
            pack(X, torch.tensor(lens))
