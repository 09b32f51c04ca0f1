"""A packed CTC network recognises speech: alone, in a graph of words, on either engine; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from greenasr.decode.transducer import log_softmax
from greenasr.pipeline.ctc_models import load_ctc
from greenasr.pipeline.ctc_recogniser import CtcRecogniser
from greenasr.pipeline.models import save
from greenasr.pipeline.streaming import load_any
from greenasr.pipeline.transcribe import transcribe

Call = Callable[..., Any]
Hum = Callable[..., NDArray[np.float32]]
SAID = (0.3, "LOW", 0.3, "HIGH", 0.25, "HIGH", 0.3)
WORDS = ["LOW", "HIGH", "HIGH"]
TIMES = [(0.3, 0.8), (1.1, 1.6), (1.85, 2.35)]


def heard(recogniser: Any, sound: NDArray[np.float32]) -> list[Any]:
    return list(transcribe(recogniser, [sound], 16_000, "a"))


@pytest.mark.parametrize("engine", ["runtime", "torch"])
@pytest.mark.parametrize("with_graph", [False, True])
def test_words_are_heard_where_they_are(
    tones_ctc: Path, tones: Path, hum: Hum, engine: Any, with_graph: bool
) -> None:
    arpa = tones / "lm.arpa" if with_graph else None
    (found,) = heard(load_any(tones_ctc, arpa=arpa, engine=engine), hum(*SAID))
    assert [word for word, _, _ in found.words] == WORDS
    for (_, start, end), (begin, stop) in zip(found.words, TIMES, strict=True):
        assert start < stop and begin < end, "they overlap: labels come when the network is sure"
    assert [start for _, start, _ in found.words] == sorted(start for _, start, _ in found.words)


def test_both_engines_give_the_same_logits(tones_ctc: Path, hum: Hum) -> None:
    a, b = (load_any(tones_ctc, engine=engine) for engine in ("runtime", "torch"))
    assert isinstance(a, CtcRecogniser) and isinstance(b, CtcRecogniser)
    feats = a.features(hum(*SAID))
    ours, theirs = a.model.logits(feats), b.model.logits(feats)
    assert ours.shape == theirs.shape == (-(-len(feats) // a.model.stride), a.units.tokenizer.size + 1)
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()


def test_lists_are_of_different_words_best_first(tones_ctc: Path, tones: Path, hum: Hum) -> None:
    for arpa in (None, tones / "lm.arpa"):
        recogniser = load_any(tones_ctc, arpa=arpa, n=4)
        (found,) = heard(recogniser, hum(*SAID))
        entry = recogniser.nbest(found)
        assert entry.hyps[0] == " ".join(WORDS) and len(entry.hyps) == len(set(entry.hyps)) <= 4
        assert len(entry.hyps) > 1 or arpa, "the graph is sure"
        assert list(entry.scores) == sorted(entry.scores, reverse=True)


def test_the_command_prints_words_and_keeps_the_graph_beside_the_model(
    tones_ctc: Path, tones: Path, hum: Hum, tmp_path: Path, greenasr: Call
) -> None:
    import soundfile

    model = tmp_path / "model.packed"
    model.write_bytes(tones_ctc.read_bytes())
    soundfile.write(tmp_path / "a.wav", hum(*SAID), 16_000)
    for more in ((), ("--arpa", tones / "lm.arpa")):
        called = greenasr("transcribe", model, tmp_path / "a.wav", *more)
        assert called.code == 0, called.err
        assert [line.split()[4] for line in called.out.splitlines()] == WORDS
    called = greenasr(
        "transcribe", model, tmp_path / "a.wav", "--arpa", tones / "lm.arpa", "--lm-weight", 0.5
    )
    assert [line.split()[4] for line in called.out.splitlines()] == WORDS, called.err
    (graph,) = tmp_path.glob("model.packed.graph-*")
    called = greenasr("transcribe", model, tmp_path / "a.wav", "--graph", graph)
    assert [line.split()[4] for line in called.out.splitlines()] == WORDS


def test_what_does_not_belong_together_is_refused(tones_ctc: Path, tones: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labellings, 1 or more; 16 is usual"):
        load_any(tones_ctc, beam=2.5)
    with pytest.raises(ValueError, match="are a graph's: give --arpa or --graph too"):
        load_any(tones_ctc, acoustic_scale=0.5)
    with pytest.raises(ValueError, match="--lm-weight is of --arpa inside the beam"):
        load_any(tones_ctc, lm_weight=0.5)
    with pytest.raises(ValueError, match="not both"):
        load_any(tones_ctc, arpa=tones / "lm.arpa", graph=tmp_path)
    other = tmp_path / "other.arpa"
    other.write_text((tones / "lm.arpa").read_text().replace("LOW", "up").replace("HIGH", "dn"))
    with pytest.raises(ValueError, match="can spell none of its 2 words"):
        load_any(tones_ctc, arpa=other)
    recogniser = load_any(tones_ctc, arpa=tones / "lm.arpa")
    assert isinstance(recogniser, CtcRecogniser)
    graph: Any = recogniser.search
    with pytest.raises(ValueError, match="the decoding graph is of 3 outputs"):
        replace(recogniser, search=replace(graph, graph=replace(graph.graph, n_pdfs=3)))


def test_a_network_whose_outputs_are_no_numbers_is_refused(tones_ctc: Path, tmp_path: Path, hum: Hum) -> None:
    saved = load_ctc(tones_ctc)
    saved.model.output.bias.data[1] = float("nan")
    save(tmp_path / "nan.packed", saved.model, saved.units, {})
    with pytest.raises(ValueError, match="a, utterance at .* not numbers|not finite"):
        heard(load_any(tmp_path / "nan.packed", engine="torch"), hum(*SAID))


def test_log_softmax_is_the_logarithm_of_shares() -> None:
    logits = np.random.default_rng(0).normal(0, 50, (6, 4)).astype(np.float32)
    found = log_softmax(logits)
    np.testing.assert_allclose(np.exp(found).sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found - found[:, :1], logits - logits[:, :1], rtol=1e-4, atol=1e-4)
