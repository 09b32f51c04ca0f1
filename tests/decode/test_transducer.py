"""Searches of a transducer against all paths, against each other, on streams and with what cannot be."""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from greenasr.decode import transducer
from greenasr.decode.nbest import read_nbest, write_nbest
from greenasr.decode.transducer import (
    Greedy,
    Hypothesis,
    PredictorState,
    Search,
    StreamingDecoder,
    transducer_nbest,
)
from greenasr.decode.transducer_beam import BeamSearch, BeamSearching
from greenasr.models.on_arrays import RnntOnArrays
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.ops.transducer import rnnt_loss

Labels = tuple[int, ...]
Array = NDArray[Any]
EVERYTHING = {"beam": 2000, "prune": math.inf}


def network(sharp: float = 2.0, blank: float = 0.5, **changes: object) -> Rnnt:
    """A network whose outputs depend on frames and labels; ``sharp`` scales logits, ``blank`` is its lead."""
    small = {
        "feat_dim": 4,
        "vocab": 3,
        "encoder_layers": 1,
        "encoder_dim": 8,
        "reduction": (1,),
        "predictor_layers": 2,
        "predictor_dim": 8,
        "embedding_dim": 4,
        "joint_dim": 8,
    }
    torch.manual_seed(5)
    model = Rnnt(RnntConfig(**{**small, **changes})).eval()
    with torch.no_grad():
        for p in (*model.encoder.parameters(), *model.predictor.parameters()):
            p.mul_(2)
        last = model.predictor_fc if model.output is None else model.output
        last.bias[0] += blank
        for linear in (model.encoder_fc, last) if model.output is None else (last,):
            linear.weight.mul_(sharp)
            linear.bias.mul_(sharp)
    return model


class Toy:
    """A transducer by hand: ``says`` gives p(blank), p(1), … after (frame, labels so far)."""

    def __init__(self, n_labels: int, says: Any):
        self.n_labels, self.says = n_labels, says
        self.histories: list[Labels] = []

    def encode(self, feats: Array, feat_lens: Array | None = None) -> tuple[Array, Array]:
        frames = np.broadcast_to(np.arange(feats.shape[1])[None, :, None], (*feats.shape[:2], 1))
        return frames, np.full(len(feats), feats.shape[1]) if feat_lens is None else feat_lens

    def step_encoder(self, chunk: Array, state: Any = None, last: bool = False) -> tuple[Array, Any]:
        at = state or 0
        return np.arange(at, at + chunk.shape[1])[None, :, None], at + chunk.shape[1]

    def step_predictor(
        self, labels: Array, state: PredictorState | None = None
    ) -> tuple[Array, PredictorState]:
        past = [()] * len(labels) if state is None else [self.histories[int(i)] for i in state[0][0].flat]
        now = [
            before + ((label,) if label else ()) for before, label in zip(past, labels.tolist(), strict=True)
        ]
        ids = np.arange(len(self.histories), len(self.histories) + len(now))[:, None].astype(np.float32)
        self.histories += now
        return ids, ((ids, ids),)

    def joint(self, enc: Array, pred: Array) -> Array:
        rows = zip(enc.flatten().tolist(), pred.flatten().tolist(), strict=True)
        return logs([self.says(int(t), self.histories[int(i)]) for t, i in rows])


def logs(shares: list[list[float]]) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(np.array(shares, np.float32))


def of(model: Any) -> Any:
    """What a search takes: networks of torch on arrays."""
    return RnntOnArrays(model) if isinstance(model, Rnnt) else model


def decode_transducer(
    model: Any, feats: Tensor, lens: Tensor | None = None, search: Search | None = None
) -> list[list[Hypothesis]]:
    return transducer.decode_transducer(
        of(model), feats.numpy(), None if lens is None else lens.numpy(), search
    )


def all_paths(model: Rnnt, feats: Tensor, max_symbols: int) -> Iterator[tuple[Labels, Labels, float]]:
    """Labels, their frames and log probability of every path of one utterance (T, F), by trying all."""
    enc = model.encode(feats[None])[0][0]
    known: dict[Labels, list[list[float]]] = {}

    def logp(labels: Labels) -> list[list[float]]:
        if labels not in known:
            pred = model.predict(torch.tensor([labels], dtype=torch.long))[0, -1]
            known[labels] = model.joint(enc, pred).double().log_softmax(-1).tolist()
        return known[labels]

    choices = [
        labels
        for n in range(max_symbols + 1)
        for labels in itertools.product(range(1, model.config.vocab), repeat=n)
    ]
    for path in itertools.product(choices, repeat=len(enc)):
        labels: Labels = ()
        frames: list[int] = []
        total = 0.0
        for t, emitted in enumerate(path):
            for label in emitted:
                total += logp(labels)[t][label]
                labels += (label,)
                frames.append(t)
            total += logp(labels)[t][0]
        yield labels, tuple(frames), total


