"""CTC networks from a corpus to the ternary paper's tables: every kind of row, graphs, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from greenasr.data.files import read_json
from greenasr.decode.labels import words_of
from greenasr.decode.nbest import read_nbest
from greenasr.decode.transducer import transducer_nbest
from greenasr.pipeline import ctc
from greenasr.pipeline.ctc import Place
from greenasr.pipeline.ctc_models import load_ctc
from greenasr.pipeline.ctc_recipe import load_ctc_recipe
from greenasr.score.errors import read_errors, wer

Call = Callable[..., Any]
Recipe = Callable[..., Path]
ROWS = """
[[row]]
method = "float"
[[row]]
method = "float"
network = "rt-0.9"
epochs = 3
model = { ternary = { threshold = 0.9 } }
[[row]]
method = "float"
network = "rt-0"
epochs = 3
model = { ternary = { threshold = 0.0 } }
[[row]]
method = "float"
network = "rt-0.5-id"
epochs = 3
model = { skips = "identity", ternary = { threshold = 0.5, structured = true } }
[[row]]
method = "none"
bits = 8
[[row]]
method = "acosr"
bits = 4
start = "rt-0.9"
[[row]]
method = "hessian"
bits = 4.0
fit = "admm"
[[row]]
method = "kl"
bits = 4.0
start = "rt-0.9"
"""
NETWORKS = ["float", "rt-0.9", "rt-0", "rt-0.5-id"]
COMPRESSED = ["none-8", "rt-0.9-acosr-4", "hessian-4-admm", "rt-0.9-kl-4"]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, write_recipe: Recipe, greenasr: Call
) -> Place:
    """The run folder of a table with every kind of row."""
    folder = tmp_path_factory.mktemp("ctc")
    recipe = write_recipe(folder, ROWS, kind="ctc")
    called = greenasr("table", recipe, "--data", corpus, "--out", folder / "run")
    assert called.code == 0, called.err
    return Place(load_ctc_recipe(recipe), folder / "run", corpus)


def rows_of(place: Place) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in read_json(place.run / "table.json")["rows"]}


def test_every_row_is_in_the_table_with_its_network_and_files_size(place: Place) -> None:
    rows, home = rows_of(place), place.run / "all" / "seed0"
    assert list(rows) == [*NETWORKS, *COMPRESSED]
    for name, each in rows.items():
        assert each["bytes"] == (home / name / "model.packed").stat().st_size
        assert each["words"] == 30 and each["left_out"] == 0 and each["rtf"] > 0
    assert rows["float"]["wer"]["test"][0] < 50, "of three words, guessing has 67"
    assert [rows[name]["threshold"] for name in NETWORKS] == [None, 0.9, 0.0, 0.5]
    assert rows["rt-0.9"]["parameters"] == rows["rt-0"]["parameters"] < rows["float"]["parameters"]
    assert rows["rt-0.9"]["dense"] == "rt-0" and rows["rt-0"]["dense"] is None
    assert rows["rt-0.9-acosr-4"]["start"] == "rt-0.9" and rows["rt-0.9-acosr-4"]["bits"] == 4
    text = (place.run / "table.md").read_text()
    assert text.startswith("# Miniature") and "nan" not in text and "ternary, t = 0.9: ACosR, 4 bits" in text
    page = (place.run / "report.html").read_text()
    assert "Fig. 4: WER against sparsity" in page and "Fig. 5: WER against trained parameters" in page


def test_ternary_weights_are_generated_and_stay_where_they_were(place: Place) -> None:
    home = place.run / "all" / "seed0"
    plain, small = (load_ctc(home / name / "model.packed").model for name in ("rt-0.9", "rt-0.9-acosr-4"))
    torch.testing.assert_close(
        plain.blocks[0].subs[0].pointwise.weight, small.blocks[0].subs[0].pointwise.weight, rtol=0, atol=0
    )
    assert not any("blocks.0.subs.0.pointwise" in name for name, _ in plain.named_parameters())


def test_words_are_those_of_the_packed_file(place: Place) -> None:
    search = place.recipe.decode.search()
    for name, engine in (("float", "torch"), ("rt-0.9-acosr-4", "runtime")):
        folder = place.run / "all" / "seed0" / name
        saved = load_ctc(folder / "model.packed")
        results = [read_json(folder / stage / "result.json") for stage in ("words", "with-graph")]
        assert [result["engine"] for result in results] == [engine] * 2
        for entry in read_nbest(folder / "words" / "test.nbest.jsonl"):
            with torch.no_grad():
                logits, _ = saved.model(torch.from_numpy(place.store("test")[entry.id])[None], None)
            hyps = search(logits[0].log_softmax(1).numpy())
            again = transducer_nbest(entry.id, entry.ref, hyps, partial(words_of, saved.units.tokenizer))
            assert again.hyps[0] == entry.hyps[0]
            assert again.scores[0] == pytest.approx(entry.scores[0], abs=1e-2 if engine == "torch" else 0.1)


def test_graphs_of_lexicon_and_ngram_say_only_words(place: Place) -> None:
    home = place.run / "all" / "seed0"
    weights = read_json(home / "graph-weights" / "result.json")
    assert weights["tuned_on"] == ["all", "dev"] and weights["acoustic_scale"] > 0
    for name, each in rows_of(place).items():
        folder = home / name / "with-graph"
        said = {w for e in read_nbest(folder / "test.nbest.jsonl") for hyp in e.hyps for w in hyp.split()}
        assert said <= {"go", "stop", "left"}
        found = wer(read_errors(folder / "test.errors.jsonl"))
        assert each["graph"]["wer"]["test"][0] == pytest.approx(found)
        assert set(each["rescored"]["wer"]) == {"test"}
    assert wer(read_errors(home / "float" / "with-graph" / "test.errors.jsonl")) < 25


def test_lists_of_one_are_not_put_in_order(corpus: Path, write_recipe: Recipe, tmp_path: Path) -> None:
    one = (("beam = 4", "beam = 1"), ("nbest = 3", "nbest = 1"))
    recipe = load_ctc_recipe(write_recipe(tmp_path, '[[row]]\nmethod = "float"\n', *one, kind="ctc"))
    names = [stage.name.removeprefix("all/seed0/") for stage in ctc.stages(Place(recipe, tmp_path, corpus))]
    assert {"float/words", "float/with-graph", "graph-weights"} < set(names)
    assert not {"float/with-ngram", "ngram-weights"} & set(names)


def test_utterances_too_short_for_their_letters_are_left_out_and_counted(
    corpus: Path, write_recipe: Recipe, tmp_path: Path, greenasr: Call
) -> None:
    recipe = write_recipe(tmp_path, '[[row]]\nmethod = "float"\n', ("stride = 2", "stride = 8"), kind="ctc")
    called = greenasr(
        "table", recipe, "--data", corpus, "--out", tmp_path / "run", "--only", "all/labels,features"
    )
    assert called.code == 0, called.err
    place = Place(load_ctc_recipe(recipe), tmp_path / "run", corpus)
    task, left_out = ctc.make_task(place, "all", place.recipe.rows[0])
    assert left_out > 0 and left_out + len(task.ids["train"]) == len(place.training_ids("all"))


def test_a_corpus_without_a_dev_split_holds_training_speakers_out(
    corpus: Path, write_recipe: Recipe, tmp_path: Path, greenasr: Call
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "audio").symlink_to(corpus / "audio")
    lines = (corpus / "manifest.tsv").read_text().splitlines()
    (data / "manifest.tsv").write_text("\n".join(line for line in lines if "\tdev\t" not in line) + "\n")
    held = ("speeds = [0.9, 1.0]", "speeds = [0.9, 1.0]\nheld_out = 0.25")
    recipe = write_recipe(tmp_path, '[[row]]\nmethod = "float"\n', held, kind="ctc")
    called = greenasr("table", recipe, "--data", data, "--out", tmp_path / "run", "--only", "features")
    assert called.code == 0, called.err
    place = Place(load_ctc_recipe(recipe), tmp_path / "run", data)
    spoken = {
        name: {s.split("-")[-1] for s in place.store(name).speakers} for name in ("train", "dev", "test")
    }
    assert len(spoken["dev"]) == 1 and len(spoken["train"]) == 3 and not spoken["dev"] & spoken["train"]
    called = greenasr("table", recipe, "--data", corpus, "--out", tmp_path / "other", "--only", "corpus")
    assert called.code == 2 and "has a split 'dev': leave [corpus] held_out out" in called.err


def test_a_table_may_begin_from_a_packed_network_and_compress_it_as_it_is(
    place: Place, corpus: Path, write_recipe: Recipe, tmp_path: Path, greenasr: Call
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("audio", "manifest.tsv"):
        (data / name).symlink_to(corpus / name)
    there = place.run / "all" / "seed0" / "float" / "model.packed"
    (data / "given.packed").symlink_to(there)
    given = ('kind = "letters"', 'packed = "given.packed"')
    rows = '[[row]]\nmethod = "float"\n[[row]]\nmethod = "none"\nbits = 8\n'
    only = "all/seed0/float/words,all/seed0/none-8/words"
    recipe = write_recipe(tmp_path, rows, given, ("epochs = 20", "epochs = 0"), kind="ctc")
    called = greenasr("table", recipe, "--data", data, "--out", tmp_path / "run", "--only", only)
    assert called.code == 0, called.err
    words = Path("all") / "seed0" / "float" / "words" / "test.nbest.jsonl"
    assert (tmp_path / "run" / words).read_text() == (place.run / words).read_text()
    for change, message in (
        (
            ("width = 24", "width = 20"),
            "its width is 24, the recipe's 20: give the file's settings in [model]",
        ),
        (('packed = "given.packed"', 'packed = "none.packed"'), "none.packed: no such file"),
    ):
        recipe.write_text(recipe.read_text().replace(*change))
        called = greenasr(
            "table", recipe, "--data", data, "--out", tmp_path / change[1][-6:-1], "--only", only
        )
        assert called.code == 2 and message in called.err, called.err


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        (
            (),
            '[[row]]\nmethod = "float"\nnetwork = "a"\nmodel = { width = 8 }\n',
            "one must be method 'float'",
        ),
        ((), '[[row]]\nmethod = "float"\nnetwork = "a"\n', "needs a name, network, and what it changes"),
        (
            (),
            '[[row]]\nmethod = "float"\nnetwork = "a/b"\nmodel = { width = 8 }\n',
            "network 'a/b' is to be a folder",
        ),
        ((), '[[row]]\nmethod = "bp"\nbits = 4\nnetwork = "a"\nmodel = { width = 8 }\n', "start's network"),
        ((), '[[row]]\nmethod = "float"\n[[row]]\nmethod = "bp"\nbits = 4\nstart = "x"\n', "no row 'x'"),
        ((("stride = 2", "strides = 2"),), '[[row]]\nmethod = "float"\n', "strides"),
        ((("beam = 4", "beam = 2"),), '[[row]]\nmethod = "float"\n', "a beam of 2, 3 hypotheses"),
        (
            (),
            '[[row]]\nmethod = "float"\n[[row]]\nmethod = "float"\nnetwork = "a"\n'
            "model = { ternary = { threshold = 1.0 } }\n",
            "t = 1 makes every ternary weight zero",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    changes: tuple[tuple[str, str], ...],
    rows: str,
    message: str,
    write_recipe: Recipe,
    tmp_path: Path,
    greenasr: Call,
) -> None:
    recipe = write_recipe(tmp_path, rows, *changes, kind="ctc")
    called = greenasr("table", recipe, "--out", tmp_path / "run")
    assert called.code == 2 and len(called.err.splitlines()) == 1
    assert message in called.err
