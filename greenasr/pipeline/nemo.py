"""NeMo's QuartzNet and MatchboxNet as ours: settings, names and features translated, everything else refused.

    encoder.encoder.B.mconv.(5 J + i).conv     block B, sub-block J: i = 0 depthwise, 1 pointwise, 2 norm,
                                               3 and 4 ReLU and dropout
    encoder.encoder.B.res.0.(0, 1)             its skip: pointwise, norm
    decoder.decoder_layers.0                   output; CTC's last row is blank, which is our first

EncDecCTCModel and EncDecClassificationModel of NeMo 1 and 2, whose blocks are `JasperBlock`s.  Without
``conv_mask`` the names lack ".conv"; the weights are the same, and padding is masked here in any case.  A
classifier of NeMo pads a clip with zero frames to a fixed length; ours takes the mean over true frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from greenasr.data.features import Features
from greenasr.data.text import Letters
from greenasr.models.quartznet import ENDS
from greenasr.pipeline.nemo_archive import read_nemo
from greenasr.pipeline.units import KeywordUnits, Labels
from greenasr.tasks.networks import build

IGNORED = ("preprocessor.", "spec_augment", "crop_or_pad", "loss.", "_loss.", "wer.", "_wer.", "_accuracy.")
PLAIN = {  # settings of a JasperBlock that our blocks have not: the values that make no difference
    "groups": 1,
    "heads": -1,
    "se": False,
    "residual_dense": False,
    "residual_mode": "add",
    "kernel_size_factor": 1.0,
    "future_context": -1,
    "quantize": False,
}


@dataclass(frozen=True, eq=False)
class Imported:
    """A network in evaluation mode, its features, and the labels of its outputs without the blank."""

    model: nn.Module
    kind: str
    features: Features
    labels: tuple[str, ...]
    frames: int  # a classifier's clips, 100 a second; 0 for a recogniser

    def to_json(self) -> dict[str, Any]:
        """What stands around the network, as its packed file keeps it."""
        if self.kind == "quartznet":
            return Labels(self.features, Letters(self.labels)).to_json()
        return KeywordUnits(self.features, self.labels, self.frames).to_json()


def import_nemo(path: str | Path) -> Imported:
    """Read a checkpoint of QuartzNet or MatchboxNet.

    Raises ValueError as `read_nemo` does, and for networks, layers, features and labels that are not ours,
    by their name.
    """
    config, tensors = read_nemo(path)
    try:
        kind = _kind(config)
        blocks = _blocks(config)
        labels = _labels(config, kind)
        settings = (_quartznet if kind == "quartznet" else _matchboxnet)(blocks, config, len(labels))
        features = _features(config, settings["feat_dim"])
        model = build(kind, settings)
        model.load_state_dict(_state(model, kind, blocks, tensors))
        frames = _frames(config) if kind == "matchboxnet" else 0
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{path}: its model_config.yaml lacks or garbles a setting ({error!r}): export the model again."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    return Imported(model.eval(), kind, features, labels, frames)


def _kind(config: Mapping[str, Any]) -> str:
    """Which of our networks a checkpoint holds."""
    target = str(config.get("target", "")) or str(config["decoder"].get("_target_", ""))
    name = target.rpartition(".")[2]
    kinds = {
        "EncDecCTCModel": "quartznet",
        "ConvASRDecoder": "quartznet",
        "EncDecClassificationModel": "matchboxnet",
        "ConvASRDecoderClassification": "matchboxnet",
    }
    if name not in kinds:
        raise ValueError(
            f"it holds a '{name or 'model without a target'}': EncDecCTCModel (QuartzNet) and "
            "EncDecClassificationModel (MatchboxNet) can be read."
        )
    encoder = str(config["encoder"].get("_target_", "ConvASREncoder")).rpartition(".")[2]
    if encoder != "ConvASREncoder":
        raise ValueError(f"its encoder is a '{encoder}': ConvASREncoder can be read.")
    return kinds[name]


@dataclass(frozen=True)
class _Block:
    """What matters of one of NeMo's blocks."""

    filters: int
    repeat: int
    kernel: int
    stride: int
    dilation: int
    dropout: float
    residual: bool
    separable: bool


