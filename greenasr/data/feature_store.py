"""The features of a corpus on disk: computed once, read as one memory-mapped array.

    root/<digest>/index.json   settings, then ids, speakers, texts and frames of all utterances, in one order
                  feats.npy    (ΣT, F) float16 or float32, one utterance behind the other, before CMVN
                  means.npy    (U, F) float32, each utterance's mean; CMVN is a subtraction when reading

The digest covers the settings and every cut's id, span, speaker and text: other settings, another folder.
Work is done in parts of `PART` cuts, each written whole; a killed extraction goes on where it was, and
``index.json`` comes last, so a folder that has it is complete.  A copy at another speed is an utterance
``sp0.9-<id>`` of a speaker ``sp0.9-<speaker>``, as in Kaldi's data directories.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from greenasr.data import audio
from greenasr.data.augment import change_speed
from greenasr.data.corpora import speaker, words
from greenasr.data.features import Feats, Features
from greenasr.data.files import atomic, read_json, write_json

FORMAT = "greenasr feature store 1"
PART = 64  # cuts that one worker takes at a time
DTYPES = ("float16", "float32")
Samples = Callable[[Any], NDArray[np.float32]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """All utterances of a corpus by id; the array stays on disk until a row is asked for."""

    folder: Path
    features: Features
    ids: tuple[str, ...]
    speakers: tuple[str, ...]
    texts: tuple[str, ...]
    frames: NDArray[np.int64]
    array: NDArray[np.floating[Any]]
    means: Feats

    @classmethod
    def open(cls, folder: str | Path) -> FeatureStore:
        """Open what `extract` wrote; ValueError where it is another thing or damaged."""
        folder = Path(folder)
        if not (folder / "index.json").exists():
            raise ValueError(
                f"{folder}: no index.json: not a feature store, or its extraction did not finish; "
                "extract the features (again)."
            )
        index = read_json(folder / "index.json")
        if index.get("format") != FORMAT:
            raise ValueError(
                f"{folder}/index.json: 'format' should be '{FORMAT}': extract the features again."
            )
        frames = np.array(index["frames"], np.int64)
        array = np.load(folder / "feats.npy", mmap_mode="r")
        features = Features.from_json(index["features"])
        if array.shape != (frames.sum(), features.dim):
            raise ValueError(
                f"{folder}/feats.npy: {array.shape} where the index says ({frames.sum()}, {features.dim}): "
                "damaged; remove the folder and extract the features again."
            )
        ids, speakers, texts = (tuple(index[column]) for column in ("ids", "speakers", "texts"))
        return cls(folder, features, ids, speakers, texts, frames, array, np.load(folder / "means.npy"))

    def __len__(self) -> int:
        """U, the number of utterances, copies at other speeds included."""
        return len(self.ids)

    @cached_property
    def place(self) -> dict[str, int]:
        """Utterance id -> its place in ``ids``, ``speakers``, ``texts``, ``frames`` and ``means``."""
        return {utt_id: place for place, utt_id in enumerate(self.ids)}

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """First row of every utterance in ``array``, (U,)."""
        return np.cumsum(self.frames) - self.frames

    @cached_property
    def speaker_means(self) -> dict[str, Feats]:
        """Speaker -> mean over all frames, (F,)."""
        names, which = np.unique(np.array(self.speakers), return_inverse=True)
        total = np.zeros((len(names), self.means.shape[1]))
        np.add.at(total, which, self.means * self.frames[:, None].astype(np.float64))
        count = np.bincount(which, self.frames, len(names))
        return {str(name): (total[i] / count[i]).astype(np.float32) for i, name in enumerate(names)}

    def _place(self, utt_id: str) -> int:
        if utt_id not in self.place:
            raise ValueError(
                f"{self.folder}: no utterance '{utt_id}' among {len(self):,}, the first is '{self.ids[0]}': "
                "were these features extracted from another corpus?"
            )
        return self.place[utt_id]

    def raw(self, utt_id: str) -> Feats:
        """Features before CMVN, (T, F) float32: what i-vectors are taken from."""
        place = self._place(utt_id)
        start = self.offsets[place]
        return np.asarray(self.array[start : start + self.frames[place]], np.float32)

    def __getitem__(self, utt_id: str) -> Feats:
        """Features behind the settings' CMVN, (T, F) float32: what networks see."""
        place = self._place(utt_id)
        by_speaker = self.features.cmvn == "speaker"
        mean = self.speaker_means[self.speakers[place]] if by_speaker else self.means[place]
        return self.features.normalised(self.raw(utt_id), mean)


def text_of(cut: Any) -> str:
    """The words of a cut in one line."""
    return " ".join(words(cut))


