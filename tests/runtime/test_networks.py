"""Every network of the runtime gives what the torch network of the same file gives."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from greenasr.models.lhuc import attach_lhuc_
from greenasr.pipeline.self_tests import measured
from greenasr.runtime import engine, numerics
from greenasr.runtime.kernels import native
from greenasr.runtime.separable import depthwise
from greenasr.runtime.transformer_lm import Past
from greenasr.runtime.weights import Weights

BITS = [None, (1, 2, 4, 8), (3, 6, 16, 2)]
STEPS = [(kind, step) for kind in engine.FAMILIES for step in ("cluster", "row", "group:4")
         if "net" not in kind or step != "group:4"]  # fmt: skip  # filters of 33 taps have no groups
Made = Callable[..., Any]


def close(found: Any, expected: torch.Tensor, share: float = 2e-5) -> None:
    wanted = expected.detach().numpy()
    assert_allclose(found, wanted, rtol=0, atol=share * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("step", ["cluster", "row", "group:4"])
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_a_language_model_equals_torch(made: Made, kind: str, bits: Any, step: str) -> None:
    packed, model = made(kind, bits, step, bands={"embedding.weight": [5, 20]})
    network: Any = engine.build(packed, "float32")
    ids = np.random.default_rng(0).integers(0, 50, (3, 11))
    hidden, _ = network.hidden(ids)
    expected, _ = model(torch.from_numpy(ids))
    close(hidden, expected)
    close(network.logits(hidden), model.output(expected))


@pytest.mark.parametrize("activations", ["int8", "float32"])
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_tokens_one_by_one_give_what_all_at_once_give(made: Made, kind: str, activations: Any) -> None:
    network: Any = engine.build(made(kind)[0], activations)
    ids = np.random.default_rng(0).integers(0, 50, (2, 12))
    whole, _ = network.hidden(ids)
    state, parts = None, []
    for part in np.split(ids, [1, 2, 7, 8], 1):
        hidden, state = network.hidden(part, state)
        parts.append(hidden)
    assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_a_state_is_a_value_that_several_may_go_on_from(made: Made, kind: str) -> None:
    network: Any = engine.build(made(kind)[0], "float32")
    start = np.array([[3, 4, 5]])
    _, state = network.hidden(start)
    for _ in range(2):  # the second round goes on from a state that the first has gone on from
        for word in (7, 8):
            hidden, _ = network.hidden(np.array([[word]]), state)
            alone, _ = network.hidden(np.concatenate((start, [[word]]), 1))
            assert_allclose(hidden[:, -1], alone[:, -1], atol=1e-5)


def test_the_past_of_hypotheses_is_chosen_by_index(made: Made) -> None:
    network: Any = engine.build(made("transformer")[0], "float32")
    ids = np.array([[1, 2], [3, 4], [5, 6]])
    _, state = network.hidden(ids)
    kept = np.array([2, 0, 2])
    hidden, _ = network.hidden(np.array([[9], [9], [8]]), state.of(kept))
    alone, _ = network.hidden(np.concatenate((ids[kept], [[9], [9], [8]]), 1))
    assert_allclose(hidden[:, 0], alone[:, -1], atol=1e-5)


def test_a_past_without_room_grows() -> None:
    past = Past.empty(2, 1, 1, 1, 2)
    said = np.arange(200, dtype=np.float32).reshape(2, 1, 1, 50, 2)
    for at in range(50):
        past = past.reserved(1)
        past.keys[..., at], past.values[..., at, :] = said[..., at, :], -said[..., at, :]
    assert_allclose(past.keys[..., : past.length], said.swapaxes(3, 4))
    assert_allclose(past.values[..., : past.length, :], -said)


def test_a_text_beyond_the_context_is_refused(made: Made) -> None:
    network: Any = engine.build(made("transformer")[0])
    with pytest.raises(ValueError, match="25 tokens exceed the model's context of 24"):
        network.hidden(np.zeros((1, 25), np.int64))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"front": 10, "ivector_dim": 5},
        {"strides": [3, 3, 0, 3]},
        {"splice": 0, "bottleneck": [8, 4, 2, 6]},
    ],
)
def test_a_tdnnf_equals_torch(made: Made, bits: Any, config: dict[str, Any]) -> None:
    packed, model = made("tdnnf", bits, **config)
    network: Any = engine.build(packed, "float32")
    draw = np.random.default_rng(0)
    for frames in (1, 2, 7, 31):
        feats = draw.standard_normal((frames, 8)).astype(np.float32)
        vector = draw.standard_normal(5).astype(np.float32) if config.get("ivector_dim") else None
        given = None if vector is None else torch.from_numpy(vector)[None]
        close(network.logits(feats, vector), model(torch.from_numpy(feats)[None], None, given)[0][0])


SKIPS: list[dict[str, Any]] = [{"skips": skips} for skips in ("trained", "identity", "none")]
SKIPS += [{"skips": "ternary", "ternary": {"seed": 3, "threshold": 0.4, "blocks": [1]}}]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("config", SKIPS, ids=str)
@pytest.mark.parametrize("kind", ["quartznet", "matchboxnet"])
def test_a_separable_network_equals_torch(made: Made, kind: str, bits: Any, config: dict[str, Any]) -> None:
    packed, model = made(kind, bits, **config)
    network: Any = engine.build(packed, "float32")
    draw = np.random.default_rng(0)
    for frames in (1, 2, 33, 70):
        feats = draw.standard_normal((frames, 8)).astype(np.float32)
        expected = model(torch.from_numpy(feats)[None])
        close(network.logits(feats), expected[0][0] if kind == "quartznet" else expected[0])


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2), (1, 3)])
def test_a_depthwise_convolution_is_torchs(stride: int, dilation: int) -> None:
    draw = np.random.default_rng(0)
    for frames in (1, 2, 5, 64, 100):
        x, w = draw.standard_normal((frames, 3)), draw.standard_normal((3, 7))
        found = depthwise(x.astype(np.float32), w.astype(np.float32), stride, dilation)
        expected = torch.nn.functional.conv1d(
            torch.from_numpy(x.T[None]), torch.from_numpy(w[:, None]), None, stride, 3 * dilation, dilation, 3
        )
        close(found.T, expected[0])


def test_a_speakers_lhuc_vectors_equal_torch(made: Made) -> None:
    packed, model = made("tdnnf")
    feats = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    speaker = attach_lhuc_(model, model.hidden_units())
    vectors = {name: torch.randn_like(r) for name, r in speaker.vectors.items()}
    speaker.load_(vectors)
    network: Any = engine.build(packed, "float32")
    found = network.logits(feats, lhuc={name: r.numpy() for name, r in vectors.items()})
    close(found, model(torch.from_numpy(feats)[None])[0][0])
    with pytest.raises(ValueError, match=r"'layers.9.norm', which the network lacks"):
        network.logits(feats, lhuc={"layers.9.norm": np.zeros(24, np.float32)})


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    "config", [{}, {"joint": "addition", "joint_dim": 12}, {"layer_norm": True, "reduction": (2, 2)}]
)
def test_a_transducer_equals_torch(made: Made, bits: Any, config: dict[str, Any]) -> None:
    packed, model = made("rnnt", bits, **config)
    network: Any = engine.build(packed, "float32")
    feats = np.random.default_rng(0).standard_normal((3, 21, 8)).astype(np.float32)
    lens = np.array([21, 8, 0])
    enc, enc_lens = network.encode(feats, lens)
    expected, expected_lens = model.encode(torch.from_numpy(feats), torch.from_numpy(lens))
    assert enc_lens.tolist() == expected_lens.tolist()
    close(enc, expected)
    labels = np.array([[0, 3, 4, 3]])
    pred, state = [], None
    for label in labels.T:
        one, state = network.step_predictor(label, state)
        pred.append(one)
    expected_pred = model.predict(torch.from_numpy(labels[:, 1:]))
    close(np.stack(pred, 1), expected_pred)
    close(
        network.joint(enc[:1, :, None], np.stack(pred, 1)[:, None]),
        model.joint(expected[:1, :, None], expected_pred[:, None]),
    )


def test_an_encoder_hears_a_stream_as_it_hears_the_whole(made: Made) -> None:
    network: Any = engine.build(made("rnnt", reduction=(2, 2))[0], "float32")
    feats = np.random.default_rng(0).standard_normal((1, 27, 8)).astype(np.float32)
    whole, _ = network.encode(feats)
    state, parts = None, []
    for at, part in enumerate(pieces := np.split(feats, [1, 4, 5, 17], 1)):
        enc, state = network.step_encoder(part, state, last=at == len(pieces) - 1)
        parts.append(enc)
    assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize("kind", engine.FAMILIES)
def test_activations_of_8_bits_change_little(made: Made, kind: str) -> None:
    packed, _ = made(kind)
    draw = np.random.default_rng(0)
    feats = draw.standard_normal((1, 30, 8)).astype(np.float32)

    def outputs(network: Any) -> Any:
        if kind in ("tdnnf", "quartznet", "matchboxnet"):
            return network.logits(feats[0])
        if kind == "rnnt":
            return network.encode(feats)[0]
        return network.logits(network.hidden(draw.integers(0, 50, (1, 9)) * 0 + 3)[0])

    exact, rough = (outputs(engine.build(packed, kept)) for kept in ("float32", "int8"))  # type: ignore[arg-type]
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("kind, step", STEPS)
def test_the_kernels_give_what_numpy_gives(
    made: Made, kind: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, _ = made(kind, (2, 4, 8), step)
    found: Any = [numerics.outputs(kind, packed.config, engine.build(packed, "int8"))]
    monkeypatch.setattr(native, "available", lambda: False)
    found.append(numerics.outputs(kind, packed.config, engine.build(packed, "int8")))
    size = np.sqrt(np.mean(found[0] ** 2))
    assert (
        np.abs(found[0] - found[1]).max() < 0.02 * size
    )  # an activation may fall on the other side of a half
    assert np.abs(found[0] - found[1]).mean() < 1e-3 * size


@pytest.mark.skipif(not native.available(), reason="the extension is not built")
@pytest.mark.parametrize("kind, step", STEPS)
def test_every_map_of_few_bits_runs_on_the_kernels(made: Made, kind: str, step: str) -> None:
    weights = Weights(made(kind, (2, 4, 8), step)[0], "int8")
    engine.FAMILIES[kind](weights.packed.config, weights)
    assert {linear.kernel for linear in weights.maps.values()} == {native.isa()}


@pytest.mark.skipif(not native.available(), reason="the extension is not built")
@pytest.mark.parametrize("kind", engine.FAMILIES)
def test_a_machine_of_any_instruction_set_gives_the_same_bits(made: Made, kind: str) -> None:
    packed, _ = made(kind)
    best = native.isa()
    try:
        found = []
        for isa in native.isas():  # the last of them needs nothing of the processor
            native.use_isa(isa)
            found.append(numerics.outputs(kind, packed.config, engine.build(packed)))
    finally:
        native.use_isa(best)
    assert native.isas()[-1] == "portable"
    assert all(np.array_equal(each, found[0]) for each in found)


@pytest.mark.parametrize("kind", ["tdnnf", "rnnt", "quartznet", "matchboxnet"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_give_outputs_that_are_none(made: Made, kind: str, value: float) -> None:
    network: Any = engine.build(made(kind)[0])
    feats = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    clean = network.encode(feats[None])[0] if kind == "rnnt" else network.logits(feats)
    feats[10:14, 3] = value
    with np.errstate(all="ignore"):
        found = network.encode(feats[None])[0] if kind == "rnnt" else network.logits(feats)
    assert found.shape == clean.shape and np.isfinite(clean).all() and not np.isfinite(found).all()


FORKED = """
import os, sys
import numpy as np
import greenasr.runtime
network = greenasr.runtime.load(sys.argv[1]).network
feats = np.ones((2, 200, 8), np.float32)
before, _ = network.encode(feats)
child = os.fork()
same = np.array_equal(network.encode(feats)[0], before)
if child == 0:
    os._exit(not same)