def _blocks(config: Mapping[str, Any]) -> list[_Block]:
    """The encoder's blocks; ValueError for whatever our blocks do not have, by its name."""
    encoder = config["encoder"]
    for name, ours in (("activation", "relu"), ("normalization_mode", "batch"), ("frame_splicing", 1)):
        if encoder.get(name, ours) != ours:
            raise ValueError(f"the encoder's {name} is {encoder[name]}, {ours} can be read.")
    known = {"filters", "repeat", "kernel", "stride", "dilation", "dropout", "residual", "separable"}
    ignored = {"se_reduction_ratio", "se_context_size", "se_interpolation_mode", "stride_last", *PLAIN}
    found = []
    for i, block in enumerate(encoder["jasper"]):
        if odd := sorted(set(block) - known - ignored):
            raise ValueError(f"block {i} has the setting '{odd[0]}', which is unknown here.")
        for name, plain in PLAIN.items():
            if block.get(name, plain) != plain:
                raise ValueError(f"block {i} has {name} {block[name]}, {plain} can be read.")
        kernel, stride, dilation = (_one(block[name]) for name in ("kernel", "stride", "dilation"))
        residual, separable = bool(block["residual"]), bool(block.get("separable", False))
        sizes = int(block["filters"]), int(block["repeat"])
        found.append(_Block(*sizes, kernel, stride, dilation, float(block["dropout"]), residual, separable))
    return found


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)


def _edges(blocks: Sequence[_Block], first: tuple[int, int], last: tuple[int, int]) -> Sequence[_Block]:
    """The residual blocks between a prologue and an epilogue of (taps, dilation)."""
    if len(blocks) < 4:
        raise ValueError(f"its encoder has {len(blocks)} blocks: prologue, one or more, and two are needed.")
    wanted = [(0, True, first), (len(blocks) - 2, True, last), (len(blocks) - 1, False, (1, 1))]
    for i, separable, (kernel, dilation) in wanted:
        b = blocks[i]
        found = (b.repeat, b.residual, b.separable, b.kernel, b.dilation)
        if found != (1, False, separable, kernel, dilation):
            raise ValueError(
                f"block {i} has repeat, residual, separable, kernel and dilation {found}; in this network "
                f"they are {(1, False, separable, kernel, dilation)}."
            )
    middle = blocks[1:-2]
    for i, b in enumerate(blocks):
        inner = 0 < i < len(blocks) - 2
        if (inner and (not b.residual or not b.separable or b.dilation != 1)) or (i and b.stride != 1):
            raise ValueError(f"block {i} is not residual and separable with stride and dilation 1: {b}.")
    if len({b.repeat for b in middle}) > 1 or len({b.dropout for b in blocks}) > 1:
        raise ValueError("its blocks differ in repeat or dropout: they have one of each here.")
    return middle


def _quartznet(blocks: Sequence[_Block], config: Mapping[str, Any], labels: int) -> dict[str, Any]:
    middle = _edges(blocks, (ENDS[0], 1), (ENDS[1], 2))
    return {
        "feat_dim": int(config["encoder"]["feat_in"]),
        "vocab": labels + 1,
        "blocks": len(middle),
        "repeat": middle[0].repeat,
        "width": blocks[0].filters,
        "kernels": [b.kernel for b in middle],
        "widths": [b.filters for b in middle],
        "epilogue": [b.filters for b in blocks[-2:]],
        "stride": blocks[0].stride,
        "dropout": blocks[0].dropout,
    }


def _matchboxnet(blocks: Sequence[_Block], config: Mapping[str, Any], labels: int) -> dict[str, Any]:
    middle = _edges(blocks, (11, 1), (29, 2))
    edges = [b.filters for b in (blocks[0], *blocks[-2:])]
    if len({b.filters for b in middle}) > 1 or len(set(edges)) > 1 or blocks[0].stride != 1:
        raise ValueError(
            f"its blocks have {[b.filters for b in blocks]} filters: not those of a MatchboxNet."
        )
    if config["decoder"].get("pooling_type", "avg") != "avg":
        raise ValueError(f"it pools by '{config['decoder']['pooling_type']}', 'avg' can be read.")
    return {
        "feat_dim": int(config["encoder"]["feat_in"]),
        "classes": labels,
        "blocks": len(middle),
        "repeat": middle[0].repeat,
        "width": middle[0].filters,
        "edge": edges[0],
        "kernels": [b.kernel for b in middle],
        "dropout": blocks[0].dropout,
    }


