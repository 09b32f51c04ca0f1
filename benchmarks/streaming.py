"""The paper's transducer on a stream and one core: seconds of work for a second of sound; are words equal?

    python benchmarks/streaming.py [--json FILE] [--seconds S] [--chunk FRAMES] [--engine runtime|torch]

5 x LSTM-1024 and FC, 2 x LSTM-1024 and FC, FC joint, 2,500 word pieces, 192 features a frame, four frames of
10 ms joined into one of the encoder's; packed to 8 and 6 bits, written, and read again as `transcribe` does.
Syllables of tones and hisses at 16 kHz come in blocks of 40 ms.  Features (64 log-mel energies without their
running mean; thrice, since the paper's 192 are three frames of 64), encoder and search are timed together.
``--chunk`` frames are heard at once: 4 is every encoder frame alone, `transcribe` waits for 12.

Random weights say nonsense, so what they cost is made that of speech: encoder and prediction network are
scaled to a deviation of 1 at the joint, the output layer so that labels are peaked (`SHARP`), and one label
is due every eight encoder frames, three a second: a hypothesis that owes one gives labels 98 %, any other
gives the blank 98 %.  Which labels is up to the network.  A beam of four runs the prediction network for its
four hypotheses at every label: the table counts these runs.

    rtf     processor seconds for a second of sound: below 1 it keeps up
    p99     processor milliseconds of the slowest of a hundred pushes: below the chunk no push is late
    equal   whether labels are those of `decode_transducer` on all features at once
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from greenasr.compress.clusters import make_clusters
from greenasr.compress.none import NoCompression
from greenasr.data.feature_stream import FeatureStream
from greenasr.data.features import RATE, SHIFT, Features
from greenasr.data.files import write_json
from greenasr.data.text import Vocabulary
from greenasr.decode.transducer import (
    BLANK,
    Greedy,
    Search,
    StreamingDecoder,
    Transducer,
    decode_transducer,
)
from greenasr.decode.transducer_beam import BeamSearch
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.pipeline import engines
from greenasr.pipeline.engines import Engine
from greenasr.pipeline.models import save
from greenasr.pipeline.units import Labels
from greenasr.roles import BitMap

FEATURES = Features(bins=64, cmvn="running")
COPIES = 3
EVERY = 8  # encoder frames a label: 3.1 a second
LEAD = 4.0  # nats of blank over all labels, and of labels over the blank
SHARP = 6.0  # deviation of the logits
WIDTHS = (8, 6)
SEARCHES: dict[str, Search] = {"greedy": Greedy(), "beam 4": BeamSearch(4)}
Sound = NDArray[np.float32]
Array = NDArray[Any]


@dataclass(frozen=True)
class Row:
    """The figures of one width and search."""

    bits: int
    megabytes: float
    search: str
    rtf: float
    wall: float
    p99_ms: float
    labels_a_second: float
    runs_a_second: float
    equal: bool


class Paced:
    """A network of which a label is due every `EVERY` encoder frames; runs of its prediction network.

    Encoder frames have one column more, the labels that are due by then, prefixes that of the labels in them.
    """

    def __init__(self, model: Transducer):
        self.model, self.runs = model, 0

    def encode(self, feats: Array, feat_lens: Array | None = None) -> tuple[Array, Array]:
        """Whole utterances."""
        enc, lens = self.model.encode(feats, feat_lens)
        return with_due(enc, 0), lens

    def step_encoder(self, chunk: Array, state: Any = None, last: bool = False) -> tuple[Array, Any]:
        """The next frames of a stream; the state knows how many encoder frames there were."""
        before, passed = state or (None, 0)
        enc, after = self.model.step_encoder(chunk, before, last)
        return with_due(enc, passed), (after, passed + enc.shape[1])

    def step_predictor(self, labels: Array, state: Any = None) -> Any:
        """That of the network, and one label more; the last layer of the state counts them."""
        self.runs += len(labels)
        pred, after = self.model.step_predictor(labels, None if state is None else state[:-1])
        said = np.zeros((len(labels), 1), np.float32) if state is None else state[-1][0] + 1
        return np.concatenate([pred, said], 1), (*after, (said, said))

    def joint(self, enc: Array, pred: Array) -> Array:
        """That of the network for labels; the blank leads all of them, or trails where one is due."""
        logits = self.model.joint(enc[..., :-1], pred[..., :-1]).copy()
        lead = np.where(pred[..., -1] < enc[..., -1], -LEAD, LEAD)
        labels = logits[..., BLANK + 1 :]
        top = labels.max(-1)
        logits[..., BLANK] = top + np.log(np.exp(labels - top[..., None]).sum(-1)) + lead
        return logits


def with_due(enc: Array, passed: int) -> Array:
    """(N, T', J) behind ``passed`` frames -> (N, T', J + 1)."""
    due = np.arange(passed + 1, passed + 1 + enc.shape[1]) // EVERY
    return np.concatenate([enc, np.broadcast_to(due[:, None], (*enc.shape[:2], 1)).astype(np.float32)], -1)


def syllables(seconds: float, seed: int) -> Sound:
    """Tones and hisses of 80 to 250 ms, with gaps, (n,) at 16 kHz."""
    draw, parts, n = np.random.default_rng(seed), [], 0
    while n < seconds * RATE:
        size = int(RATE * draw.uniform(0.08, 0.25))
        times = np.arange(size) / RATE
        pitch, formant = draw.uniform(90, 250), draw.uniform(300, 3_000)
        tone = np.sin(2 * np.pi * pitch * times) * (1 + np.sin(2 * np.pi * formant * times))
        voiced = tone if draw.random() < 0.7 else draw.normal(0, 1, size)
        parts += [0.2 * voiced * np.hanning(size), np.zeros(int(RATE * draw.uniform(0, 0.08)))]
        n += len(parts[-1]) + size
    sound = np.concatenate(parts)[: round(seconds * RATE)]
    return (sound + draw.normal(0, 1e-3, len(sound))).astype(np.float32)


def heard(sound: Sound, block: int) -> Iterator[Array]:
    """The network's features, block by block, (T, 192); the last ones are those of the sound's end."""
    stream = FeatureStream(FEATURES)
    for at in range(0, len(sound), block):
        yield np.tile(stream(sound[at : at + block]), COPIES)
    yield np.tile(stream.rest(), COPIES)


@torch.no_grad()
def network(feats: Tensor) -> Rnnt:
    """The paper's network with random weights that hear something in these features (T, 192)."""
    torch.manual_seed(0)
    model = Rnnt(RnntConfig(feat_dim=192, vocab=2_501)).eval()
    first: Any = model.encoder.layers[0]
    mean, std = feats.mean(0).repeat(4), feats.std(0).repeat(4)
    first.input.weight /= std
    first.input.bias -= first.input.weight @ mean
    enc = model.encode(feats[None])[0][0]
    pred = model.predict(torch.randint(1, 2_501, (1, 200)))[0]
    for layer, outputs in ((model.encoder_fc, enc), (model.predictor_fc, pred)):
        size = float(outputs.std(0).mean())
        layer.weight.div_(size)
        layer.bias.sub_(outputs.mean(0) / size)
    output: Any = model.output
    output.weight *= SHARP / model.joint(enc[::10, None], pred[None, ::10]).std()
    return model