def extract(
    cuts: Iterable[Any],
    root: str | Path,
    features: Features,
    samples: Samples = audio.samples,
    *,
    speaker: Callable[[Any], str] = speaker,
    text: Callable[[Any], str] = text_of,
    speeds: Sequence[float] = (1.0,),
    dtype: str = "float16",
    jobs: int = 1,
    progress: Progress | None = None,
) -> FeatureStore:
    """The features of lhotse cuts, from ``root`` if they are there, else computed and kept there.

    ``samples`` (cut) -> (n,) at 16 kHz is called in worker processes where ``jobs`` > 1, so it must be a
    function of a module.  ``progress`` (done, of) counts cuts.  float16 keeps a log-mel energy to 0.008 or
    better.

    Raises ValueError for no cuts, an id that comes twice, and audio that `Features` refuses, with its id.
    """
    cuts = list(cuts)
    if not cuts:
        raise ValueError(f"{root}: no cuts to take features of; give a corpus with at least one utterance.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype '{dtype}' of a feature store: expected {' or '.join(DTYPES)}.")
    if jobs < 1:
        raise ValueError(f"{jobs} jobs: expected 1 or more processes.")
    ids = [_copy(speed, cut.id) for cut in cuts for speed in speeds]
    twice, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"{root}: utterance '{twice}' comes twice; ids (and speeds) must differ, rename one."
        )
    settings = {"features": features.to_json(), "speeds": [float(s) for s in speeds], "dtype": dtype}
    rows = [[cut.id, cut.start, cut.duration, speaker(cut), text(cut)] for cut in cuts]
    folder = Path(root) / _digest([FORMAT, settings, PART, rows])
    if (folder / "index.json").exists():
        shutil.rmtree(folder / "parts", ignore_errors=True)  # of a run killed at its very end
        return FeatureStore.open(folder)
    parts = [cuts[first : first + PART] for first in range(0, len(cuts), PART)]
    work = partial(_extract_part, folder, features, samples, tuple(speeds), dtype)
    _run_parts(work, parts, jobs, progress or (lambda done, of: None))
    frames = _join_parts(folder, len(parts), features.dim, dtype)
    index = {
        "ids": ids,
        "speakers": [_copy(speed, row[3]) for row in rows for speed in speeds],
        "texts": [row[4] for row in rows for _ in speeds],
        "frames": frames.tolist(),
    }
    write_json(folder / "index.json", {"format": FORMAT, **settings, **index})
    shutil.rmtree(folder / "parts")
    return FeatureStore.open(folder)


def _copy(speed: float, name: str) -> str:
    """The name of an utterance or speaker at a speed: ``sp0.9-<name>``, or as it is."""
    return name if speed == 1 else f"sp{float(speed)}-{name}"


def _digest(value: Any) -> str:
    """16 hex digits that name a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _part(folder: Path, number: int) -> Path:
    return folder / "parts" / f"{number:06d}.npz"


def _extract_part(
    folder: Path,
    features: Features,
    samples: Samples,
    speeds: tuple[float, ...],
    dtype: str,
    number: int,
    cuts: Sequence[Any],
) -> int:
    """Write one part: rows (ΣT, F), frames (u,) and means (u, F) of its cuts at all speeds; how many cuts."""
    if _part(folder, number).exists():
        return len(cuts)
    rows: list[Feats] = []
    for cut in cuts:
        heard = samples(cut)
        try:
            rows += [features.raw(change_speed(heard, speed)) for speed in speeds]
        except ValueError as error:
            raise ValueError(f"utterance '{cut.id}': {error}") from error
    with atomic(_part(folder, number)) as temporary:
        np.savez(
            temporary,
            rows=np.concatenate(rows).astype(dtype),
            frames=np.array([len(row) for row in rows]),
            means=np.stack([row.mean(0, dtype=np.float64) for row in rows]).astype(np.float32),
        )
    return len(cuts)


def _begin_worker(threads: int) -> None:
    """One worker's share of the cores; it ends when its parent does."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _run_parts(
    work: Callable[[int, Sequence[Any]], int], parts: Sequence[Sequence[Any]], jobs: int, progress: Progress
) -> None:
    """Do all parts, ``jobs`` at a time in processes of their own; the first failure stops the rest."""
    total, done = sum(map(len, parts)), 0
    progress(0, total)
    if min(jobs, len(parts)) == 1:
        for number, part in enumerate(parts):
            done += work(number, part)
            progress(done, total)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(parts)), context, _begin_worker, (1,)) as pool:
        waiting: list[Future[int]] = [pool.submit(work, number, part) for number, part in enumerate(parts)]
        try:
            for future in as_completed(waiting):
                done += future.result()
                progress(done, total)
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker that extracts features was killed, perhaps for want of memory: give the command "
                "again, what is finished is kept, or use fewer jobs"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _join_parts(folder: Path, n_parts: int, dim: int, dtype: str) -> NDArray[np.int64]:
    """Write ``feats.npy`` and ``means.npy`` from all parts, one part in memory at a time; frames, (U,)."""
    frames, means = [], []
    for number in range(n_parts):
        with np.load(_part(folder, number)) as part:
            frames.append(part["frames"])
            means.append(part["means"])
    with atomic(folder / "feats.npy") as temporary:
        shape = (int(sum(map(np.sum, frames))), dim)
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.dtype(dtype), shape=shape)
        at = 0
        for number in range(n_parts):
            with np.load(_part(folder, number)) as part:
                rows = part["rows"]
            array[at : at + len(rows)] = rows
            at += len(rows)
        array.flush()
        del array
    with atomic(folder / "means.npy") as temporary:
        np.save(temporary, np.concatenate(means))
    return np.concatenate(frames).astype(np.int64)
