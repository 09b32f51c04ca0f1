"""What every test shares: one thread, a fixed draw, the commands, and a recogniser of two tones."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Called:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_draws() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def greenasr() -> Callable[..., Called]:
    """The command line, called in this process."""
    from greenasr.cli.app import main

    def call(*arguments: str | Path) -> Called:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            main([str(argument) for argument in arguments])
        return Called(int(end.value.code or 0), out.getvalue(), err.getvalue())

    return call


LOW, HIGH = 500.0, 2_000.0  # Hz of the words LOW and HIGH


@pytest.fixture(scope="session")
def hum() -> Callable[..., NDArray[np.float32]]:
    """``hum("LOW", 0.5, "HIGH")``: half a second a tone, seconds of quiet, (n,) at ``rate``."""

    def make(*parts: str | float, rate: int = 16_000) -> NDArray[np.float32]:
        rng = np.random.default_rng(0)
        sounds = []
        for part in parts:
            seconds = 0.5 if isinstance(part, str) else part
            time = np.arange(round(seconds * rate)) / rate
            hz = {"LOW": LOW, "HIGH": HIGH}.get(part) if isinstance(part, str) else None
            tone = 0.3 * np.sin(2 * np.pi * hz * time) if hz else np.zeros(len(time))
            sounds.append(tone + 1e-3 * rng.standard_normal(len(time)))
        return np.concatenate(sounds).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory, hum: Callable[..., NDArray[np.float32]]) -> Path:
    """A folder with model.packed, which hears the words LOW and HIGH in tones, and lm.arpa.

    The network is random but for its last layer, which is fitted to four seconds of tones by least squares.
    """
    from greenasr.data.features import Features
    from greenasr.data.lexicon import Lexicon
    from greenasr.decode.arpa import write_arpa
    from greenasr.decode.context import PdfMap
    from greenasr.decode.kneser_ney import kneser_ney
    from greenasr.models.tdnnf import Tdnnf, TdnnfConfig
    from greenasr.pipeline.acoustic_models import save_acoustic
    from greenasr.pipeline.units import Units

    folder = tmp_path_factory.mktemp("tones")
    lexicon = Lexicon({"LOW": (("l",),), "HIGH": (("h",),)})
    pdf_map = PdfMap.monophone(lexicon.phones)
    features = Features(bins=16, cmvn="none")
    torch.manual_seed(0)
    config = TdnnfConfig(16, pdf_map.n_pdfs, layers=1, dim=48, bottleneck=16, strides=(0,), prefinal=32)
    model = Tdnnf(config).eval()
    said = ["LOW", 0.5, "HIGH", "LOW", 0.5, "HIGH", 0.5, 0.5]
    phone = [lexicon.phones.index({"LOW": "l", "HIGH": "h"}.get(str(part), "SIL")) for part in said]
    with torch.no_grad():
        feats = torch.from_numpy(features.raw(hum(*said)))
        hidden = model.chain(model.hidden(feats[None], None, None)[0])
        at = torch.tensor(phone)[(torch.arange(len(hidden)) * 3 // 50)]
        wanted = 20.0 * torch.nn.functional.one_hot(at, len(lexicon.phones)).repeat_interleave(2, 1)
        ones = torch.ones(len(hidden), 1)
        solved = torch.linalg.lstsq(torch.cat([hidden, ones], 1), wanted, driver="gelsd").solution
        model.output.weight.copy_(solved[:-1].T)
        model.output.bias.copy_(solved[-1])
    save_acoustic(folder / "model.packed", model.without_xent(), Units(features, pdf_map, lexicon), {})
    text = [["LOW", "HIGH"], ["HIGH"], ["LOW"], ["HIGH", "LOW"], []]
    write_arpa(kneser_ney(text, order=2).lm, folder / "lm.arpa")
    return folder


@pytest.fixture(scope="session")
def tones_transducer(
    tmp_path_factory: pytest.TempPathFactory, hum: Callable[..., NDArray[np.float32]]
) -> Path:
    """A packed transducer that streams and hears the words LOW and HIGH: trained for two seconds on tones."""
    from greenasr.data.features import Features
    from greenasr.data.text import Vocabulary
    from greenasr.models.rnnt import Rnnt, RnntConfig
    from greenasr.ops.transducer import rnnt_loss
    from greenasr.pipeline.models import save
    from greenasr.pipeline.units import Labels

    units = Labels(Features(bins=16, cmvn="running"), Vocabulary(("<eos>", "LOW", "HIGH", "<unk>")))
    feats, labels = lessons(hum, units)
    torch.manual_seed(0)
    shape = {"encoder_dim": 32, "predictor_dim": 8, "embedding_dim": 4, "joint_dim": 24}
    model = Rnnt(RnntConfig(16, 5, encoder_layers=1, predictor_layers=1, dropout=0.0, **shape))  # type: ignore[arg-type]
    first: Any = model.encoder.layers[0]
    frames = torch.cat(feats)
    with torch.no_grad():  # as `pipeline.transducer.network`: gates that begin in saturation hardly learn
        first.input.weight /= frames.std(0).repeat(4)
        first.input.bias -= first.input.weight @ frames.mean(0).repeat(4)
    batch, padded = (torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in (feats, labels))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(150):
        enc, lens, pred = model(batch, torch.tensor([len(each) for each in feats]), padded)
        logits = model.joint(enc[:, :, None], pred[:, None])
        loss = rnnt_loss(logits, padded, lens, torch.tensor([len(each) for each in labels]), blank=0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("tones-transducer") / "model.packed"
    save(path, model, units, {})
    return path


def lessons(hum: Callable[..., NDArray[np.float32]], units: Any) -> tuple[list[Any], list[Any]]:
    """Features (T, F) of 24 sayings of LOW and HIGH, and their labels (U,)."""
    texts = "LOW;HIGH;LOW HIGH;HIGH LOW;LOW LOW;HIGH HIGH;LOW HIGH HIGH LOW;HIGH LOW LOW HIGH".split(";")
    draw, feats, labels = np.random.default_rng(0), [], []
    for words in [text.split() for text in 3 * texts]:
        gaps = [float(gap) for gap in draw.uniform(0.15, 0.5, len(words))]
        said = [part for word, gap in zip(words, gaps, strict=True) for part in (word, gap)]
        feats.append(torch.from_numpy(units.features(hum(float(draw.uniform(0.1, 0.4)), *said))))
        labels.append(torch.tensor([1 + i for ids in units.tokenizer.word_ids(words) for i in ids]))
    return feats, labels


@pytest.fixture(scope="session")
def tones_ctc(tmp_path_factory: pytest.TempPathFactory, hum: Callable[..., NDArray[np.float32]]) -> Path:
    """A packed QuartzNet that spells the words LOW and HIGH, with generated ternary weights inside."""
    from greenasr.data.features import Features
    from greenasr.data.text import WordPieces
    from greenasr.models.quartznet import QuartzNet, QuartzNetConfig
    from greenasr.ops.ctc import ctc_loss
    from greenasr.pipeline.models import save
    from greenasr.pipeline.units import Labels

    letters = WordPieces.train([["LOW", "HIGH"]], 20, kind="char")
    units = Labels(Features(bins=16, cmvn="utterance"), letters)
    feats, labels = lessons(hum, units)
    torch.manual_seed(0)
    shape = {"blocks": 1, "repeat": 1, "width": 24, "kernels": (9,), "widths": (24,), "epilogue": (24, 32)}
    ternary = {"threshold": 0.5}
    config = QuartzNetConfig(16, letters.size + 1, stride=4, ternary=ternary, **shape)  # type: ignore[arg-type]
    model = QuartzNet(config)
    batch, padded = (torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in (feats, labels))
    feat_lens, lens = (torch.tensor([len(each) for each in rows]) for rows in (feats, labels))
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=2e-2)
    for _ in range(100):
        logits, frames = model(batch, feat_lens)
        loss = ctc_loss(logits.log_softmax(2), padded, frames, lens).sum() / lens.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("tones-ctc") / "model.packed"
    save(path, model.eval(), units, {})
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
