"""What every table promises; a line in QUANTIZERS is what adds it here."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from greenasr.compress.quantizers import QUANTIZERS, Uniform
from greenasr.roles import Quantized

every_quantizer = pytest.mark.parametrize("make", QUANTIZERS.values(), ids=QUANTIZERS)
Make = Callable[[], Uniform]


def weight() -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(6, 16, generator=g) * torch.tensor([1.0, 0.1, 3.0, 1.0, 0.0, 1e-4])[:, None]


def relative_error(w: Tensor, q: Quantized) -> float:
    return float((w - q.dequantize()).norm() / w.norm())


@every_quantizer
def test_projecting_twice_changes_nothing(make: Make) -> None:
    once = make().project(weight()).dequantize()
    torch.testing.assert_close(make().project(once).dequantize(), once, rtol=1e-5, atol=1e-7)


@every_quantizer
@pytest.mark.parametrize("scale", [0.25, 1024.0])
def test_the_grid_scales_with_the_weights(make: Make, scale: float) -> None:
    a, b = make().project(weight()), make().project(scale * weight())
    assert torch.equal(a.codes, b.codes)
    assert torch.equal(scale * a.step, b.step)


@every_quantizer
def test_the_grid_is_symmetric(make: Make) -> None:
    a, b = make().project(weight()), make().project(-weight())
    assert torch.equal(a.step, b.step)
    if make().bits > 1:
        assert torch.equal(a.codes, -b.codes)


@every_quantizer
def test_codes_are_integers_in_range_and_steps_have_their_shape(make: Make) -> None:
    quantizer, w = make(), weight()
    q = quantizer.project(w)
    largest = max(1, 2 ** (quantizer.bits - 1) - 1)
    assert q.codes.shape == w.shape == q.dequantize().shape
    assert torch.equal(q.codes, q.codes.round()) and float(q.codes.abs().max()) <= largest
    shapes = {"cluster": (), "row": (6, 1), "group:4": (6, 4, 1)}
    assert q.step.shape == shapes[quantizer.steps]
    assert (q.step >= 0).all() and q.dequantize().isfinite().all() and q.dequantize().dtype == w.dtype


@pytest.mark.parametrize("make", [make for make in QUANTIZERS.values() if make().bits <= 8])
def test_every_weight_goes_to_the_nearest_level_of_its_step(make: Make) -> None:
    quantizer, w = make(), weight()
    q = quantizer.project(w)
    largest = max(1, 2 ** (quantizer.bits - 1) - 1)
    levels = [c for c in range(-largest, largest + 1) if quantizer.bits > 1 or c]
    step = q.step.expand(6, 4, 4) if q.step.dim() == 3 else q.step.expand(6, 16)
    step = step.reshape(6, 16) if q.step.dim() else q.step
    best = torch.stack([(w - c * step).abs() for c in levels]).amin(0)
    torch.testing.assert_close((w - q.dequantize()).abs(), best)


@pytest.mark.parametrize("steps", ["cluster", "row", "group:4"])
def test_more_bits_are_never_worse_than_the_width_before(steps: str) -> None:
    errors = [
        relative_error(weight(), Uniform(bits, steps).project(weight())) for bits in (2, 3, 4, 6, 8, 16)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_more_steps_are_never_worse(bits: int) -> None:
    errors = [
        relative_error(weight(), Uniform(bits, steps).project(weight()))
        for steps in ("cluster", "row", "group:4")
    ]
    assert errors == sorted(errors, reverse=True)


@every_quantizer
def test_refitting_from_the_fitted_step_does_not_raise_the_error(make: Make) -> None:
    quantizer, w = make(), weight()
    fitted = quantizer.project(w)
    again = quantizer.project(w, fitted.step)
    assert again.step.shape == fitted.step.shape
    assert relative_error(w, again) <= relative_error(w, fitted) * (1 + 1e-4) + 1e-7


def test_tables_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="no table of 5 bits: choose from 1, 2, 3, 4, 6, 8, 16"):
        Uniform(5)
    for steps in ("column", "group:", "group:0", "group:x"):
        with pytest.raises(ValueError, match=f"unknown step '{steps}': choose cluster, row or group:N"):
            Uniform(2, steps)
    with pytest.raises(ValueError, match="rows of 16 weights cannot be cut into groups of 5"):
        Uniform(2, "group:5").project(weight())
