"""The stages of a hybrid recogniser on a miniature corpus: who is heard where, and what is refused."""

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
from greenasr.data.ivectors import load_vectors
from greenasr.pipeline.hybrid import Place, listening, make_task
from greenasr.pipeline.hybrid_recipe import load_hybrid
from greenasr.tasks.chain import original

Call = Callable[..., Any]
Recipe = Callable[..., Path]
FLOAT = '[[row]]\nmethod = "float"\nnetwork = "manual"\n'
IVECTORS = ("bins = 20", "bins = 20\nivectors = 3\nivector_gaussians = 4")
FOLDS = ('tests = ["test"]', 'tests = ["test"]\nfolds = 2')


def plain(utt_id: str) -> str:
    return original(utt_id)[0]


def row(method: str, bits: float = 32, more: str = "") -> str:
    return f'[[row]]\nmethod = "{method}"\nbits = {bits}\n{more}'


@pytest.fixture(scope="module")
def folded(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory, write_recipe: Recipe, greenasr: Call
) -> Place:
    """Corpus, features, alignment and i-vectors of all parts of two folds."""
    folder = tmp_path_factory.mktemp("folded")
    recipe = write_recipe(folder, FLOAT, FOLDS, IVECTORS)
    stages = [f"{part}/{stage}" for part in ("all", "fold0", "fold1") for stage in ("align", "ivectors")]
    called = greenasr("table", recipe, "--data", corpus, "--out", folder / "run", "--only", ",".join(stages))
    assert called.code == 0, called.err
    return Place(load_hybrid(recipe), folder / "run", corpus)


def test_every_training_speaker_is_tested_once_by_models_that_never_heard_it(folded: Place) -> None:
    store = folded.store("train")
    assert sorted(folded.fold("fold0") | folded.fold("fold1")) == ["bob", "cat", "dan", "sp1"]
    assert not folded.fold("fold0") & folded.fold("fold1") and not folded.fold("all")
    tested = []
    for part in ("fold0", "fold1"):
        trained, heard = folded.training_ids(part), folded.test_ids(part)[part]
        assert not {original(u)[0] for u in trained} & set(heard)
        assert not {store.speakers[store.place[u]] for u in heard} & {
            original(store.speakers[store.place[u]])[0] for u in trained
        }
        assert len(trained) == 2 * 2 * 5 and all(original(u)[1] == 1.0 for u in heard)
        tested += heard
    assert sorted(tested) == sorted(u for u in store.ids if original(u)[1] == 1.0)
    assert len(folded.training_ids("all")) == len(store) == 40
    assert list(folded.test_ids("all")) == ["test"] == list(folded.tests)


def test_a_task_trains_on_the_part_s_speech_and_holds_whole_utterances_out(folded: Place) -> None:
    task, units = make_task(folded, "fold0", held_out=0.2)
    train, dev = set(task.ids["train"]), set(task.ids["dev"])
    copies = {f"sp0.9-{utt_id}" for utt_id in dev}
    assert train | dev | copies == set(folded.training_ids("fold0")) and len(dev) == 0.2 * 10
    assert not train & copies, "who held an utterance out did not hear its copies"
    assert set(task.targets) == train | dev | copies and set(task.numerators) == set(map(plain, train)) | dev
    assert units.pdf_map.n_pdfs == read_json(folded.run / "fold0/align/result.json")["pdfs"]
    assert all(pdfs.max() < units.pdf_map.n_pdfs for pdfs in task.targets.values())
    (batch, *_) = task.batches("dev")
    assert batch.ivectors is not None and batch.ivectors.shape == (len(batch), 3)


def test_ivectors_are_an_utterance_s_in_training_and_a_speaker_s_in_tests(folded: Place) -> None:
    for part, name, speaker_of in (
        ("all", "test", folded.store("test")),
        ("fold1", "fold1", folded.store("train")),
    ):
        vectors = load_vectors(folded.run / part / "ivectors" / f"{name}.npz")
        assert set(vectors) == set(folded.test_ids(part)[name])
        by_speaker: dict[str, list[Any]] = {}
        for utt_id, vector in vectors.items():
            by_speaker.setdefault(speaker_of.speakers[speaker_of.place[utt_id]], []).append(vector)
        assert len(by_speaker) == 2
        assert all(np.array_equal(each, of[0]) for of in by_speaker.values() for each in of)
        assert listening(folded, part, name).ivectors is not None
    trained = load_vectors(folded.run / "fold1" / "ivectors" / "train.npz")
    assert set(trained) == set(folded.training_ids("fold1"))
    assert len(np.unique(np.stack(list(trained.values())), axis=0)) == len(trained)
    assert "dev" in {path.stem for path in (folded.run / "all" / "ivectors").glob("*.npz")}


