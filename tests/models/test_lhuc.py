"""LHUC begins as the identity, scales what it says, and touches nothing but its vectors."""

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.clusters import make_clusters
from greenasr.compress.none import NoCompression
from greenasr.models.lhuc import attach_lhuc_, detach_lhuc_
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig
from greenasr.roles import BitMap

FEATS = torch.randn(2, 30, 5, generator=torch.Generator().manual_seed(1))
LENS = torch.tensor([30, 17])


def network(bits: int | None = None) -> Tdnnf:
    torch.manual_seed(0)
    config = TdnnfConfig(5, 7, layers=4, dim=16, bottleneck=4, prefinal=6, dropout=0.2)
    model = Tdnnf(config)
    nn.init.normal_(model.output.weight)
    with torch.no_grad():
        model(FEATS, LENS)
    if bits:
        NoCompression(BitMap.uniform(make_clusters(model, "layer"), bits)).finish_(model)
    return model.eval()


def adapt(model: Tdnnf, parameters: list[nn.Parameter]) -> list[float]:
    """A few steps in training mode, as the training loop would; the losses."""
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    losses = []
    for _ in range(10):
        model.train()
        loss = -model(FEATS, LENS)[0].log_softmax(-1)[..., 0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_it_begins_as_the_identity() -> None:
    model = network()
    plain = model(FEATS, LENS)[0]
    attach_lhuc_(model, model.hidden_units())
    assert torch.equal(model(FEATS, LENS)[0], plain)
    assert torch.equal(model.train()(FEATS, LENS)[0], plain)  # no dropout, no batch statistics


def test_it_scales_the_hidden_units() -> None:
    model = network()
    seen: list[Tensor] = []
    model.layers[0].norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(FEATS, LENS)
    lhuc = attach_lhuc_(model, ["layers.0.norm"])
    model.layers[0].norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        lhuc.vectors["layers.0.norm"].copy_(torch.linspace(-2, 2, 16))
    model(FEATS, LENS)
    torch.testing.assert_close(seen[-1], seen[0] * 2 * torch.linspace(-2, 2, 16).sigmoid())


@pytest.mark.parametrize("bits", [None, 4])
def test_adapting_lowers_the_loss_and_touches_nothing_but_the_vectors(bits: int | None) -> None:
    model = network(bits)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lhuc = attach_lhuc_(model, ["input.norm", "layers.2.norm"])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "input.norm.lhuc",
        "layers.2.norm.lhuc",
    ]
    assert lhuc.numel == 32 and list(lhuc.parameters()) == [p for p in model.parameters() if p.requires_grad]
    losses = adapt(model, list(lhuc.parameters()))
    assert losses[-1] < losses[0]
    after = model.state_dict()
    assert set(after) - set(before) == {"input.norm.lhuc", "layers.2.norm.lhuc"}
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    detach_lhuc_(model, lhuc)
    assert list(model.state_dict()) == list(before) and all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_speakers_take_turns() -> None:
    model = network()
    lhuc = attach_lhuc_(model, model.hidden_units()[:1])
    plain = model(FEATS, LENS)[0].detach()
    adapt(model, list(lhuc.parameters()))
    first, adapted = lhuc.state(), model(FEATS, LENS)[0].detach()
    lhuc.load_()
    assert torch.equal(model(FEATS, LENS)[0], plain)
    lhuc.load_(first)
    assert torch.equal(model(FEATS, LENS)[0], adapted) and not torch.equal(adapted, plain)
    with pytest.raises(ValueError, match="the speaker's vectors are"):
        lhuc.load_({"layers.1.norm": torch.zeros(16)})


def test_a_parameter_that_was_frozen_before_stays_frozen() -> None:
    model = network()
    model.output.bias.requires_grad_(False)
    detach_lhuc_(model, attach_lhuc_(model, ["input.norm"]))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["output.bias"]


def test_layers_that_cannot_be_adapted_are_refused() -> None:
    model = network()
    for layers, message in (
        (["layers.9.norm"], "no hidden units at 'layers.9.norm'"),
        (["layers.0"], "no hidden units at 'layers.0'"),
        ([], "got none"),
    ):
        with pytest.raises(ValueError, match=message):
            attach_lhuc_(model, layers)
    attach_lhuc_(model, ["input.norm"])
    with pytest.raises(ValueError, match="attached to 'input.norm' already"):
        attach_lhuc_(model, ["input.norm"])
