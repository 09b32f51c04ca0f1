"""Words of a stream: while they are said, as soon as they can be, and in the end those of the whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from greenasr.data.features import RATE
from greenasr.data.resample import resample
from greenasr.data.segmenting import Pauses, Samples, utterances
from greenasr.decode.nbest import NBest
from greenasr.decode.transducer import Hypothesis, decode_transducer
from greenasr.decode.transducer_beam import BeamSearch
from greenasr.models.on_arrays import RnntOnArrays
from greenasr.pipeline.streaming import Partial, TransducerRecogniser, load_any, stream
from greenasr.pipeline.transcribe import Transcript, transcribe
from greenasr.pipeline.transducer_models import load_transducer
from greenasr.runtime import format as packed_format

Hum = Callable[..., NDArray[np.float32]]
SAID = (0.8, "LOW", 0.2, "HIGH", 1.0, "HIGH", 0.7)
MANY = (
    0.3,
    "HIGH",
    0.2,
    "LOW",
    0.3,
    "LOW",
    0.9,
    "LOW",
    0.4,
    "HIGH",
    0.35,
    "LOW",
    0.2,
    "HIGH",
    2.0,
    "LOW",
    0.1,
)


@pytest.fixture(scope="module")
def recogniser(tones_transducer: Path) -> TransducerRecogniser:
    found = load_any(tones_transducer, beam=4, n=2)
    assert isinstance(found, TransducerRecogniser)
    return found


def cut(sound: Samples, size: int) -> Iterator[Samples]:
    return (sound[at : at + size] for at in range(0, len(sound), size))


def final(found: list[Partial | Transcript]) -> list[Transcript]:
    return [each for each in found if isinstance(each, Transcript)]


def test_two_words_and_one_are_heard_at_their_times(recogniser: TransducerRecogniser, hum: Hum) -> None:
    found = final(list(stream(recogniser, [hum(*SAID)], RATE, "talk")))
    assert [[word for word, *_ in each.words] for each in found] == [["LOW", "HIGH"], ["HIGH"]]
    for (_, start, end), (first, stop) in zip(
        [word for each in found for word in each.words], [(0.8, 1.3), (1.5, 2.0), (3.0, 3.5)], strict=True
    ):
        assert start < stop + 0.3 and end > first
    assert all(each.start <= start < end <= each.end for each in found for _, start, end in each.words)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("said", [SAID, MANY])
def test_an_utterances_words_are_those_of_the_same_samples_given_whole(
    recogniser: TransducerRecogniser, hum: Hum, said: tuple[str | float, ...], rate: int
) -> None:
    sound = hum(*said, rate=rate)
    whole = list(transcribe(recogniser, [sound], rate, "talk"))
    assert len(whole) > 1 and any(each.words for each in whole)
    for size in (rate // 100, 1_234, len(sound)):
        found = final(list(stream(recogniser, cut(sound, size), rate, "talk")))
        for each, other in zip(found, whole, strict=True):
            assert (each.id, each.words) == (other.id, other.words)
            assert each.hyps[0].acoustic_cost == pytest.approx(other.hyps[0].acoustic_cost, abs=1e-3)
            assert [hyp.words for hyp in each.hyps] == [hyp.words for hyp in other.hyps]


def test_words_equal_the_search_on_features_of_the_samples_alone(
    recogniser: TransducerRecogniser, hum: Hum
) -> None:
    sound = hum(*MANY, rate=48_000)
    found = final(list(stream(recogniser, cut(sound, 4_800), 48_000, "talk")))
    for each, utterance in zip(found, utterances([sound], 48_000), strict=True):
        feats = recogniser.features(resample(utterance.samples, 48_000, RATE))
        ((best, *_),) = decode_transducer(recogniser.model, feats[None], search=BeamSearch(4))
        assert list(each.hyps[0].words) == recogniser.units.tokenizer.words_of([i - 1 for i in best.labels])


@pytest.mark.parametrize("size, bound", [(160, 0.2), (800, 0.2), (1_600, 0.25), (3_200, 0.32)])
def test_partial_words_come_within_a_chunk_of_the_frame_that_says_them(
    recogniser: TransducerRecogniser, hum: Hum, size: int, bound: float
) -> None:
    """Offline, every prefix of a hypothesis is known at the end of its last label's frame."""
    sound, heard, said = hum(*MANY), 0.0, 0
    shift = recogniser.model.frames_joined / 100

    def blocks() -> Iterator[Samples]:
        nonlocal heard
        for block in cut(sound, size):
            heard += len(block) / RATE
            yield block

    told = [(heard, each) for each in stream(recogniser, blocks(), RATE, "talk")]
    for whole in transcribe(recogniser, [sound], RATE, "talk"):
        mine = [(at, each) for at, each in told if each.start == pytest.approx(whole.start)]
        ends = [start + shift for _, start, _ in whole.words]
        for n, known in enumerate(ends, 1):
            first = min(
                at for at, each in mine
                if len(each.words if isinstance(each, Partial) else each.hyps[0].words) >= n
            )  # fmt: skip
            assert first - known <= bound, (whole.words[n - 1], first)
            said += 1
    assert said >= 6


def test_a_pause_however_long_holds_no_word_back(recogniser: TransducerRecogniser, hum: Hum) -> None:
    sound, heard = hum(0.5, "LOW", 5.0, "HIGH", 6.0), 0

    def blocks() -> Iterator[Samples]:
        nonlocal heard
        for block in cut(sound, 160):
            heard += 160
            yield block

    for each in stream(recogniser, blocks(), RATE, "talk", Pauses(4.0)):
        if isinstance(each, Partial) and each.words == ("LOW",):
            assert heard / RATE < 1.7
            return
    pytest.fail("LOW was never told")


