"""An acoustic model's file gives back network, features, pdfs and lexicon; other files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from greenasr.compress.clusters import make_clusters
from greenasr.compress.compressors import COMPRESSORS
from greenasr.compress.fit import Training, fit_
from greenasr.data.features import Features
from greenasr.data.lexicon import Lexicon
from greenasr.decode.context import PdfMap
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig
from greenasr.models.transformer_lm import TransformerConfig, TransformerLM
from greenasr.pipeline.acoustic_models import load_acoustic, save_acoustic
from greenasr.pipeline.models import load
from greenasr.pipeline.units import Units
from greenasr.roles import BitMap
from greenasr.runtime.pack import pack

LEXICON = Lexicon({"go": (("A", "B"), ("B",)), "stop": (("C",),)})
UNITS = Units(Features("mfcc", 6, "speaker"), PdfMap.monophone(LEXICON.phones), LEXICON)
STEPS = ("cluster", "row")


class Nothing:
    """A task without data: quantization alone."""

    def loss(self, model: object, batch: object) -> torch.Tensor:
        return torch.zeros(())

    def batches(self, split: str, seed: int = 0):  # type: ignore[no-untyped-def]
        return iter(())

    def n_batches(self, split: str) -> int:
        return 0


def network(ivectors: int = 0) -> Tdnnf:
    """Every weight drawn, the outputs too; two pdfs that nothing trained have rows of zeros."""
    shape = {"layers": 2, "dim": 12, "bottleneck": (3, 4), "prefinal": 5, "strides": (1, 3), "xent": False}
    model = Tdnnf(TdnnfConfig(6, UNITS.pdf_map.n_pdfs, ivectors, **shape))  # type: ignore[arg-type]
    torch.nn.init.normal_(model.output.weight)
    with torch.no_grad():
        model.output.weight[-2:] = 0
    return model.eval()


def logits(model: Tdnnf) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    feats = torch.randn(2, 20, 6, generator=draw)
    n = model.config.ivector_dim
    ivectors = torch.randn(2, n, generator=draw) if n else None
    with torch.no_grad():
        found: torch.Tensor = model(feats, torch.tensor([20, 14]), ivectors)[0]
    return found


@pytest.mark.parametrize("ivectors", [0, 3])
def test_a_full_precision_model_comes_back_bit_for_bit(tmp_path: Path, ivectors: int) -> None:
    model, path = network(ivectors), tmp_path / "model.packed"
    size = save_acoustic(path, model, UNITS, {"title": "T"})
    saved = load_acoustic(path)
    assert size == path.stat().st_size
    assert saved.model.config == model.config and saved.bit_map is None and saved.recipe == {"title": "T"}
    state = saved.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(logits(saved.model), logits(model))
    units = saved.units
    assert units.features == UNITS.features and units.lexicon == LEXICON
    assert (units.pdf_map.table == UNITS.pdf_map.table).all() and units.pdf_map.phones == LEXICON.phones


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_quantized_model_comes_back_bit_for_bit_and_untrained_pdfs_are_no_nan(
    tmp_path: Path, bits: int, step: str
) -> None:
    model, path = network(), tmp_path / "model.packed"
    bit_map = BitMap.uniform(make_clusters(model, "layer"), bits, step)
    quantized = fit_(model, Nothing(), COMPRESSORS["none"](bit_map), Training(epochs=0))
    save_acoustic(path, model, UNITS, {}, quantized, bit_map)
    saved = load_acoustic(path)
    assert saved.bit_map is not None and dict(saved.bit_map.bits) == dict(bit_map.bits)
    assert torch.equal(logits(saved.model), logits(model))
    assert bool(logits(saved.model).isfinite().all())
    if bits > 1:
        assert not saved.model.output.weight[-2:].any(), "a row of zeros stays one"


def test_fewer_bits_are_a_smaller_file(tmp_path: Path) -> None:
    sizes = []
    for bits in (16, 8, 4, 2):
        model = network()
        bit_map = BitMap.uniform(make_clusters(model, "layer"), bits, "cluster")
        quantized = fit_(model, Nothing(), COMPRESSORS["none"](bit_map), Training(epochs=0))
        sizes.append(save_acoustic(tmp_path / f"{bits}.packed", model, UNITS, {}, quantized, bit_map))
    assert sizes == sorted(sizes, reverse=True)


def language_model(path: Path) -> Path:
    model = TransformerLM(TransformerConfig(vocab=5, layers=1, dim=8, heads=2, hidden=8))
    pack(path, "transformer", model.to_config(), model.state_dict(), {}, None, {"words": ["a"]}, {})
    return path


def test_a_language_model_is_refused_and_an_acoustic_one_is_no_language_model(tmp_path: Path) -> None:
    path = language_model(tmp_path / "lm.packed")
    with pytest.raises(
        ValueError, match=r"lm\.packed: a packed file, but no acoustic model \(the network is a 'transformer'"
    ):
        load_acoustic(path)
    acoustic = tmp_path / "am.packed"
    save_acoustic(acoustic, network(), UNITS, {})
    with pytest.raises(ValueError, match=r"am\.packed: "):
        load(acoustic)


def test_another_network_with_units_is_refused(tmp_path: Path) -> None:
    model = TransformerLM(TransformerConfig(vocab=5, layers=1, dim=8, heads=2, hidden=8))
    path = tmp_path / "odd.packed"
    pack(path, "transformer", model.to_config(), model.state_dict(), {}, None, UNITS.to_json(), {})
    with pytest.raises(ValueError, match=r"odd\.packed: .*the network is a 'transformer'"):
        load_acoustic(path)


def test_a_file_cut_short_or_altered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.packed"
    save_acoustic(path, network(), UNITS, {})
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], whole[:-9] + b"x" + whole[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.packed: "):
            load_acoustic(path)
