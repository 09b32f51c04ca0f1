"""The transducer loss equals the sum over enumerated alignments, and so does its gradient."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor

from greenasr.ops import transducer
from greenasr.ops.transducer import rnnt_loss
from greenasr.ops.transducer_lattice import Arcs, posteriors

# N, T, U, V, blank, frame_lens, label_lens
SIZES = {
    "one frame, no label": (1, 1, 0, 2, 0, [1], [0]),
    "one frame, all labels at once": (2, 1, 3, 5, 0, [1, 1], [3, 1]),
    "no labels": (2, 4, 0, 3, 1, [4, 2], [0, 0]),
    "one label": (1, 4, 1, 3, 2, [4], [1]),
    "ragged": (5, 5, 4, 6, 0, [5, 1, 3, 5, 2], [4, 4, 0, 2, 3]),
    "small": (2, 2, 2, 3, 0, [2, 1], [1, 2]),
    "blank last": (3, 3, 3, 4, 3, [3, 2, 1], [2, 3, 0]),
}


def enumerated(z: Tensor, y: list[int], frames: int, blank: int) -> Tensor:
    """-ln p summed over every order of the labels and all blanks but the last; (T, U + 1, V) -> ()."""
    logprobs = z.log_softmax(-1)
    paths = []
    for where in combinations(range(frames - 1 + len(y)), len(y)):
        t = u = 0
        score = logprobs[frames - 1, len(y), blank]
        for step in range(frames - 1 + len(y)):
            if step in where:
                score, u = score + logprobs[t, u, y[u]], u + 1
            else:
                score, t = score + logprobs[t, u, blank], t + 1
        paths.append(score)
    return -torch.stack(paths).logsumexp(0)


def problem(
    name: str, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, list[int], list[int], int]:
    """Logits, labels (padded by the blank, which is no label), lengths, blank."""
    n, t, u, v, blank, frame_lens, label_lens = SIZES[name]
    g = torch.Generator().manual_seed(len(name))
    logits = (2 * torch.randn(n, t, u + 1, v, generator=g)).to(dtype).requires_grad_()
    labels = torch.randint(0, v - 1, (n, u), generator=g)
    labels += labels >= blank
    for row, said in zip(labels, label_lens, strict=True):
        row[said:] = blank
    return logits, labels, frame_lens, label_lens, blank


def brute_force(
    logits: Tensor, labels: Tensor, frame_lens: list[int], label_lens: list[int], blank: int
) -> Tensor:
    rows = zip(logits, labels.tolist(), frame_lens, label_lens, strict=True)
    return torch.stack([enumerated(z, y[:u], t, blank) for z, y, t, u in rows])


def batch(
    n: int = 3, frames: int = 9, said: int = 4, vocab: int = 11, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, list[int], list[int]]:
    g = torch.Generator().manual_seed(n)
    logits = (3 * torch.randn(n, frames, said + 1, vocab, generator=g)).to(dtype).requires_grad_()
    labels = torch.randint(1, vocab, (n, said), generator=g)
    return logits, labels, [frames] * (n - 1) + [frames // 2], [said // 2] + [said] * (n - 1)


def gradient(loss: Tensor, of: Tensor, weights: bool = True) -> Tensor:
    """Of a sum with weights of both signs and a zero, as a caller might take it."""
    scale = torch.linspace(-1, 2, len(loss)) if weights else torch.ones(len(loss))
    return torch.autograd.grad((loss * scale).sum(), of)[0]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("chunk", [1, 40, 1 << 18])
@pytest.mark.parametrize("twice", [False, True])
def test_loss_and_gradient_equal_those_of_all_alignments_enumerated(
    name: str, chunk: int, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transducer, "CHUNK", chunk)
    logits, labels, frame_lens, label_lens, blank = problem(name)
    ours = rnnt_loss(logits, labels, frame_lens, label_lens, blank=blank, twice_differentiable=twice)
    slow = brute_force(logits, labels, frame_lens, label_lens, blank)
    torch.testing.assert_close(ours, slow, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient(ours, logits), gradient(slow, logits), rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # without a gradient to come, only forwards
        alone = rnnt_loss(logits, labels, frame_lens, label_lens, blank=blank)
    torch.testing.assert_close(alone, slow.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["small", "no labels", "one label"])
def test_the_written_out_gradient_passes_gradcheck(name: str) -> None:
    logits, labels, frame_lens, label_lens, blank = problem(name)
    assert torch.autograd.gradcheck(
        lambda z: rnnt_loss(z, labels, frame_lens, label_lens, blank=blank), logits
    )


def test_the_second_derivative_passes_gradgradcheck_and_is_refused_where_it_would_be_wrong() -> None:
    logits, labels, frame_lens, label_lens, blank = problem("small")

    def loss(z: Tensor, twice: bool) -> Tensor:
        return rnnt_loss(z, labels, frame_lens, label_lens, blank=blank, twice_differentiable=twice)

    assert torch.autograd.gradgradcheck(lambda z: loss(z, True), logits)
    with pytest.raises(RuntimeError, match="ask for twice_differentiable=True"):
        torch.autograd.grad(loss(logits, False).sum(), logits, create_graph=True)


@pytest.mark.parametrize(
    ("dtype", "grad_error"), [(torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)]
)
def test_short_precisions_differ_by_the_rounding_of_the_gradient_alone(
    dtype: torch.dtype, grad_error: float
) -> None:
    logits, labels, frame_lens, label_lens = batch(dtype=dtype)
    exact = logits.detach().double().requires_grad_()
    ours = rnnt_loss(logits, labels, frame_lens, label_lens)
    wanted = rnnt_loss(exact, labels, frame_lens, label_lens)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-6, atol=1e-5)
    grad = gradient(ours, logits)
    assert grad.dtype == dtype
    torch.testing.assert_close(grad.double(), gradient(wanted, exact), rtol=grad_error, atol=1e-6)


def test_padding_takes_no_part_whatever_it_holds() -> None:
    logits, labels, frame_lens, label_lens = batch()
    clean = rnnt_loss(logits, labels, frame_lens, label_lens)
    with torch.no_grad():
        spoilt, junk = logits.clone(), labels.clone()
        for n, (t, u) in enumerate(zip(frame_lens, label_lens, strict=True)):
            spoilt[n, t:] = torch.nan
            spoilt[n, :, u + 1 :] = torch.nan
            junk[n, u:] = -7
    for twice in (False, True):
        spoilt.requires_grad_()
        loss = rnnt_loss(spoilt, junk, frame_lens, label_lens, twice_differentiable=twice)
        torch.testing.assert_close(loss, clean)
        torch.testing.assert_close(
            gradient(loss, spoilt), gradient(rnnt_loss(logits, labels, frame_lens, label_lens), logits)
        )


def test_every_gradient_of_a_cell_sums_to_zero_and_every_frame_has_one_blank_and_every_label_one_frame() -> (
    None
):
    logits, labels, frame_lens, label_lens = batch(dtype=torch.float64)
    loss = rnnt_loss(logits, labels, frame_lens, label_lens)
    torch.testing.assert_close(gradient(loss, logits).sum(-1), torch.zeros_like(logits[..., 0]).detach())
    g = torch.Generator().manual_seed(0)
    blank, label = -torch.rand(2, 6, 4, generator=g).double(), -torch.rand(2, 6, 3, generator=g).double()
    found = posteriors(Arcs(blank, label, torch.tensor([6, 6]), torch.tensor([3, 3])))
    torch.testing.assert_close(found.blank.sum(2), torch.ones(2, 6).double())
    torch.testing.assert_close(found.label.sum(1), torch.ones(2, 3).double())


def test_a_constant_added_to_a_cell_changes_nothing() -> None:
    logits, labels, frame_lens, label_lens = batch(dtype=torch.float64)
    moved = (
        logits + 300 * torch.randn(logits.shape[:3], generator=torch.Generator().manual_seed(1))[..., None]
    )
    torch.testing.assert_close(
        rnnt_loss(moved, labels, frame_lens, label_lens), rnnt_loss(logits, labels, frame_lens, label_lens)
    )


def test_a_long_utterance_keeps_its_precision() -> None:
    frames, said, vocab = 700, 90, 4  # all alignments alike: C(T + U - 1, U) V^-(T + U)
    loss = rnnt_loss(
        torch.zeros(1, frames, said + 1, vocab), torch.ones(1, said, dtype=torch.int64), [frames], [said]
    )
    count = torch.tensor([frames + said, -said - 1, -frames], dtype=torch.float64)
    count = torch.lgamma(count.abs() + torch.tensor([0, 0, 0])).mul(count.sign()).sum()
    wanted = (frames + said) * torch.tensor(vocab).double().log() - count
    torch.testing.assert_close(loss.double(), wanted[None], rtol=1e-6, atol=0)


def test_logits_of_minus_infinity_close_a_way_and_nothing_else() -> None:
    logits, labels, frame_lens, label_lens = batch(frames=6, dtype=torch.float64)
    with torch.no_grad():
        logits[0, 2, :, 0] = -torch.inf  # no blank at frame 2 but after the second label
        logits[0, 2, 2, 0] = 0.5
    slow = brute_force(logits, labels, frame_lens, label_lens, 0)
    for twice in (False, True):
        loss = rnnt_loss(logits, labels, frame_lens, label_lens, twice_differentiable=twice)
        torch.testing.assert_close(loss, slow)
        assert gradient(loss, logits).isfinite().all()


def test_no_memory_beyond_the_logits_one_gradient_and_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator's peak over forward and backward, from the profiler's record of every (de)allocation."""
    monkeypatch.setattr(transducer, "CHUNK", 1 << 15)
    logits, labels, frame_lens, label_lens = batch(2, 20, 9, 2000)
    size = logits.numel() * 4
    with torch.profiler.profile(profile_memory=True) as record:
        loss = rnnt_loss(logits, labels, frame_lens, label_lens)
        (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert grad.shape == logits.shape
    assert peak(record) < size + transducer.CHUNK * 4 + 0.1 * size
    with torch.profiler.profile(profile_memory=True) as record:
        torch.autograd.grad(logits.log_softmax(-1).sum(), logits)
    assert peak(record) >= 2 * size  # the instrument sees what log_softmax takes


def peak(record: torch.profiler.profile) -> int:
    """Most bytes that were alive at once and were not before."""
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).cumsum(0)
    return int(alive.max())