def internal_lm(model: Rnnt, labels: Labels) -> float:
    """ln p of the labels by the joint without an encoder and without blank."""
    pred = model.predict(torch.tensor([labels], dtype=torch.long))[0]
    logp = model.joint(torch.zeros_like(pred), pred)[:, 1:].double().log_softmax(-1)
    return sum(float(logp[u, label - 1]) for u, label in enumerate(labels))


@pytest.mark.parametrize("joint", ["fc", "addition"])
@pytest.mark.parametrize(("scale", "reward"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.7), (0.4, -0.7)])
@pytest.mark.parametrize("frames", [0, 1, 2, 3])
@torch.no_grad()
def test_a_beam_that_holds_everything_finds_what_trying_all_paths_finds(
    joint: str, scale: float, reward: float, frames: int
) -> None:
    model, feats = network(joint=joint), torch.randn(frames, 4)
    paths: dict[Labels, list[tuple[float, Labels]]] = {}
    for labels, at, logprob in all_paths(model, feats, 2):
        paths.setdefault(labels, []).append((logprob, at))
    search = BeamSearch(**EVERYTHING, max_symbols=2, ilm_scale=scale, label_reward=reward)
    (hyps,) = decode_transducer(model, feats[None], search=search)
    assert {hyp.labels for hyp in hyps} == set(paths) and len(hyps) == len(paths) == 2 ** (2 * frames + 1) - 1
    for hyp in hyps:
        expected = math.log(math.fsum(math.exp(logprob) for logprob, _ in paths[hyp.labels]))
        assert hyp.logprob == pytest.approx(expected, abs=1e-4)
        bonus = reward * len(hyp.labels) - scale * internal_lm(model, hyp.labels)
        assert hyp.score == pytest.approx(expected + bonus, abs=1e-4)
        assert hyp.frames == max(paths[hyp.labels])[1]
    assert [hyp.score for hyp in hyps] == sorted((hyp.score for hyp in hyps), reverse=True)


@pytest.mark.parametrize("joint", ["fc", "addition"])
@torch.no_grad()
def test_what_the_search_sums_is_what_the_loss_sums(joint: str) -> None:
    model, feats = network(vocab=4, joint=joint), torch.randn(1, 3, 4)
    (hyps,) = decode_transducer(model, feats, search=BeamSearch(**EVERYTHING, max_symbols=3))
    short = [hyp for hyp in hyps if len(hyp.labels) <= 3]
    assert len(short) == 1 + 3 + 9 + 27
    for hyp in short[::4]:
        enc, lens, pred = model(feats, None, torch.tensor([hyp.labels], dtype=torch.long))
        logits = model.joint(enc[:, :, None], pred[:, None])
        labels = torch.tensor([hyp.labels], dtype=torch.long)
        loss = rnnt_loss(logits, labels, lens, [len(hyp.labels)])
        assert hyp.logprob == pytest.approx(-float(loss), abs=1e-4)


@torch.no_grad()
def test_four_frames_of_three_labels_with_one_label_a_frame() -> None:
    model, feats = network(vocab=4), torch.randn(4, 4)
    sums: dict[Labels, float] = {}
    for labels, _, logprob in all_paths(model, feats, 1):
        sums[labels] = sums.get(labels, 0.0) + math.exp(logprob)
    (hyps,) = decode_transducer(model, feats[None], search=BeamSearch(**EVERYTHING, max_symbols=1))
    assert {hyp.labels: hyp.logprob for hyp in hyps} == pytest.approx(
        {labels: math.log(p) for labels, p in sums.items()}, abs=1e-4
    )


def late_or_early(t: int, labels: Labels) -> list[float]:
    """1 in frame 0 (0.3) or in frame 1 (0.3); 2 in frame 0 (0.4); nothing after either."""
    if labels:
        return [1.0, 0.0, 0.0]
    return [0.3, 0.3, 0.4] if t == 0 else [0.0, 1.0, 0.0]


def test_paths_of_the_same_labels_add_up() -> None:
    toy, feats = Toy(2, late_or_early), torch.zeros(1, 2, 1)
    (hyps,) = decode_transducer(toy, feats, search=BeamSearch(beam=3))
    assert [hyp.labels for hyp in hyps] == [(1,), (2,), ()]
    assert [math.exp(hyp.logprob) for hyp in hyps] == pytest.approx([0.6, 0.4, 0.0], abs=1e-6)
    ((best,),) = decode_transducer(toy, feats, search=Greedy())
    assert best.labels == (2,) and math.exp(best.logprob) == pytest.approx(0.4) and best.frames == (0,)


