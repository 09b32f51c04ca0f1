"""Language models of the runtime as scorers: ln p of given tokens, without a (tokens, vocabulary) table.

ln p(y | past) = z_y - ln Σ_v e^{z_v}
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenasr.data.token_rows import IGNORE
from greenasr.runtime.kernels import native
from greenasr.runtime.linear import in_kernels
from greenasr.runtime.lstm_lm import LstmLm
from greenasr.runtime.pointwise import Floats
from greenasr.runtime.transformer_lm import TransformerLm

Ids = NDArray[np.integer[Any]]
AT_ONCE = 256  # tokens whose logits are held


def logprobs(network: TransformerLm | LstmLm, inputs: Ids, targets: Ids) -> Floats:
    """Natural log-probability of every target, (N, T); 0 where there is none."""
    hidden, _ = network.hidden(inputs)
    keep = targets != IGNORE
    wanted, rows = targets[keep], hidden[keep]
    found = np.empty(len(rows), np.float32)
    output = network.output
    if (maps := in_kernels(output)) is not None:
        chosen = np.ascontiguousarray(wanted[:, None], np.int32)
        ((weight, bias),) = maps
        found = native.vocabulary(np.ascontiguousarray(rows), weight, chosen, bias)[0][:, 0]
        rows = rows[:0]
    for at in range(0, len(rows), AT_ONCE):
        logits = network.logits(rows[at : at + AT_ONCE])
        chosen = logits[np.arange(len(logits)), wanted[at : at + AT_ONCE]]
        top = logits.max(1)
        found[at : at + AT_ONCE] = chosen - top - np.log(np.exp(logits - top[:, None]).sum(1))
    out = np.zeros(targets.shape, np.float32)
    out[keep] = found
    return out