def test_what_waits_for_the_backward_pass_is_the_logits_and_their_cells() -> None:
    logits, labels, frame_lens, label_lens = batch(3, 9, 4, 500)
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        rnnt_loss(logits, labels, frame_lens, label_lens)
    others = [x for x in kept if x.data_ptr() != logits.data_ptr()]
    assert len(kept) == 3 and sum(x.numel() for x in others) < 2 * 3 * 9 * 5


def change(**changed: object) -> Callable[[], Tensor]:
    logits, labels, frame_lens, label_lens = batch()
    given = {
        "logits": logits,
        "labels": labels,
        "frame_lens": frame_lens,
        "label_lens": label_lens,
        **changed,
    }
    return lambda: rnnt_loss(**given)  # type: ignore[arg-type]


def with_(index: tuple[int, ...], value: float, x: Tensor) -> Tensor:
    x = x.detach().clone()
    x[index] = value
    return x


def test_bad_input_is_named_by_utterance() -> None:
    logits, labels, _, _ = batch()
    cases = {
        r"utterance 1 of the batch has 0 frames for 4 labels, expected 1 to 9": change(frame_lens=[9, 0, 4]),
        r"utterance 2 of the batch has 10 frames": change(frame_lens=[9, 9, 10]),
        r"utterance 2 of the batch has 5 labels, the logits have room for 0 to 4": change(
            label_lens=[2, 4, 5]
        ),
        r"utterance 0 of the batch has -1 labels": change(label_lens=[-1, 4, 4]),
        r"label 1 of utterance 0 of the batch is 0, the blank": change(labels=with_((0, 1), 0, labels)),
        r"label 3 of utterance 2 .* is 11, outside the outputs 0 to 10": change(
            labels=with_((2, 3), 11, labels)
        ),
        r"the blank is 11, the logits have the outputs 0 to 10": change(blank=11),
        r"have the shapes \[\(3, 3\), .* need \[\(3, 4\), \(3,\), \(3,\)\]": change(labels=labels[:, :3]),
        r"hold fractions: give integers": change(label_lens=[1.5, 2.0, 3.0]),
        r"expected floats, \(N, T, U \+ 1, V\)": change(logits=logits[0]),
        r"utterance 1 .* NaN or infinite at frame 8 after 4 labels": change(
            logits=with_((1, 8, 4, 3), torch.nan, logits)
        ),
        r"utterance 0 .* NaN or infinite at frame 3 after 0 labels": change(
            logits=with_((0, 3, 0, 5), torch.inf, logits)
        ),
        r"utterance 2 of the batch has no alignment": change(logits=with_((2, 3, 4, 0), -torch.inf, logits)),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_an_empty_batch_has_no_losses() -> None:
    logits = torch.randn(0, 3, 3, 4, requires_grad=True)
    loss = rnnt_loss(logits, torch.zeros(0, 2, dtype=torch.int64), [], [])
    assert loss.shape == (0,)
    assert torch.autograd.grad(loss.sum(), logits)[0].shape == logits.shape


@pytest.mark.gpu
def test_a_device_gives_the_same_figures() -> None:
    logits, labels, frame_lens, label_lens = batch()
    there = logits.detach().cuda().requires_grad_()
    a, b = (rnnt_loss(z, labels.to(z.device), frame_lens, label_lens) for z in (logits, there))
    torch.testing.assert_close(a, b.cpu())
    torch.testing.assert_close(
        gradient(a, logits), torch.autograd.grad((b * torch.linspace(-1, 2, 3).cuda()).sum(), there)[0].cpu()
    )