def test_partials_are_told_when_they_change_and_never_of_what_was_not_heard(
    recogniser: TransducerRecogniser, hum: Hum
) -> None:
    found = list(stream(recogniser, cut(hum(*MANY), 160), RATE, "talk"))
    before: tuple[str, ...] = ()
    for each in found:
        if isinstance(each, Transcript):
            before = ()
            continue
        assert each.words != before and each.start < each.time
        before = each.words
    (partial, *_) = (each for each in found if isinstance(each, Partial))
    value = partial.to_json()
    assert value == {"partial": "HIGH", "source": "talk", "start": 0.05, "time": pytest.approx(partial.time)}
    assert partial.ctm() == f";; {partial.time:.2f} HIGH\n"
    assert Partial("talk", 0.0, 1.0, ()).ctm() == ";; 1.00\n"


@pytest.mark.parametrize("n", [0, 1, 3, 399, 400, 801, 12_345, 20_001])
def test_a_stream_may_end_anywhere(recogniser: TransducerRecogniser, hum: Hum, n: int) -> None:
    sound = hum("LOW", 0.2, "HIGH")[:n]
    found = final(list(stream(recogniser, cut(sound, 777), RATE, "talk")))
    whole = list(transcribe(recogniser, [sound], RATE, "talk"))
    assert [(each.id, each.words) for each in found] == [(each.id, each.words) for each in whole]
    assert len(found) == (n >= 400)


def test_minutes_of_silence_are_nothing_and_cost_little(recogniser: TransducerRecogniser) -> None:
    block = np.zeros(1_600, np.float32)
    began = time.process_time()
    assert list(stream(recogniser, (block for _ in range(600 * 3)), RATE, "talk")) == []
    assert time.process_time() - began < 9, "three minutes"


def test_weights_that_are_not_finite_are_named_with_source_and_second(
    recogniser: TransducerRecogniser, tones_transducer: Path, hum: Hum
) -> None:
    for value, message in (
        (torch.inf, "are not numbers"),
        (torch.nan, "are not numbers"),
        (-torch.inf, "are not finite"),
    ):
        model = load_transducer(tones_transducer).model
        assert model.output is not None
        model.output.bias.data[0] = value
        broken = replace(recogniser, model=RnntOnArrays(model))
        for hear in (stream, transcribe):
            with pytest.raises(
                ValueError, match=rf"talk, utterance at 0.55 s: the network's outputs {message}"
            ):
                list(hear(broken, cut(hum(*SAID), 800), RATE, "talk"))


def test_lists_are_of_different_words_whose_scores_add_up(recogniser: TransducerRecogniser) -> None:
    """Two spellings of one word: labels 2 and 3 are LOW and HIGH, 4 is <unk>."""
    hyps = [
        Hypothesis((2,), np.log(0.4), (3,), np.log(0.4)),
        Hypothesis((3,), np.log(0.3), (5,), np.log(0.3)),
        Hypothesis((3,), np.log(0.2), (1,), np.log(0.2)),
    ]
    high, low = recogniser.worded(hyps)
    assert high.words == ("HIGH",) and high.acoustic_cost == pytest.approx(-np.log(0.5))
    assert high.word_times == ((0.2, 0.24),) and low.words == ("LOW",)
    found = Transcript("talk", 0.0, 1.0, (high, low))
    assert recogniser.nbest(found) == NBest(
        found.id, None, ("HIGH", "LOW"), pytest.approx((np.log(0.5), np.log(0.4)))
    )


def test_a_transducers_options_are_those_of_its_search(
    tones_transducer: Path, tones: Path, tmp_path: Path
) -> None:
    def search_of(model: Path, **options: Any) -> object:
        found = load_any(model, **options)
        assert isinstance(found, TransducerRecogniser)
        return found.search

    assert search_of(tones_transducer) == BeamSearch(8, nbest=1)
    assert search_of(tones_transducer, n=20) == BeamSearch(20, nbest=20)
    assert search_of(tones_transducer, label_reward=0.5) == BeamSearch(8, nbest=1, label_reward=0.5)
    packed = packed_format.read(tones_transducer)
    packed_format.write(tmp_path / "paid.packed", replace(packed, recipe={"title": "t", "label_reward": 0.7}))
    for wanted, found in ((None, 0.7), (0.0, 0.0)):
        paid = search_of(tmp_path / "paid.packed", label_reward=wanted)
        assert paid == BeamSearch(8, nbest=1, label_reward=found)
    for beam in (0, -1, 2.5, np.nan, np.inf):
        with pytest.raises(
            ValueError, match=r"--beam \S+: a transducer's is a number of hypotheses, 1 or more"
        ):
            load_any(tones_transducer, beam=beam)
    with pytest.raises(ValueError, match="nbest is 5, it should be 1 to 4, the beam"):
        load_any(tones_transducer, beam=4, n=5)
    for more in (
        {"arpa": tones / "lm.arpa"},
        {"graph": tones},
        {"word_penalty": 1.0},
        {"acoustic_scale": 0.5},
    ):
        with pytest.raises(ValueError, match="model.packed: a transducer has no graph, so no --graph"):
            load_any(tones_transducer, **more)  # type: ignore[arg-type]
