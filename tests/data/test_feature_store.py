"""A store gives back what the extractor made, costs nothing twice, and survives being killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from greenasr.data import feature_store
from greenasr.data.augment import change_speed
from greenasr.data.feature_store import FeatureStore, extract
from greenasr.data.features import Features

FBANK = Features("fbank")


def cut(number: int, speaker: str = "ann") -> Any:
    says = SimpleNamespace(speaker=speaker, text=f"word{number}")
    return SimpleNamespace(id=f"u{number}", start=0.0, duration=0.1 + number / 50, supervisions=[says])


def noise(cut: Any) -> np.ndarray:
    rng = np.random.default_rng(len(cut.id) * 100 + int(cut.id[1:]))
    return (0.1 * rng.normal(size=int(cut.duration * 16_000))).astype(np.float32)


CUTS = [cut(number, "ann" if number % 2 else "bob") for number in range(7)]


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 0.0), ("float16", 8e-3)])
def test_every_utterance_comes_back_as_the_extractor_made_it(tmp_path: Path, dtype: str, atol: float) -> None:
    store = extract(CUTS, tmp_path, FBANK, noise, dtype=dtype)
    assert store.ids == tuple(f"u{number}" for number in range(7)) and len(store) == 7
    assert store.texts[3] == "word3" and store.speakers[3] == "ann"
    for each in CUTS:
        np.testing.assert_allclose(store.raw(each.id), FBANK.raw(noise(each)), atol=atol)
        np.testing.assert_allclose(store[each.id], FBANK(noise(each)), atol=2 * atol + 1e-6)
    assert isinstance(store.array, np.memmap) and store.array.dtype == dtype


def test_cmvn_by_speaker_makes_the_mean_over_all_of_a_speakers_frames_zero(tmp_path: Path) -> None:
    store = extract(CUTS, tmp_path, Features(cmvn="speaker"), noise, dtype="float32")
    for name in ("ann", "bob"):
        frames = np.concatenate(
            [store[u] for u, s in zip(store.ids, store.speakers, strict=True) if s == name]
        )
        np.testing.assert_allclose(frames.mean(0), 0, atol=1e-5)
    assert np.abs(store["u0"].mean(0)).max() > 1e-3


def test_copies_at_other_speeds_are_utterances_and_speakers_of_their_own(tmp_path: Path) -> None:
    store = extract(CUTS[:2], tmp_path, FBANK, noise, speeds=(0.9, 1.0, 1.1), dtype="float32")
    assert store.ids == ("sp0.9-u0", "u0", "sp1.1-u0", "sp0.9-u1", "u1", "sp1.1-u1")
    assert store.speakers[:3] == ("sp0.9-bob", "bob", "sp1.1-bob") and set(store.texts[:3]) == {"word0"}
    np.testing.assert_array_equal(store["sp0.9-u1"], FBANK(change_speed(noise(CUTS[1]), 0.9)))
    assert store.frames[3] > store.frames[4] > store.frames[5]


def test_a_store_is_opened_not_made_again_and_other_settings_make_another(tmp_path: Path) -> None:
    asked: list[str] = []

    def listening(cut: Any) -> np.ndarray:
        asked.append(cut.id)
        return noise(cut)

    first = extract(CUTS, tmp_path, FBANK, listening)
    assert extract(CUTS, tmp_path, FBANK, listening).folder == first.folder and len(asked) == 7
    others = [
        extract(CUTS, tmp_path, Features("mfcc"), listening),
        extract(CUTS, tmp_path, FBANK, listening, dtype="float32"),
        extract(CUTS[:6], tmp_path, FBANK, listening),
        extract(CUTS, tmp_path, FBANK, listening, text=lambda cut: "another"),
    ]
    assert len({first.folder, *(other.folder for other in others)}) == 5
    assert sorted(file.name for file in first.folder.iterdir()) == ["feats.npy", "index.json", "means.npy"]


def test_a_killed_extraction_goes_on_with_the_part_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "PART", 2)
    asked: list[str] = []

    def listening(dies_at: str | None) -> Callable[[Any], np.ndarray]:
        def samples(cut: Any) -> np.ndarray:
            if cut.id == dies_at:
                raise KeyboardInterrupt
            asked.append(cut.id)
            return noise(cut)

        return samples

    with pytest.raises(KeyboardInterrupt):
        extract(CUTS, tmp_path, FBANK, listening("u5"))
    (folder,) = tmp_path.iterdir()
    with pytest.raises(ValueError, match="no index.json: not a feature store, or its extraction did not"):
        FeatureStore.open(folder)
    heard: list[tuple[int, int]] = []
    store = extract(CUTS, tmp_path, FBANK, listening(None), progress=lambda *done: heard.append(done))
    assert asked == ["u0", "u1", "u2", "u3", "u4", "u4", "u5", "u6"]
    assert heard == [(0, 7), (2, 7), (4, 7), (6, 7), (7, 7)]
    whole = extract(CUTS, tmp_path / "at once", FBANK, noise)
    np.testing.assert_array_equal(store.array, whole.array)


@pytest.mark.slow  # workers load torch and lhotse
def test_processes_make_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "PART", 4)
    one = extract(CUTS, tmp_path / "one", Features(), samples_of_a_module)
    two = extract(CUTS, tmp_path / "two", Features(), samples_of_a_module, jobs=2)
    assert one.folder.name == two.folder.name
    for name in ("feats.npy", "means.npy", "index.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def samples_of_a_module(cut: Any) -> np.ndarray:
    return noise(cut)


@pytest.mark.slow  # workers load torch and lhotse
def test_a_killed_worker_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "PART", 4)
    with pytest.raises(ChildProcessError, match="a worker that extracts features was killed"):
        extract(CUTS, tmp_path, FBANK, samples_that_kill, jobs=2)


def samples_that_kill(cut: Any) -> np.ndarray:
    os._exit(9)


def test_bad_audio_is_refused_by_its_utterance(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="utterance 'u3': 9 samples are less than the 400"):
        extract(CUTS, tmp_path, FBANK, lambda cut: noise(cut)[: 9 if cut.id == "u3" else None])


def test_no_cuts_ids_that_come_twice_and_odd_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no cuts"):
        extract([], tmp_path, FBANK, noise)
    with pytest.raises(ValueError, match="utterance 'u1' comes twice"):
        extract([cut(1), cut(1)], tmp_path, FBANK, noise)
    with pytest.raises(ValueError, match="utterance 'sp0.9-u1' comes twice"):
        extract([cut(1)], tmp_path, FBANK, noise, speeds=(0.9, 0.9))
    with pytest.raises(ValueError, match="dtype 'int8'"):
        extract(CUTS, tmp_path, FBANK, noise, dtype="int8")


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    store = extract(CUTS, tmp_path, FBANK, noise)
    with pytest.raises(ValueError, match="no utterance 'u9' among 7, the first is 'u0'"):
        store.raw("u9")
    np.save(store.folder / "feats.npy", np.zeros((3, 40)))
    with pytest.raises(ValueError, match=r"\(3, 40\) where the index says"):
        FeatureStore.open(store.folder)
    (store.folder / "index.json").write_text(json.dumps({"format": "else"}))
    with pytest.raises(ValueError, match="'format' should be 'greenasr feature store 1'"):
        FeatureStore.open(store.folder)
