"""A `.nemo` file written with NeMo's names gives what NeMo's structure gives, and nothing else is read."""

import io
import json
import os
import tarfile

import pytest
import torch
import torch.nn.functional as F
import yaml
from typer.testing import CliRunner

from greenasr.cli.app import make_app
from greenasr.pipeline.models import span_weights
from greenasr.pipeline.nemo import import_nemo
from greenasr.pipeline.nemo_archive import read_nemo
from greenasr.runtime import format as packed_format
from greenasr.tasks.networks import build

LETTERS = [" ", "a", "b", "c"]


def block(filters, kernel, repeat=1, residual=False, separable=True, stride=1, dilation=1):
    sizes = {"filters": filters, "repeat": repeat, "kernel": [kernel], "stride": [stride]}
    flags = {"dilation": [dilation], "dropout": 0.0, "residual": residual, "separable": separable}
    return sizes | flags


def quartznet():
    jasper = [
        block(8, 33, stride=2),
        block(8, 5, repeat=2, residual=True),
        block(6, 7, repeat=2, residual=True),
        block(10, 87, dilation=2),
        block(12, 1, separable=False),
    ]
    del jasper[-1]["separable"]
    return {
        "target": "nemo.collections.asr.models.ctc_models.EncDecCTCModel",
        "labels": LETTERS,
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "normalize": "per_feature",
            "window_size": 0.02,
            "sample_rate": 16000,
            "window_stride": 0.01,
            "window": "hann",
            "features": 7,
            "n_fft": 512,
            "frame_splicing": 1,
            "dither": 1e-05,
            "pad_to": 16,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConvASREncoder",
            "feat_in": "${model.preprocessor.features}",
            "activation": "relu",
            "conv_mask": True,
            "jasper": jasper,
        },
        "decoder": {"_target_": "x.ConvASRDecoder", "feat_in": 12, "vocabulary": "${labels}"},
    }


def matchboxnet():
    config = quartznet()
    config["target"] = "nemo.collections.asr.models.classification_models.EncDecClassificationModel"
    config["labels"] = ["yes", "no", "up"]
    config["timesteps"] = 128
    config["preprocessor"] = {
        "_target_": "nemo.collections.asr.modules.AudioToMFCCPreprocessor",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "n_mels": 7,
        "n_mfcc": 7,
        "n_fft": 512,
    }
    config["encoder"]["feat_in"] = 7
    config["encoder"]["jasper"] = [
        block(8, 11),
        block(6, 13, residual=True),
        block(6, 15, residual=True),
        block(8, 29, dilation=2),
        block(8, 1, separable=False),
    ]
    config["decoder"] = {"_target_": "x.ConvASRDecoderClassification", "feat_in": 8, "num_classes": 3}
    return config


def nemo_state(config, mask=".conv", outputs=5):
    """Random tensors under NeMo's names for JasperBlocks, norms that have seen something."""
    gen = torch.Generator().manual_seed(0)
    state = {}

    def norm(name, n):
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(n, generator=gen)
        state[f"{name}.bias"] = 0.1 * torch.randn(n, generator=gen)
        state[f"{name}.running_mean"] = 0.1 * torch.randn(n, generator=gen)
        state[f"{name}.running_var"] = 0.5 + torch.rand(n, generator=gen)
        state[f"{name}.num_batches_tracked"] = torch.tensor(17)

    def conv(name, *shape):
        state[f"{name}{mask}.weight"] = torch.randn(shape, generator=gen) / (shape[1] * shape[2]) ** 0.5

    state["preprocessor.featurizer.window"] = torch.hann_window(320)
    inputs = 7
    for b, spec in enumerate(config["encoder"]["jasper"]):
        name, width = f"encoder.encoder.{b}", inputs
        for j in range(spec["repeat"]):
            if spec.get("separable"):
                conv(f"{name}.mconv.{5 * j}", width, 1, spec["kernel"][0])
                conv(f"{name}.mconv.{5 * j + 1}", spec["filters"], width, 1)
                norm(f"{name}.mconv.{5 * j + 2}", spec["filters"])
            else:
                conv(f"{name}.mconv.{4 * j}", spec["filters"], width, spec["kernel"][0])
                norm(f"{name}.mconv.{4 * j + 1}", spec["filters"])
            width = spec["filters"]
        if spec["residual"]:
            conv(f"{name}.res.0.0", spec["filters"], inputs, 1)
            norm(f"{name}.res.0.1", spec["filters"])
        inputs = spec["filters"]
    kind = (outputs, inputs, 1) if "EncDecCTC" in config["target"] else (outputs, inputs)
    state["decoder.decoder_layers.0.weight"] = torch.randn(kind, generator=gen) / inputs**0.5
    state["decoder.decoder_layers.0.bias"] = torch.randn(outputs, generator=gen)
    return state


