"""The chunked loss equals torch's, and so do its gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from greenasr.ops import cross_entropy
from greenasr.ops.cross_entropy import Teacher, linear_cross_entropy


def problem(n: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(n)
    hidden = torch.randn(n, 6, generator=g).to(dtype).requires_grad_()
    weight = torch.randn(11, 6, generator=g).to(dtype).requires_grad_()
    bias = torch.randn(11, generator=g).to(dtype).requires_grad_()
    targets = torch.randint(0, 11, (n,), generator=g)
    targets[::3] = -100
    return hidden, weight, bias, targets


@pytest.mark.parametrize("n", [2, 7, 40])
@pytest.mark.parametrize("chunk", [1, 5, 512])
def test_loss_and_gradients_equal_those_of_all_logits_at_once(
    n: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    hidden, weight, bias, targets = problem(n)
    ours = linear_cross_entropy(hidden, weight, bias, targets)
    theirs = F.cross_entropy(hidden @ weight.t() + bias, targets)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(3 * ours, (hidden, weight, bias)),
        torch.autograd.grad(3 * theirs, (hidden, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_large_logits_do_not_overflow() -> None:
    hidden, weight, bias, targets = problem(9)
    ours = linear_cross_entropy(1e4 * hidden, weight, bias, targets)
    torch.testing.assert_close(ours, F.cross_entropy(1e4 * hidden @ weight.t() + bias, targets))


def test_without_a_target_loss_and_gradients_are_zero() -> None:
    hidden, weight, bias, targets = problem(4)
    loss = linear_cross_entropy(hidden, weight, bias, torch.full_like(targets, -100))
    assert loss == 0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, (hidden, weight, bias)))


def test_half_precision_inputs_keep_gradients_in_the_parameters_precision() -> None:
    hidden, weight, bias, targets = problem(30)
    loss = linear_cross_entropy(hidden.bfloat16(), weight, bias, targets)
    expected = F.cross_entropy(hidden @ weight.t() + bias, targets)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.02)
    ours = torch.autograd.grad(loss, (hidden, weight))
    assert [g.dtype for g in ours] == [torch.float32, torch.float32]
    for a, b in zip(ours, torch.autograd.grad(expected, (hidden, weight)), strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.01)


def test_a_teacher_makes_the_targets_soft_in_loss_and_gradient():
    torch.manual_seed(3)
    hidden, weight, bias = torch.randn(7, 4), torch.randn(6, 4), torch.randn(6)
    targets = torch.tensor([0, 1, -100, 5, 2, -100, 3])
    teacher = Teacher(torch.randn(7, 3), torch.randn(6, 3), torch.randn(6), 0.3)
    leaves = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
    linear_cross_entropy(*leaves, targets, teacher).backward()
    slow = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
    keep = targets >= 0
    logprobs = torch.nn.functional.linear(*slow)[keep].log_softmax(1)
    soft = (teacher.hidden @ teacher.weight.t() + teacher.bias)[keep].softmax(1)
    wanted = 0.7 * torch.nn.functional.one_hot(targets[keep], 6) + 0.3 * soft
    loss = -(wanted * logprobs).sum(1).mean()
    loss.backward()
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, bias, targets, teacher), loss.detach())
    for fast, exact in zip(leaves, slow, strict=True):
        torch.testing.assert_close(fast.grad, exact.grad)
