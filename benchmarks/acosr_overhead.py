"""What ACosR adds to a training step of the paper's network: 5 x LSTM-1024 and FC, 2 x LSTM-1024 and FC.

python benchmarks/acosr_overhead.py [--utts 8] [--frames 512] [--labels 20] [--steps 2] [--json FILE]

One thread.  A training step is forward, transducer loss, backward, clipping and AdamW of the floating-point
network, on random features (192 a frame of 10 ms, four frames joined into one for the encoder) and labels.
Beside it, on the same weights: the regularizer's own step (decoupled, as by default), its slope as a part of
the loss (coupled, as in the paper), and what is not the regularizer but comes with our default: rounding for
the forward pass and refitting steps, which BP has too.  The smallest of some runs, processor seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from greenasr.compress.acosr import Acosr
from greenasr.compress.clusters import make_clusters
from greenasr.compress.fit import Training, make_optimizer
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.ops.transducer import rnnt_loss
from greenasr.roles import BitMap

GOAL = 0.03  # of a training step


def best(run: Callable[[], object], times: int) -> float:
    """Smallest processor seconds of ``times`` runs after one that is not counted."""
    run()
    seconds = []
    for _ in range(times):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


def training_step(model: Rnnt, utts: int, frames: int, labels: int) -> Callable[[], None]:
    """One step of training on a batch of random speech."""
    optimizer = make_optimizer(model, Training())
    feats = torch.randn(utts, frames, model.config.feat_dim)
    targets = torch.randint(1, model.config.vocab, (utts, labels))
    frame_lens, label_lens = torch.full((utts,), frames), torch.full((utts,), labels)

    def run() -> None:
        enc, enc_lens, pred = model(feats, frame_lens, targets)
        logits = model.joint(enc[:, :, None], pred[:, None])
        loss = rnnt_loss(logits, targets, enc_lens, label_lens).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def main() -> None:
    """Print seconds and shares of a step as a table."""
    parser = argparse.ArgumentParser(description="ACosR's share of a training step at the paper's size.")
    for name, default in (("utts", 8), ("frames", 512), ("labels", 20), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = Rnnt(RnntConfig(feat_dim=192, vocab=2501))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    step = best(training_step(model, options.utts, options.frames, options.labels), options.steps)
    for p in model.parameters():
        p.grad = None
    print(f"{millions:.1f}M parameters, {options.utts} x {options.frames} frames, {options.labels} labels")
    print(f"\n| | CPU s | of a step |\n|:--|--:|--:|\n| training step, floating point | {step:.2f} | |")
    found = {"parameters": millions * 1e6, "step": step}

    def row(words: str, key: str, seconds: float) -> None:
        found[key] = seconds
        print(f"| {words} | {seconds:.3f} | {100 * seconds / step:.1f} % |", flush=True)

    bit_map = BitMap.uniform(make_clusters(model), 8)
    acosr = Acosr(bit_map, theta=2.0**7)
    acosr.prepare_(model)
    row("regularizer, its own step", "decoupled", best(lambda: acosr.after_step_(model, 0.5), 5))
    row("WgtC of all weights, each 100 steps", "wgtc", best(acosr.share_converged, 5) / 100)

    def forward() -> None:
        for name, site in acosr._sites.items():
            site.forget_()
            site(acosr._weights[name])

    row("rounding for the forward pass, as in BP", "straight_through", best(forward, 5))
    refit = best(lambda: [g.refit_(acosr._weights[n]) for n, g in acosr._grids.items()], 5)
    row("refitting steps, as in BP, first half", "refit", refit)
    acosr.finish_(model)
    coupled = Acosr(bit_map, theta=2.0**7, coupled=True, straight_through=False)
    coupled.prepare_(model)

    def slope() -> None:
        torch.as_tensor(coupled.penalty(model)).backward()  # type: ignore[no-untyped-call]
        coupled.after_step_(model, 0.5)

    row("regularizer, in the loss", "coupled", best(slope, 5))
    found |= {"share": found["decoupled"] / step, "goal": GOAL}
    if options.json:
        options.json.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