sys.exit(not same or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_may_fork_after_it_has_loaded_and_run_a_network(made: Made, tmp_path: Any) -> None:
    made("rnnt", encoder_dim=320)  # products that threads share
    command = [sys.executable, "-c", FORKED, str(tmp_path / "rnnt.packed")]
    subprocess.run(command, check=True, timeout=60)


def test_threads_share_one_network(made: Made) -> None:
    network: Any = engine.build(made("rnnt")[0])
    feats = np.random.default_rng(0).standard_normal((8, 1, 40, 8)).astype(np.float32)

    def heard(one: Any) -> Any:
        state, parts = None, []
        for part in np.split(one, 10, 1):
            enc, state = network.step_encoder(part, state)
            parts.append(enc)
        return np.concatenate(parts, 1)

    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(heard, feats), map(heard, feats), strict=True):
            assert_allclose(found, expected)


def test_a_network_that_the_runtime_lacks_is_refused(made: Made) -> None:
    packed, _ = made("lstm")
    with pytest.raises(ValueError, match="the network is a 'gru', the runtime has transformer, lstm"):
        engine.build(replace(packed, model="gru"))
    with pytest.raises(ValueError, match="its settings do not describe a 'lstm'"):
        engine.build(replace(packed, config={}))
    with pytest.raises(ValueError, match=r"lacks 'layers.2.*', which its network needs"):
        engine.build(replace(packed, config={"vocab": 50, "dim": 16, "layers": 3}))