def _labels(config: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """What the outputs stand for, the blank apart."""
    decoder = config["decoder"]
    found = decoder.get("vocabulary") or config.get("labels") or decoder.get("labels")
    if not isinstance(found, list) or not found or not all(isinstance(label, str) for label in found):
        raise ValueError("model_config.yaml does not name the labels of its outputs as a list of texts.")
    if kind == "quartznet":
        Letters(tuple(found))
        if odd := [label for label in found if len(label) != 1]:
            raise ValueError(f"label '{odd[0]}' is no letter: networks of letters can be read.")
    return tuple(found)


def _features(config: Mapping[str, Any], feat_dim: int) -> Features:
    """The front end; ValueError for settings that ours has not."""
    given = dict(config["preprocessor"])
    name = str(given.pop("_target_", None) or given.pop("cls", "")).rpartition(".")[2]
    both: dict[str, Any] = {
        "sample_rate": 16000,
        "window_stride": 0.01,
        "n_window_size": None,
        "n_window_stride": None,
    }
    both |= {"window": "hann", "n_fft": 512, "lowfreq": (0, 0.0), "highfreq": (None, 8000), "log": True}
    if name == "AudioToMelSpectrogramPreprocessor":
        kind, cmvn, size = "nemo_mel", "deviation", "features"
        wanted = both | {"window_size": 0.02, "normalize": "per_feature", "preemph": 0.97}
        wanted |= {"log_zero_guard_type": "add", "log_zero_guard_value": 2**-24, "frame_splicing": 1}
        wanted |= {"exact_pad": False, "mag_power": 2.0, "mel_norm": "slaney", "use_torchaudio": False}
        free = {"dither", "pad_to", "pad_value", "nb_augmentation_prob", "nb_max_freq", "rng", "params"}
        free |= {"stft_conv", "stft_exact_pad"}
    elif name == "AudioToMFCCPreprocessor":
        kind, cmvn, size = "nemo_mfcc", "none", "n_mfcc"
        wanted = both | {"window_size": 0.025, "dct_type": 2, "norm": "ortho", "n_mels": feat_dim}
        free = set()
    else:
        raise ValueError(
            f"its preprocessor is a '{name}': AudioToMelSpectrogramPreprocessor and AudioToMFCCPreprocessor "
            "can be read."
        )
    bins = int(given.pop(size, 64))
    for setting, value in given.items():
        if setting in free:
            continue
        if setting not in wanted:
            raise ValueError(f"its preprocessor has the setting '{setting}', which is unknown here.")
        fine = wanted[setting] if isinstance(wanted[setting], tuple) else (wanted[setting],)
        if value not in fine:
            raise ValueError(f"its preprocessor's {setting} is {value}, our features have {fine[0]}.")
    if bins != feat_dim:
        raise ValueError(f"its preprocessor makes {bins} features, its encoder reads {feat_dim}.")
    return Features(kind, bins, cmvn)  # type: ignore[arg-type]


def _frames(config: Mapping[str, Any]) -> int:
    """How many frames a classifier's clips have."""
    pad = config.get("crop_or_pad_augment") or {}
    return int(pad.get("audio_length") or config.get("timesteps") or 128)


def _state(
    model: nn.Module, kind: str, blocks: Sequence[_Block], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Our ``state_dict``; ValueError for tensors of NeMo's that have no place in it, by their name."""
    names = ["prologue", *(f"blocks.{i}" for i in range(len(blocks) - 3)), "epilogue.0", "epilogue.1"]
    found: dict[str, Tensor] = {}
    taken: set[str] = set()

    def take(theirs: str, ours: str, part: str) -> None:
        for name in (f"{theirs}.conv.{part}", f"{theirs}.{part}"):
            if name in tensors:
                taken.add(name)
                found[f"{ours}.{part}"] = tensors[name]
                return
        raise ValueError(f"the checkpoint lacks {theirs}.{part}, which its configuration wants.")

    def take_norm(theirs: str, ours: str) -> None:
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            take(theirs, f"{ours}.norm", part)

    for i, (block, ours) in enumerate(zip(blocks, names, strict=True)):
        theirs = f"encoder.encoder.{i}"
        layers = 5 if block.separable else 4
        for j in range(block.repeat):
            at, sub = layers * j, f"{ours}.subs.{j}"
            if block.separable:
                take(f"{theirs}.mconv.{at}", f"{sub}.depthwise", "weight")
                at += 1
            take(f"{theirs}.mconv.{at}", f"{sub}.pointwise", "weight")
            take_norm(f"{theirs}.mconv.{at + 1}", sub)
        if block.residual:
            take(f"{theirs}.res.0.0", f"{ours}.skip.pointwise", "weight")
            take_norm(f"{theirs}.res.0.1", f"{ours}.skip")
    for part in ("weight", "bias"):
        take("decoder.decoder_layers.0", "output", part)
    if odd := [n for n in tensors if n not in taken and not n.startswith(IGNORED)]:
        raise ValueError(f"the checkpoint has the layer '{odd[0]}', which our network has not.")
    own = model.state_dict()
    for name, value in found.items():
        if name.endswith(("pointwise.weight", "output.weight")) and value.dim() == 3 and value.shape[2] == 1:
            value = value[:, :, 0]
        if kind == "quartznet" and name.startswith("output."):
            value = value.roll(1, 0)  # the blank comes first
        if value.shape != own[name].shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, expected {tuple(own[name].shape)}.")
        found[name] = value.to(own[name].dtype)
    return found