def test_frames_are_those_of_the_likelier_path() -> None:
    def says(t: int, labels: Labels) -> list[float]:
        return [1.0, 0.0] if labels else ([0.6, 0.4] if t == 0 else [0.1, 0.9])

    (hyps,) = decode_transducer(Toy(1, says), torch.zeros(1, 2, 1), search=BeamSearch(beam=2))
    assert (hyps[0].labels, hyps[0].frames) == ((1,), (1,))
    assert math.exp(hyps[0].logprob) == pytest.approx(0.4 + 0.6 * 0.9)


def test_the_internal_language_model_is_taken_off() -> None:
    class Habit(Toy):
        """Frame 0 hears 1 and 2 nearly alike; without it 1 is expected."""

        def joint(self, enc: Array, pred: Array) -> Array:
            rows = zip(enc.flatten().tolist(), pred.flatten().tolist(), strict=True)
            says = [
                [0.1, 0.7, 0.2] if t == 0 else [1.0, 0.0, 0.0] if self.histories[int(i)] else [0.1, 0.5, 0.4]
                for t, i in rows
            ]
            return logs(says)

        def encode(self, feats: Array, feat_lens: Array | None = None) -> tuple[Array, Array]:
            return np.ones((1, 1, 1)), np.array([1])

    feats = torch.zeros(1, 1, 1)
    for scale, order in [(0.0, [1, 2]), (0.5, [2, 1])]:
        search = BeamSearch(beam=3, max_symbols=1, ilm_scale=scale)
        hyps = [hyp for hyp in decode_transducer(Habit(2, None), feats, search=search)[0] if hyp.labels]
        assert [hyp.labels[0] for hyp in hyps] == order
        for hyp in hyps:
            ilm = math.log({1: 7 / 9, 2: 2 / 9}[hyp.labels[0]])
            assert hyp.score == pytest.approx(hyp.logprob - scale * ilm, abs=1e-5)


@pytest.mark.parametrize(("reward", "best"), [(0.0, ()), (1.0, (1,))])
def test_a_reward_brings_back_a_label_that_blank_outbid(reward: float, best: Labels) -> None:
    toy = Toy(1, lambda t, labels: [1.0, 0.0] if labels else [0.6, 0.4])
    (hyps,) = decode_transducer(toy, torch.zeros(1, 1, 1), search=BeamSearch(beam=2, label_reward=reward))
    assert hyps[0].labels == best
    assert hyps[0].score == pytest.approx(hyps[0].logprob + reward * len(best), abs=1e-6)


def slow_greedy(model: Rnnt, feats: Tensor, max_symbols: int) -> Hypothesis:
    labels: Labels = ()
    frames: Labels = ()
    total = 0.0
    for t, enc in enumerate(model.encode(feats[None])[0][0]):
        for symbol in range(max_symbols + 1):
            pred = model.predict(torch.tensor([labels], dtype=torch.long))[0, -1]
            logp = model.joint(enc, pred).log_softmax(-1)
            best = int(logp.argmax()) if symbol < max_symbols else 0
            total += float(logp[best])
            if best == 0:
                break
            labels, frames = (*labels, best), (*frames, t)
    return Hypothesis(labels, total, frames, total)


def close(ours: Hypothesis, theirs: Hypothesis) -> bool:
    assert ours.logprob == pytest.approx(theirs.logprob, abs=2e-3)
    assert ours.score == pytest.approx(theirs.score, abs=2e-3)
    return (ours.labels, ours.frames) == (theirs.labels, theirs.frames)


@pytest.mark.parametrize("max_symbols", [1, 2, 10])
@torch.no_grad()
def test_greedy_search_takes_the_best_step_each_time(max_symbols: int) -> None:
    model = network(blank=0.2, vocab=6)
    feats, lens = torch.randn(4, 12, 4), torch.tensor([12, 3, 0, 7])
    found = decode_transducer(model, feats, lens, Greedy(max_symbols))
    for n, frames in enumerate(lens.tolist()):
        (hyp,) = found[n]
        assert close(hyp, slow_greedy(model, feats[n, :frames], max_symbols))
    assert found[2] == [Hypothesis((), 0.0, (), 0.0)] and len(found[0][0].labels) > 4


