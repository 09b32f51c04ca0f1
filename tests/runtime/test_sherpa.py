"""The real sherpa-onnx says what we say, of sound, from exported models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sherpa_onnx
import torch
from numpy.typing import NDArray

from greenasr.data.features import Features
from greenasr.data.text import Vocabulary
from greenasr.decode import ctc
from greenasr.decode.transducer import Greedy, decode_transducer
from greenasr.models.quartznet import QuartzNet, QuartzNetConfig
from greenasr.pipeline import engines
from greenasr.pipeline.models import save
from greenasr.pipeline.units import Labels
from greenasr.runtime import engine, format, onnx_export

Hum = Callable[..., NDArray[np.float32]]
SAID = [["LOW"], ["HIGH", "LOW"], ["LOW", "LOW", "HIGH", "HIGH"]]


def sound_of(words: list[str], hum: Hum) -> NDArray[np.float32]:
    return hum(0.3, *(part for word in words for part in (word, 0.3)))


def said(recogniser: Any, sound: NDArray[np.float32]) -> list[str]:
    stream = recogniser.create_stream()
    stream.accept_waveform(16_000, sound)
    recogniser.decode_stream(stream)
    return str(stream.result.text).split()


def test_a_transducer_says_the_same_words(tones_transducer: Path, tmp_path: Path, hum: Hum) -> None:
    onnx_export.write(format.read(tones_transducer), tmp_path)
    files = {name: str(tmp_path / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")}
    files["tokens"] = str(tmp_path / "tokens.txt")
    greedy, beam = (
        sherpa_onnx.OfflineRecognizer.from_transducer(**files, feature_dim=16, decoding_method=method)
        for method in ("greedy_search", "modified_beam_search")
    )
    network, units = engines.transducer(tones_transducer, engines.read(tones_transducer))
    for words in SAID:
        sound = sound_of(words, hum)
        ((best,),) = decode_transducer(network, units.features(sound)[None], search=Greedy(1))
        ours = units.tokenizer.words_of([label - 1 for label in best.labels])
        assert said(greedy, sound) == ours and ours
    assert said(beam, sound_of(["HIGH", "LOW"], hum)) == ["HIGH", "LOW"]


@pytest.fixture
def tones_ctc(tmp_path: Path, hum: Hum) -> Path:
    """A packed QuartzNet that hears LOW and HIGH: random but for its last layer, fitted to tones."""
    units = Labels(Features(bins=16), Vocabulary(("<eos>", "LOW", "HIGH", "<unk>")))
    torch.manual_seed(0)
    model = QuartzNet(QuartzNetConfig(16, 5, blocks=1, repeat=2, width=32)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "depthwise" in name:  # frames by themselves: nothing said can be far from where it is heard
                weight.zero_()[:, 0, weight.shape[2] // 2] = 1
        parts = ["LOW", 0.5, "HIGH", "LOW", 0.5, "HIGH", 0.5, 0.5, "HIGH"]
        feats = torch.from_numpy(units.features(hum(*parts)))
        hidden: list[torch.Tensor] = []
        hook = model.output.register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
        model(feats[None])
        hook.remove()
        at = torch.tensor([{"LOW": 2, "HIGH": 3}.get(str(part), 0) for part in parts])
        wanted = 12.0 * torch.nn.functional.one_hot(at[torch.arange(len(hidden[0])) * 2 // 50], 5)
        inputs = torch.cat([hidden[0], torch.ones(len(hidden[0]), 1)], 1)
        solved = torch.linalg.lstsq(inputs, wanted.float(), driver="gelsd").solution
        model.output.weight.copy_(solved[:-1].T)
        model.output.bias.copy_(solved[-1])
    save(tmp_path / "ctc.packed", model, units, {})
    return tmp_path / "ctc.packed"


def test_a_ctc_network_says_the_same_words(tones_ctc: Path, tmp_path: Path, hum: Hum) -> None:
    packed = format.read(tones_ctc)
    onnx_export.write(packed, tmp_path / "onnx")
    recogniser = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        str(tmp_path / "onnx" / "model.onnx"), str(tmp_path / "onnx" / "tokens.txt"), feature_dim=16
    )
    units, network = Labels.from_json(packed.tokenizer), engine.build(packed)
    for words in SAID:
        sound = sound_of(words, hum)
        labels = ctc.greedy(network.logits(units.features(sound))).labels  # type: ignore[union-attr]
        assert said(recogniser, sound) == units.tokenizer.words_of([i - 1 for i in labels]) == words
