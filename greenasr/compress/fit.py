"""The one training loop, for every network and every way of compressing it.

    loss = task.loss(model, batch) + compressor.penalty(model)

Training is cut into legs of a fixed number of steps.  Each leg begins with a seed of its own and ends
with a checkpoint, so a run that was killed and resumed gives the same weights as one that was not.

Several processes that work together (`ops.crew`) share every batch and give the weights of one, but for
dropout's draws and the order of summation: `compress.shared`.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from greenasr.compress import shared
from greenasr.ops import crew
from greenasr.roles import Compressor, Quantized

OnStep = Callable[[int, int, float], None]


PRECISIONS = ("float32", "bfloat16")


class Diverged(ValueError):
    """Training left the finite numbers."""


@dataclass(frozen=True)
class Training:
    """How to train: AdamW, linear warm-up, cosine decay to ``final`` times the peak rate.

    With ``precision`` "bfloat16" products of matrices are (mixed precision: weights, sums and all else stay
    float32), which takes less time where there are units for it.
    """

    epochs: float = 8
    lr: float = 1e-3
    warmup: float = 0.05
    final: float = 0.02
    weight_decay: float = 0.05
    clip: float = 1.0
    leg: int = 500
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Refuse settings that cannot train."""
        if not (0 <= self.epochs < math.inf and 0 < self.lr < math.inf and self.leg > 0 and self.seed >= 0):
            raise ValueError(
                "epochs and seed must not be negative, lr and leg must be positive, all finite; got "
                f"epochs {self.epochs:g}, seed {self.seed}, lr {self.lr:g}, leg {self.leg}."
            )

        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is '{self.precision}': choose {' or '.join(PRECISIONS)}.")

    def steps(self, batches: int) -> int:
        """Steps of the whole training, where a pass has so many batches."""
        return max(1, round(self.epochs * batches)) if self.epochs else 0

    def rate(self, step: int, total: int) -> float:
        """Learning rate of a step: up linearly over the first ``warmup``, then half a cosine."""
        rise = max(1, round(self.warmup * total))
        if step < rise:
            return self.lr * (step + 1) / rise
        fall = (step - rise) / max(1, total - rise)
        return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * fall)))


class Trainable(Protocol):
    """The part of a task that training needs."""

    def loss(self, model: Any, batch: Any) -> Tensor:
        """Mean loss of a batch, ()."""
        ...

    def batches(self, split: str, seed: int = 0) -> Iterator[Any]:
        """One pass over a split."""
        ...

    def n_batches(self, split: str) -> int:
        """How many batches one pass has, about."""
        ...


def make_optimizer(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), fused=True)


def fit_(
    model: nn.Module,
    task: Trainable,
    compressor: Compressor,
    settings: Training,
    *,
    run: Path | None = None,
    on_step: OnStep | None = None,
) -> dict[str, Quantized]:
    """Train ``model`` in place; returns the codes and steps of every span that was quantized.

    ``run`` is a folder for ``checkpoint.pt`` and ``log.jsonl``: a second call with the same folder goes
    on where the first was stopped, so remove the checkpoint when the model is saved.  Of processes that
    work together the first writes it, and all must find it.  Raises Diverged, a ValueError, when the loss is
    not finite, ValueError when the checkpoint belongs to other settings.
    """
    total = settings.steps(task.n_batches("train"))
    shared.begin_alike_(model)
    compressor.prepare_(model)
    optimizer = make_optimizer(model, settings)
    step = 0
    log: list[dict[str, Any]] = []
    checkpoint = run / "checkpoint.pt" if run else None
    if run:
        run.mkdir(parents=True, exist_ok=True)
    if checkpoint and checkpoint.exists():
        step, log = _resume_(checkpoint, model, optimizer, settings)
    shared.check_alike(model, step)
    model.train()
    device = next(model.parameters()).device.type
    began = time.perf_counter()
    leg_loss, leg_steps = torch.zeros(()), 0
    extra: Mapping[str, float] = {}
    for batch in _batches(task, settings, step, total):
        if step % settings.leg == 0:
            torch.manual_seed(shared.seed(settings.seed * 1_000_003 + step))
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step, total)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            loss = shared.share_of_loss(task, model, batch)
        objective = loss + shared.counted_once(compressor.penalty(model))
        objective.backward()
        loss = shared.sum_gradients_(model, loss)
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        step += 1
        extra = compressor.after_step_(model, step / total)
        leg_loss, leg_steps = leg_loss + loss, leg_steps + 1
        if on_step:
            on_step(step, total, float(leg_loss) / leg_steps)
        if step % settings.leg == 0 or step == total:
            mean = float(leg_loss) / leg_steps
            if not math.isfinite(mean):
                raise Diverged(
                    f"the loss is {mean} at step {step} of {total}: lower lr (now {settings.lr:g})."
                )
            seconds = time.perf_counter() - began + (log[-1]["seconds"] if log and step > leg_steps else 0)
            log.append(
                {
                    "step": step,
                    "of": total,
                    "loss": mean,
                    "lr": settings.rate(step - 1, total),
                    **extra,
                    "seconds": seconds,
                }
            )
            began, leg_loss, leg_steps = time.perf_counter(), torch.zeros(()), 0
            shared.check_alike(model, step)
            if checkpoint and crew.rank() == 0:
                _save(checkpoint, model, optimizer, settings, step, log)
    quantized = compressor.finish_(model)
    model.eval()
    if run:
        _write_log(run / "log.jsonl", log)
    return quantized


def _batches(task: Trainable, settings: Training, step: int, total: int) -> Iterator[Any]:
    """The batches from ``step`` on: passes with seeds of their own, earlier batches skipped."""
    at, epoch = 0, 0
    while at < total:
        began = at
        for batch in task.batches("train", settings.seed * 10_007 + epoch):
            if at >= total:
                return
            if at >= step:
                yield batch
            at += 1
        if at == began:
            raise ValueError("the training split has no batch: give more text or shorter windows.")
        epoch += 1


def _write_log(path: Path, log: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in log)
    _replace(path, lambda temporary: temporary.write_text(text))


def _save(
    path: Path, model: nn.Module, optimizer: Any, settings: Training, step: int, log: list[dict[str, Any]]
) -> None:
    state = {
        "settings": asdict(settings),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "log": log,
    }
    _replace(path, lambda temporary: torch.save(state, temporary))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``path``, then rename over it: a full disk leaves the last checkpoint as it was."""
    temporary = path.with_suffix(".part")
    try:
        write(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        why = getattr(error, "strerror", None) or "the disk is full or may not be written"
        raise OSError(
            f"cannot write {path}: {why}. The last checkpoint is unchanged: make room and "
            "give the command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _resume_(
    path: Path, model: nn.Module, optimizer: Any, settings: Training
) -> tuple[int, list[dict[str, Any]]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: the checkpoint is damaged: delete it to train anew.") from error
    before = {"precision": "float32", **state["settings"]}  # which older checkpoints do not name
    if before != asdict(settings):
        changed = [k for k, v in asdict(settings).items() if before.get(k) != v]
        raise ValueError(
            f"{path}: begun with other settings ({', '.join(changed)}): use another folder or delete it."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["log"]
