"""The merged loss equals the plain one of the logits it never makes, and so do its gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from greenasr.ops.merged_transducer import merged_rnnt_loss
from greenasr.ops.transducer import rnnt_loss

# N, T, U, V, frame_lens, label_lens
SIZES = {
    "one frame, no label": (1, 1, 0, 2, [1], [0]),
    "no labels": (2, 4, 0, 3, [4, 2], [0, 0]),
    "one frame": (2, 1, 3, 5, [1, 1], [3, 1]),
    "ragged": (5, 8, 6, 9, [8, 1, 3, 8, 2], [4, 6, 0, 2, 3]),
}


def problem(
    name: str, spread: float = 2.0, blank: int = 1
) -> tuple[Tensor, Tensor, Tensor, list[int], list[int]]:
    """Float64 scores of encoder and prediction network, labels with repeats, lengths."""
    n, t, u, v, frame_lens, label_lens = SIZES[name]
    g = torch.Generator().manual_seed(len(name))
    enc, pred = (spread * torch.randn(n, size, v, generator=g).double() for size in (t, u + 1))
    labels = torch.randint(0, v - 1, (n, u), generator=g)
    labels += labels >= blank
    return enc.requires_grad_(), pred.requires_grad_(), labels, frame_lens, label_lens


def added(enc: Tensor, pred: Tensor) -> Tensor:
    return enc[:, :, None] + pred[:, None]


def gradients(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((loss * torch.linspace(-1, 2, len(loss))).sum(), of)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("spread", [0.0, 2.0, 60.0])
@pytest.mark.parametrize("twice", [False, True])
def test_loss_and_gradients_equal_those_of_the_sum_of_both(name: str, spread: float, twice: bool) -> None:
    enc, pred, *rest = problem(name, spread)
    ours = merged_rnnt_loss(enc, pred, *rest, blank=1, twice_differentiable=twice)
    plain = rnnt_loss(added(enc, pred), *rest, blank=1)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    for a, b in zip(gradients(ours, enc, pred), gradients(plain, enc, pred), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        alone = merged_rnnt_loss(enc, pred, *rest, blank=1)
    torch.testing.assert_close(alone, plain.detach(), rtol=1e-10, atol=1e-10)


def test_an_encoder_and_a_prediction_that_rule_out_each_others_choice_still_add_up() -> None:
    enc, pred = torch.zeros(1, 3, 4), torch.zeros(1, 3, 4)
    enc[..., 0], pred[..., 1] = 300.0, 330.0  # far beyond what float32 exponentials hold
    enc.requires_grad_(), pred.requires_grad_()
    rest = torch.tensor([[2, 1]]), [3], [2]
    ours, plain = merged_rnnt_loss(enc, pred, *rest), rnnt_loss(added(enc, pred).double(), *rest)
    torch.testing.assert_close(ours.double(), plain)
    for a, b in zip(gradients(ours, enc, pred), gradients(plain, enc, pred), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="utterance 0 of the batch are NaN or infinite at frame 0"):
        merged_rnnt_loss(3 * enc, 3 * pred, *rest)  # beyond what float64 holds: said, not guessed


def test_the_second_derivative_passes_gradgradcheck_and_is_refused_where_it_would_be_wrong() -> None:
    enc, pred, labels, _, _ = problem("one frame")
    rest = labels, [1, 1], [3, 1]

    def loss(enc: Tensor, pred: Tensor) -> Tensor:
        return merged_rnnt_loss(enc, pred, *rest, blank=1, twice_differentiable=True)

    assert torch.autograd.gradgradcheck(loss, (enc, pred))
    with pytest.raises(RuntimeError, match="ask for twice_differentiable=True"):
        torch.autograd.grad(merged_rnnt_loss(enc, pred, *rest, blank=1).sum(), enc, create_graph=True)


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)]
)
def test_short_precisions_round_nothing_but_the_gradients(dtype: torch.dtype, error: float) -> None:
    enc, pred, *rest = problem("ragged")
    short = [x.detach().to(dtype).requires_grad_() for x in (enc, pred)]
    exact = [x.detach().double().requires_grad_() for x in short]
    ours, wanted = merged_rnnt_loss(*short, *rest, blank=1), merged_rnnt_loss(*exact, *rest, blank=1)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-6, atol=1e-6)
    for a, b in zip(gradients(ours, *short), gradients(wanted, *exact), strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=error, atol=1e-6)


def test_padding_takes_no_part_whatever_it_holds() -> None:
    enc, pred, labels, frame_lens, label_lens = problem("ragged")
    clean = merged_rnnt_loss(enc, pred, labels, frame_lens, label_lens, blank=1)
    wanted = gradients(clean, enc, pred)
    with torch.no_grad():
        for n, (t, u) in enumerate(zip(frame_lens, label_lens, strict=True)):
            enc[n, t:], pred[n, u + 1 :], labels[n, u:] = torch.nan, torch.inf, -3
    for twice in (False, True):
        loss = merged_rnnt_loss(
            enc, pred, labels, frame_lens, label_lens, blank=1, twice_differentiable=twice
        )
        torch.testing.assert_close(loss, clean)
        for a, b in zip(gradients(loss, enc, pred), wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_nothing_of_the_size_of_the_logits_is_ever_allocated() -> None:
    """The largest allocation and the peak over forward and backward, from the profiler's record of both."""
    n, t, u, v = 4, 50, 20, 300
    enc, pred = torch.randn(n, t, v, requires_grad=True), torch.randn(n, u + 1, v, requires_grad=True)
    labels = torch.randint(1, v, (n, u))
    with torch.profiler.profile(profile_memory=True) as record:
        loss = merged_rnnt_loss(enc, pred, labels, [t, t - 7, t, 1], [u, u - 3, 0, u])
        torch.autograd.grad(loss.sum(), (enc, pred))
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    assert sizes.max() == enc.numel() * 4 > t * v * 8  # its gradient; float64 copies are an utterance's
    logits = n * t * (u + 1) * v * 4
    assert sizes.max() < logits / 20 and sizes.cumsum(0).max() < logits / 4


