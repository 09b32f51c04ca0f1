"""A model that can be judged in milliseconds: frames to words, one layer matters and one does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from greenasr.compress.fit import Training
from greenasr.score.scored import Scored, predicted
from greenasr.shrinking.settings import Space
from greenasr.shrinking.task import OwnTask

WORDS, DIM, LENGTH = 12, 16, 10
Speech = list[tuple[str, str, Tensor, Tensor]]  # id, speaker, frames (10, 16), words (10,)


class Planted(nn.Module):
    """Words of frames by ``fine``; ``coarse`` adds next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Linear(DIM, WORDS)
        self.coarse = nn.Linear(DIM, WORDS)

    def forward(self, frames: Tensor) -> Tensor:
        return self.fine(frames) + 1e-4 * self.coarse(frames)


def speech(split: str, utterances: int, speakers: int = 8) -> Speech:
    """Words as points in space, blurred; the points are the same for every split."""
    points = torch.randn(WORDS, DIM, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(sum(map(ord, split)))
    rows = []
    for k in range(utterances):
        words = torch.randint(WORDS, (LENGTH,), generator=draw)
        frames = points[words] + 0.8 * torch.randn(LENGTH, DIM, generator=draw)
        rows.append((f"{split}-{k}", f"{split}-speaker{k % speakers}", frames, words))
    return rows


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    frames, words = batch
    return F.cross_entropy(model(frames).flatten(0, 1), words.flatten())


def scorer(model: nn.Module, data: Speech) -> list[Scored]:
    found = []
    with torch.no_grad():
        for utt_id, speaker, frames, words in data:
            heard = model(frames).argmax(1)
            found.append(predicted(utt_id, [f"w{w}" for w in words], [f"w{w}" for w in heard], speaker))
    return found


def batches(rows: Speech, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [(torch.stack([r[2] for r in part]), torch.stack([r[3] for r in part])) for part in parts]


@pytest.fixture(scope="session")
def make_task() -> Callable[..., OwnTask]:
    def made(dev: str = "dev", test: str = "test", size: int = 200, **more: object) -> OwnTask:
        settings = {"ids": lambda rows: [row[0] for row in rows], "scorer": scorer, **more}
        train = batches(speech("train", 96))
        sets = speech(dev, size), speech(test, size)
        settings.setdefault("logits", lambda model, batch: model(batch[0]).flatten(0, 1))
        return OwnTask(loss, train, *sets, dev_batches=batches(sets[0]), **settings)  # type: ignore[arg-type]

    return made


@pytest.fixture(scope="session")
def planted() -> Planted:
    """Trained until it makes few errors."""
    torch.manual_seed(0)
    model = Planted()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(20):
        for batch in batches(speech("train", 96)):
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def quick() -> Space:
    """A search of seconds."""
    training = Training(epochs=2, lr=5e-3, weight_decay=0.0, leg=4)
    return Space(training=training, finer=1.3, cost_batches=2, max_probes=16, step="cluster")
