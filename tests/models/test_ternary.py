"""Ternary networks: the paper's counts, no weight, no gradient, no file without its seed."""

import copy

import pytest
import torch

from greenasr.models.matchboxnet import MatchboxNet, MatchboxNetConfig
from greenasr.models.quartznet import QuartzNet, QuartzNetConfig
from greenasr.models.ternary import Ternary, TernaryConfig
from greenasr.ops.signs import Signs
from greenasr.tasks.networks import build

SMALL = {"feat_dim": 4, "classes": 3, "blocks": 2, "width": 8, "edge": 12, "ternary": {"threshold": 0.5}}


def numel(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("blocks", "repeat", "count"), [(3, 1, 60_830), (3, 2, 64_094), (6, 1, 77_918)])
def test_ternary_matchboxnets_have_the_papers_60_64_and_77_thousand_parameters(blocks, repeat, count):
    config = MatchboxNetConfig(64, 30, blocks=blocks, repeat=repeat, ternary=TernaryConfig(0.5, 1))
    assert numel(MatchboxNet(config)) == count


def test_ternary_takes_the_1x1_weights_of_chosen_blocks_away_and_no_others():
    plain = QuartzNetConfig(4, 3, blocks=5, repeat=3, width=8)
    half = QuartzNetConfig(4, 3, blocks=5, repeat=3, width=8, ternary=TernaryConfig(0.1, 1, (3, 4)))
    both = QuartzNetConfig(4, 3, blocks=5, repeat=3, width=8, ternary=half.ternary, skips="ternary")
    gone = 2 * 3 * 16 * 16
    assert numel(QuartzNet(plain)) - numel(QuartzNet(half)) == gone
    assert numel(QuartzNet(plain)) - numel(QuartzNet(both)) == gone + 2 * 16 * 16
    found = [name for name, module in QuartzNet(both).named_modules() if isinstance(module, Ternary)]
    assert found == [
        f"blocks.{i}.{p}.pointwise" for i in (3, 4) for p in ("subs.0", "subs.1", "subs.2", "skip")
    ]


def test_a_layer_is_eq_1_a_difference_of_sums():
    layer = Ternary(Signs(3, 1, 6, 8, 100))
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    w = Signs(3, 1, 6, 8, 100).rows_of()
    for o in range(6):
        slow = sum(x[:, i] for i in range(8) if w[o, i] > 0) - sum(x[:, i] for i in range(8) if w[o, i] < 0)
        torch.testing.assert_close(layer(x)[:, o], slow)


def test_a_network_of_ternary_layers_equals_the_floating_one_with_their_weights():
    ternary = build("matchboxnet", SMALL).eval()
    floating = build("matchboxnet", SMALL | {"ternary": None}).eval()
    state = {n: v for n, v in ternary.state_dict().items() if not n.endswith("signs")}
    for name, module in ternary.named_modules():
        if isinstance(module, Ternary):
            state[f"{name}.weight"] = torch.from_numpy(module.spec.rows_of()).float()
    floating.load_state_dict(state)
    feats = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ternary(feats), floating(feats), rtol=1e-4, atol=1e-5)


def test_there_is_no_gradient_and_no_stored_weight_but_gradients_pass_through():
    model = build("matchboxnet", SMALL)
    model(torch.randn(2, 30, 4)).sum().backward()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, Ternary)}
    assert len(layers) == 2
    for name, module in layers.items():
        assert not list(module.parameters()) and module.weight.grad is None
        assert not module.weight.requires_grad
        stored = {k: v for k, v in model.state_dict().items() if k.startswith(name)}
        assert {k: v.tolist() for k, v in stored.items()} == {f"{name}.signs": module.spec.to_numbers()}
    assert model.prologue.subs[0].depthwise.weight.grad.abs().sum() > 0


def test_layers_of_a_network_differ_and_do_not_depend_on_which_are_chosen():
    all_of_them = QuartzNet(QuartzNetConfig(4, 3, blocks=3, repeat=2, width=8, ternary=TernaryConfig(0.1, 1)))
    last = QuartzNet(QuartzNetConfig(4, 3, blocks=3, repeat=2, width=8, ternary=TernaryConfig(0.1, 1, (2,))))
    specs = [m.spec for m in all_of_them.modules() if isinstance(m, Ternary)]
    assert len({spec.layer for spec in specs}) == len(specs) == 6
    assert [m.spec for m in last.modules() if isinstance(m, Ternary)] == specs[-2:]


def test_a_copy_and_a_reloaded_network_are_the_same():
    torch.manual_seed(0)
    model = build("matchboxnet", SMALL).eval()
    other = build("matchboxnet", SMALL).eval()
    other.load_state_dict(model.state_dict())
    feats = torch.randn(1, 20, 4)
    assert torch.equal(model(feats), other(feats))
    assert torch.equal(model(feats), copy.deepcopy(model)(feats))


def test_a_file_without_seed_or_with_another_is_refused():
    model = build("matchboxnet", SMALL)
    plain = build("matchboxnet", SMALL | {"ternary": None}).state_dict()
    with pytest.raises(ValueError, match=r"seed of blocks.0.subs.0.pointwise.weight is missing"):
        model.load_state_dict(plain)
    other = build("matchboxnet", SMALL | {"ternary": {"threshold": 0.5, "seed": 9}}).state_dict()
    with pytest.raises(ValueError, match="generated as .*seed 9.* the network's is .*seed 0"):
        model.load_state_dict(other)


@pytest.mark.parametrize(
    ("ternary", "message"),
    [
        ({"threshold": 1}, "nothing flows"),
        ({"threshold": -0.5}, r"in \[0, 1\)"),
        ({"threshold": 0.1, "structured": True}, "t is 0.5, got 0.1"),
        ({"seed": -1}, "32 bits"),
        ({"blocks": [2]}, "names block 2 of a network of 2"),
    ],
)
def test_settings_that_generate_nothing_are_refused(ternary, message):
    with pytest.raises(ValueError, match=message):
        build("matchboxnet", SMALL | {"ternary": ternary})