@torch.no_grad()
def test_greedy_search_and_any_beam_agree_on_a_path_of_more_than_half_the_probability() -> None:
    model = network(sharp=60, vocab=6)
    feats = torch.randn(20, 10, 4)
    greedy = decode_transducer(model, feats, search=Greedy(5))
    sure = [n for n, (hyp,) in enumerate(greedy) if hyp.logprob > math.log(0.5)]
    assert len(sure) > 10 and sum(len(greedy[n][0].labels) for n in sure) > 10
    for beam in (1, 4):
        found = decode_transducer(model, feats, search=BeamSearch(beam=beam))
        assert all(found[n][0].labels == greedy[n][0].labels for n in sure)


def test_a_beam_of_one_looks_further_than_greedy() -> None:
    def says(t: int, labels: Labels) -> list[float]:
        return [0.1, 0.9] if labels else [0.45, 0.55]  # a label is likelier, but leads nowhere

    toy, feats = Toy(1, says), torch.zeros(1, 1, 1)
    assert len(decode_transducer(toy, feats, search=Greedy(3))[0][0].labels) == 3
    ((best,),) = decode_transducer(toy, feats, search=BeamSearch(beam=1, max_symbols=3))
    assert best.labels == () and math.exp(best.logprob) == pytest.approx(0.45)


@torch.no_grad()
def test_a_wider_beam_finds_more_of_the_probability() -> None:
    model, feats = network(vocab=5), torch.randn(6, 6, 4)
    last = -math.inf
    for beam in (1, 4, 16):
        found = decode_transducer(model, feats, search=BeamSearch(beam=beam, prune=math.inf))
        best = sum(hyps[0].logprob for hyps in found)
        assert best > last - 0.05
        last = best
        for hyps in found:
            assert len({hyp.labels for hyp in hyps}) == len(hyps) <= beam
            assert sum(math.exp(hyp.logprob) for hyp in hyps) < 1 + 1e-5


SEARCHES: list[Search] = [
    Greedy(3),
    BeamSearch(beam=4),
    BeamSearch(beam=4, label_reward=0.5),
    BeamSearch(beam=5, ilm_scale=0.3, nbest=2),
]


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
@torch.no_grad()
def test_utterances_of_a_batch_do_not_know_each_other(search: Search) -> None:
    model = network(vocab=6, reduction=(2,))
    feats, lens = torch.randn(5, 20, 4), torch.tensor([20, 1, 0, 13, 20])
    together = decode_transducer(model, feats, lens, search)
    for n, frames in enumerate(lens.tolist()):
        (alone,) = decode_transducer(model, feats[n : n + 1, :frames], search=search)
        assert len(alone) == len(together[n])
        assert all(close(a, b) for a, b in zip(alone, together[n], strict=True))


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
@pytest.mark.parametrize("chunk", [1, 3, 8, 17, 100])
def test_a_stream_ends_with_the_hypotheses_of_the_whole_utterance(search: Search, chunk: int) -> None:
    model = network(blank=0.2, vocab=6, encoder_layers=2, reduction=(2, 2))
    feats = torch.randn(43, 4)
    (whole,) = decode_transducer(model, feats[None], search=search)
    stream, partial = StreamingDecoder(of(model), search), []
    for piece in feats.split(chunk):
        partial.append(stream.push(piece.numpy()))
    ends = stream.final()
    assert len(ends) == len(whole) and all(close(a, b) for a, b in zip(ends, whole, strict=True))
    assert max(len(hyp.labels) for hyp in ends) > 1
    for n, hyp in enumerate(partial, 1):
        heard = min(n * chunk, 43) // 4
        assert all(frame < heard for frame in hyp.frames)


