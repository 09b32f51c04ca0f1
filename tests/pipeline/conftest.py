"""A miniature corpus that can be recognised: words are tones and hisses, every speaker has a pitch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

WORDS = {"go": "A B", "stop": "B C", "left": "C A"}
TONES = {"A": 500.0, "B": 0.0, "C": 2200.0}  # Hz; B is a hiss
RATE = 16_000

RECIPE = """
kind = "hybrid"
title = "Miniature"
[corpus]
source = "manifest.tsv"
lexicon = "words.dic"
tests = ["test"]
speeds = [0.9, 1.0]
[features]
bins = 20
[align]
passes = 3
gaussians = 24
min_count = 3
[model]
layers = 2
dim = 16
bottleneck = 6
strides = [1, 3]
prefinal = 8
[chain]
frames = 800
time_width = 3
freq_width = 2
[train]
epochs = 2
lr = 1e-2
leg = 5
[search]
dims = [2, 6]
epochs = 1
choice_epochs = 2
held_out = 0.2
[compress]
widths = [2, 4, 8]
by = "layer"
step = "row"
epochs = 1
cost_batches = 1
max_probes = 4
[decode]
order = 2
tune = false
beam = 10
lattice_beam = 4
nbest = 3
"""


TRANSDUCERS = """
kind = "transducer"
title = "Miniature"
[corpus]
source = "manifest.tsv"
tests = ["test"]
speeds = [0.9, 1.0]
[features]
bins = 20
cmvn = "running"
[labels]
kind = "words"
size = 20
[model]
encoder_layers = 1
encoder_dim = 32
predictor_layers = 1
predictor_dim = 16
embedding_dim = 8
joint_dim = 32
dropout = 0.0
[task]
frames = 400
time_width = 3
freq_width = 2
[train]
epochs = 20
lr = 2e-2
leg = 40
[compress]
widths = [2, 4, 8]
epochs = 2
lr = 2e-3
cost_batches = 1
max_probes = 4
cost_frames = 300
[decode]
beam = 3
nbest = 3
order = 2
"""


CTC = """
kind = "ctc"
title = "Miniature"
[corpus]
source = "manifest.tsv"
tests = ["test"]
speeds = [0.9, 1.0]
[features]
bins = 20
[labels]
kind = "letters"
[model]
blocks = 2
repeat = 1
width = 24
kernels = [9, 9]
widths = [24, 24]
epilogue = [24, 32]
stride = 2
[task]
frames = 400
time_width = 3
freq_width = 2
[train]
epochs = 20
lr = 1e-2
leg = 40
[compress]
widths = [2, 4, 8]
epochs = 2
lr = 2e-3
cost_batches = 1
max_probes = 4
cost_frames = 300
[decode]
beam = 4
nbest = 3
order = 2
"""
RECIPES = {"hybrid": RECIPE, "transducer": TRANSDUCERS, "ctc": CTC}


def speak(words: Sequence[str], pitch: float = 1.0, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    """Samples of words in `WORDS`: 90 to 130 ms a phone, quiet between words and around them, (n,)."""
    draw = np.random.default_rng(seed)
    parts = [np.zeros(rate // 8)]
    for word in words:
        for phone in WORDS[word].split():
            n = int(rate * draw.uniform(0.09, 0.13))
            time = np.arange(n) / rate
            tone = np.sin(2 * np.pi * pitch * TONES[phone] * time) if TONES[phone] else draw.normal(0, 0.6, n)
            parts.append(0.4 * tone * np.hanning(n))
        parts.append(np.zeros(int(rate * draw.uniform(0.03, 0.1))))
    heard = np.concatenate([*parts, np.zeros(rate // 8)])
    return np.asarray(heard + draw.normal(0, 0.003, len(heard)), np.float32)


def make_corpus(folder: Path, utterances: int = 5) -> Path:
    """manifest.tsv, words.dic and sounds of four training, one development and two test speakers."""
    draw = np.random.default_rng(0)
    lines = ["utt_id\taudio\tspeaker\tsplit\ttext"]
    speakers = [("train", "sp1"), ("train", "bob"), ("train", "cat"), ("train", "dan"), ("dev", "eve")]
    speakers += [("test", "fay"), ("test", "gus")]
    for number, (split, speaker) in enumerate(speakers):
        for k in range(utterances):
            words = [str(w) for w in draw.choice(list(WORDS), 3)]
            seed = 100 * number + k
            audio = folder / "audio" / f"{speaker}-{k}.wav"
            audio.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(audio, speak(words, 0.85 + 0.05 * number, seed), RATE)
            lines.append(f"{speaker}-{k}\taudio/{audio.name}\t{speaker}\t{split}\t{' '.join(words)}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    (folder / "words.dic").write_text("".join(f"{word} {phones}\n" for word, phones in WORDS.items()))
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature, never written to by a test."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def own_corpus(corpus: Path, tmp_path: Path) -> Path:
    """A copy to be spoiled."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