def packed(model: Rnnt, bits: int, path: Path, engine: Engine) -> Transducer:
    """The network written with weights of so many bits and read again."""
    units = Labels(FEATURES, Vocabulary(("<eos>", "<unk>", *(f"w{i}" for i in range(2_498)))))
    other = Rnnt(model.config).eval()
    other.load_state_dict(model.state_dict())
    bit_map = BitMap.uniform(make_clusters(other), bits)
    save(path, other, units, {}, NoCompression(bit_map).finish_(other), bit_map)
    return engines.transducer(path, engines.read(path), engine)[0]


def measure(model: Transducer, search: Search, sound: Sound, chunk: int) -> dict[str, Any]:
    """Stream the sound through one search."""
    paced = Paced(model)
    decoder, waiting, pushes = StreamingDecoder(paced, search), [], []
    wall, cpu = time.perf_counter(), time.process_time()
    for feats in heard(sound, 4 * SHIFT):
        waiting.append(feats)
        if sum(map(len, waiting)) >= chunk:
            began = time.process_time()
            decoder.push(np.concatenate(waiting))
            pushes.append(time.process_time() - began)
            waiting = []
    best = decoder.final(np.concatenate(waiting) if waiting else None)[0]
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    seconds = len(sound) / RATE
    whole = np.concatenate(list(heard(sound, len(sound))))
    return {
        "rtf": cpu / seconds,
        "wall": wall / seconds,
        "p99_ms": 1e3 * float(np.quantile(pushes, 0.99)),
        "labels_a_second": len(best.labels) / seconds,
        "runs_a_second": paced.runs / seconds,
        "equal": decode_transducer(Paced(model), whole[None], search=search)[0][0].labels == best.labels,
    }


def main() -> None:
    """Run, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--chunk", type=int, default=4, help="frames of 10 ms that are heard at once")
    parser.add_argument("--engine", choices=engines.ENGINES, default="runtime", help="what runs the network")
    args = parser.parse_args()
    if not 1 <= args.seconds <= 3_600 or not 1 <= args.chunk <= 100:
        parser.error("give 1 to 3,600 seconds and a chunk of 1 to 100 frames")
    torch.set_num_threads(1)
    sound = syllables(args.seconds, seed=0)
    model = network(torch.from_numpy(np.concatenate(list(heard(sound, RATE)))))
    size = sum(p.numel() for p in model.parameters()) / 1e6
    shown = f"{args.seconds:g} s of sound, {args.chunk} frames at once"
    print(f"{size:.1f}M parameters, {shown}, engine {args.engine}, 1 thread\n")
    print("bits   MB  search    rtf   wall  p99 ms  labels/s  runs/s  equal")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for bits in WIDTHS:
            path = Path(folder) / f"{bits}.packed"
            made = packed(model, bits, path, args.engine)
            for name, search in SEARCHES.items():
                row = Row(bits, path.stat().st_size / 1e6, name, **measure(made, search, sound, args.chunk))
                rows.append(row)
                print(
                    f"{bits:>4}{row.megabytes:>5.0f}  {name:<7}{row.rtf:>6.3f}{row.wall:>7.3f}"
                    f"{row.p99_ms:>8.1f}{row.labels_a_second:>10.2f}{row.runs_a_second:>8.1f}"
                    f"  {'yes' if row.equal else 'NO'}",
                    flush=True,
                )
    slowest = max(row.rtf for row in rows)
    print(f"\nslowest: {slowest:.3f}  (goal: below 1); all labels equal: {all(row.equal for row in rows)}")
    if args.json is not None:
        value = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": args.seconds,
            "chunk": args.chunk,
            "engine": args.engine,
            "load": os.getloadavg()[0],
            "rows": [asdict(row) for row in rows],
        }
        write_json(args.json, value)


if __name__ == "__main__":
    main()