def change(**changed: object) -> Callable[[], Tensor]:
    enc, pred, labels, frame_lens, label_lens = problem("ragged")
    given = {"enc": enc, "pred": pred, "labels": labels, "frame_lens": frame_lens, "label_lens": label_lens}
    return lambda: merged_rnnt_loss(**{"blank": 1, **given, **changed})  # type: ignore[arg-type]


def test_bad_input_is_named_by_utterance() -> None:
    enc, pred, labels, _, _ = problem("ragged")
    broken = enc.detach().clone()
    broken[3, 5, 2] = torch.nan
    closed = enc.detach().clone()
    closed[3, 5, 1] = -torch.inf
    cases = {
        r"\(5, 8, 9\) and \(5, 7, 8\): expected \(N, T, V\) and \(N, U \+ 1, V\)": change(pred=pred[..., :8]),
        r"expected floats": change(enc=torch.zeros(5, 8, 9, dtype=torch.int64)),
        r"utterance 1 of the batch has 9 frames": change(frame_lens=[8, 9, 3, 8, 2]),
        r"label 0 of utterance 0 .* the blank": change(labels=torch.ones_like(labels)),
        r"utterance 3 of the batch are NaN or infinite at frame 5 after 0 labels": change(enc=broken),
        r"utterance 3 of the batch has no alignment": change(enc=closed),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.gpu
def test_a_device_gives_the_same_figures() -> None:
    enc, pred, labels, *lens = problem("ragged")
    there = [x.detach().cuda().requires_grad_() for x in (enc, pred)]
    here = merged_rnnt_loss(enc, pred, labels, *lens, blank=1)
    away = merged_rnnt_loss(*there, labels.cuda(), *lens, blank=1)
    torch.testing.assert_close(here, away.cpu())
    for a, b in zip(
        gradients(here, enc, pred),
        torch.autograd.grad(away.cpu() @ torch.linspace(-1, 2, 5).double(), there),
        strict=True,
    ):
        torch.testing.assert_close(a, b.cpu())
