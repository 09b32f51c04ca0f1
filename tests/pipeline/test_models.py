"""A model read from its file is the model that was saved; another kind of file is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training, fit_
from greenasr.data.text import Vocabulary
from greenasr.pipeline.lm import make_task
from greenasr.pipeline.models import load, save, span_weights
from greenasr.pipeline.recipe import Windows
from greenasr.roles import BitMap
from greenasr.runtime.pack import pack
from greenasr.tasks.networks import LANGUAGE_MODELS, build

SENTENCES = [["turn", "the", "light", "on"], ["call", "mum"]] * 20
VOCABULARY = Vocabulary.from_sentences(SENTENCES)
SHAPES = {
    "transformer": {"layers": 1, "dim": 8, "heads": 2, "hidden": 16, "context": 8},
    "lstm": {"layers": 1, "dim": 8},
}


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_float_model_comes_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    model = build(kind, {**SHAPES[kind], "vocab": VOCABULARY.size}).eval()
    assert save(tmp_path / "m", model, VOCABULARY, {"windows": {}}) == (tmp_path / "m").stat().st_size
    read = load(tmp_path / "m")
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(read.model(ids)[0], model(ids)[0])
    assert read.tokenizer == VOCABULARY and read.bit_map is None


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_quantized_model_comes_back_with_its_plan_and_grid_weights(kind: str, tmp_path: Path) -> None:
    model = build(kind, {**SHAPES[kind], "vocab": VOCABULARY.size})
    plan = BitMap.uniform(make_clusters(model), 2)
    task = make_task(VOCABULARY, Windows(8, 4, 4), {"train": SENTENCES})
    quantized = fit_(model, task, COMPRESSORS["bp"](plan), Training(epochs=0.2))
    save(tmp_path / "m", model, VOCABULARY, {}, quantized, plan)
    read = load(tmp_path / "m")
    assert read.bit_map == plan
    spans = span_weights(tmp_path / "m")
    for key, value in quantized.items():
        assert torch.equal(spans[key], value.dequantize())
        assert torch.equal(read.model.state_dict()[key.split("[")[0]].flatten(1), value.dequantize())


def test_a_packed_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    pack(tmp_path / "other", "tdnnf", {}, {"w": torch.ones(2, 2)}, {}, None, {}, {})
    with pytest.raises(ValueError, match="other: a packed file, but no language model .*'tdnnf'"):
        load(tmp_path / "other")