def nemo_encoder(config, state, x, lens):
    """NeMo's ConvASREncoder in evaluation: a mask before every convolution, norms of ε = 1e-3, (N, C, T)."""

    def conv(name, x, lens, **options):
        weight = state[f"{name}.conv.weight"]
        x = x * (torch.arange(x.shape[2]) < lens[:, None])[:, None]
        return F.conv1d(x, weight, **options)

    def norm(name, x):
        stats = (state[f"{name}.running_mean"], state[f"{name}.running_var"])
        return F.batch_norm(x, *stats, state[f"{name}.weight"], state[f"{name}.bias"], False, 0.1, 1e-3)

    for b, spec in enumerate(config["encoder"]["jasper"]):
        name, y, before = f"encoder.encoder.{b}", x, lens
        k, s, d = spec["kernel"][0], spec["stride"][0], spec["dilation"][0]
        for j in range(spec["repeat"]):
            if spec.get("separable"):
                pad = d * (k - 1) // 2
                at = f"{name}.mconv.{5 * j}"
                y = conv(at, y, lens, padding=pad, stride=s, dilation=d, groups=y.shape[1])
                lens = (lens + 2 * pad - d * (k - 1) - 1) // s + 1
                y = norm(f"{name}.mconv.{5 * j + 2}", conv(f"{name}.mconv.{5 * j + 1}", y, lens))
            else:
                y = norm(f"{name}.mconv.{4 * j + 1}", conv(f"{name}.mconv.{4 * j}", y, lens))
            if j < spec["repeat"] - 1:
                y = F.relu(y)
        if spec["residual"]:
            y = y + norm(f"{name}.res.0.1", conv(f"{name}.res.0.0", x, before))
        x = F.relu(y)
    return x, lens


def write(path, config, state, mode="w", extra=()):
    weights = io.BytesIO()
    torch.save(state, weights)
    parts = [("./model_config.yaml", yaml.safe_dump(config).encode())]
    parts += [("./model_weights.ckpt", weights.getvalue())]
    with tarfile.open(path, mode) as archive:
        for name, data in parts:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_imported_quartznet_gives_nemos_logits_of_a_padded_batch(tmp_path, mode):
    config = quartznet()
    state = nemo_state(config)
    found = import_nemo(write(tmp_path / "q.nemo", config, state, mode))
    feats = torch.randn(3, 41, 7, generator=torch.Generator().manual_seed(1))
    lens = torch.tensor([41, 30, 7])
    hidden, want_lens = nemo_encoder(config, state, feats.transpose(1, 2), lens)
    weight, bias = (state[f"decoder.decoder_layers.0.{part}"] for part in ("weight", "bias"))
    want = F.conv1d(hidden, weight, bias).transpose(1, 2)
    with torch.no_grad():
        logits, got_lens = found.model(feats, lens)
    assert torch.equal(got_lens, want_lens)
    for got, other, n in zip(logits, want, want_lens, strict=True):
        torch.testing.assert_close(got[:n, 1:], other[:n, :-1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got[:n, 0], other[:n, -1], rtol=1e-4, atol=1e-4)  # the blank
    assert found.labels == tuple(LETTERS) and (found.features.kind, found.features.bins) == ("nemo_mel", 7)


def test_an_imported_matchboxnet_gives_nemos_logits(tmp_path):
    config = matchboxnet()
    state = nemo_state(config, outputs=3)
    found = import_nemo(write(tmp_path / "m.nemo", config, state))
    feats = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(1))
    hidden, _ = nemo_encoder(config, state, feats.transpose(1, 2), torch.tensor([50, 50]))
    weight, bias = (state[f"decoder.decoder_layers.0.{part}"] for part in ("weight", "bias"))
    with torch.no_grad():
        torch.testing.assert_close(
            found.model(feats), hidden.mean(2) @ weight.t() + bias, rtol=1e-4, atol=1e-4
        )
    assert found.labels == ("yes", "no", "up") and found.features.kind == "nemo_mfcc" and found.frames == 128


