import pytest
import torch

from greenasr.ops.batch_norm import affine, batch_norm, masked_relu


def inputs(padding=0):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(3, 11, generator=gen, dtype=torch.float64) + 2
    g, b = torch.randn(2, 3, generator=gen, dtype=torch.float64)
    mask = torch.ones(11, dtype=torch.float64)
    mask[11 - padding :] = 0
    return x.requires_grad_(), g.requires_grad_(), b.requires_grad_(), mask


def test_without_padding_it_is_torchs():
    x, g, b, _ = inputs()
    y, mean, var = batch_norm(x, g, b, 11, 1e-3)
    torch.testing.assert_close(y, torch.nn.functional.batch_norm(x.t(), None, None, g, b, True, 0, 1e-3).t())
    torch.testing.assert_close(mean, x.mean(1))
    torch.testing.assert_close(var, x.var(1, correction=0))


def test_padding_changes_no_statistic_and_no_true_frame():
    x, g, b, mask = inputs(padding=4)
    padded, mean, var = batch_norm(x * mask, g, b, 7, 1e-3)
    alone, *statistics = batch_norm(x[:, :7], g, b, 7, 1e-3)
    torch.testing.assert_close(padded[:, :7], alone)
    torch.testing.assert_close([mean, var], statistics)


@pytest.mark.parametrize("padding", [0, 4])
def test_gradients_are_those_of_differences(padding):
    x, g, b, mask = inputs(padding)

    def whole(x, g, b):
        y, _, _ = batch_norm(x * mask, g, b, 11 - padding, 1e-3)
        return masked_relu(y, mask) + y * mask

    assert torch.autograd.gradcheck(whole, (x, g, b))


def test_relu_and_affine_have_second_derivatives():
    x, g, b, mask = inputs(padding=3)
    assert torch.autograd.gradgradcheck(lambda *a: masked_relu(affine(*a), mask).square(), (x, g, b))


def test_masked_relu_clears_padding():
    x, _, _, mask = inputs(padding=3)
    assert torch.equal(masked_relu(x, mask), torch.relu(x) * mask)
    assert torch.equal(masked_relu(x, None), torch.relu(x))
