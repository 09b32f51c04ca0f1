"""The written-out second derivative against automatic differentiation."""

import torch
import torch.nn.functional as F

from greenasr.ops.curved_cross_entropy import curved_cross_entropy

TARGETS = torch.tensor([2, -100, 0, 4, 2])


def logits() -> torch.Tensor:
    return (3 * torch.randn(5, 6, dtype=torch.float64)).requires_grad_()


def test_loss_gradient_and_hessian_product_equal_those_of_torch() -> None:
    z, v, w = logits(), torch.randn(5, 6).double(), torch.randn(4, 6, dtype=torch.float64).requires_grad_()
    results = []
    for cross_entropy in (curved_cross_entropy, F.cross_entropy):
        loss = cross_entropy(z + (torch.ones(5, 4).double() @ w).sin(), TARGETS) ** 2
        first = torch.autograd.grad(loss, (z, w), create_graph=True)
        second = torch.autograd.grad(first, (z, w), grad_outputs=(v, torch.ones_like(w)))
        results.append((loss, *first, *second))
    torch.testing.assert_close(results[0], results[1])


def test_first_and_second_derivatives_agree_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(curved_cross_entropy, (logits(), TARGETS))
    assert torch.autograd.gradgradcheck(curved_cross_entropy, (logits(), TARGETS))


def test_no_target_at_all_is_no_loss() -> None:
    z = logits()
    loss = curved_cross_entropy(z, torch.full((5,), -100))
    (grad,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0 and not grad.any()


def test_large_logits_stay_finite() -> None:
    z = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    (grad,) = torch.autograd.grad(curved_cross_entropy(z, torch.tensor([1, 1])), z)
    torch.testing.assert_close(grad, torch.tensor([[0.5, -0.5], [0.0, 0.0]]))