def test_streams_side_by_side_may_pause() -> None:
    model, feats = network(vocab=6), torch.randn(2, 9, 4)
    whole = decode_transducer(model, feats, search=BeamSearch(beam=4))
    enc, _ = of(model).encode(feats.numpy())
    searching = BeamSearch(beam=4).begin(of(model), 2)
    for t in range(9):
        searching.advance_(enc[:, t : t + 1], np.array([1, 0]))
    for t in range(9):
        searching.advance_(enc[:, t : t + 1], np.array([0, 1]))
    for ours, theirs in zip(searching.hyps(), whole, strict=True):
        assert all(close(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_stream_of_nothing_gives_nothing() -> None:
    for search in SEARCHES:
        nothing = [Hypothesis((), 0.0, (), 0.0)]
        assert StreamingDecoder(of(network()), search).final() == nothing
        stream = StreamingDecoder(of(network()), search)
        assert stream.push(np.zeros((0, 4))) == nothing[0] and stream.final() == nothing
        with pytest.raises(ValueError, match="the stream has ended: make a new decoder"):
            stream.push(np.zeros((3, 4)))
        assert decode_transducer(network(), torch.zeros(2, 0, 4), search=search) == [nothing] * 2
        assert decode_transducer(network(), torch.zeros(0, 5, 4), search=search) == []


def test_one_predictor_and_one_joint_call_a_step_and_no_prefix_twice() -> None:
    model = network(vocab=6)
    calls = {"joint": 0, "step_predictor": 0}

    class Counting:
        def __getattr__(self, name: str) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return getattr(of(model), name)

    search = BeamSearch(beam=6, max_symbols=3, prune=math.inf)
    decode_transducer(Counting(), torch.randn(7, 10, 4), search=search)
    assert calls["joint"] <= 10 * 4 and calls["step_predictor"] <= 10 * 3 + 1
    toy = Toy(2, late_or_early)
    decode_transducer(toy, torch.zeros(3, 2, 1), search=BeamSearch(beam=3))
    assert len(toy.histories) == len(set(toy.histories)) == 3  # three utterances share "", "1" and "2"


def test_long_silence_needs_no_more_memory_than_short() -> None:
    def says(t: int, labels: Labels) -> list[float]:
        return [0.9, 0.06, 0.04]

    sizes = []
    for frames in (50, 150):
        toy = Toy(2, says)
        searching = BeamSearch(beam=4).begin(toy, 1)
        searching.advance_(np.zeros((1, frames, 1)), np.array([frames]))
        assert isinstance(searching, BeamSearching)
        sizes.append(len(searching.known))
        reachable, todo = 0, [entry.prefix for entry in searching.beams[0]]
        while todo:
            reachable += 1
            todo += list(todo.pop().children.values())
        assert reachable < 60
        gc.collect()
    assert max(sizes) < 30


def test_n_best_lists_go_to_the_file_of_lists(tmp_path: Path) -> None:
    def text(labels: Sequence[int]) -> str:
        return "".join({1: "a", 2: "b", 3: "ab"}[label] for label in labels)

    def hyp(labels: Labels, p: float) -> Hypothesis:
        return Hypothesis(labels, math.log(p), (0,) * len(labels), math.log(p))

    hyps = [hyp((1,), 0.4), hyp((1, 2), 0.3), hyp((3,), 0.2)]
    nbest = transducer_nbest("u1", "ab", hyps, text)
    assert nbest.hyps == ("ab", "a") and nbest.scores == pytest.approx((math.log(0.5), math.log(0.4)))
    empty = transducer_nbest("u2", None, [Hypothesis((), 0.0, (), 0.0)], text)
    write_nbest(tmp_path / "nbest.jsonl", [nbest, empty])
    assert read_nbest(tmp_path / "nbest.jsonl", need_ref=False) == [nbest, empty]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"beam": 0}, "beam is 0 hypotheses, it should be at least 1"),
        ({"beam": 4, "nbest": 5}, "nbest is 5, it should be 1 to 4, the beam"),
        ({"max_symbols": 0}, "max_symbols is 0 labels a frame"),
        ({"prune": math.nan}, "prune is nan nats below the best"),
        ({"ilm_scale": -1.0}, "ilm_scale is -1, it should be 0 or more"),
        ({"label_reward": math.inf}, "label_reward is inf, it should be a finite number"),
    ],
)
def test_searches_that_find_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamSearch(**settings)
    with pytest.raises(ValueError, match="max_symbols is 0 labels a frame"):
        Greedy(0)


def test_features_and_weights_that_are_not_numbers_are_refused() -> None:
    model, feats = network(), torch.randn(2, 6, 4)
    feats[1, 4, 2] = torch.nan
    with pytest.raises(
        ValueError, match="features of utterance 1 are not finite numbers at frame 4, 1 frame"
    ):
        decode_transducer(model, feats)
    assert len(decode_transducer(model, feats, torch.tensor([6, 4]))) == 2
    stream = StreamingDecoder(of(model))
    stream.push(feats[0].numpy())
    with pytest.raises(ValueError, match="not finite numbers at frame 10"):
        stream.push(feats[1].numpy())
    with pytest.raises(ValueError, match=r"features are \(1, 6, 4\), a stream hears \(T, F\)"):
        stream.push(feats[:1].numpy())
    nn.init.constant_(model.predictor_fc.bias, torch.nan)
    for search in SEARCHES:
        with pytest.raises(ValueError, match="the network's outputs are not numbers"):
            decode_transducer(model, feats[:1], search=search)
