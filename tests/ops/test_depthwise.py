import pytest
import torch
import torch.nn.functional as F

from greenasr.ops.depthwise import depthwise


@pytest.mark.parametrize("taps", [1, 5, 13, 87])
@pytest.mark.parametrize("frames", [1, 31, 32, 70])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_the_matrix_product_is_the_convolution(taps, frames, dilation):
    gen = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, frames, generator=gen, dtype=torch.float64)
    w = torch.randn(3, taps, generator=gen, dtype=torch.float64)
    conv = F.conv1d(
        x.transpose(0, 1), w[:, None], padding=dilation * (taps // 2), dilation=dilation, groups=3
    )
    torch.testing.assert_close(depthwise(x, w, dilation), conv.transpose(0, 1))


def test_derivatives_of_first_and_second_order_are_those_of_differences():
    gen = torch.Generator().manual_seed(2)
    x = torch.randn(2, 2, 37, generator=gen, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 5, generator=gen, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depthwise, (x, w))
    short = x[:, :1, :4].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(depthwise, (short, w))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("frames", [64, 65])
def test_inputs_and_gradients_may_lie_in_memory_as_they_like(frames: int, dilation: int) -> None:
    gen = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, frames, generator=gen, dtype=torch.float64).transpose(0, 1).requires_grad_()
    w = torch.randn(3, 5, generator=gen, dtype=torch.float64, requires_grad=True)
    pull = torch.randn(2, frames, 3, generator=gen, dtype=torch.float64).permute(2, 0, 1)
    strided = torch.autograd.grad(depthwise(x, w, dilation), (x, w), pull)
    plain = torch.autograd.grad(depthwise(x.contiguous(), w, dilation), (x, w), pull.contiguous())
    torch.testing.assert_close(strided, plain)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="4 taps has no middle"):
        depthwise(torch.zeros(1, 1, 3), torch.zeros(1, 4))
