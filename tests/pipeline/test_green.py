"""GREEN's tables from a corpus to a page: every kind of row, stopped and gone on, and in folds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from greenasr.data.files import read_json
from greenasr.decode.nbest import read_nbest
from greenasr.pipeline import green, hybrid
from greenasr.pipeline.acoustic_models import load_acoustic
from greenasr.pipeline.hybrid import Place
from greenasr.pipeline.hybrid_recipe import load_hybrid
from greenasr.pipeline.place import ALL
from greenasr.pipeline.run import finished, needed
from greenasr.score.errors import count_errors, read_errors, wer

Call = Callable[..., Any]
Recipe = Callable[..., Path]

FLOAT = '[[row]]\nmethod = "float"\nnetwork = "manual"\n'
COMPACT = '[[row]]\nmethod = "float"\n'


def row(method: str, bits: float, more: str = "") -> str:
    return f'[[row]]\nmethod = "{method}"\nbits = {bits}\n{more}\n'


ROWS = (
    FLOAT
    + COMPACT
    + "teach = 0.5\n"
    + row("none", 8, "paper = { wer = 15.4, mb = 12.6 }")
    + row("admm", 2)
    + row("admm", 8)
    + row("hessian", 4.0)
    + row("kl", 4.0, 'fit = "acosr"')
    + row("search", 4.0)
    + row("bp", 4, 'network = "manual"\nteach = 0.5\ndropout = 0.0')
    + '[lhuc]\nrows = ["hessian-4"]\nepochs = 1\n'
)
TUNED = ("tune = false", "tune = true")
UNHEARD = "never Z\n"  # a word of the lexicon, and its phone, that nobody says


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, write_recipe: Recipe, greenasr: Call
) -> Place:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder, ROWS, TUNED, ("epochs = 2\nlr", "epochs = 6\nlr"))
    called = greenasr("table", recipe, "--data", corpus, "--out", folder / "run")
    assert called.code == 0, called.err
    return Place(load_hybrid(recipe), folder / "run", corpus)


def rows_of(run: Path) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in read_json(run / "table.json")["rows"]}


def test_every_row_is_in_the_table_with_its_file_s_size(whole: Place) -> None:
    rows = rows_of(whole.run)
    assert list(rows) == [
        "float", "compact", "none-8", "admm-2", "admm-8", "hessian-4", "kl-4-acosr", "search-4", "bp-4",
    ]  # fmt: skip
    home = whole.run / "all" / "seed0"
    for name, each in rows.items():
        assert each["bytes"] == (home / name / "model.packed").stat().st_size
        assert each["ratio"] == pytest.approx(rows["float"]["bytes"] / each["bytes"])
        assert each["words"] == 30 and each["runs"] == 1
    assert rows["float"]["bits"] == 32 and rows["none-8"]["bits"] == 8
    assert rows["none-8"]["paper"] == {"wer": 15.4, "mb": 12.6}
    assert rows["admm-2"]["bytes"] < rows["admm-8"]["bytes"] < rows["compact"]["bytes"]
    for name in ("hessian-4", "kl-4-acosr", "search-4"):
        assert set(rows[name]["plan"].values()) <= {2, 4, 8} and rows[name]["bits"] <= 4
    text = (whole.run / "table.md").read_text()
    assert text.startswith("# Miniature") and "nan" not in text


def test_words_are_recognised(whole: Place) -> None:
    assert rows_of(whole.run)["float"]["wer"]["test"][0] < 25


def test_figures_are_those_of_the_lists(whole: Place) -> None:
    for name, each in rows_of(whole.run).items():
        folder = whole.run / "all" / "seed0" / name / "words"
        lists = read_nbest(folder / "test.nbest.jsonl")
        found = [count_errors(e.id, (e.ref or "").split(), e.hyps[0].split()) for e in lists]
        assert each["wer"]["test"] == [pytest.approx(wer(found)), 0.0, 1]
        assert each["pooled"][0] == pytest.approx(wer(read_errors(folder / "test.errors.jsonl")))
        assert [e.id for e in lists] == list(whole.store("test").ids)


def test_a_compressed_row_begins_from_the_network_that_it_names(whole: Place) -> None:
    home = whole.run / "all" / "seed0"
    models = {name: load_acoustic(home / name / "model.packed").model for name in rows_of(whole.run)}
    dims = tuple(read_json(home / "search" / "dims.json").values())
    assert models["float"].config.bottlenecks == models["bp-4"].config.bottlenecks == (6, 6)
    assert all(models[n].config.bottlenecks == dims for n in models if n not in ("float", "bp-4"))
    assert all(model.output_xent is None for model in models.values()), "only training needs that head"


def test_the_search_is_tuned_on_dev_and_every_row_uses_what_was_found(whole: Place) -> None:
    home = whole.run / "all" / "seed0"
    tuned = read_json(home / "tune" / "result.json")
    assert tuned["n_ref"] == 15, "the words of dev"
    scale, penalty = tuned["acoustic_scale"], tuned["word_penalty"]
    assert (scale, penalty) != (1.0, 0.0), "or the rest shows nothing"
    decoder = hybrid.make_decoder(whole, ALL, tuned)
    task = hybrid.listening(whole, ALL, "test")
    for name in rows_of(whole.run):
        hearing = hybrid.Hearing.of(whole, home / name / "model.packed")
        logits = hearing.logits(task, "test", lambda done, of, note: None)
        for entry in read_nbest(home / name / "words" / "test.nbest.jsonl"):
            best = decoder.best(logits[entry.id])  # a row that nothing rescores has no longer list
            assert entry.hyps == (" ".join(best.words),)
            assert entry.scores == pytest.approx([-best.cost(scale, penalty)], rel=1e-4)


def test_packed_rows_say_on_the_runtime_what_they_say_in_torch(whole: Place) -> None:
    home, decoder = whole.run / "all" / "seed0", hybrid.make_decoder(whole, ALL, {})
    task = hybrid.listening(whole, ALL, "test")
    recipe = replace(whole.recipe, decode=replace(whole.recipe.decode, engine="torch"))
    for name in rows_of(whole.run):
        path = home / name / "model.packed"
        result = read_json(home / name / "words" / "result.json")
        assert result["engine"] == ("torch" if name in ("float", "compact") else "runtime")
        both = [hybrid.Hearing.of(place, path) for place in (whole, replace(whole, recipe=recipe))]
        assert [hearing.engine for hearing in both] == [result["engine"], "torch"]
        found = [hearing.logits(task, "test", lambda done, of, note: None) for hearing in both]
        for utt_id, logits in found[0].items():
            assert decoder.best(logits).words == decoder.best(found[1][utt_id]).words


def test_a_speaker_who_was_adapted_to_is_heard_by_the_packed_network(whole: Place) -> None:
    home = whole.run / "all/seed0/hessian-4"
    assert read_json(home / "lhuc/result.json")["engine"] == "runtime"
    speakers = torch.load(home / "lhuc" / "test.lhuc.pt")
    network: Any = hybrid.Hearing.of(whole, home / "model.packed").network
    tuned = read_json(home.parent / "tune" / "result.json")
    decoder, store = hybrid.make_decoder(whole, ALL, tuned), whole.store("test")
    for entry in read_nbest(home / "lhuc" / "test.nbest.jsonl"):
        own = {layer: r.numpy() for layer, r in speakers[store.speakers[store.place[entry.id]]].items()}
        assert " ".join(decoder.best(network.logits(store[entry.id], lhuc=own)).words) == entry.hyps[0]


def test_a_search_chooses_between_the_admm_rows_of_its_network(whole: Place) -> None:
    by_name = {each.name: each for each in whole.recipe.rows}
    chosen = whole.recipe.rivals(by_name["search-4"])
    assert [each.name for each in chosen] == ["admm-2", "admm-8"]
    shares = read_json(whole.run / "all/seed0/costs-search-4/result.json")["shares"]
    assert all(len(each) == 2 and sum(each) == pytest.approx(1) for each in shares.values())
    assert set(rows_of(whole.run)["search-4"]["plan"]) == set(shares)


def test_adaptation_keeps_every_speaker_s_vectors_and_both_passes(whole: Place) -> None:
    result = read_json(whole.run / "all/seed0/hessian-4/lhuc/result.json")
    first = rows_of(whole.run)["hessian-4"]["wer"]["test"][0]
    assert result["sets"]["test"]["wer_first_pass"] == pytest.approx(first)
    assert result["sets"]["test"]["speakers"] == 2
    assert result["parameters_a_speaker"] == 3 * 16, "input layer and two TDNN-F layers"


def test_a_run_killed_in_every_stage_ends_with_the_same_files_and_repeats_no_finished_stage(
    whole: Place, corpus: Path, tmp_path: Path
) -> None:
    run, log, last = tmp_path / "run", tmp_path / "log", "all/seed0/hessian-4/lhuc"
    recipe = whole.run.parent / "recipe.toml"
    command = ["table", recipe, "--data", corpus, "--out", run, "--only", last]
    process = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed.py"), log, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    did = [line.split() for line in log.read_text().splitlines()]
    stages = {stage.name for stage in needed(green.stages(whole), [last])}
    results = {str(run / name / "result.json") for name in stages}
    killed, wrote = ([path for what, path in did if what == which] for which in ("killed", "wrote"))
    assert results <= set(killed), "it died in every stage"
    assert len(stages) == 12 and len(killed) == 12 + 5
    assert all(wrote.count(path) == 1 for path in results), "a finished stage was repeated"
    for path in run.rglob("*"):
        if (
            path.is_file()
            and path.suffix in (".packed", ".npz", ".jsonl", ".gz")
            and path.name != "log.jsonl"
        ):
            there = whole.run / path.relative_to(run)
            assert path.read_bytes() == there.read_bytes(), path


def test_a_run_stopped_within_a_stage_goes_on_from_its_checkpoint(
    whole: Place, corpus: Path, tmp_path: Path, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("table", whole.run.parent / "recipe.toml", "--data", corpus, "--out", tmp_path / "run")
    folder = tmp_path / "run" / "all" / "seed0" / "float"
    train = hybrid.fit_

    def stop(*given: Any, **more: Any) -> Any:
        def on_step(step: int, total: int, loss: float) -> None:
            if step == 12:
                raise KeyboardInterrupt

        return train(*given, **{**more, "on_step": on_step})

    with monkeypatch.context() as patched:
        patched.setattr(hybrid, "fit_", stop)
        stopped = greenasr(*command, "--only", "all/seed0/float")
    assert stopped.code == 130 and "give the same command again" in stopped.err
    assert (folder / "checkpoint.pt").exists() and not (folder / "result.json").exists()
    assert greenasr(*command, "--only", "all/seed0/float").code == 0
    assert (folder / "model.packed").read_bytes() == (whole.run / "all/seed0/float/model.packed").read_bytes()
    assert not (folder / "checkpoint.pt").exists()


def test_pdfs_that_nothing_trained_quantize_without_nan(
    own_corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    with open(own_corpus / "words.dic", "a") as file:
        file.write(UNHEARD)
    rows = FLOAT + row("bp", 4, 'network = "manual"') + row("none", 2, 'network = "manual"')
    recipe, run = write_recipe(tmp_path, rows), tmp_path / "run"
    called = greenasr("table", recipe, "--data", own_corpus, "--out", run)
    assert called.code == 0, called.err
    model = load_acoustic(run / "all/seed0/float/model.packed")
    unheard = model.units.pdf_map.table[:, model.units.lexicon.phones.index("Z")]
    assert not model.model.output.weight[unheard.ravel().tolist()].any()
    for name in ("bp-4", "none-2"):
        state = load_acoustic(run / f"all/seed0/{name}/model.packed").model.state_dict()
        assert all(bool(value.isfinite().all()) for value in state.values())
        log = (run / f"all/seed0/{name}/log.jsonl").read_text().splitlines()
        assert all(json.loads(line)["loss"] < 100 for line in log)


@pytest.mark.slow
def test_folds_are_pooled_and_tuned_on_each_other(
    tmp_path: Path, corpus: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    folds = ('tests = ["test"]', 'tests = ["test"]\nfolds = 2\nseeds = [0, 1]')
    recipe, run = write_recipe(tmp_path, FLOAT + COMPACT + row("none", 8), folds, TUNED), tmp_path / "run"
    called = greenasr("table", recipe, "--data", corpus, "--out", run, "--jobs", "2")
    assert called.code == 0, called.err
    place = Place(load_hybrid(recipe), run, corpus)
    stages = green.stages(place)
    assert set(finished(stages, run)) == {stage.name for stage in stages}
    needs = {stage.name: stage.needs for stage in stages}
    assert needs["all/seed1/tune"] == ("fold0/seed1/float",)
    assert needs["fold0/seed1/tune"] == ("fold1/seed1/float",)
    assert needs["fold1/seed1/tune"] == ("fold0/seed1/float",)
    for each in rows_of(run).values():
        assert each["words"] == 30 + 4 * 15 and each["runs"] == 6 and each["pooled"][2] == 2
        assert list(each["wer"]) == ["test"] and each["wer"]["test"][2] == 2
        pooled = []
        for seed in (0, 1):
            parts = [("all", "test"), ("fold0", "fold0"), ("fold1", "fold1")]
            found = [
                error
                for part, name in parts
                for error in read_errors(
                    run / part / f"seed{seed}" / each["name"] / "words" / f"{name}.errors.jsonl"
                )
            ]
            assert len({error.utt_id for error in found}) == len(found) == 10 + 20
            pooled.append(wer(found))
        assert each["pooled"][0] == pytest.approx(sum(pooled) / 2)
