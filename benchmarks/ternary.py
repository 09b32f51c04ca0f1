"""Ternary networks: generating weights against reading them, and training steps against floating-point ones.

python benchmarks/ternary.py [--steps 7] [--json FILE]

One thread, processor seconds.  Three tables:

*Weights*: how many weights a second are generated as int8 by NumPy and torch, for a dense matrix, for three
sparsities and for 2:4; and how many a second are read as int8 from memory, from an array larger than the
caches.  Where the compiled kernels are built, also how many a second they multiply by one row of activations:
generated for this one product, and read from memory.
*Convolutions*: forward and backward of a depthwise convolution by `ops.depthwise`, by torch's, and by adding
shifted copies, at the sizes of both networks.
*Steps*: a training step (forward, loss, backward, clipping, AdamW) of a network with generated 1x1
convolutions and of the same one with trained ones, in turns, the smallest of each.  "Work alone" is
what the ternary network skips, timed by itself, as a share of the floating step: the products that are the
gradients of generated weights, clipping them and AdamW.  "Multiplications" is those products' share of all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from greenasr.compress.fit import Training, make_optimizer
from greenasr.models.separable import Separable
from greenasr.models.ternary import Ternary
from greenasr.ops.depthwise import depthwise
from greenasr.ops.signs import Signs
from greenasr.ops.signs_torch import signs
from greenasr.runtime.kernels import native
from greenasr.tasks.networks import build

MEMORY = 1 << 29  # bytes that no cache holds
KINDS = {
    "t = 0": (0, False),
    "t = 0.5": (128, False),
    "t = 0.875": (224, False),
    "t = 0.9": (230, False),
    "2:4": (128, True),
}
CONVOLUTIONS = [  # channels, taps, clips or utterances, frames
    (64, 13, 128, 128),
    (64, 17, 128, 128),
    (128, 29, 64, 128),
    (256, 33, 8, 250),
    (512, 51, 8, 250),
    (512, 75, 8, 250),
]
TERNARY = {"threshold": 0.5, "seed": 1}
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "MatchboxNet-3x1x64": ("matchboxnet", {"feat_dim": 64, "classes": 30}, (128, 128)),
    "MatchboxNet-6x1x64": ("matchboxnet", {"feat_dim": 64, "classes": 30, "blocks": 6}, (128, 128)),
    "MatchboxNet-3x2x64": ("matchboxnet", {"feat_dim": 64, "classes": 30, "repeat": 2}, (128, 128)),
    "QuartzNet-5x5x64": ("quartznet", {"feat_dim": 64, "vocab": 29, "blocks": 5, "width": 64}, (16, 384)),
    "QuartzNet-5x5x256": ("quartznet", {"feat_dim": 64, "vocab": 29, "blocks": 5}, (8, 384)),
}


def seconds(run: Callable[[], object], times: int = 7) -> float:
    """Smallest processor seconds of ``times`` runs after one that is not counted."""
    run()
    found = []
    for _ in range(times):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)


def weights_table(rows: int = 512, cols: int = 512) -> dict[str, Any]:
    """Weights a second, generated and read."""
    found: dict[str, Any] = {"rows": rows, "cols": cols}
    memory = np.ones(MEMORY, np.int8).view(np.int64)
    found["read"] = MEMORY / seconds(lambda: memory.max(), 3)
    print(f"int8 weights read from memory: {found['read'] / 1e9:.1f} G a second\n")
    print("| generated, G weights a second | " + " | ".join(KINDS) + " |")
    print("|:--|" + "--:|" * len(KINDS))
    for name, make in (("NumPy", lambda spec: spec.rows_of()), ("torch", signs)):
        rates = []
        for zeros, structured in KINDS.values():
            spec = Signs(1, 0, rows, cols, zeros, structured)
            rates.append(rows * cols / seconds(lambda s=spec, m=make: m(s)))
        found[name] = dict(zip(KINDS, rates, strict=True))
        print(f"| {name} | " + " | ".join(f"{rate / 1e9:.2f}" for rate in rates) + " |", flush=True)
    if native.available():
        found["product"] = products(cols)
        rates = [found["product"][kind] for kind in KINDS]
        print("| kernels, product included | " + " | ".join(f"{rate / 1e9:.2f}" for rate in rates) + " |")
        print(f"\nThe product with 8 bits from memory: {found['product']['8 bits'] / 1e9:.1f} G a second")
    return found


def products(cols: int) -> dict[str, float]:
    """Weights a second of a product with one row, by the kernels: of 8 bits from memory, and generated."""
    native.set_threads(1)
    rows = MEMORY // 4 // cols
    x = np.random.default_rng(0).standard_normal((1, cols)).astype(np.float32)
    codes = np.random.default_rng(1).integers(-127, 128, (rows, cols), dtype=np.int8)
    made = {"8 bits": native.matrix((codes, 8, np.ones((), np.float32)))}
    for kind, (zeros, structured) in KINDS.items():
        made[kind] = native.generated(Signs(1, 0, rows, cols, zeros, structured))
    return {
        kind: rows * cols / seconds(lambda m=matrix: native.linear(x, m), 5) for kind, matrix in made.items()
    }


def shifted(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution as a sum of shifted copies, (N, T, C)."""
    taps, frames = weight.shape[1], x.shape[1]
    padded = F.pad(x, (0, 0, taps // 2, taps // 2))
    y = padded[:, :frames] * weight[:, 0]
    for k in range(1, taps):
        y = torch.addcmul(y, padded[:, k : k + frames], weight[:, k])
    return y


def convolutions_table() -> list[dict[str, Any]]:
    """Milliseconds of forward and backward."""
    print("\n| channels x taps, N x T | ours, ms | torch's conv1d | shifted copies |\n|:--|--:|--:|--:|")
    found = []
    for c, k, n, t in CONVOLUTIONS:
        weight = torch.randn(c, k, requires_grad=True)
        x = torch.randn(c, n, t)
        layouts = {
            "ours": x,
            "conv1d": x.transpose(0, 1).contiguous(),
            "shifted": x.permute(1, 2, 0).contiguous(),
        }
        ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "ours": depthwise,
            "conv1d": lambda x, w: F.conv1d(x, w[:, None], padding=w.shape[1] // 2, groups=len(w)),
            "shifted": shifted,
        }
        row: dict[str, Any] = {"channels": c, "taps": k, "batch": n, "frames": t}
        for name, way in ways.items():
            given = layouts[name].requires_grad_()
            pull = torch.randn_like(given)

            def run(given: Any = given, pull: Any = pull, way: Any = way, weight: Any = weight) -> None:
                torch.autograd.grad(way(given, weight), (given, weight), pull)

            row[name] = 1000 * seconds(run, 2 if name == "shifted" else 5)
        found.append(row)
        print(
            f"| {c} x {k}, {n} x {t} | {row['ours']:.1f} | {row['conv1d']:.1f} | {row['shifted']:.0f} |",
            flush=True,
        )
    return found


def step_of(
    kind: str, settings: dict[str, Any], shape: tuple[int, int]
) -> tuple[nn.Module, Callable[[], None]]:
    """A network and one step of its training on random features."""
    torch.manual_seed(0)
    model = build(kind, settings).train()
    optimizer = make_optimizer(model, Training())
    feats = torch.randn(*shape, 64)
    lens = torch.linspace(shape[1] * (0.6 if kind == "quartznet" else 1), shape[1], shape[0]).long()

    def run() -> None:
        out = model(feats, lens)
        logits = (out[0] if isinstance(out, tuple) else out).flatten(0, -2)
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return model, run


def skipped(model: nn.Module, shape: tuple[int, int]) -> tuple[float, float]:
    """Of a ternary network: the share of a step's multiplications that it skips, and seconds of this work.

    The work is the gradients' products, and clipping and AdamW for as many weights.
    """
    total = gone = spent = 0.0
    weights = []
    stride = getattr(model.config, "stride", 1)
    for name, module in model.named_modules():
        if not isinstance(module, Separable):
            continue
        frames = shape[0] * -(-shape[1] // stride)
        o, i = module.pointwise.weight.shape
        first = name == "prologue.subs.0"
        if module.depthwise is not None:
            total += module.depthwise.weight.numel() * frames * (2 if first else 3)
        total += 3 * o * i * frames
        if isinstance(module.pointwise, Ternary):
            gone += o * i * frames
            g, x = torch.randn(o, frames), torch.randn(i, frames)
            spent += seconds(lambda g=g, x=x: g @ x.t(), 5)
            weights.append(nn.Parameter(torch.randn(o, i)))
            weights[-1].grad = torch.randn(o, i)
    optimizer = make_optimizer(nn.ParameterList(weights), Training())

    def update() -> None:
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    return gone / total, spent + seconds(update, 5)


def steps_table(steps: int) -> list[dict[str, Any]]:
    """Milliseconds of a training step, ternary and floating."""
    print(
        "\n| network | trained, k | floating, ms | ternary, ms | saved | work alone | multiplications |\n"
        "|:--|--:|--:|--:|--:|--:|--:|"
    )
    found = []
    for name, (kind, settings, shape) in NETWORKS.items():
        pairs = [step_of(kind, settings | extra, shape) for extra in ({}, {"ternary": TERNARY})]
        times: list[list[float]] = [[], []]
        for count in range(steps + 1):
            for (_, run), kept in zip(pairs, times, strict=True):
                began = time.process_time()
                run()
                if count:
                    kept.append(time.process_time() - began)
        floating, ternary = (1000 * min(kept) for kept in times)
        share, work = skipped(pairs[1][0], shape)
        numel = [sum(p.numel() for p in model.parameters()) for model, _ in pairs]
        saved = 1 - ternary / floating
        print(
            f"| {name} | {numel[0] / 1000:.0f} → {numel[1] / 1000:.0f} | {floating:.0f} | {ternary:.0f} | "
            f"{100 * saved:.1f} % | {1e5 * work / floating:.1f} % | {100 * share:.1f} % |",
            flush=True,
        )
        found.append(
            {"network": name, "parameters": numel, "floating_ms": floating, "ternary_ms": ternary}
            | {"saved": saved, "skipped": share, "work_ms": 1000 * work}
        )
    return found


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description="Generated weights, convolutions and training steps.")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {
        "weights": weights_table(),
        "convolutions": convolutions_table(),
        "steps": steps_table(options.steps),
    }
    if options.json:
        options.json.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
