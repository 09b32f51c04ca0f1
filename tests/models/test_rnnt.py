"""The transducer against torch's own LSTM, in chunks against whole, and through compression and the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.acosr import Acosr
from greenasr.compress.bp import BackPropagation
from greenasr.compress.clusters import make_clusters
from greenasr.models.dropout import set_dropout_
from greenasr.models.lstm import SHORT, LstmLayer, join
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.roles import BitMap
from greenasr.runtime import pack as P
from greenasr.tasks.networks import build

SMALL = {
    "feat_dim": 5,
    "vocab": 7,
    "encoder_layers": 3,
    "encoder_dim": 12,
    "reduction": (2, 1, 2),
    "predictor_layers": 2,
    "predictor_dim": 10,
    "embedding_dim": 6,
    "joint_dim": 8,
    "layer_norm": True,
}
FEATS = torch.randn(3, 90, 5, generator=torch.Generator().manual_seed(1))
LENS = torch.tensor([90, 77, 9])
LABELS = torch.tensor([[3, 1, 6, 2], [5, 5, 0, 0], [1, 0, 0, 0]])


def network(**changes: object) -> Rnnt:
    torch.manual_seed(0)
    return Rnnt(RnntConfig(**{**SMALL, **changes})).eval()


def n_parameters(**config: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Rnnt(RnntConfig(**config)).parameters())


def test_the_papers_sizes_can_be_built() -> None:
    encoder = 4 * 1024 * (192 + 1024 + 1) + 4 * 4 * 1024 * (1024 + 1024 + 1)
    predictor = 4 * 1024 * (512 + 1024 + 1) + 4 * 1024 * (1024 + 1024 + 1)
    first = n_parameters(feat_dim=64, reduction=(3,), vocab=2500)
    assert first == encoder + predictor + 2500 * 512 + 2 * 1025 * 512 + 513 * 2500 == 56_856_004
    assert 56e6 < first < 60e6  # §4.1; a separate blank adds 1,025
    second = n_parameters(feat_dim=64, reduction=(3,), vocab=10_000, joint="addition")
    assert second == encoder + predictor + 10_000 * 512 + 2 * 1025 * 10_000 == 78_863_904


@pytest.mark.parametrize("frames", [1, SHORT - 1, SHORT, 40])
@pytest.mark.parametrize("stepwise", [False, True])
def test_a_layer_is_torchs_lstm(frames: int, stepwise: bool) -> None:
    ours, theirs = LstmLayer(5, 8), nn.LSTM(5, 8, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input.weight)
        theirs.weight_hh_l0.copy_(ours.recurrent.weight)
        theirs.bias_ih_l0.copy_(ours.input.bias)
        theirs.bias_hh_l0.zero_()
    x, h, c = torch.randn(3, frames, 5), torch.randn(3, 8), torch.randn(3, 8)
    y, (h_after, c_after) = ours(x, (h, c), stepwise)
    expected, (h_n, c_n) = theirs(x, (h[None], c[None]))
    torch.testing.assert_close((y, h_after, c_after), (expected, h_n[0], c_n[0]))
    weights = (ours.input.weight, ours.recurrent.weight, ours.input.bias)
    grads = torch.autograd.grad(y.square().sum() + c_after.sum(), weights)
    others = (theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0)
    torch.testing.assert_close(grads, torch.autograd.grad(expected.square().sum() + c_n.sum(), others))


def test_frames_join_in_order_and_zeros_fill_the_last_group() -> None:
    x = torch.arange(1.0, 6)[None, :, None]
    whole, rest = join(x, 2, last=True)
    assert whole.tolist() == [[[1, 2], [3, 4], [5, 0]]] and rest.shape == (1, 0, 1)
    whole, rest = join(x, 2, last=False)
    assert whole.tolist() == [[[1, 2], [3, 4]]] and rest.tolist() == [[[5]]]


def test_the_encoder_has_a_frame_for_every_group_that_has_begun() -> None:
    model = network()
    for frames in (0, 1, 4, 5, 90):
        enc, lens = model.encode(FEATS[:, :frames])
        assert enc.shape == (3, -(-frames // 4), 8) and lens.tolist() == [-(-frames // 4)] * 3
    assert model.encode(FEATS, LENS)[1].tolist() == [23, 20, 3]


@pytest.mark.parametrize("joint", ["fc", "addition"])
def test_padding_is_neither_read_nor_left(joint: str) -> None:
    model = network(joint=joint)
    feats = FEATS.clone()
    for n, length in enumerate(LENS.tolist()):
        feats[n, length:] = torch.nan
    enc, lens, pred = model(feats, LENS, LABELS)
    assert enc.shape == (3, 23, model.config.joint_width) and pred.shape == (3, 5, model.config.joint_width)
    for n, (length, out) in enumerate(zip(LENS.tolist(), lens.tolist(), strict=True)):
        alone, _ = model.encode(FEATS[n : n + 1, :length])
        torch.testing.assert_close(enc[n, :out], alone[0], rtol=1e-4, atol=1e-5)
        assert not enc[n, out:].any()
    empty, lens = model.encode(FEATS, torch.tensor([4, 0, 90]))
    assert lens.tolist() == [1, 0, 23] and not empty[1].any() and empty.isfinite().all()


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8, 32, 64, 90, 1000])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_stream_in_chunks_of_any_size_is_the_whole_utterance(chunk: int, layer_norm: bool) -> None:
    model = network(layer_norm=layer_norm)
    for frames in (90, 77):
        whole, _ = model.encode(FEATS[:, :frames])
        state, parts = None, []
        for piece in FEATS[:, :frames].split(chunk, 1):
            out, state = model.step_encoder(piece, state)
            parts.append(out)
        assert sum(part.shape[1] for part in parts) == frames // 4
        parts.append(model.step_encoder(FEATS[:, :0], state, last=True)[0])
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


def test_the_last_chunk_may_bring_frames_and_uneven_chunks_are_fine() -> None:
    model = network()
    whole, _ = model.encode(FEATS[:, :23])
    first, state = model.step_encoder(FEATS[:, :5])
    none, state = model.step_encoder(FEATS[:, 5:5], state)
    rest, _ = model.step_encoder(FEATS[:, 5:23], state, last=True)
    assert none.shape[1] == 0
    torch.testing.assert_close(torch.cat((first, rest), 1), whole, rtol=1e-4, atol=1e-5)
    nothing, _ = model.step_encoder(FEATS[:, :0], last=True)
    assert nothing.shape == (3, 0, 8)


def test_the_encoder_reads_the_past_alone() -> None:
    model, other = network(), FEATS.clone()
    other[:, 40:] += 1
    torch.testing.assert_close(model.encode(FEATS)[0][:, :10], model.encode(other)[0][:, :10])
    assert (model.encode(FEATS)[0][:, 10] - model.encode(other)[0][:, 10]).abs().max() > 1e-4


def test_the_prediction_network_step_by_step_is_the_whole_sequence() -> None:
    model = network()
    whole = model.predict(LABELS)
    pred, state = model.step_predictor(torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(pred, whole[:, 0])
    for u in range(4):
        pred, state = model.step_predictor(LABELS[:, u], state)
        torch.testing.assert_close(pred, whole[:, u + 1])
    torch.testing.assert_close(model.predict(LABELS[:, :0]), whole[:, :1])


def test_joints_are_what_they_say() -> None:
    enc, pred = torch.randn(2, 4, 1, 8), torch.randn(2, 1, 3, 8)
    fc = network()
    assert fc.output is not None
    torch.testing.assert_close(fc.joint(enc, pred), fc.output((enc + pred).tanh()))
    assert fc.joint(enc, pred).shape == (2, 4, 3, 7)
    added = network(joint="addition").joint(enc[..., :7], pred[..., :7])
    torch.testing.assert_close(added, enc[..., :7] + pred[..., :7])


def test_stepwise_gives_the_same_numbers_and_second_derivatives() -> None:
    model = network()
    fast, plain = model(FEATS, LENS, LABELS), model(FEATS, LENS, LABELS, stepwise=True)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    seen: list[Tensor] = []
    layer = model.encoder.layers[0]
    assert isinstance(layer, LstmLayer)
    layer.recurrent.register_forward_hook(lambda module, inputs, output: seen.append(output))
    enc, _, pred = model(FEATS, LENS, LABELS, stepwise=True)
    assert len(seen) == 45
    (grad,) = torch.autograd.grad(enc.square().sum() + pred.sum(), layer.recurrent.weight, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), layer.recurrent.weight)
    assert second.isfinite().all() and second.abs().max() > 0


def test_dropout_is_only_for_training_and_can_be_set() -> None:
    model = network(dropout=0.5).train()
    assert not torch.equal(model.encode(FEATS)[0], model.encode(FEATS)[0])
    set_dropout_(model, 0.0)
    torch.testing.assert_close(model.encode(FEATS)[0], model.eval().encode(FEATS)[0])


def test_it_trains_in_bfloat16_too() -> None:
    model = network(dropout=0.0).train()
    with torch.autocast("cpu", torch.bfloat16):
        enc, _, pred = model(FEATS, LENS, LABELS)
        logits = model.joint(enc[:, :, None], pred[:, None])
    logits.float().logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    exact, _, _ = model(FEATS, LENS, LABELS)
    assert (enc.float() - exact).abs().max() < 0.1


@pytest.mark.parametrize("method", [BackPropagation, Acosr])
def test_every_matrix_is_quantized_and_packed_as_any_other(method: type, tmp_path: Path) -> None:
    model = network().train()
    clusters = make_clusters(model)
    assert [c.name for c in clusters if "encoder.layers.1" in c.name] == [
        "encoder.layers.1.input.weight",
        "encoder.layers.1.recurrent.weight",
    ]
    assert sum(c.numel for c in clusters) == sum(
        p.numel() for n, p in model.named_parameters() if p.dim() == 2
    )
    bit_map = BitMap.uniform(clusters, 4, "row")
    before = list(model.state_dict())
    compressor = method(bit_map)
    compressor.prepare_(model)
    enc, _, pred = model(FEATS, LENS, LABELS)
    (enc.sum() + pred.sum()).backward()
    for name, p in model.named_parameters():
        if name.endswith("original") and "output" not in name:
            assert p.grad is not None and p.grad.abs().max() > 0, name
    compressor.after_step_(model, 1.0)
    quantized = compressor.finish_(model)
    assert list(model.state_dict()) == before
    config = json.loads(json.dumps(model.to_config()))
    P.pack(tmp_path / "m", "rnnt", config, model.state_dict(), quantized, bit_map, {}, {}, "float32")
    packed, weights = P.unpack(tmp_path / "m")
    again = build(packed.model, packed.config)
    again.load_state_dict(weights)
    assert isinstance(again, Rnnt) and again.config == model.config
    for ours, theirs in zip(
        model.eval()(FEATS, LENS, LABELS), again.eval()(FEATS, LENS, LABELS), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_attached_weights_are_projected_once_a_sequence() -> None:
    model = network().train()
    clusters = make_clusters(model)
    compressor = BackPropagation(BitMap.uniform(clusters, 4))
    compressor.prepare_(model)
    calls = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal calls
        calls += 1

    layer = model.encoder.layers[0]
    assert isinstance(layer.recurrent.parametrizations, nn.ModuleDict)
    layer.recurrent.parametrizations["weight"].register_forward_hook(count)
    model(FEATS, LENS, LABELS)
    assert calls == 1


def test_shapes_that_cannot_be_built_are_refused() -> None:
    for changes, message in [
        ({"joint": "sum"}, "joint is 'sum', it should be fc or addition"),
        ({"vocab": 1}, "vocab is 1, it should be the blank and at least one label"),
        ({"encoder_dim": 0}, "at least 1"),
        ({"reduction": (2, 0)}, "at least 1"),
        ({"reduction": (2, 1, 1, 1)}, "reduction has 4 entries for 3 encoder layers"),
    ]:
        with pytest.raises(ValueError, match=message):
            network(**changes)
    with pytest.raises(
        ValueError, match="network 'rnnt': .*its settings are feat_dim, vocab, encoder_layers"
    ):
        build("rnnt", {"feat_dim": 5, "vocab": 7, "layers": 3})


def test_inputs_that_do_not_fit_are_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"features are \(3, 90, 4\), the network reads \(N, T, 5\)"):
        model.encode(FEATS[..., :4])
    with pytest.raises(ValueError, match=r"features are \(90, 5\), the network reads \(N, T, 5\)"):
        model.step_encoder(FEATS[0])
    with pytest.raises(ValueError, match=r"lengths \[91, 1, 1\] do not fit 3 utterances padded to 90 frames"):
        model.encode(FEATS, torch.tensor([91, 1, 1]))
    with pytest.raises(
        ValueError, match="labels run from 1 to 7, the model's from 0 to 6: use the tokenizer"
    ):
        model.predict(torch.tensor([[1, 7]]))
