"""From samples to words with times, by a small recogniser of tones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from greenasr.data.features import Features, cmvn
from greenasr.data.segmenting import Pauses
from greenasr.decode.arpa import write_arpa
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.nbest import read_nbest, write_nbest
from greenasr.decode.ngram import BOS, EOS, UNK
from greenasr.decode.wfst import Hypothesis
from greenasr.models.on_arrays import TdnnfOnArrays
from greenasr.models.tdnnf import Tdnnf
from greenasr.pipeline import transcribe as transcribing
from greenasr.pipeline.acoustic_models import load_acoustic, save_acoustic
from greenasr.pipeline.transcribe import Recogniser, RunningMean, Transcript, load_recogniser, transcribe
from greenasr.score.timed import read_ctm

Hum = Callable[..., NDArray[np.float32]]
SAID = (0.8, "LOW", 0.2, "HIGH", 1.0, "HIGH", 0.7)


@pytest.fixture(scope="module")
def recogniser(tones: Path) -> Recogniser:
    return load_recogniser(tones / "model.packed", arpa=tones / "lm.arpa")


def check_said(found: list[Transcript]) -> None:
    (first, second) = found
    assert [word for word, *_ in first.words] == ["LOW", "HIGH"]
    assert [word for word, *_ in second.words] == ["HIGH"]
    times = [time for each in found for _, *both in each.words for time in both]
    assert times == pytest.approx([0.8, 1.3, 1.5, 2.0, 3.0, 3.5], abs=0.07)
    for each in found:
        assert all(each.start <= start < end <= each.end for _, start, end in each.words)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_what_was_said_is_found_at_its_times_at_any_rate(recogniser: Recogniser, hum: Hum, rate: int) -> None:
    sound = hum(*SAID, rate=rate)
    check_said(list(transcribe(recogniser, [sound], rate, "talk")))


def test_blocks_make_no_difference(recogniser: Recogniser, hum: Hum) -> None:
    sound = hum(*SAID)
    whole, parts = (
        [replace(found, work=(0.0, 0.0)) for found in transcribe(recogniser, blocks, 16_000, "talk")]
        for blocks in ([sound], (sound[at : at + 1_234] for at in range(0, len(sound), 1_234)))
    )
    assert whole == parts


def test_an_utterance_equals_the_same_samples_alone(recogniser: Recogniser, hum: Hum) -> None:
    """Logits of the second utterance by hand: its samples, features, network."""
    sound = hum(*SAID)
    second = list(transcribe(recogniser, [sound], 16_000, "talk"))[1]
    cut = sound[round(16_000 * second.start) : round(16_000 * second.end)]
    logits = recogniser.model.logits(recogniser.units.features(cut))
    assert second.hyps == (recogniser.decoder.best(logits),)


def test_lists_are_what_rescoring_reads(tones: Path, hum: Hum, tmp_path: Path) -> None:
    recogniser = load_recogniser(tones / "model.packed", arpa=tones / "lm.arpa", n=3, acoustic_scale=0.2)
    found = list(transcribe(recogniser, [hum(*SAID)], 16_000, "talk"))
    check_said(found)
    write_nbest(tmp_path / "n.jsonl", map(recogniser.nbest, found))
    lists = read_nbest(tmp_path / "n.jsonl", need_ref=False)
    assert [(e.id, e.hyps[0], len(e.hyps)) for e in lists] == [
        ("talk-0000055-0000225", "LOW HIGH", 3),
        ("talk-0000275-0000375", "HIGH", 3),
    ]
    for entry, each in zip(lists, found, strict=True):
        assert entry.scores == pytest.approx([-hyp.cost(0.2) for hyp in each.hyps])


def test_a_ctm_and_json_have_every_word_at_its_time(tmp_path: Path) -> None:
    hyp = Hypothesis(("a", "b"), 3.0, 2.0, ((0.03, 0.3), (0.3, 0.63)))
    found = Transcript("my talk", 1.5, 2.1, (hyp,))
    (tmp_path / "hyp.ctm").write_text(found.ctm())
    timed = read_ctm(tmp_path / "hyp.ctm")
    assert [(t.file, t.start, t.end) for t in timed] == [
        ("my_talk", 1.53, pytest.approx(1.8)),
        ("my_talk", 1.8, pytest.approx(2.1)),  # no word ends behind its utterance
    ]
    value = found.to_json()
    assert (value["id"], value["text"], value["acoustic_cost"]) == ("my talk-0000150-0000210", "a b", 3.0)
    assert value["words"][1] == {"word": "b", "start": 1.8, "end": 2.1}


def test_the_speakers_mean_is_that_of_all_frames_so_far_and_the_utterances_its_own() -> None:
    parts = [np.random.default_rng(i).normal(i, 1, (n, 16)).astype(np.float32) for i, n in enumerate((3, 50))]
    speaker, utterance, none = (
        RunningMean(Features(bins=16, cmvn=c)) for c in ("speaker", "utterance", "none")
    )  # type: ignore[arg-type]
    for i, part in enumerate(parts):
        heard = np.concatenate(parts[: i + 1])
        np.testing.assert_allclose(speaker(part), part - heard.mean(0), atol=1e-5)
        np.testing.assert_allclose(utterance(part), cmvn(part), atol=1e-5)
        np.testing.assert_array_equal(none(part), part)


def test_what_is_left_of_a_cut_may_be_too_short_for_a_word(recogniser: Recogniser, hum: Hum) -> None:
    sound = hum("LOW", "HIGH")[: 16_000 - 100]
    found = list(transcribe(recogniser, [sound[:-100], sound[:0]], 16_000, "talk", Pauses(0.1, 1.0)))
    assert [word for each in found for word, *_ in each.words][0] == "LOW"
    assert list(transcribe(recogniser, [sound[:200]], 16_000, "talk")) == []


def test_a_graph_is_built_once_and_kept_beside_the_model(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, arpa = tmp_path / "model.packed", tmp_path / "lm.arpa"
    model.write_bytes((tones / "model.packed").read_bytes())
    arpa.write_bytes((tones / "lm.arpa").read_bytes())
    built = load_recogniser(model, arpa=arpa).decoder.graph
    (folder,) = tmp_path.glob("model.packed.graph-*")
    monkeypatch.setattr("greenasr.decode.graph.build_graph", None)
    monkeypatch.setattr(transcribing, "read_arpa", None)
    for again in (load_recogniser(model, arpa=arpa), load_recogniser(model, folder)):
        assert again.decoder.graph.meta["key"] == built.meta["key"]
    monkeypatch.undo()
    write_arpa(kneser_ney([["HIGH", "HIGH"]], order=1).lm, arpa)
    assert load_recogniser(model, arpa=arpa).decoder.graph.meta["key"] != built.meta["key"]
    assert len(list(tmp_path.glob("model.packed.graph-*"))) == 2


def test_an_arpa_without_unk_leaves_its_unknown_words_out(tones: Path, tmp_path: Path) -> None:
    model, arpa = tmp_path / "model.packed", tmp_path / "lm.arpa"
    model.write_bytes((tones / "model.packed").read_bytes())
    arpa.write_text(f"\\data\\\nngram 1=3\n\n\\1-grams:\n-99 {BOS}\n-0.3 {EOS}\n-0.3 LOW\n\n\\end\\\n")
    assert load_recogniser(model, arpa=arpa).decoder.graph.words == ("<eps>", "LOW")
    lines = arpa.read_text().replace("1=3", "1=4").replace("-0.3 LOW", f"-0.3 LOW\n-1 {UNK}")
    arpa.write_text(lines)
    assert load_recogniser(model, arpa=arpa).decoder.graph.words == ("<eps>", "HIGH", "LOW")


def test_parts_that_do_not_belong_together_are_refused(tones: Path, tmp_path: Path) -> None:
    path, arpa = tones / "model.packed", tones / "lm.arpa"
    with pytest.raises(ValueError, match=r"needs one decoding graph: give --graph FOLDER, or --arpa FILE"):
        load_recogniser(path)
    with pytest.raises(ValueError, match=r"needs one decoding graph"):
        load_recogniser(path, tmp_path, arpa)
    with pytest.raises(ValueError, match=r"nowhere: no decoding graph there .*--arpa"):
        load_recogniser(path, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"-1 hypotheses an utterance"):
        load_recogniser(path, arpa=arpa, n=-1)
    with pytest.raises(ValueError, match=r"acoustic_scale is 0"):
        load_recogniser(path, arpa=arpa, acoustic_scale=0.0)
    recogniser = load_recogniser(path, arpa=arpa)
    graph = replace(recogniser.decoder.graph, n_pdfs=8)
    with pytest.raises(ValueError, match=r"graph is of 8 pdfs, the model has 6: give the model's own"):
        replace(recogniser, decoder=replace(recogniser.decoder, graph=graph))
    saved = load_acoustic(path)
    model = Tdnnf(replace(saved.model.config, ivector_dim=3))
    save_acoustic(tmp_path / "i.packed", model, saved.units, {})
    with pytest.raises(ValueError, match=r"i-vectors \(3 dimensions\), its file has no extractor"):
        load_recogniser(tmp_path / "i.packed", arpa=arpa)


def test_outputs_that_are_not_finite_are_named_with_source_and_time(
    recogniser: Recogniser, tones: Path, hum: Hum
) -> None:
    model = load_acoustic(tones / "model.packed").model
    torch.nn.init.constant_(model.output.bias, float("nan"))
    found = transcribe(replace(recogniser, model=TdnnfOnArrays(model)), [hum(*SAID)], 16_000, "talk")
    with pytest.raises(ValueError, match=r"talk, utterance at 0.55 s: .* logits are not finite"):
        next(found)
