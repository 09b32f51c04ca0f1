"""Exported models give in ONNX Runtime, and in sherpa-onnx, what they give here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from greenasr.data.features import Features
from greenasr.data.text import Vocabulary
from greenasr.pipeline.units import Labels
from greenasr.runtime import engine, onnx_export
from greenasr.runtime.pointwise import log_softmax

Made = Callable[..., Any]
WORDS = Vocabulary(("<eos>", "<unk>", *(f"w{i}" for i in range(20))))


def session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def near(found: Any, expected: Any, share: float = 0.06) -> None:
    """Within what int8 activations may change, and nearly equal on the whole."""
    away = np.abs(found - expected)
    size = float(np.sqrt(np.mean(np.square(expected))))
    assert away.max() < 3 * share * size and away.mean() < 0.3 * share * size


@pytest.mark.parametrize("bits", [(2,), (1, 2, 4, 8), (3, 6, 16), None])
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_a_language_model_goes_on_from_its_state(made: Made, kind: str, bits: Any) -> None:
    packed, _ = made(kind, bits, bands={"embedding.weight": [7]})
    network: Any = engine.build(packed, "float32")
    run = session(onnx_export.models(packed)["model"]).run
    ids = np.random.default_rng(0).integers(0, 50, (3, 9))
    shape = (4, 3, 2, 0, 8) if kind == "transformer" else (4, 3, 16)
    past, parts = np.zeros(shape, np.float32), []
    for part in np.split(ids, [1, 5], 1):
        logits, past = run(None, {"ids": part, "past": past})
        parts.append(logits)
    expected = network.logits(network.hidden(ids)[0])
    if bits is None:
        np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=1e-4)
    near(np.concatenate(parts, 1), expected)


@pytest.mark.parametrize("config", [{}, {"front": 10, "ivector_dim": 5}, {"strides": [3, 3, 0, 3]}])
def test_a_tdnnf_of_any_length(made: Made, config: dict[str, Any]) -> None:
    packed, _ = made("tdnnf", **config)
    network: Any = engine.build(packed, "float32")
    run, draw = session(onnx_export.models(packed)["model"]).run, np.random.default_rng(0)
    for frames in (1, 2, 30):
        given = {"feats": draw.standard_normal((1, frames, 8)).astype(np.float32)}
        if config.get("ivector_dim"):
            given["ivectors"] = draw.standard_normal((1, 5)).astype(np.float32)
        near(run(None, given)[0][0], network.logits(*(each[0] for each in given.values())))


@pytest.mark.parametrize("cmvn", ["utterance", "running", "none"])
@pytest.mark.parametrize("skips", ["trained", "identity", "none"])
def test_separable_networks_do_not_hear_padding(made: Made, skips: str, cmvn: Any) -> None:
    draw, lens = np.random.default_rng(0), np.array([40, 17])
    feats = draw.standard_normal((2, 40, 8)).astype(np.float32)
    features = Features("fbank", 8, cmvn)
    packed, _ = made("quartznet", (8, 4), skips=skips)
    units = Labels(features, Vocabulary(("<eos>", "<unk>", *"abcdefg")))
    run = session(onnx_export.models(replace(packed, tokenizer=units.to_json()))["model"]).run
    found, found_lens = run(None, {"x": feats, "x_lens": lens})
    network: Any = engine.build(packed, "float32")
    assert found_lens.tolist() == [20, 9]
    for each, length, n in zip(feats, lens, found_lens, strict=True):
        expected = log_softmax(network.logits(features.normalised(each[:length])))
        near(found[0 if length == 40 else 1, :n], expected)
    packed, _ = made("matchboxnet", (8, 4), skips=skips)
    run, network = session(onnx_export.models(packed)["model"]).run, engine.build(packed, "float32")
    found = run(None, {"feats": feats, "feat_lens": lens})[0]
    near(found, np.stack([network.logits(each[:n]) for each, n in zip(feats, lens, strict=True)]))


@pytest.mark.parametrize("config", [{}, {"joint": "addition", "joint_dim": 12}, {"layer_norm": True}])
def test_a_transducers_three_models(made: Made, config: dict[str, Any]) -> None:
    features = Features("mfcc", 8, "utterance")
    packed, _ = made("rnnt", (8, 4), **config)
    network: Any = engine.build(packed, "float32")
    units = Labels(features, Vocabulary(("<eos>", "<unk>", *"abcdefghi")))
    made_ = onnx_export.models(replace(packed, tokenizer=units.to_json()))
    run = {name: session(each).run for name, each in made_.items()}
    feats = np.random.default_rng(0).standard_normal((2, 22, 8)).astype(np.float32)
    from greenasr.data.spectrum import cepstra

    enc, lens = run["encoder"](None, {"x": feats, "x_lens": np.array([22, 9])})
    assert lens.tolist() == [6, 3]
    for row, n in ((0, 22), (1, 9)):
        given = features.normalised((feats[row, :n] @ cepstra(8)).astype(np.float32))
        near(enc[row, : lens[row]], network.encode(given[None])[0][0])
    for labels in ([], [3], [3, 4, 3, 5]):
        context = np.full((1, 64), -1)
        context[0, 63 - len(labels) :] = [0, *labels]
        pred = run["decoder"](None, {"y": context})[0]
        state = None
        for label in (0, *labels):
            expected, state = network.step_predictor(np.array([label]), state)
        near(pred, expected)
        np.testing.assert_allclose(run["decoder"](None, {"y": np.maximum(context, 0)})[0], pred)
        logit = run["joiner"](None, {"encoder_out": enc[:1, 2], "decoder_out": pred})[0]
        near(logit, network.joint(enc[:1, 2], expected))


def test_weights_lie_in_the_file_at_their_width(made: Made) -> None:
    sizes = {}
    for bits in (1, 2, 4, 8, 16):
        model = onnx_export.models(made("tdnnf", (bits,), dim=256, bottleneck=64)[0])["model"]
        sizes[bits] = len(model.SerializeToString())
        kinds = {node.op_type for node in model.graph.node}
        assert ("MatMulNBits" in kinds) == (bits < 16)
    assert sizes[1] == sizes[2] < 0.7 * sizes[4] < 0.5 * sizes[8] < 0.2 * sizes[16]
