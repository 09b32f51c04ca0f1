"""QuartzNet and MatchboxNet against the published counts and a slow forward of the same weights."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from greenasr.models.matchboxnet import MatchboxNet, MatchboxNetConfig
from greenasr.models.quartznet import QuartzNet, QuartzNetConfig
from greenasr.models.separable import Frames, normalize
from greenasr.tasks.networks import build

SMALL_QUARTZ = QuartzNetConfig(
    5, 4, blocks=2, repeat=2, width=6, kernels=(5, 3), epilogue=(8, 10), ends=(9, 7)
)
SMALL_MATCHBOX = MatchboxNetConfig(5, 3, blocks=2, repeat=2, width=6, edge=8)


def numel(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("blocks", "repeat", "classes", "count"),
    [(3, 1, 30, 77_214), (3, 2, 30, 92_766), (6, 2, 35, 139_491)],
)
def test_matchboxnets_have_the_papers_77_93_and_140_thousand_parameters(blocks, repeat, classes, count):
    assert numel(MatchboxNet(MatchboxNetConfig(64, classes, blocks=blocks, repeat=repeat))) == count


@pytest.mark.parametrize(("blocks", "millions"), [(5, 6.7), (10, 12.8), (15, 18.9)])
def test_quartznets_have_the_papers_parameters(blocks, millions):
    with torch.device("meta"):
        model = QuartzNet(QuartzNetConfig(64, 29, blocks=blocks))
    assert round(numel(model) / 1e6, 1) == millions


def slow_sub(sub, x):
    """(N, C, T) through torch's own modules."""
    if sub.depthwise is not None:
        x = sub.depthwise(x)
    return sub.norm(F.conv1d(x, sub.pointwise.weight[:, :, None]))


def slow_block(block, x):
    y = x
    for i, sub in enumerate(block.subs):
        y = slow_sub(sub, F.relu(y) if i else y)
    if block.skip is not None:
        y = y + slow_sub(block.skip, x)
    elif block.skip_kind == "identity":
        eye = torch.eye(y.shape[1], x.shape[1])
        y = y + F.conv1d(x, eye[:, :, None])
    return F.relu(y)


def trained_a_little(model, seed=0):
    """Running statistics that are not 0 and 1."""
    gen = torch.Generator().manual_seed(seed)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(3, 40, 5, generator=gen), torch.tensor([40, 31, 17]))
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=gen))
    return model.eval()


@pytest.mark.parametrize("skips", ["trained", "identity", "none"])
def test_quartznet_is_its_convolutions_one_after_another(skips):
    model = trained_a_little(QuartzNet(QuartzNetConfig(**SMALL_QUARTZ.to_json() | {"skips": skips})))
    feats = torch.randn(2, 33, 5, generator=torch.Generator().manual_seed(3))
    x = feats.transpose(1, 2)
    for block in (model.prologue, *model.blocks, *model.epilogue):
        x = slow_block(block, x)
    logits, lens = model(feats)
    torch.testing.assert_close(logits, model.output(x.transpose(1, 2)), rtol=1e-4, atol=1e-4)
    assert logits.shape == (2, 17, 4) and lens.tolist() == [17, 17]


