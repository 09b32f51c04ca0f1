"""kill -9 a small `shrink` run at random moments and call it again: the same files, bit for bit?

    python benchmarks/kill_shrink.py --kills 200

A child process searches; it is killed after a random time, again and again, until it has finished.  Then its
smallest.packed and every model are held against those of a run that nobody disturbed, and the next begins.
One line a finished run; exit code 1 where a file differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from greenasr.compress.fit import Training
from greenasr.score.scored import Scored, predicted
from greenasr.shrinking.settings import Question, Space
from greenasr.shrinking.shrink import shrink
from greenasr.shrinking.task import OwnTask

WORDS, DIM, LENGTH = 12, 16, 10
Speech = list[tuple[str, Tensor, Tensor]]
SPACE = Space(training=Training(epochs=3, lr=5e-3, weight_decay=0.0, leg=3), finer=1.2, cost_batches=2)


def speech(split: str, utterances: int) -> Speech:
    """Words as blurred points: id, frames (10, 16), words (10,)."""
    points = torch.randn(WORDS, DIM, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(sum(map(ord, split)))
    rows = []
    for k in range(utterances):
        words = torch.randint(WORDS, (LENGTH,), generator=draw)
        rows.append((f"{split}{k}", points[words] + 0.9 * torch.randn(LENGTH, DIM, generator=draw), words))
    return rows


def batches(rows: Speech) -> list[tuple[Tensor, Tensor]]:
    """Sixteen utterances each."""
    parts = [rows[i : i + 16] for i in range(0, len(rows), 16)]
    return [(torch.cat([r[1] for r in part]), torch.cat([r[2] for r in part])) for part in parts]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


@torch.no_grad()
def scorer(model: nn.Module, rows: Speech) -> list[Scored]:
    """Word by word."""
    return [predicted(u, [f"{w}" for w in y], [f"{w}" for w in model(x).argmax(1)]) for u, x, y in rows]


def search(out: Path) -> None:
    """One call, from nothing or from what is there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(DIM, 24), nn.ReLU(), nn.Linear(24, WORDS))
    train = batches(speech("train", 128))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for batch in train * 5:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    dev = speech("dev", 100)
    task = OwnTask(
        loss, train, dev, speech("test", 100), scorer, dev_batches=batches(dev), logits=lambda m, b: m(b[0])
    )
    shrink(model.eval(), task, out, space=SPACE, question=Question(max_wer_increase=2.0))


def call(out: Path, seconds: float | None) -> bool:
    """Search in a child, which is killed after so many seconds; whether it finished."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            search(out)
            code = 0
        finally:
            os._exit(code)
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status) != 0:
                raise SystemExit(f"the search failed in {out}: its error is above")
            return True
        if until is not None and time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.002)


def digests(out: Path) -> dict[str, str]:
    """Every packed file's SHA-256, by its place in the run."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.glob("**/*.packed"))
    }


def main() -> None:
    """Count kills until there were enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=0.6, help="latest kill, in undisturbed runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    draw, folder = random.Random(given.seed), Path(tempfile.mkdtemp())
    began = time.monotonic()
    call(folder / "whole", None)
    whole, expected = time.monotonic() - began, digests(folder / "whole")
    print(f"undisturbed: {whole:.1f} s, {len(expected)} packed files", flush=True)
    kills = runs = differ = 0
    while kills < given.kills:
        out, here = folder / f"run{runs}", 0
        while not call(out, draw.uniform(0, given.within * whole) if kills + here < given.kills else None):
            here += 1
        kills, runs = kills + here, runs + 1
        found = digests(out)
        odd = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
        differ += bool(odd)
        what = f"DIFFERS in {', '.join(odd)}" if odd else "the same files"
        print(f"run {runs}: killed {here} times, {what}", flush=True)
        shutil.rmtree(out)
    print(f"{kills} kills in {runs} runs: {differ} runs differ", flush=True)
    shutil.rmtree(folder)
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