def test_checkpoints_without_masks_have_other_names_and_the_same_weights(tmp_path):
    config = quartznet()
    one = import_nemo(write(tmp_path / "a.nemo", config, nemo_state(config)))
    config["encoder"]["conv_mask"] = False
    two = import_nemo(write(tmp_path / "b.nemo", config, nemo_state(config, mask="")))
    for (name, a), (_, b) in zip(one.model.state_dict().items(), two.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("make", [quartznet, matchboxnet])
def test_the_command_packs_what_was_read(tmp_path, make):
    config = make()
    outputs = 5 if make is quartznet else 3
    path = write(tmp_path / "x.nemo", config, nemo_state(config, outputs=outputs))
    out = tmp_path / "x.packed"
    done = CliRunner().invoke(
        make_app(["import_nemo", "inspect"]), ["import-nemo", str(path), "--out", str(out), "--json"]
    )
    assert done.exit_code == 0, done.output
    packed = packed_format.read(out)
    assert json.loads(done.stdout)["bytes"] == out.stat().st_size
    assert packed.model == ("quartznet" if make is quartznet else "matchboxnet")
    again = build(packed.model, packed.config)
    again.load_state_dict({name: value for name, value in span_weights(out).items()})
    want = import_nemo(path).model.state_dict()
    assert all(torch.equal(value, want[name]) for name, value in again.state_dict().items())


def changed(**changes):
    config = quartznet()
    for place, value in changes.items():
        *path, last = place.split("__")
        table = config
        for key in path:
            table = table[int(key) if isinstance(table, list) else key]
        table[last] = value
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(target="a.EncDecRNNTModel"), "it holds a 'EncDecRNNTModel'"),
        (changed(encoder___target_="a.ConformerEncoder"), "encoder is a 'ConformerEncoder'"),
        (changed(encoder__jasper__1__se=True), "block 1 has se True"),
        (changed(encoder__jasper__2__future_context=3), "block 2 has future_context 3"),
        (changed(encoder__jasper__2__wings=3), "block 2 has the setting 'wings'"),
        (changed(encoder__jasper__0__kernel=[11]), "block 0 has repeat, residual"),
        (changed(encoder__jasper__1__residual=False), "block 1 is not residual"),
        (changed(encoder__activation="swish"), "activation is swish"),
        (changed(preprocessor__window_size=0.025), "window_size is 0.025, our features have 0.02"),
        (changed(encoder__feat_in=8), "makes 7 features, its encoder reads 8"),
        (changed(preprocessor__sparkle=1), "setting 'sparkle'"),
        (changed(preprocessor___target_="a.AudioToSpectrogram"), "preprocessor is a 'AudioToSpectrogram'"),
        (changed(labels=["a", "b", "c", "d"]), "space to part words"),
        (changed(labels="${nowhere}"), "does not name the labels"),
        ({"target": "a.EncDecCTCModel"}, "lacks or garbles a setting"),
    ],
)
def test_what_our_networks_have_not_is_refused_by_name(tmp_path, config, message):
    path = write(tmp_path / "x.nemo", config, nemo_state(quartznet()))
    with pytest.raises(ValueError, match=message) as error:
        import_nemo(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_unknown_missing_and_misshapen_layers_are_refused_by_name(tmp_path):
    config = quartznet()
    for change, message in [
        ({"encoder.encoder.1.se.weight": torch.zeros(3)}, "layer 'encoder.encoder.1.se.weight'"),
        ({"encoder.encoder.1.mconv.0.conv.weight": None}, "lacks encoder.encoder.1.mconv.0.weight"),
        ({"decoder.decoder_layers.0.bias": torch.zeros(9)}, r"output.bias is \(9,\), expected \(5,\)"),
    ]:
        state = {k: v for k, v in (nemo_state(config) | change).items() if v is not None}
        with pytest.raises(ValueError, match=message):
            import_nemo(write(tmp_path / "x.nemo", config, state))


def member(name, kind=tarfile.REGTYPE, size=0):
    found = tarfile.TarInfo(name)
    found.type, found.size, found.linkname = kind, size, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    return found


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (member("../../evil"), "'../../evil' climbs out"),
        (member("/etc/evil"), "climbs out"),
        (member("a\\..\\evil"), "climbs out"),
        (member("link", tarfile.SYMTYPE), "is a link or device"),
        (member("device", tarfile.CHRTYPE), "is a link or device"),
        (member("model_config.yaml"), "is there twice"),
    ],
)
def test_archives_that_reach_outside_are_refused(tmp_path, extra, message):
    config = quartznet()
    path = write(tmp_path / "x.nemo", config, nemo_state(config), extra=[extra])
    with pytest.raises(ValueError, match=message.replace("\\", "\\\\")):
        read_nemo(path)


