"""Scores of the runtime are those of torch, sentence by sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from greenasr.data.text import Vocabulary
from greenasr.data.token_rows import sentences
from greenasr.pipeline import engines
from greenasr.pipeline.models import save
from greenasr.runtime import engine, scoring
from greenasr.runtime.pointwise import log_softmax

Made = Callable[..., Any]


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_scores_are_the_log_softmax_at_the_targets(made: Made, kind: str) -> None:
    network: Any = engine.build(made(kind)[0])
    rows = [[3, 4], [5, 6, 7, 8, 9], list(range(10, 20))] * 40
    for (inputs, targets), _ in sentences(rows, 0, 600):
        found = scoring.logprobs(network, inputs, targets)
        for n, t in np.ndindex(*targets.shape):
            wanted = 0.0
            if targets[n, t] >= 0:
                hidden, _ = network.hidden(inputs[n : n + 1, : t + 1])
                wanted = log_softmax(network.logits(hidden[:, -1]))[0, targets[n, t]]
            assert found[n, t] == pytest.approx(wanted, abs=1e-4)
        break


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_both_engines_score_hypotheses_alike(made: Made, kind: str, tmp_path: Any) -> None:
    words = ("<eos>", "<unk>", *(f"w{i}" for i in range(48)))
    model = made(kind, None)[1]
    save(tmp_path / "lm.packed", model, Vocabulary(words), {"windows": {"length": 6, "stride": 3}})
    said = [["w1", "w2", "new"], [], ["w5"] * 11]
    found = [engines.language_model(tmp_path / "lm.packed", name) for name in engines.ENGINES]
    for a, b in zip(*(each.hypothesis_logprobs(said) for each in found), strict=True):
        assert_allclose(a, b, atol=2e-5)
    with pytest.raises(ValueError, match=r"no transducer \(the network is a '.*'\): give one that"):
        engines.transducer(tmp_path / "lm.packed", engines.read(tmp_path / "lm.packed"))
