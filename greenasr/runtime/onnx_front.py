"""What stands between raw log-mel energies and a network, as part of its ONNX graph.

    x (N, T, F) raw fbank, x_lens (N,)  ->  cepstra if the model reads them, CMVN, 0 behind the true frames

Whoever computes Kaldi's fbank (sherpa-onnx, kaldi-native-fbank) can then give its output as it is.  CMVN of a
speaker is that of the utterance, since nothing more is known of the speaker there.
"""

from __future__ import annotations

from greenasr.data.features import Features
from greenasr.data.spectrum import cepstra
from greenasr.runtime.onnx_graph import Graph


def true_frames(g: Graph, x: str, lens: str) -> str:
    """1 where a frame is no padding, (N, T, 1) float."""
    end = g.op("Squeeze", g.size(x, 1), g.const([0]))
    places = g.op("Range", g.const(0), end, g.const(1))
    mask = g.op("Less", g.op("Unsqueeze", places, g.const([0])), g.op("Unsqueeze", lens, g.const([1])))
    return g.op("Unsqueeze", g.op("Cast", mask, to=1), g.const([2]))


def front(g: Graph, features: Features, x: str, lens: str) -> str:
    """Raw fbank of ``features.bins`` bins -> what the network reads, (N, T, F), 0 behind the utterances."""
    if features.kind == "mfcc":
        x = g.op("MatMul", x, g.const(cepstra(features.bins)))
    mask = true_frames(g, x, lens)
    x = g.op("Mul", x, mask)
    if features.cmvn == "none":
        return x
    if features.cmvn == "running":
        total = g.op("CumSum", x, g.const(1))
        count = g.op("Max", g.op("CumSum", mask, g.const(1)), g.const(1.0))
    else:
        total = g.op("ReduceSum", x, g.const([1]), keepdims=1)
        count = g.op("ReduceSum", mask, g.const([1]), keepdims=1)
    return g.op("Mul", g.op("Sub", x, g.op("Div", total, count)), mask)