def test_absurd_sizes_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "x.nemo"
    path.write_bytes(member("model_weights.ckpt", size=1 << 40).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match="would have 1,099,511,627,776 bytes"):
        read_nemo(path)
    path.write_bytes(member("model_config.yaml", size=1 << 23).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match="model_config.yaml would have 8,388,608 bytes"):
        read_nemo(path)


class Evil:
    """Unpickling it would make a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    config = quartznet()
    with pytest.raises(ValueError, match="more than tensors, which is never run"):
        read_nemo(write(tmp_path / "x.nemo", config, {"weight": Evil(tmp_path / "here")}))
    with pytest.raises(ValueError, match="no table of tensors"):
        read_nemo(write(tmp_path / "x.nemo", config, {"weight": 3}))
    assert not (tmp_path / "here").exists()


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "x.nemo"
    path.write_bytes(b"not a tar at all")
    with pytest.raises(ValueError, match="no NeMo checkpoint, or a damaged one"):
        read_nemo(path)
    with tarfile.open(path, "w"):
        pass
    with pytest.raises(ValueError, match="lacks model_config.yaml"):
        read_nemo(path)
    whole = write(tmp_path / "y.nemo", quartznet(), nemo_state(quartznet()), "w:gz").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_nemo(path)
    with pytest.raises(FileNotFoundError):
        read_nemo(tmp_path / "nothing.nemo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system ['true']", "no plain YAML"),
        ("- 1\n- 2", "holds no table"),
        ("a: ${b}\nb: ${a}", "refers to itself"),
    ],
)
def test_settings_are_plain_values(tmp_path, text, message):
    path = tmp_path / "x.nemo"
    with tarfile.open(path, "w") as archive:
        for name, data in (("model_config.yaml", text.encode()), ("model_weights.ckpt", b"")):
            found = tarfile.TarInfo(name)
            found.size = len(data)
            archive.addfile(found, io.BytesIO(data))
    with pytest.raises(ValueError, match=message):
        read_nemo(path)
