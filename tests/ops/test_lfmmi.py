"""The sums over paths equal enumeration, and so do their gradients; what cannot be summed is left out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from greenasr.ops.lfmmi import Graph, GraphBatch, LfMmi, any_of, lfmmi

PDFS = 4


def random_graph(seed: int, states: int = 4, arcs: int = 9) -> Graph:
    """Arcs, parallel ones and loops among them, initial and final weights at random."""
    g = torch.Generator().manual_seed(seed)

    def draw(high: int) -> Tensor:
        return torch.randint(0, high, (arcs,), generator=g)

    initial, final = (torch.rand(2, states, generator=g)).log().unbind()
    return Graph(draw(states), draw(states), draw(PDFS), torch.rand(arcs, generator=g).log(), initial, final)


def chain(*pdfs: int) -> Graph:
    """One state a pdf, entered and looped on with weights that sum to one, from a start state to the end."""
    n = len(pdfs)
    ahead, loop = torch.arange(n), torch.arange(1, n + 1)
    half = math.log(0.5)
    return Graph(
        torch.cat([ahead, loop]),
        torch.cat([ahead + 1, loop]),
        torch.tensor(pdfs * 2),
        torch.tensor([0.0] + [half] * (2 * n - 1)),
        torch.tensor([0.0] + [-math.inf] * n),
        torch.tensor([-math.inf] * n + [half]),
    )


def anything() -> Graph:
    """A denominator above every `chain`: any pdf at any frame, for free."""
    n = PDFS
    zero = torch.zeros(n, dtype=torch.int64)
    return Graph(zero, zero, torch.arange(n), torch.zeros(n), torch.zeros(1), torch.zeros(1))


def enumerated(graph: Graph, logits: Tensor, leaky: float = 0.0) -> Tensor:
    """Log of the sum over all sequences of arcs, one after another; (T, C) -> ().

    A leak is an arc without pdf from every state to every other that may be taken once before each frame.
    """
    begin, end = graph.initial.double(), graph.final.double()
    scale = begin.logsumexp(0)
    leak = (leaky * graph.occupancy()).log()  # of a distribution: one
    paths = torch.cartesian_prod(*[torch.arange(graph.n_arcs)] * len(logits))
    score = scale + torch.logaddexp(begin - scale, leak)[graph.src[paths[:, 0]]]
    for t, arc in enumerate(paths.t()):
        score = score + graph.logprob.double()[arc] + logits[t, graph.pdf[arc]]
        if t + 1 < len(logits):
            following = graph.src[paths[:, t + 1]]
            joined = torch.where(graph.dst[arc] == following, 0.0, -math.inf).double()
            score = score + torch.logaddexp(joined, leak[following])
    return (score + end[graph.dst[paths[:, -1]]]).logsumexp(0)


def loss_of(logits: Tensor, lens: list[int], den: Graph, nums: list[Graph], **options: object) -> LfMmi:
    return lfmmi(logits, torch.tensor(lens), den, nums, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("twice", [False, True])
def test_numerator_and_denominator_equal_the_sum_over_all_paths(
    seed: int, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = torch.ones(1, dtype=torch.bool), 4
    monkeypatch.setattr("greenasr.ops.lfmmi._kept", lambda *_: everything)  # the graphs are unrelated
    num, den = random_graph(seed), random_graph(seed + 50, states=3, arcs=7)
    logits = (3 * torch.randn(1, 4, PDFS, dtype=torch.float64)).requires_grad_()
    leaky = (0.0, 0.3)[seed % 2]
    found = loss_of(logits, [4], den, [num], leaky=leaky, l2=0.0, twice_differentiable=twice)
    expected_num, expected_den = enumerated(num, logits[0]), enumerated(den, logits[0], leaky)
    torch.testing.assert_close(found.num[0], expected_num.detach())
    torch.testing.assert_close(found.den[0], expected_den.detach())
    expected = (expected_den - expected_num) / 4
    torch.testing.assert_close(found.loss, expected)
    slopes = (torch.autograd.grad(loss, logits)[0] for loss in (found.loss, expected))
    torch.testing.assert_close(*slopes)


def test_gradient_equals_finite_differences_and_so_does_the_second() -> None:
    den = anything()
    nums = [chain(0, 1), chain(2)]
    logits = torch.randn(2, 3, PDFS, dtype=torch.float64, requires_grad=True)

    def loss(x: Tensor, twice: bool) -> Tensor:
        return loss_of(x, [3, 2], den, nums, leaky=0.1, l2=0.2, twice_differentiable=twice).loss

    assert torch.autograd.gradcheck(lambda x: loss(x, False), (logits,))
    assert torch.autograd.gradcheck(lambda x: loss(x, True), (logits,))
    assert torch.autograd.gradgradcheck(lambda x: loss(x, True), (logits,))


def test_the_plain_gradient_refuses_to_be_differentiated_again() -> None:
    logits = torch.randn(1, 3, PDFS, requires_grad=True)
    loss = loss_of(logits, [3], anything(), [chain(1)]).loss
    with pytest.raises(RuntimeError, match="twice_differentiable=True"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_leak_equals_the_dense_formula() -> None:
    graph = random_graph(7, states=5, arcs=11)
    leaky, n = 0.2, graph.n_states
    logits = torch.randn(6, PDFS, dtype=torch.float64)
    arcs = torch.zeros(n, n, PDFS, dtype=torch.float64)
    arcs.index_put_((graph.src, graph.dst, graph.pdf), graph.logprob.double().exp(), accumulate=True)
    alpha = graph.initial.double().exp()
    jump = torch.eye(n) + leaky * graph.occupancy().expand(n, n)
    for x in logits:
        alpha = alpha @ jump @ (arcs @ x.exp())
    expected = (alpha @ graph.final.double().exp()).log()
    num = [
        Graph(*(x[:0] for x in (graph.src, graph.dst, graph.pdf, graph.logprob)), graph.initial, graph.final)
    ]
    found = loss_of(logits[None], [6], graph, num, leaky=leaky)
    torch.testing.assert_close(found.den[0], expected)


def test_occupancy_is_the_average_of_a_hundred_frames() -> None:
    graph = chain(0, 1)
    step = torch.tensor([[0, 1, 0], [0, 0.5, 0.5], [0, 0, 0.5]], dtype=torch.float64)
    now, seen = torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(100):
        now = now @ step
        now /= now.sum()
        seen += now / 100
    torch.testing.assert_close(graph.occupancy(), seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ragged_batch_equals_its_utterances_one_by_one(dtype: torch.dtype) -> None:
    nums = [chain(0, 1, 2), chain(3), chain(2, 2), chain(1, 0)]
    lens = [7, 2, 5, 2]
    logits = (2 * torch.randn(4, 7, PDFS, dtype=dtype)).requires_grad_()
    whole = loss_of(logits, lens, anything(), nums, l2=0.1)
    alone = [
        loss_of(logits[n : n + 1, : lens[n]], [lens[n]], anything(), [nums[n]], l2=0.1)
        for n in range(len(nums))
    ]
    torch.testing.assert_close(whole.num, torch.cat([one.num for one in alone]))
    torch.testing.assert_close(whole.den, torch.cat([one.den for one in alone]))
    together = sum((one.loss * one.frames for one in alone), torch.zeros(())) / sum(lens)
    torch.testing.assert_close(whole.loss, together, check_dtype=False)
    torch.testing.assert_close(
        torch.autograd.grad(whole.loss, logits), torch.autograd.grad(together.to(dtype), logits)
    )


@pytest.mark.parametrize("twice", [False, True])
def test_padding_changes_nothing_whatever_it_holds(twice: bool) -> None:
    nums, lens = [chain(0, 1), chain(2)], [3, 4]
    logits = torch.randn(2, 4, PDFS).requires_grad_()
    padded = torch.full((2, 9, PDFS), torch.nan)
    padded[:, :4] = logits.detach()
    padded[0, 3:] = 1e30
    padded.requires_grad_()
    short, long = (loss_of(x, lens, anything(), nums, twice_differentiable=twice) for x in (logits, padded))
    torch.testing.assert_close(short.loss, long.loss)
    (a,), (b,) = torch.autograd.grad(short.loss, logits), torch.autograd.grad(long.loss, padded)
    torch.testing.assert_close(a, b[:, :4])
    assert (b[:, 4:] == 0).all() and (b[0, 3:] == 0).all()


@pytest.mark.parametrize("twice", [False, True])
def test_an_utterance_too_short_for_its_phones_is_left_out_and_counted(twice: bool) -> None:
    nums = [chain(0, 1, 2, 3), chain(1, 2), chain(3)]
    logits = torch.randn(3, 5, PDFS).requires_grad_()
    found = loss_of(logits, [3, 5, 0], anything(), nums, twice_differentiable=twice)
    rest = loss_of(logits[1:2], [5], anything(), nums[1:2], twice_differentiable=twice)
    assert (found.skipped, found.frames) == (2, 5)
    assert found.num[0] == found.num[2] == -math.inf
    torch.testing.assert_close(found.loss, rest.loss)
    (slope,) = torch.autograd.grad(found.loss, logits)
    assert slope.isfinite().all() and (slope[0] == 0).all() and (slope[2] == 0).all() and slope[1].any()


def test_a_batch_of_nothing_but_short_utterances_has_loss_zero() -> None:
    logits = torch.randn(2, 2, PDFS).requires_grad_()
    for lens in ([1, 1], [0, 0]):
        found = loss_of(logits, lens, anything(), [chain(0, 1), chain(1, 2, 3)])
        assert (found.loss, found.skipped, found.frames) == (0, 2, 0)
        assert (torch.autograd.grad(found.loss, logits)[0] == 0).all()


def test_only_differences_of_logits_count_without_l2() -> None:
    logits = torch.randn(2, 5, PDFS, dtype=torch.float64)
    shifted = logits + 50 * torch.randn(2, 5, 1, dtype=torch.float64)
    a, b = (loss_of(x, [5, 4], anything(), [chain(0), chain(1, 2)], l2=0.0) for x in (logits, shifted))
    torch.testing.assert_close(a.loss, b.loss)


def test_posteriors_sum_to_one_in_every_frame() -> None:
    logits = torch.randn(1, 6, PDFS, requires_grad=True)
    found = loss_of(logits, [6], anything(), [chain(0, 1, 2)], l2=0.0)
    (slope,) = torch.autograd.grad(found.loss, logits)
    torch.testing.assert_close(slope.sum(2), torch.zeros(1, 6), atol=1e-6, rtol=0)


@pytest.mark.parametrize("spread", [20.0, 200.0, 2000.0])
def test_long_utterances_and_wild_logits_stay_finite(spread: float) -> None:
    logits = (spread * torch.randn(2, 400, PDFS)).requires_grad_()
    nums = [chain(*torch.randint(0, PDFS, (n,)).tolist()) for n in (100, 390)]
    found = loss_of(logits, [400, 400], anything(), nums)
    (slope,) = torch.autograd.grad(found.loss, logits)
    assert found.loss.isfinite() and slope.isfinite().all()


def test_a_transcript_that_is_far_behind_at_every_frame_still_has_its_gradient() -> None:
    for seed in range(8):
        logits = 150 * torch.randn(1, 6, PDFS, generator=torch.Generator().manual_seed(seed)).double()
        logits.requires_grad_()
        num, den = chain(0, 1, 2), anything()
        found = loss_of(logits, [6], den, [num], leaky=0.0, l2=0.0)
        expected = (enumerated(den, logits[0]) - enumerated(num, logits[0])) / 6
        slopes = (torch.autograd.grad(loss, logits)[0] for loss in (found.loss, expected))
        torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_single_precision_is_enough_for_the_denominator(spread: float) -> None:
    den = random_graph(3, states=30, arcs=200)
    nothing = chain(*range(PDFS))  # longer than the utterances
    logits = spread * torch.randn(2, 3, PDFS, dtype=torch.float64)
    single, double = (loss_of(x, [3, 3], den, [nothing] * 2).den for x in (logits.float(), logits))
    torch.testing.assert_close(single, double, atol=1e-5, rtol=1e-6)


def test_l2_is_half_the_mean_square_sum_of_the_outputs() -> None:
    logits = torch.randn(2, 4, PDFS)
    nums = [chain(0, 1), chain(2)]
    with_l2, without = (loss_of(logits, [4, 2], anything(), nums, l2=l2).loss for l2 in (0.3, 0.0))
    energy = logits[0].square().sum() + logits[1, :2].square().sum()
    torch.testing.assert_close(with_l2 - without, 0.3 * energy / 12)


def test_a_batch_of_graphs_keeps_their_order() -> None:
    graphs = [chain(0), chain(1, 2)]
    batch = GraphBatch.of(graphs)
    assert batch.owner.tolist() == [0, 0, 1, 1, 1]
    assert batch.graph.src.tolist() == [*graphs[0].src.tolist(), *(graphs[1].src + 2).tolist()]


def test_any_of_several_graphs_sums_their_paths_by_probability() -> None:
    logits, graphs, probs = torch.randn(1, 4, PDFS), [chain(0, 1), chain(2), chain(3, 1, 0)], [0.5, 0.3, 0.2]
    one = loss_of(logits, [4], anything(), [any_of(graphs, [math.log(p) for p in probs])])
    paths = [
        enumerated(graph, logits[0].double()) + math.log(p) for graph, p in zip(graphs, probs, strict=True)
    ]
    torch.testing.assert_close(one.num[0], torch.stack(paths).logsumexp(0))
    with pytest.raises(ValueError, match="3 graphs and 2 probabilities"):
        any_of(graphs, [0.0, 0.0])


def test_refusals_name_the_cause() -> None:
    logits = torch.randn(2, 4, PDFS)
    broken = logits.clone()
    broken[1, 2, 0] = torch.nan
    nums = [chain(0), chain(1)]
    with pytest.raises(ValueError, match="2 utterances of logits come with 1 lengths and 2 numerator"):
        loss_of(logits, [4], anything(), nums)
    with pytest.raises(ValueError, match="lengths are 4 to 5, the logits have 4 frames"):
        loss_of(logits, [4, 5], anything(), nums)
    with pytest.raises(ValueError, match="emits pdf 9, the network has 4 outputs"):
        loss_of(logits, [4, 4], anything(), [chain(0), chain(9)])
    with pytest.raises(ValueError, match="utterance 1 of the batch are not finite at output frame 2"):
        loss_of(broken, [4, 4], anything(), nums)
    with pytest.raises(ValueError, match="the numerator of utterance 0 .* above the denominator"):
        loss_of(logits, [4, 4], chain(3), nums)
    with pytest.raises(ValueError, match="target is 7 to 7, the graph has the states 0 to 1"):
        graph = chain(0)
        Graph(graph.src, graph.dst * 7, graph.pdf, graph.logprob, graph.initial, graph.final)
    with pytest.raises(ValueError, match="no numerator graphs"):
        GraphBatch.of([])


@pytest.mark.gpu
def test_a_device_gives_the_same_figures() -> None:
    logits = torch.randn(3, 9, PDFS)
    nums, lens = [chain(0, 1), chain(2), chain(*[1, 2] * 5)], [9, 4, 9]
    here = logits.clone().requires_grad_()
    there = logits.cuda().requires_grad_()
    a, b = loss_of(here, lens, anything(), nums), lfmmi(there, torch.tensor(lens).cuda(), anything(), nums)
    torch.testing.assert_close(a.loss, b.loss.cpu())
    a.loss.backward()
    b.loss.backward()
    torch.testing.assert_close(here.grad, there.grad.cpu())
    assert a.skipped == b.skipped == 1


def test_memory_for_a_few_frames_gives_what_memory_for_all_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenasr.ops.lfmmi._kept", lambda num, *_: (num.isfinite(), 50))
    den, nums = random_graph(7), [chain(0, 1), chain(2, 3, 1), chain(2)]
    logits = torch.randn(3, 21, PDFS, dtype=torch.float64).requires_grad_()

    def found() -> tuple[Tensor, Tensor]:
        loss = loss_of(logits, [21, 9, 20], den, nums).loss
        return loss, torch.autograd.grad(loss, logits)[0]

    large = found()
    assert (loss_of(logits[:1, :5], [5], den, nums[:1]).loss - large[0]).abs() > 0.1  # room is used anew
    torch.testing.assert_close(found(), large, rtol=0, atol=0)
    monkeypatch.setattr("greenasr.ops.forward_backward.ROOM", 1)
    den._trellises.clear()
    torch.testing.assert_close(found(), large)
