"""ONNX from the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from greenasr.decode.wfst import Decoder
from greenasr.pipeline import engines
from greenasr.pipeline.transcribe import load_recogniser


def test_a_hybrid_model_says_the_same_words_in_onnx_runtime(
    tones: Path, tmp_path: Path, greenasr: Callable[..., Any], hum: Callable[..., NDArray[np.float32]]
) -> None:
    found = greenasr("export", tones / "model.packed", "--onnx", tmp_path / "onnx", "--json").json
    assert found["bytes"] == {"model.onnx": (tmp_path / "onnx" / "model.onnx").stat().st_size}
    run = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx")).run
    for engine in engines.ENGINES:
        ours = load_recogniser(tones / "model.packed", arpa=tones / "lm.arpa", engine=engine)
        decoder: Decoder = ours.decoder
        for said in (["LOW", "HIGH"], ["HIGH", "LOW"]):
            feats = ours.features(hum(*said))
            (logits,) = run(None, {"feats": feats[None]})
            best = decoder.best(logits[0])
            assert best.words == tuple(said) == ours.hear(feats)[0][0].words
            assert best.word_times == ours.hear(feats)[0][0].word_times


def test_without_the_package_onnx_one_line_says_so(tones: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['onnx'] = None; from greenasr.cli.app import main; main(sys.argv[1:])"
    given = ["export", str(tones / "model.packed"), "--onnx", str(tmp_path / "onnx")]
    found = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert found.returncode == 2 and "pip install greenasr[export]" in found.stderr


def test_a_network_that_has_no_onnx_is_refused(tmp_path: Path, greenasr: Callable[..., Any]) -> None:
    (tmp_path / "x").write_text("nothing")
    assert "not a packed model" in greenasr("export", tmp_path / "x", "--onnx", tmp_path / "o").err
