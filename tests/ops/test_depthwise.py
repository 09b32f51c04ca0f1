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


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="4 taps has no middle"):
        depthwise(torch.zeros(1, 1, 3), torch.zeros(1, 4))