def test_matchboxnet_is_its_convolutions_and_the_mean_over_time():
    model = trained_a_little(MatchboxNet(SMALL_MATCHBOX))
    feats = torch.randn(2, 33, 5, generator=torch.Generator().manual_seed(3))
    x = feats.transpose(1, 2)
    for block in (model.prologue, *model.blocks, *model.epilogue):
        x = slow_block(block, x)
    torch.testing.assert_close(model(feats), model.output(x.mean(2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: QuartzNet(SMALL_QUARTZ), lambda: MatchboxNet(SMALL_MATCHBOX)])
@pytest.mark.parametrize("training", [False, True])
def test_padding_is_neither_heard_nor_counted(make, training):
    """A batch with padding gives what the utterances give one after another, in training too."""
    model = trained_a_little(make())
    gen = torch.Generator().manual_seed(4)
    feats, lens = torch.randn(3, 40, 5, generator=gen), torch.tensor([40, 9, 25])
    noisy = feats.masked_fill(torch.arange(40)[None, :, None] >= lens[:, None, None], 7.0)
    model.train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    outs = []
    for batch in (feats, noisy):
        model.load_state_dict(state)
        outs.append(model(batch, lens))
    if isinstance(outs[0], tuple):
        assert torch.equal(outs[0][1], (lens + 1) // 2)
        outs = [out[0] for out in outs]
    torch.testing.assert_close(outs[0], outs[1])
    if not training:
        alone = model(feats[1:2, :9])
        alone = alone[0][0] if isinstance(alone, tuple) else alone[0]
        torch.testing.assert_close(outs[0][1][: len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_batch_norm_counts_true_frames_as_torch_does_without_padding():
    gen = torch.Generator().manual_seed(5)
    x, lens = 3 + torch.randn(4, 3, 20, generator=gen), torch.tensor([20, 4, 11])
    frames = Frames.of(lens, 20, x.dtype)
    ours, theirs = (torch.nn.BatchNorm1d(4, eps=1e-3) for _ in range(2))
    x.requires_grad_()
    padded = frames.clear(x)
    true = torch.cat([padded[:, i, :n] for i, n in enumerate(lens)], 1)
    y = normalize(ours, padded, frames)
    want = theirs(true[None])[0]
    got = torch.cat([y[:, i, :n] for i, n in enumerate(lens)], 1)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    pull = torch.randn(got.shape, generator=gen)
    slow = torch.autograd.grad(want, x, pull, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(got, x, pull)[0], slow, rtol=1e-3, atol=1e-5)


def test_statistics_of_a_padded_batch_are_those_of_its_utterances_end_to_end():
    """Every norm sees M frames: one sub-block's statistics, taken from the utterances one by one."""
    model = QuartzNet(SMALL_QUARTZ).train()
    gen = torch.Generator().manual_seed(7)
    feats, lens = torch.randn(2, 40, 5, generator=gen), torch.tensor([40, 14])
    sub = model.prologue.subs[0]
    model(feats, lens)
    with torch.no_grad():
        alone = [sub.depthwise(feats[i, :n].t()[None])[0] for i, n in enumerate(lens)]
        summed = sub.pointwise(torch.cat(alone, 1).t())
    torch.testing.assert_close(sub.norm.running_mean, 0.1 * summed.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sub.norm.running_var, 0.9 + 0.1 * summed.var(0), rtol=1e-4, atol=1e-6)


def test_a_layer_with_a_listener_gives_the_same_as_without():
    model = trained_a_little(QuartzNet(SMALL_QUARTZ))
    feats = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(6))
    want, heard = model(feats)[0], []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, x, y: heard.append(m))
    torch.testing.assert_close(model(feats)[0], want, rtol=1e-4, atol=1e-5)
    assert {type(m).__name__ for m in heard} >= {"Conv1d", "Linear"}


@pytest.mark.gpu
def test_a_gpu_gives_the_same_logits_and_gradients():
    model = trained_a_little(QuartzNet(SMALL_QUARTZ)).train()
    feats, lens = (
        torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(8)),
        torch.tensor([40, 31, 17]),
    )
    found = []
    for device in ("cpu", "cuda"):
        moved = copy.deepcopy(model).to(device)
        logits, _ = moved(feats.to(device), lens.to(device))
        logits.square().mean().backward()
        found.append([logits.detach().cpu(), *(p.grad.cpu() for p in moved.parameters())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(("name", "config"), [("quartznet", SMALL_QUARTZ), ("matchboxnet", SMALL_MATCHBOX)])
def test_a_configuration_survives_json(name, config):
    value = json.loads(json.dumps(build(name, config.to_json()).to_config()))
    assert build(name, value).config == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skips": "dense"}, "skips are 'dense'"),
        ({"kernels": (3,)}, "kernels has 1 entries for 2 blocks"),
        ({"kernels": (3, 4)}, "4 taps: give odd"),
        ({"skips": "ternary"}, "ternary skips need a seed"),
        ({"ternary": {"threshold": 1.0}}, "t = 1 makes every ternary weight zero"),
        ({"ternary": {"threshold": 1.5}}, r"in \[0, 1\), got 1.5"),
        ({"blocks": 0}, "at least 1"),
    ],
)
@pytest.mark.parametrize(("name", "config"), [("quartznet", SMALL_QUARTZ), ("matchboxnet", SMALL_MATCHBOX)])
def test_shapes_that_cannot_be_built_are_refused(name, config, change, message):
    with pytest.raises(ValueError, match=message):
        build(name, config.to_json() | change)


def test_features_and_lengths_that_do_not_fit_are_refused():
    model = QuartzNet(SMALL_QUARTZ)
    with pytest.raises(ValueError, match=r"reads \(N, T, 5\)"):
        model(torch.zeros(1, 4, 6))
    with pytest.raises(ValueError, match="do not fit 1 utterances padded to 4 frames"):
        model(torch.zeros(1, 4, 5), torch.tensor([5]))


@pytest.mark.parametrize(("ends", "message"), [((9, 8), "8 taps: give odd"), ((9,), "first and of the last")])
def test_ends_of_quartznet_are_two_odd_numbers_of_taps(ends, message):
    with pytest.raises(ValueError, match=message):
        build("quartznet", SMALL_QUARTZ.to_json() | {"ends": ends})


def test_the_first_and_the_last_wide_layer_have_the_ends_taps():
    model = QuartzNet(SMALL_QUARTZ)
    taps = [block.subs[0].depthwise.weight.shape[2] for block in (model.prologue, model.epilogue[0])]
    assert taps == [9, 7]
