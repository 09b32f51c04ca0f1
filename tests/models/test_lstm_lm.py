"""The LSTM language model against `nn.LSTM`, and its interface."""

import pytest
import torch
from torch import Tensor, nn

from greenasr.compress.clusters import weights
from greenasr.models.lstm_lm import LSTMLM, LSTMConfig
from greenasr.tasks.networks import LANGUAGE_MODELS, build

IDS = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(1))


def network(tied: bool = True, dropout: float = 0.0) -> LSTMLM:
    torch.manual_seed(0)
    return LSTMLM(LSTMConfig(vocab=20, layers=2, dim=8, dropout=dropout, tied=tied))


def test_it_equals_torchs_lstm_with_the_same_weights() -> None:
    model = network()
    theirs = nn.LSTM(8, 8, num_layers=2, batch_first=True)
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            getattr(theirs, f"weight_ih_l{i}").copy_(layer.input.weight)
            getattr(theirs, f"weight_hh_l{i}").copy_(layer.recurrent.weight)
            getattr(theirs, f"bias_ih_l{i}").copy_(layer.input.bias)
            getattr(theirs, f"bias_hh_l{i}").zero_()
    hidden, state = model(IDS)
    expected, (h, c) = theirs(model.embedding(IDS))
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(torch.stack([s[0] for s in state]), h)
    torch.testing.assert_close(torch.stack([s[1] for s in state]), c)


def test_stepping_with_the_state_equals_one_full_pass() -> None:
    model = network().eval()
    whole, _ = model(IDS)
    first, cache = model(IDS[:, :3])
    second, cache = model(IDS[:, 3:4], cache)
    third, _ = model(IDS[:, 4:], cache)
    torch.testing.assert_close(torch.cat([first, second, third], 1), whole)


def test_a_token_does_not_see_those_after_it() -> None:
    model = network().eval()
    changed = IDS.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 20
    a, b = model(IDS)[0], model(changed)[0]
    assert torch.equal(a[:, :4], b[:, :4]) and not torch.equal(a[:, 4:], b[:, 4:])


@pytest.mark.parametrize("tied", [True, False])
def test_tying_shares_one_parameter(tied: bool) -> None:
    model = network(tied)
    assert (model.output.weight is model.embedding.weight) == tied
    assert len(weights(model)) == (5 if tied else 6)


def test_it_can_be_differentiated_twice() -> None:
    model = network()
    weight = model.layers[0].recurrent.weight

    def loss(value: Tensor) -> Tensor:
        hidden, _ = torch.func.functional_call(
            model.double(), {"layers.0.recurrent.weight": value}, IDS[:1, :4]
        )
        return torch.as_tensor(hidden.square().sum())

    assert torch.autograd.gradgradcheck(loss, weight.detach().double().requires_grad_(), fast_mode=True)


def test_dropout_acts_in_training_alone() -> None:
    model = network(dropout=0.5)
    a, b = model(IDS)[0], model(IDS)[0]
    assert not torch.equal(a, b)
    model.eval()
    assert torch.equal(model(IDS)[0], model(IDS)[0])


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_every_network_is_rebuilt_from_its_configuration(name: str) -> None:
    small = {"vocab": 20, "dim": 8, "layers": 1}
    model = build(name, small)
    again = build(name, model.to_config())
    again.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(IDS)[0], again.eval()(IDS)[0])
    assert isinstance(model.output, nn.Linear)


def test_wrong_networks_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown network 'gru': choose transformer or lstm or tdnnf"):
        build("gru", {})
    with pytest.raises(
        ValueError, match="unexpected keyword argument 'depth'; its settings are vocab, layers"
    ):
        build("lstm", {"vocab": 5, "depth": 2})
    with pytest.raises(ValueError, match="at least 1"):
        build("lstm", {"vocab": 0})
