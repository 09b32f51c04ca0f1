"""What `greenasr spot` hears: words of a test set planted in a stream, other words, and noise alone.

    python benchmarks/spotting.py MODEL CUTS --clips 40

MODEL is a packed keyword model, CUTS a test set of single words, as `runs/…/corpus/test.cuts.jsonl.gz`.  A
word is found where it is told within 0.4 s of the middle of its clip; all else that is told is a false alarm.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from greenasr.data.audio import samples
from greenasr.data.corpora import load_cuts, words
from greenasr.data.features import RATE
from greenasr.data.rooms import coloured_noise
from greenasr.pipeline import engines
from greenasr.pipeline.spotting import Spotting, keywords_in
from greenasr.score.table import markdown

THRESHOLDS = (0.6, 0.8, 0.9, 0.95)
NEAR = 0.4  # seconds
FLOOR = 1e-3  # root of the mean square of the pink noise over everything
NOISE = 0.03  # and of the stream that is noise alone
Planted = list[tuple[float, str]]  # second, word


def planted(cuts: list, rng: np.random.Generator) -> tuple[np.ndarray, Planted]:
    """Clips with half a second to one and a half between them over a noise floor; where their middles are."""
    sounds, ref, at = [], [], 0
    for cut in cuts:
        gap, sound = np.zeros(int(RATE * rng.uniform(0.5, 1.5)), np.float32), samples(cut)
        ref.append(((at + len(gap) + len(sound) / 2) / RATE, words(cut)[0]))
        sounds += [gap, sound]
        at += len(gap) + len(sound)
    stream = np.concatenate(sounds)
    return stream + np.float32(FLOOR) * coloured_noise(len(stream), 1.0, rng), ref


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("cuts", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    network, units = engines.keywords(args.model, engines.read(args.model))
    rng = np.random.default_rng(args.seed)
    cuts = list(load_cuts(args.cuts))
    rng.shuffle(cuts)
    known = set(units.words)
    streams = {"its words": [], "other words": []}
    for cut in cuts:
        kind = streams["its words" if words(cut)[0] in known else "other words"]
        if len(kind) < args.clips:
            kind.append(cut)
    heard = {name: planted(chosen, rng) for name, chosen in streams.items() if chosen}
    heard["noise"] = (np.float32(NOISE) * coloured_noise(60 * RATE, 1.0, rng), [])
    rows = []
    for name, (stream, ref) in heard.items():
        for threshold in THRESHOLDS:
            began = time.process_time()
            with engines.on_one_core():
                settings = Spotting(threshold=threshold)
                found = list(keywords_in(network, units, [stream], RATE, name, settings))
            seconds = len(stream) / RATE
            right = [
                each for each in found if any(each.word == w and abs(each.time - at) < NEAR for at, w in ref)
            ]
            away = [min(abs(each.time - at) for at, w in ref if w == each.word) for each in right]
            rows.append(
                {
                    "stream": name,
                    "seconds": round(seconds),
                    "threshold": threshold,
                    "planted": len(ref),
                    "found": len(right) if name == "its words" else None,
                    "away, s": float(np.mean(away)) if away else None,
                    "false alarms": len(found) - len(right),
                    "RTF / 1000": round(1000 * (time.process_time() - began) / seconds, 1),
                }
            )
    print(markdown(rows), end="")


if __name__ == "__main__":
    main()
