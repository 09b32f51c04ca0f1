"""`greenasr table` on a corpus with something wrong in it: refused in one line, or carried to the end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from greenasr.data.files import read_json
from greenasr.pipeline.acoustic_models import load_acoustic, save_acoustic
from greenasr.score.errors import read_errors

Call = Callable[..., Any]
Recipe = Callable[..., Path]
FLOAT = '[[row]]\nmethod = "float"\nnetwork = "manual"\n'
SHORT = ("epochs = 2\nlr", "epochs = 1\nlr")
BOB = "bob-0\taudio/bob-0.wav\tbob\ttrain\t"


def sound(corpus: Path, name: str = "bob-0") -> Path:
    return corpus / "audio" / f"{name}.wav"


def rewrite(corpus: Path, change: Callable[[Any], Any], rate: int = 16_000) -> None:
    """Change the samples of one training utterance."""
    samples, _ = soundfile.read(sound(corpus))
    soundfile.write(sound(corpus), change(samples), rate, "FLOAT")


def relist(corpus: Path, change: Callable[[str], str]) -> None:
    """Change the line of one training utterance."""
    path = corpus / "manifest.tsv"
    text = path.read_text()
    line = next(each for each in text.splitlines() if each.startswith(BOB))
    path.write_text(text.replace(line, change(line)))


def truncated(corpus: Path) -> None:
    sound(corpus).write_bytes(sound(corpus).read_bytes()[:9_000])


def beyond(corpus: Path) -> None:
    path = corpus / "manifest.tsv"
    head, *lines = path.read_text().splitlines()
    lines = [f"{line}\t{0}\t{99 * 16_000 if line.startswith(BOB) else ''}" for line in lines]
    path.write_text("\n".join([f"{head}\tstart_sample\tnum_samples", *lines]) + "\n")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda c: sound(c).write_bytes(b""), r"bob-0.wav: the file is empty"),
    "truncated": (truncated, r"bob-0.wav: cut short: 9,000 bytes"),
    "stereo": (lambda c: rewrite(c, lambda x: np.stack([x, x], 1)), r"bob-0.wav: 2 channels, expected one"),
    "NaN": (
        lambda c: rewrite(c, lambda x: np.where(np.arange(len(x)) == 9, np.nan, x)),
        r"bob-0.wav: cut 'bob-0' has 1 samples of [\d,]+ that are NaN or infinite",
    ),
    "zero length": (lambda c: rewrite(c, lambda x: x[:0]), r"bob-0.wav: has no samples \(length 0\)"),
    "gone": (lambda c: sound(c).unlink(), r"manifest.tsv:\d+: there is no audio file \S+bob-0.wav"),
    "no words": (
        lambda c: relist(c, lambda line: BOB),
        r"manifest.tsv:\d+: utterance 'bob-0' has an empty transcript",
    ),
    "twice": (
        lambda c: relist(c, lambda line: f"{line}\n{line}"),
        r"manifest.tsv:\d+: utterance 'bob-0' is there already, at \S+manifest.tsv:\d+",
    ),
    "beyond": (beyond, r"manifest.tsv:\d+: utterance 'bob-0' ends at 99 s, but \S+bob-0.wav ends at"),
    "unknown word": (
        lambda c: relist(c, lambda line: f"{BOB}go stopp"),
        r"words.dic: 1 words of the training text lack a pronunciation, the first is 'stopp' \(near 'stop'\)",
    ),
    "no phones": (
        lambda c: (c / "words.dic").write_text("go A B\nstop\n"),
        r"words.dic:2: 'stop' stands alone, expected 'WORD PH PH'",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_utterance_ends_with_one_line_that_names_it_and_exit_code_2(
    what: str, own_corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    spoil, message = BAD[what]
    spoil(own_corpus)
    recipe, run = write_recipe(tmp_path, FLOAT), tmp_path / "run"
    called = greenasr("table", recipe, "--data", own_corpus, "--out", run, "--only", "features")
    assert called.code == 2 and called.out == ""
    assert re.search(rf"(?:^|[\r\n])greenasr: [^\n]*{message}[^\n]*\n$", called.err), called.err
    assert not (run / "features" / "result.json").exists()


def test_what_can_be_borne_is_borne_to_the_end(
    own_corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    """8 and 48 kHz, digital silence, a speaker of one utterance, and words of a test that nobody knows."""
    path = own_corpus / "manifest.tsv"
    lines = path.read_text().splitlines()
    kept = [
        line for line in lines if not line.startswith(("gus-", "sp1-")) or line.startswith(("gus-0", "sp1-0"))
    ]
    kept = [line.replace("\ttest\t", "\ttest\tnever ") if line.startswith("gus-0") else line for line in kept]
    path.write_text("\n".join(kept) + "\n")
    rewrite(own_corpus, lambda x: x[::2], 8_000)
    samples, _ = soundfile.read(sound(own_corpus, "cat-0"))
    soundfile.write(sound(own_corpus, "cat-0"), np.repeat(samples, 3), 48_000)
    soundfile.write(sound(own_corpus, "dan-0"), np.zeros(16_000), 16_000)
    vectors = ("bins = 20", 'bins = 20\ncmvn = "speaker"\nivectors = 3\nivector_gaussians = 4')
    lhuc = '[lhuc]\nrows = ["float"]\nepochs = 1\n'
    recipe, run = write_recipe(tmp_path, FLOAT + lhuc, SHORT, vectors), tmp_path / "run"
    called = greenasr("table", recipe, "--data", own_corpus, "--out", run)
    assert called.code == 0, called.err
    home = run / "all" / "seed0" / "float"
    log = [json.loads(line) for line in (home / "log.jsonl").read_text().splitlines()]
    assert log and all(np.isfinite(step["loss"]) for step in log)
    found = {each.utt_id: each for each in read_errors(home / "words" / "test.errors.jsonl")}
    assert sorted(found) == ["fay-0", "fay-1", "fay-2", "fay-3", "fay-4", "gus-0"]
    assert found["gus-0"].n_ref == 4 and found["gus-0"].n_sub + found["gus-0"].n_del >= 1
    assert read_json(home / "lhuc" / "result.json")["sets"]["test"]["speakers"] == 2


def test_logits_that_are_not_finite_are_refused_before_the_search(
    corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    recipe, run = write_recipe(tmp_path, FLOAT, SHORT), tmp_path / "run"
    command = ("table", recipe, "--data", corpus, "--out", run)
    assert greenasr(*command, "--only", "all/seed0/float").code == 0
    path = run / "all" / "seed0" / "float" / "model.packed"
    saved = load_acoustic(path)
    saved.model.output.bias.data[0] = float("nan")
    save_acoustic(path, saved.model, saved.units, saved.recipe)
    called = greenasr(*command)
    assert called.code == 2 and called.out == ""
    assert called.err.startswith(f"greenasr: {path}: test, 'fay-0': ") and called.err.count("\n") == 1
    assert re.search(r"\d+ of \d+ logits are not finite, ", called.err), called.err
    assert not (run / "all" / "seed0" / "float" / "words" / "result.json").exists()