def test_utterances_shorter_than_their_phones_are_skipped_counted_and_harm_nothing(
    own_corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 900).astype(np.float32)
    soundfile.write(own_corpus / "audio" / "short.wav", noise, 16_000)
    with open(own_corpus / "manifest.tsv", "a") as file:
        for split, speaker in (("train", "bob"), ("dev", "eve"), ("test", "fay")):
            file.write(f"{speaker}-short\taudio/short.wav\t{speaker}\t{split}\tgo stop left go stop\n")
    recipe, run = write_recipe(tmp_path, FLOAT, ("epochs = 2\nlr", "epochs = 1\nlr")), tmp_path / "run"
    called = greenasr("table", recipe, "--data", own_corpus, "--out", run)
    assert called.code == 0, called.err
    assert read_json(run / "all/align/result.json")["skipped"] == 1
    log = [json.loads(line) for line in (run / "all/seed0/float/log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(step["loss"]) for step in log)
    errors = (run / "all/seed0/float/words/test.errors.jsonl").read_text()
    assert '"fay-short", "n_ref": 5' in errors, "in a test set it counts"


def spelled(run: Path) -> dict[str, list[str]]:
    return dict(read_json(run / "corpus" / "lexicon.json")["prons"])


def test_words_that_the_lexicon_lacks_are_spelled_when_asked_in_units_of_their_own(
    own_corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    (own_corpus / "words.dic").write_text("go g o\nstop s t o p\n")
    asked = ('lexicon = "words.dic"', 'lexicon = "words.dic"\ngrapheme = true')
    recipe, run = write_recipe(tmp_path, FLOAT, asked), tmp_path / "run"
    called = greenasr("table", recipe, "--data", own_corpus, "--out", run, "--only", "corpus")
    assert called.code == 0, called.err
    assert spelled(run) == {"go": ["g o"], "left": ["@l @e @f @t"], "stop": ["s t o p"]}
    assert read_json(run / "corpus" / "splits.json") == ["train", "dev", "test"]
    recipe = write_recipe(tmp_path, FLOAT, ('lexicon = "words.dic"\n', ""), ('["test"]', '["dev"]'))
    called = greenasr("table", recipe, "--data", own_corpus, "--out", tmp_path / "bare", "--only", "corpus")
    assert called.code == 0, called.err
    assert spelled(tmp_path / "bare")["left"] == ["l e f t"]
    assert read_json(tmp_path / "bare" / "corpus" / "splits.json") == ["train", "dev"], "no test set, no cuts"


BAD = [
    (FLOAT, ("bins = 20", "bnis = 20"), r"recipe.toml: \[features\] has no 'bnis'; it knows .*bins"),
    (FLOAT, ("[search]", "[serch]"), r"recipe.toml: unknown key 'serch'; a recipe has title, corpus"),
    (FLOAT, ("dim = 16", "dims = 16"), r"recipe.toml: network 'tdnnf': .*'dims'; its settings are"),
    (FLOAT, ("strides = [1, 3]", "strides = [1]"), r"strides has 1 entries for 2 layers"),
    (
        FLOAT,
        ("[search]", '[lhuc]\nrows = ["bp-4"]\n[search]'),
        r"\[lhuc\] rows names 'bp-4': choose from float",
    ),
    (FLOAT, ("[search]", "[lhuc]\nhyps = 0\n[search]"), r"\[lhuc\] hyps is 0: a speaker learns from one"),
    (FLOAT, ('["test"]', '["exam"]'), r"manifest.tsv: no test set 'exam', found train, dev, test"),
    (
        FLOAT,
        ('tests = ["test"]', 'train = "learn"'),
        r"manifest.tsv: no split 'learn', found train, dev, test",
    ),
    (FLOAT, ("[0.9, 1.0]", "[0.9]"), r"\[corpus\] speeds must hold 1.0"),
    (FLOAT, ('"words.dic"', '"nowhere.dic"'), r"nowhere.dic: no such file"),
    (FLOAT, ('"manifest.tsv"', '"nowhere"'), r"nowhere: no such file or folder"),
    (FLOAT, ("widths = [2, 4, 8]", "widths = [2, 5]"), r"\[compress\] widths has 5: choose from 1, 2, 3, 4"),
    (
        FLOAT + row("hessian", 9.0),
        None,
        r"row 'hessian-9' asks for 9 bits on average, its widths go from 2 to 8",
    ),
    (FLOAT + row("search", 4.0), None, r"row 'search-4' chooses between admm rows of its network: give two"),
    (
        FLOAT + row("bp", 4, 'network = "best"'),
        None,
        r"row 'bp-4' has network 'best': choose manual or searched",
    ),
    (FLOAT + "teach = 0.5\n", None, r"row 'float' has teach: nothing was trained before it"),
    (FLOAT + row("bp", 4, "teach = 1.5"), None, r"row 'bp-4' has teach 1.5: choose from 0 to 1"),
    (row("bp", 4), None, r"one must be method 'float', network 'manual'; got bp-4"),
    (FLOAT + FLOAT, None, r"rows must differ"),
]


@pytest.mark.parametrize(("rows", "change", "message"), BAD, ids=[message for *_, message in BAD])
def test_a_bad_recipe_is_one_line_and_exit_code_2(
    rows: str, change: tuple[str, str] | None, message: str, corpus: Path, tmp_path: Path,
    write_recipe: Recipe, greenasr: Call,
) -> None:  # fmt: skip
    recipe = write_recipe(tmp_path, rows, *([change] if change else []))
    called = greenasr("table", recipe, "--data", corpus, "--out", tmp_path / "run")
    assert called.code == 2 and called.out == ""
    assert re.fullmatch(rf"(?s).*greenasr: [^\n]*{message}[^\n]*\n", called.err), called.err


def test_a_bad_corpus_is_one_line_and_exit_code_2(
    own_corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    recipe, run = write_recipe(tmp_path, FLOAT), tmp_path / "run"
    (own_corpus / "words.dic").write_text("go A B\nstop B C\nleave C A\n")
    called = greenasr("table", recipe, "--data", own_corpus, "--out", run)
    assert called.code == 2
    assert re.search(
        r"words.dic: 1 words of the training text lack a pronunciation, the first is 'left'", called.err
    )
    assert not (run / "corpus" / "result.json").exists()
    called = greenasr("table", recipe, "--out", run)
    assert (called.code, "give its folder with --data" in called.err) == (2, True)
    called = greenasr("table", recipe, "--data", own_corpus, "--out", run, "--only", "all/seed1/float")
    assert (called.code, "no stage 'all/seed1/float'; there are corpus, features" in called.err) == (2, True)


def test_a_folder_of_another_run_is_refused(
    corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path, FLOAT)
    assert greenasr("table", recipe, "--data", corpus, "--out", run, "--only", "corpus").code == 0
    recipe = write_recipe(tmp_path, FLOAT, ("min_count = 3", "min_count = 4"))
    called = greenasr("table", recipe, "--data", corpus, "--out", run)
    assert called.code == 2
    assert re.search(r"run/recipe.json: this folder holds a run with other settings \(align\)", called.err)


def test_a_run_goes_on_where_its_folder_has_been_moved(
    corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, FLOAT)
    monkeypatch.chdir(tmp_path)
    assert greenasr("table", recipe, "--data", corpus, "--out", "run", "--only", "features").code == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "elsewhere" / "moved")
    called = greenasr("table", recipe, "--data", corpus, "--out", "elsewhere/moved", "--only", "all/align")
    assert called.code == 0, called.err


def test_a_model_cut_short_is_named_and_what_is_finished_stays(
    corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    recipe, run = write_recipe(tmp_path, FLOAT, ("epochs = 2\nlr", "epochs = 1\nlr")), tmp_path / "run"
    command = ("table", recipe, "--data", corpus, "--out", run)
    assert greenasr(*command, "--only", "all/seed0/float").code == 0
    path = run / "all" / "seed0" / "float" / "model.packed"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    called = greenasr(*command)
    assert called.code == 2
    assert re.search(r"greenasr: [^\n]*float/model.packed: [^\n]+\n$", called.err)
    path.write_bytes(whole)
    called = greenasr(*command)
    assert called.code == 0, called.err
    assert (run / "table.md").exists()
