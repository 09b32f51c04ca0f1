"""TDNN-F against convolutions, Kaldi's own parameter count, and its promises about time and padding."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from greenasr.compress.bp import BackPropagation
from greenasr.compress.clusters import make_clusters
from greenasr.models.dropout import SharedDropout, set_dropout_
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig, TdnnfLayer, semi_orthogonal_step_
from greenasr.models.timeline import Timeline
from greenasr.ops.semi_orthogonal import deviation
from greenasr.roles import BitMap
from greenasr.tasks.networks import build

SMALL = {"feat_dim": 5, "n_pdfs": 7, "layers": 6, "dim": 16, "bottleneck": 4, "prefinal": 6}
FEATS = torch.randn(3, 31, 5, generator=torch.Generator().manual_seed(1))
LENS = torch.tensor([31, 22, 9])


def network(**changes: object) -> Tdnnf:
    """A network whose outputs are not zero and whose batch norms have seen data."""
    torch.manual_seed(0)
    model = Tdnnf(TdnnfConfig(**{**SMALL, **changes}))
    nn.init.normal_(model.output.weight)
    if model.output_xent is not None:
        nn.init.normal_(model.output_xent.weight)
    ivectors = torch.randn(3, model.config.ivector_dim) if model.config.ivector_dim else None
    with torch.no_grad():
        for _ in range(3):
            model(FEATS, LENS, ivectors)
    return model.eval()


def test_it_has_as_many_parameters_as_kaldi_reports_for_tdnn_7q() -> None:
    with torch.device("meta"):
        model = Tdnnf(TdnnfConfig(feat_dim=40, n_pdfs=6034, ivector_dim=100, bottleneck=192))
        green = Tdnnf(TdnnfConfig(feat_dim=40, n_pdfs=6034, ivector_dim=100))
    assert model.config.strides == (1, 1, 1, 0, *(3,) * 10)
    assert sum(p.numel() for p in model.parameters()) == 21_356_836  # run_tdnn_7q.sh, "Num-parameters"
    assert sum(p.numel() for p in green.parameters()) == pytest.approx(18.6e6, rel=0.01)  # GREEN, Table 1


def test_a_layer_is_two_convolutions_with_two_taps() -> None:
    layer = network().layers[1]
    assert isinstance(layer, TdnnfLayer) and layer.stride == 1
    x = torch.randn(9, 16)
    first = layer.linear.weight.view(2, 4, 16).permute(1, 2, 0)
    second = layer.affine.weight.view(16, 2, 4).permute(0, 2, 1)
    y = F.conv1d(F.pad(x.T[None], (1, 0)), first)
    z = F.conv1d(F.pad(y, (0, 1)), second, layer.affine.bias)[0].T
    out, _ = layer(x, Timeline.of(torch.tensor([9])))
    torch.testing.assert_close(out, 0.66 * x + layer.norm(z.relu()))


def test_the_output_has_a_third_of_the_frames_rounded_up() -> None:
    model = network()
    for n in (1, 2, 3, 4, 31):
        logits, lens = model(FEATS[:, :n])
        assert logits.shape == (3, -(-n // 3), 7) and lens.tolist() == [-(-n // 3)] * 3


@pytest.mark.parametrize("strides", [(1, 1, 1, 0, 3, 3), (3,) * 6, (1, 3, 1, 1, 2, 1), (0, 3, 0, 6, 3, 3)])
@pytest.mark.parametrize("extra", [{}, {"front": 8, "splice": 2}, {"ivector_dim": 4}])
def test_the_subsampled_output_is_the_full_rate_output_at_every_third_frame(
    strides: tuple[int, ...], extra: dict[str, int]
) -> None:
    third = network(strides=strides, **extra)
    full = Tdnnf(TdnnfConfig(**{**SMALL, "strides": strides, "subsampling": 1, **extra})).eval()
    full.load_state_dict(third.state_dict())
    ivectors = torch.randn(3, 4) if "ivector_dim" in extra else None
    logits, lens = third(FEATS, LENS, ivectors)
    all_logits, all_lens = full(FEATS, LENS, ivectors)
    assert all_lens.tolist() == LENS.tolist() and lens.tolist() == [11, 8, 3]
    torch.testing.assert_close(logits, all_logits[:, ::3], rtol=1e-4, atol=1e-5)


def test_an_utterance_does_not_see_its_neighbours_padding() -> None:
    model = network(front=8)
    logits, lens = model(FEATS, LENS)
    for i, (n, n_out) in enumerate(zip(LENS.tolist(), lens.tolist(), strict=True)):
        alone, _ = model(FEATS[i : i + 1, :n])
        torch.testing.assert_close(logits[i, :n_out], alone[0], rtol=1e-4, atol=1e-5)
        assert not logits[i, n_out:].any()


def test_in_training_too_padding_changes_neither_outputs_nor_batch_statistics() -> None:
    results = []
    for padding in (0, 17):
        model = network().train()
        feats = torch.cat((FEATS, torch.full((3, padding, 5), 1e3)), 1)
        logits, _, lens = model.with_xent(feats, LENS)
        results.append((logits[:, :11], model.input.norm.running_var.clone(), lens))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_an_i_vector_a_frame_may_repeat_that_of_the_utterance() -> None:
    model = network(ivector_dim=4)
    ivectors = torch.randn(3, 4)
    everywhere = ivectors[:, None].expand(3, 31, 4)
    torch.testing.assert_close(model(FEATS, LENS, everywhere)[0], model(FEATS, LENS, ivectors)[0])
    assert not torch.equal(model(FEATS, LENS, -ivectors)[0], model(FEATS, LENS, ivectors)[0])


def test_the_cross_entropy_head_is_a_head_of_its_own_and_can_be_left_out() -> None:
    model = network()
    chain, xent, lens = model.with_xent(FEATS, LENS)
    assert torch.equal(chain, model(FEATS, LENS)[0]) and not torch.equal(chain, xent)
    slim = model.without_xent()
    assert torch.equal(slim(FEATS, LENS)[0], chain)
    assert not [name for name in slim.state_dict() if "xent" in name]
    with pytest.raises(ValueError, match="no cross-entropy head"):
        slim.with_xent(FEATS)


def trained(model: Tdnnf, steps: int) -> list[float]:
    """Deviations of the constrained factors after ``steps`` of Adam on random targets."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    targets = torch.randint(0, 7, (3, 11), generator=torch.Generator().manual_seed(2))
    model.train()
    for step in range(steps):
        chain, xent, _ = model.with_xent(FEATS)
        loss = F.cross_entropy(chain.flatten(0, 1), targets.flatten())
        loss = loss + F.cross_entropy(xent.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 2 == 0:
            semi_orthogonal_step_(model)
    named = dict(model.named_parameters())
    factors = [a for a, _, _ in model.bottlenecks().values()]
    matrices = [
        named[name].detach().view(len(named[name]) // 4, 4, 16).transpose(0, 1).reshape(4, -1)
        for name in factors
    ]
    return [deviation(m) for m in (*matrices, model.prefinal.weight, model.chain.linear.weight)]


def test_training_keeps_the_factors_semi_orthogonal() -> None:
    begin = trained(network(), 0)
    end = trained(network(), 60)
    assert min(begin) > 0.2 and max(end) < 0.05


def test_the_constraint_reaches_the_stored_weight_below_a_compressor() -> None:
    model = network()
    compressor = BackPropagation(BitMap.uniform(make_clusters(model, "layer"), 4))
    compressor.prepare_(model)
    before = model.layers[0].linear.parametrizations.weight.original.clone()
    for _ in range(100):
        semi_orthogonal_step_(model)
    after = model.layers[0].linear.parametrizations.weight.original
    assert not torch.equal(before, after)
    compressor.finish_(model)
    assert not [name for name, _ in model.named_parameters() if "parametrizations" in name]


def test_continuous_dropout_is_one_mask_an_utterance_in_training_alone() -> None:
    dropout = SharedDropout(0.3)
    x, lens = torch.ones(10, 50), torch.tensor([6, 4])
    torch.manual_seed(0)
    y = dropout(x, lens)
    assert torch.equal(y[:6], y[:1].expand(6, -1)) and torch.equal(y[6:], y[6:7].expand(4, -1))
    assert not torch.equal(y[0], y[6])
    assert 0.4 <= float(y.min()) and float(y.max()) <= 1.6 and abs(float(y.mean()) - 1) < 0.1
    assert torch.equal(dropout.eval()(x, lens), x)
    model = network(dropout=0.2)
    set_dropout_(model, 0.1)
    assert {m.p for m in model.modules() if isinstance(m, SharedDropout)} == {0.1}


def test_it_can_be_differentiated_twice() -> None:
    model = network(layers=2, strides=(1, 3)).double()
    weight = model.layers[0].linear.weight

    def loss(value: Tensor) -> Tensor:
        out = torch.func.functional_call(
            model, {"layers.0.linear.weight": value}, (FEATS[:2, :6].double(), torch.tensor([6, 4]))
        )
        return torch.as_tensor(out[0].square().sum())

    assert torch.autograd.gradgradcheck(loss, weight.detach().requires_grad_(), fast_mode=True)


def test_it_is_rebuilt_from_its_configuration_as_json() -> None:
    model = network(bottleneck=(4, 3, 2, 4, 5, 4), ivector_dim=2)
    again = build("tdnnf", json.loads(json.dumps(model.to_config())))
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    ivectors = torch.randn(3, 2)
    assert torch.equal(again.eval()(FEATS, LENS, ivectors)[0], model(FEATS, LENS, ivectors)[0])


def test_what_cannot_be_built_or_read_is_refused() -> None:
    for wrong, message in (
        ({"strides": (1, 3)}, "strides has 2 entries for 6 layers"),
        ({"bottleneck": (4, 4)}, "bottleneck has 2 entries for 6 layers"),
        ({"bottleneck": 0}, "at least 1"),
        ({"strides": (1, 1, -1, 0, 3, 3)}, "must be 0 or more"),
        ({"dropout": 0.7}, r"in \[0, 0.5\], got 0.7"),
    ):
        with pytest.raises(ValueError, match=message):
            build("tdnnf", {**SMALL, **wrong})
    model = network(ivector_dim=2)
    with pytest.raises(ValueError, match=r"features are \(3, 31, 4\), the network reads \(N, T, 5\)"):
        model(FEATS[..., :4], LENS)
    with pytest.raises(ValueError, match="i-vectors are none, the network reads i-vectors of 2"):
        model(FEATS, LENS)
    with pytest.raises(ValueError, match="no TDNN-F layer is called 'layers.9'"):
        model.shrunk({"layers.9": 2})