Recipe = Callable[..., Path]


@pytest.fixture(scope="session")
def write_recipe() -> Recipe:
    """``write_recipe(folder, rows, (what, becomes), …)``: recipe.toml, some of `RECIPES[kind]` replaced."""

    def write(folder: Path, rows: str, *changes: tuple[str, str], kind: str = "hybrid") -> Path:
        text = RECIPES[kind]
        for what, becomes in changes:
            assert text.count(what) == 1, what
            text = text.replace(what, becomes)
        path = folder / "recipe.toml"
        path.write_text(text + rows)
        return path

    return write


@pytest.fixture(scope="session")
def say() -> Callable[..., NDArray[np.float32]]:
    """`speak`, for corpora of other layouts."""
    return speak


KEYWORDS = """
kind = "keywords"
title = "Miniature"
[corpus]
source = "words"
tests = ["test"]
speeds = [1.0]
seeds = [0, 1]
[features]
kind = "mfcc"
bins = 16
[labels]
background = 0.3
[model]
blocks = 1
width = 16
edge = 24
[task]
batch = 32
frames = 60
every = 2
shift = 3
freq_masks = 0
time_masks = 0
[train]
epochs = 40
lr = 2e-2
leg = 40
[compress]
widths = [2, 4, 8]
epochs = 3
lr = 2e-3
cost_batches = 1
max_probes = 4
[decode]
nbest = 2
[[row]]
method = "float"
[[row]]
method = "float"
network = "rt"
model = { skips = "identity", ternary = { threshold = 0.3 } }
[row.paper]
accuracy = 97.41
parameters = 77
[[row]]
method = "bp"
bits = 8
start = "rt"
[[row]]
method = "kl"
bits = 5.0
start = "rt"
[[row]]
method = "none"
bits = 2
"""


def make_words(folder: Path) -> Path:
    """Speech Commands in miniature: a folder a word, both lists, and noise of two seconds."""
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for speaker in range(14):
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            sound = speak([word], 0.85 + 0.02 * speaker, seed=7 * speaker + len(word))
            soundfile.write(folder / name, sound, RATE)
            if speaker in (2, 5, 8, 11):
                lists["testing_list.txt"].append(name)
            elif speaker == 6:
                lists["validation_list.txt"].append(name)
    for name, clips in lists.items():
        (folder / name).write_text("\n".join(clips) + "\n")
    (folder / "_background_noise_").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    soundfile.write(folder / "_background_noise_" / "fan.wav", noise, RATE)
    return folder


@pytest.fixture(scope="session")
def spotted(tmp_path_factory: pytest.TempPathFactory, greenasr: Callable[..., Any]) -> Path:
    """The run folder of a table of keyword models, with its recipe and the folder ``words`` beside it."""
    folder = tmp_path_factory.mktemp("spotted")
    make_words(folder / "words")
    (folder / "recipe.toml").write_text(KEYWORDS)
    called = greenasr("table", folder / "recipe.toml", "--data", folder, "--out", folder / "run")
    assert called.code == 0, called.err
    return folder / "run"


ROWS = (
    *(("float", 32, ""), ("acosr", 8, ""), ("acosr", 6, "published = true")),
    *(("none", 6, 'activations = "float32"'), ("kl", 4.0, ""), ("hessian", 4.0, 'fit = "acosr"')),
)


@pytest.fixture(scope="session")
def transduced(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, write_recipe: Recipe, greenasr: Callable[..., Any]
) -> Path:
    """The run folder of a table of transducers, with every kind of row, that nobody disturbed."""
    folder = tmp_path_factory.mktemp("transduced")
    rows = "".join(f'[[row]]\nmethod = "{method}"\nbits = {bits}\n{more}\n' for method, bits, more in ROWS)
    recipe = write_recipe(folder, rows, kind="transducer")
    called = greenasr("table", recipe, "--data", corpus, "--out", folder / "run")
    assert called.code == 0, called.err
    return folder / "run"
