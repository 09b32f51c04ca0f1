"""The CTC loss against the sum over all alignments."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from greenasr.ops.ctc import alignable, ctc_loss, frames_needed


def summed(logprobs: Tensor, labels: list[int]) -> float:
    """-ln of the summed probability of every path of one utterance (T, C) that says the labels."""
    n_frames, classes = logprobs.shape
    total = 0.0
    for path in itertools.product(range(classes), repeat=n_frames):
        joined = [k for k, _ in itertools.groupby(path)]
        if [k for k in joined if k] == labels:
            total += math.exp(sum(float(logprobs[t, k]) for t, k in enumerate(path)))
    return -math.log(total)


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor, list[list[int]]]:
    said = [[1, 2], [1, 1], [], [2, 1, 2], [1], [2, 2, 2]]
    frames = torch.tensor([5, 4, 3, 5, 1, 4])  # the last does not fit
    logprobs = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.zeros(6, 3, dtype=torch.int64)
    for row, each in zip(labels, said, strict=True):
        row[: len(each)] = torch.tensor(each, dtype=torch.int64)
    return logprobs.log_softmax(2), labels, frames, torch.tensor([len(each) for each in said]), said


@pytest.mark.parametrize("twice", [False, True])
def test_the_loss_is_that_of_all_alignments_together(twice: bool) -> None:
    logprobs, labels, frames, lens, said = batch()
    losses = ctc_loss(logprobs, labels, frames, lens, twice_differentiable=twice)
    for n in range(5):
        assert float(losses[n]) == pytest.approx(summed(logprobs[n, : frames[n]], said[n]))


@pytest.mark.parametrize("twice", [False, True])
def test_labels_that_do_not_fit_their_frames_cost_nothing_and_pull_at_nothing(twice: bool) -> None:
    logprobs, labels, frames, lens, _ = batch()
    logprobs.requires_grad_()
    fits = alignable(labels, lens, frames)
    assert fits.tolist() == [True] * 5 + [False]
    losses = ctc_loss(logprobs, labels, frames, lens, twice_differentiable=twice)
    (grad,) = torch.autograd.grad(losses.sum(), logprobs)
    assert float(losses.detach()[5]) == 0 and not grad[5].any() and torch.isfinite(grad).all()
    assert grad[0].any()


def test_equal_neighbours_need_a_blank_between_them() -> None:
    labels = torch.tensor([[1, 1, 1], [1, 2, 1], [1, 1, 9]])
    assert frames_needed(labels, torch.tensor([3, 3, 2])).tolist() == [5, 3, 3]


@pytest.mark.parametrize("twice", [False, True])
def test_a_batch_of_no_labels_at_all_is_all_blanks(twice: bool) -> None:
    logprobs = batch()[0][:2]
    nothing = torch.zeros(2, 0, dtype=torch.int64)
    frames, lens = torch.tensor([5, 2]), torch.tensor([0, 0])
    losses = ctc_loss(logprobs, nothing, frames, lens, twice_differentiable=twice)
    assert losses.tolist() == pytest.approx([-float(logprobs[n, :t, 0].sum()) for n, t in ((0, 5), (1, 2))])


def test_the_recursion_has_the_kernels_gradient_and_a_second_derivative() -> None:
    logprobs, labels, frames, lens, _ = batch()
    logits = logprobs.clone().requires_grad_()
    grads = [
        torch.autograd.grad(
            ctc_loss(logits.log_softmax(2), labels, frames, lens, twice_differentiable=twice).sum(),
            logits,
            create_graph=twice,
        )[0]
        for twice in (False, True)
    ]
    torch.testing.assert_close(*grads)
    (second,) = torch.autograd.grad((grads[1] ** 2).sum(), logits)
    assert torch.isfinite(second).all() and second[:5].any()


@pytest.mark.parametrize("n_frames", [12, 600])
def test_second_derivatives_are_differences_of_first_ones_however_long_the_utterance(n_frames: int) -> None:
    draw = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(2, n_frames, 5, generator=draw)
    labels, lens = torch.tensor([[1, 2, 2, 4], [3, 1, 0, 0]]), torch.tensor([4, 2])
    frames = torch.tensor([n_frames, n_frames - 3])
    way = 100 * torch.randn(logits.shape, generator=draw)

    def slope(at: Tensor, create: bool = False) -> Tensor:
        losses = ctc_loss(at.log_softmax(2), labels, frames, lens, twice_differentiable=True)
        return torch.autograd.grad(losses.sum(), at, create_graph=create)[0]

    at = logits.requires_grad_()
    (product,) = torch.autograd.grad((slope(at, True) * way).sum(), at)
    assert torch.isfinite(product).all()
    if n_frames == 12:
        at = logits.detach().double().requires_grad_()
        step = 1e-6 * way.double()
        ends = [slope((at + sign * step).detach().requires_grad_()) for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(product.double(), expected, atol=1e-3, rtol=1e-3)


def test_what_does_not_fit_together_is_named() -> None:
    logprobs, labels, frames, lens, _ = batch()
    with pytest.raises(ValueError, match="labels go from 1 to 7, the network has 3 outputs"):
        ctc_loss(logprobs, labels.where(labels != 2, 7), frames, lens)
    with pytest.raises(ValueError, match="frames are .* the batch has 5"):
        ctc_loss(logprobs, labels, frames + 3, lens)
    with pytest.raises(ValueError, match="not numbers"):
        ctc_loss(logprobs * torch.nan, labels, frames, lens)
    with pytest.raises(ValueError, match="room for 3 labels"):
        ctc_loss(logprobs, labels, frames, lens + 2)