@pytest.mark.parametrize(
    "kind, change",
    [
        ("rnnt", {"encoder_layers": 1 << 31}),
        ("rnnt", {"predictor_layers": 1 << 40}),
        ("rnnt", {"reduction": [4, 1 << 30]}),
        ("rnnt", {"reduction": [1 << 62]}),
        ("tdnnf", {"strides": [1, 1, 0, 1 << 40]}),
        ("tdnnf", {"splice": 1 << 40}),
        ("tdnnf", {"subsampling": 0}),
        ("transformer", {"context": 1 << 40}),
        ("transformer", {"heads": 3}),
        ("lstm", {"vocab": 1 << 40}),
        ("quartznet", {"repeat": 1 << 40}),
        ("quartznet", {"stride": 0}),
        ("matchboxnet", {"feat_dim": 1 << 40}),
    ],
)
def test_settings_that_the_weights_do_not_have_cost_nothing(
    made: Made, kind: str, change: dict[str, Any]
) -> None:
    packed, _ = made(kind)
    packed = replace(packed, config={**packed.config, **change}, self_test=measured(packed))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"here: .*pack (the model|it) again"):
            engine.build(packed, where="here")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_no_torch_is_needed(made: Made, tmp_path: Any) -> None:
    made("tdnnf")
    code = """
import sys
sys.modules["torch"] = None  # whoever imports it fails
import numpy as np
import greenasr.runtime
loaded = greenasr.runtime.load(sys.argv[1])
print(loaded.kind, loaded.network.logits(np.ones((5, 8), np.float32)).shape)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "tdnnf.packed")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "tdnnf (2, 20)\n"
