"""Transducers from a corpus to ACosR's tables: every kind of row, folds, killed runs, and what is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from greenasr.data.files import read_json
from greenasr.decode.nbest import read_nbest
from greenasr.decode.transducer import decode_transducer, transducer_nbest
from greenasr.models.on_arrays import RnntOnArrays
from greenasr.pipeline import end_to_end, engines, transducer
from greenasr.pipeline.convergence import MOMENTS, read_wgtc
from greenasr.pipeline.run import finished, needed
from greenasr.pipeline.transducer import Place
from greenasr.pipeline.transducer_models import load_transducer
from greenasr.pipeline.transducer_recipe import load_transducers
from greenasr.pipeline.transducer_table import table
from greenasr.score.errors import count_errors, read_errors, wer
from greenasr.score.significance import mapsswe

Call = Callable[..., Any]
Recipe = Callable[..., Path]
FLOAT = '[[row]]\nmethod = "float"\n'
NAMES = ["float", "acosr-8", "acosr-6-published", "none-6-float32", "kl-4", "hessian-4-acosr"]


def quiet(done: int, of: int, note: str) -> None:
    pass


def row(method: str, bits: float = 32, more: str = "") -> str:
    return f'[[row]]\nmethod = "{method}"\nbits = {bits}\n{more}\n'


@pytest.fixture(scope="session")
def place(transduced: Path, corpus: Path) -> Place:
    return Place(load_transducers(transduced.parent / "recipe.toml"), transduced, corpus)


def rows_of(run: Path) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in read_json(run / "table.json")["rows"]}


def test_every_row_is_in_the_table_with_its_files_size(place: Place) -> None:
    rows, home = rows_of(place.run), place.run / "all" / "seed0"
    assert list(rows) == NAMES
    for name, each in rows.items():
        assert each["bytes"] == (home / name / "model.packed").stat().st_size
        assert each["ratio"] == pytest.approx(rows["float"]["bytes"] / each["bytes"])
        assert each["words"] == 30 and each["runs"] == 1 and each["left_out"] == 0 and each["rtf"] > 0
    assert rows["float"]["bits"] == 32 and rows["none-6-float32"]["bits"] == 6
    assert rows["float"]["wer"]["test"][0] < 50, "of three words, guessing has 67"
    assert rows["hessian-4-acosr"]["bits"] <= 4 and set(rows["kl-4"]["plan"].values()) <= {2, 4, 8}
    text = (place.run / "table.md").read_text()
    assert text.startswith("# Miniature") and "nan" not in text
    systems = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert systems[1:7] == [
        *("full precision", "ACosR", "ACosR, as published", "post-training, float32 activations"),
        *("KL plan, BP", "Hessian plan, ACosR"),
    ]
    assert "Fig. 4: weights among the levels, ACosR, 8 bits" in (place.run / "report.html").read_text()


def test_figures_are_those_of_the_lists(place: Place) -> None:
    home, rows = place.run / "all" / "seed0", rows_of(place.run)
    full = read_nbest(home / "float" / "words" / "test.nbest.jsonl")
    for name, each in rows.items():
        lists = read_nbest(home / name / "words" / "test.nbest.jsonl")
        found = [count_errors(e.id, (e.ref or "").split(), e.hyps[0].split()) for e in lists]
        assert [e.id for e in lists] == list(place.store("test").ids)
        assert each["wer"] == {"test": [pytest.approx(wer(found)), 0.0, 1]}
        if name == "float":
            assert each["degradation"] == each["marks"] == {}
            continue
        base = rows["float"]["wer"]["test"][0]
        assert each["degradation"]["test"] == pytest.approx(100 * (wer(found) - base) / base)
        test = mapsswe(
            *([words.split() for words in of] for of in zip(
                *((e.ref or "", a.hyps[0], e.hyps[0]) for a, e in zip(full, lists, strict=True)), strict=True
            ))
        )  # fmt: skip
        assert each["marks"]["test"] == {"a": "*", "b": "†", None: ""}[test.better]


def test_words_are_those_of_the_packed_file_utterance_by_utterance(place: Place) -> None:
    search, task = place.recipe.decode.search(), transducer.make_task(place, "all")[0]
    for name, engine in (("float", "torch"), ("acosr-8", "runtime"), ("kl-4", "runtime")):
        folder = place.run / "all" / "seed0" / name
        path = folder / "model.packed"
        assert read_json(folder / "words" / "result.json")["engine"] == engine
        torchs = RnntOnArrays(load_transducer(path).model)
        own = torchs if engine == "torch" else engines.transducer(path, engines.read(path))[0]
        others = 0
        for entry in read_nbest(folder / "words" / "test.nbest.jsonl"):
            feats, lists = place.store("test")[entry.id][None], []
            for network in (own, torchs):
                (hyps,) = decode_transducer(network, feats, search=search)
                lists.append(transducer_nbest(entry.id, entry.ref, hyps, task.words))
            assert lists[0].hyps[0] == entry.hyps[0]
            assert lists[0].scores[0] == pytest.approx(entry.scores[0], abs=1e-3)
            others += lists[1].hyps[0] != entry.hyps[0]
        assert others <= (engine == "runtime"), "rounded activations may turn what is nearly as likely"


def test_a_row_whose_activations_stay_in_float32_says_what_torch_says(place: Place) -> None:
    folder, search = place.run / "all" / "seed0" / "none-6-float32", place.recipe.decode.search()
    packed, task = engines.read(folder / "model.packed"), transducer.make_task(place, "all")[0]
    assert packed.rounding.kind == "float32"
    torchs = RnntOnArrays(load_transducer(folder / "model.packed").model)
    for entry in read_nbest(folder / "words" / "test.nbest.jsonl"):
        (hyps,) = decode_transducer(torchs, place.store("test")[entry.id][None], search=search)
        expected = transducer_nbest(entry.id, entry.ref, hyps, task.words)
        assert expected.hyps[0] == entry.hyps[0]
        assert expected.scores[0] == pytest.approx(entry.scores[0], abs=1e-4)
    rows = rows_of(place.run)
    assert [rows[name]["activations"] for name in ("none-6-float32", "kl-4")] == ["float32", "int8"]
    assert "activations of 8 bits and in float32" in (place.run / "table.md").read_text()


def test_a_files_recipe_says_the_reward_that_its_table_was_heard_with(place: Place) -> None:
    assert load_transducer(place.run / "all/seed0/acosr-8/model.packed").recipe == {"title": "Miniature"}
    paid = replace(place.recipe, decode=replace(place.recipe.decode, label_reward=0.5))
    assert paid.noted == {"title": "Miniature", "label_reward": 0.5}
    assert paid.decode.search().label_reward == 0.5


def test_a_recipe_may_want_torch_for_all_rows(place: Place) -> None:
    recipe = replace(place.recipe, decode=replace(place.recipe.decode, engine="torch"))
    given = place.run / "all" / "seed0" / "acosr-8" / "model.packed"
    lists, figures = transducer.KIND.hear(replace(place, recipe=recipe), "all", "test", given, quiet)
    assert figures["engine"] == "torch"
    task = transducer.make_task(replace(place, recipe=recipe), "all")[0]
    task = replace(task, stores={"test": place.store("test")}, ids={})
    torchs = task.decode(load_transducer(given).model, "test", recipe.decode.search())
    assert [e.scores[0] for e in lists] == [torchs[e.id][0].score for e in lists]
    assert recipe.to_json()["decode"]["engine"] == "torch"
    assert "engine" not in place.recipe.to_json()["decode"], "runs from before there was a choice go on"


def test_lists_are_rescored_by_the_ngram_at_weights_of_the_split_dev(place: Place) -> None:
    home = place.run / "all" / "seed0"
    weights = read_json(home / "ngram-weights" / "result.json")
    assert weights["tuned_on"] == ["all", "dev"] and set(weights["weights"]) == {
        "first", "words", "unknown", "ngram",
    }  # fmt: skip
    for name, each in rows_of(place.run).items():
        folder = home / name / "with-ngram"
        found = wer(read_errors(folder / "test.errors.jsonl"))
        assert each["rescored"]["wer"]["test"][0] == pytest.approx(found)
        first = {e.id: set(e.hyps) for e in read_nbest(home / name / "words" / "test.nbest.jsonl")}
        assert all(set(e.hyps) == first[e.id] for e in read_nbest(folder / "test.nbest.jsonl"))


def test_weights_that_acosr_trained_are_counted_at_their_levels(place: Place) -> None:
    rows, home = rows_of(place.run), place.run / "all" / "seed0"
    for name, each in rows.items():
        watched = name in ("acosr-8", "acosr-6-published", "hessian-4-acosr")
        assert (each["wgtc"] is not None) == watched == (home / name / "levels.npz").exists()
        if not watched:
            continue
        lines = read_wgtc(home / name / "wgtc.jsonl")
        assert {key: lines[-1][key] for key in ("total", "layers")} == each["wgtc"]
        assert set(each["wgtc"]["layers"]) == set(each["plan"]) and 0 < each["wgtc"]["total"] <= 1
        assert lines[-1]["step"] == lines[-1]["of"]
        with np.load(home / name / "levels.npz") as found:
            assert found["layers"].tolist() == [n for n in each["plan"] if n.startswith("predictor")]
            assert found["steps"].tolist() == sorted({round(share * lines[-1]["of"]) for share in MOMENTS})
            assert found["counts"].shape == (len(found["steps"]), 3, 180) and found["counts"][0].sum() > 0
    assert rows["acosr-8"]["wgtc"]["total"] > rows["acosr-6-published"]["wgtc"]["total"]


def test_the_papers_form_has_one_table_for_all_weights(place: Place) -> None:
    model = load_transducer(place.run / "all/seed0/acosr-6-published/model.packed").model
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            torch.testing.assert_close(weight * 32, (weight * 32).round(), msg=name)
            assert weight.abs().max() <= 31 / 32


def test_the_first_layer_begins_as_if_features_were_normal(place: Place) -> None:
    task, _ = transducer.make_task(place, "all")
    first: Any = transducer.network(place, "all", task, 0).encoder.layers[0]
    frames = torch.cat([torch.from_numpy(task.stores["train"][utt_id]) for utt_id in task.ids["train"]])
    heard = frames[: len(frames) // 4 * 4].reshape(-1, 80)
    with torch.no_grad():
        gates = first.input(heard)
    assert 0.7 < float(gates.std(0).mean()) < 1.5
    middle = gates.mean(0).view(4, 32).mean(1)
    torch.testing.assert_close(middle, torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=0.1, rtol=0)


def test_a_run_stopped_within_a_stage_goes_on_from_its_checkpoint(
    place: Place, corpus: Path, tmp_path: Path, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, only = tmp_path / "run", "all/seed0/acosr-8"
    command = ("table", place.run.parent / "recipe.toml", "--data", corpus, "--out", run, "--only", only)
    train = end_to_end.fit_

    def stopping(at: int, long: bool) -> Callable[..., Any]:
        def on_step(step: int, total: int, loss: float) -> None:
            if step == at and (total > 100) == long:
                raise KeyboardInterrupt

        return lambda *given, **more: train(*given, **{**more, "on_step": on_step})

    for at, long in ((90, True), (20, False)):  # of the float row, then of ACosR
        with monkeypatch.context() as patched:
            patched.setattr(end_to_end, "fit_", stopping(at, long))
            assert greenasr(*command).code == 130
    assert greenasr(*command).code == 0
    for name in ("float/model.packed", "acosr-8/model.packed", "acosr-8/wgtc.jsonl"):
        there = place.run / "all" / "seed0" / name
        assert (run / "all" / "seed0" / name).read_bytes() == there.read_bytes(), name


def test_utterances_without_room_for_their_labels_are_left_out_and_counted(
    place: Place, tmp_path: Path
) -> None:
    tight = replace(place.recipe, task=replace(place.recipe.task, max_symbols=0))
    with pytest.raises(ValueError, match=r"no utterance of 40 has room for its labels: raise \[task\]"):
        transducer.make_task(replace(place, recipe=tight), "all")
    task, left_out = transducer.make_task(place, "all")
    assert left_out == 0 and len(task.ids["train"]) == 40
    joined = replace(place.recipe, model={**place.recipe.model, "reduction": (64,)})
    task, left_out = transducer.make_task(replace(place, recipe=replace(joined, task=replace(
        joined.task, max_symbols=1))), "all")  # fmt: skip
    store = task.stores["train"]
    assert left_out + len(task.ids["train"]) == 40 and 0 < left_out < 40
    assert all(-(-store.frames[store.place[u]] // 64) >= 3 for u in task.ids["train"])


def test_folds_are_tuned_on_each_other(place: Place) -> None:
    folded = replace(place.recipe, corpus=replace(place.recipe.corpus, folds=2))
    stages = {stage.name: stage for stage in transducer.stages(replace(place, recipe=folded))}
    assert stages["all/seed0/ngram-weights"].needs == ("fold0/ngram", "fold0/seed0/float/words")
    assert stages["fold0/seed0/ngram-weights"].needs == ("fold1/ngram", "fold1/seed0/float/words")
    assert stages["fold1/seed0/kl-4"].needs == ("fold1/seed0/float", "fold1/seed0/costs-kl")
    assert len(needed(list(stages.values()), ["fold1/seed0/kl-4/words"])) == 7


def test_folds_together_are_a_set_of_the_table(place: Place, tmp_path: Path) -> None:
    """One fold has the words of the whole's test set, the other those of its split dev."""
    folded = replace(place.recipe, corpus=replace(place.recipe.corpus, folds=2))
    there_are = finished(transducer.stages(place), place.run)
    results: dict[str, Any] = {}
    for part, source in (("all", "test"), ("fold0", "test"), ("fold1", "dev")):
        for name in ("float", "kl-4"):
            stage = f"all/seed0/{name}/words"
            there = tmp_path / part / "seed0" / name / "words"
            there.mkdir(parents=True)
            for path in (place.run / stage).glob(f"{source}.*"):
                shutil.copy(path, there / path.name.replace(source, "test" if part == "all" else part))
            found = {**there_are[stage]["sets"], **there_are[stage]["others"]}[source]
            sets = {"test" if part == "all" else part: found}
            results[f"{part}/seed0/{name}/words"] = {"sets": sets}
            results[f"{part}/seed0/{name}"] = there_are[f"all/seed0/{name}"]
    value = table(Place(folded, tmp_path, place.data), results)
    full, child = (next(each for each in value["rows"] if each["name"] == n) for n in ("float", "kl-4"))
    home = place.run / "all" / "seed0"
    errors = [
        [e for split in ("test", "dev") for e in read_errors(home / n / "words" / f"{split}.errors.jsonl")]
        for n in ("float", "kl-4")
    ]
    assert full["wer"]["folds"] == [pytest.approx(wer(errors[0])), 0.0, 1]
    assert list(full["wer"]) == list(child["marks"]) == ["test", "folds"]
    assert child["wer"]["folds"][0] == pytest.approx(wer(errors[1]))
    gain = 100 * (wer(errors[1]) - wer(errors[0])) / wer(errors[0])
    assert child["degradation"]["folds"] == pytest.approx(gain) and child["runs"] == 3
    assert child["rescored"] is None and value["parts"] == ["all", "fold0", "fold1"]


BAD = [
    (FLOAT, ("cmvn = ", "cvmn = "), r"\[features\] has no 'cvmn'; it knows .*cmvn"),
    (
        FLOAT,
        ('kind = "words"', 'kind = "phones"'),
        r"\[labels\] kind is 'phones': choose letters, pieces, words",
    ),
    (FLOAT, ("joint_dim = 32", 'joint = "sum"'), r"joint is 'sum', it should be fc or addition"),
    (FLOAT, ("joint_dim = 32", "dims = 32"), r"network 'rnnt': .*'dims'; its settings are feat_dim"),
    (FLOAT, ("beam = 3", "beam = 0"), r"beam is 0 hypotheses, it should be at least 1"),
    (FLOAT, ("nbest = 3", "nbest = 9"), r"nbest is 9, it should be 1 to 3, the beam"),
    (FLOAT, ("order = 2", "order = 7"), r"\[decode\] order is 7: choose 1 to 5, or 0"),
    (FLOAT, ("bins = 20", "bins = 20\nivectors = 3"), r"\[features\] ivectors: transducers read none"),
    (FLOAT, ("[task]", "[tasks]"), r"unknown key 'tasks'; a recipe has title, corpus"),
    (FLOAT, ("size = 20", "size = 2"), r"a word list of 2 has no room"),
    (row("bp", 4), None, r"rows must differ and one must be method 'float'; got bp-4"),
    (FLOAT + row("kl", 9.0), None, r"row 'kl-9' asks for 9 bits on average, its widths go from 2 to 8"),
    (FLOAT + row("bp", 4, "published = true"), None, r"published = true is for rows of method 'acosr'"),
    (FLOAT + row("bp", 4, "teach = 0.5"), None, r"teach is for language models: leave it out"),
    (FLOAT + row("bp", 4, 'network = "manual"'), None, r"\[row\] has no 'network'"),
]


@pytest.mark.parametrize(("rows", "change", "message"), BAD, ids=[message for *_, message in BAD])
def test_a_bad_recipe_is_one_line_and_exit_code_2(
    rows: str, change: tuple[str, str] | None, message: str, corpus: Path, tmp_path: Path,
    write_recipe: Recipe, greenasr: Call,
) -> None:  # fmt: skip
    recipe = write_recipe(tmp_path, rows, *([change] if change else []), kind="transducer")
    called = greenasr("table", recipe, "--data", corpus, "--out", tmp_path / "run", "--only", "all/labels")
    assert called.code == 2 and called.out == ""
    assert re.fullmatch(rf"(?s).*greenasr: [^\n]*{message}[^\n]*\n", called.err), called.err


def test_a_kind_of_recipe_that_there_is_not_is_refused(
    tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    recipe = write_recipe(tmp_path, FLOAT, ('kind = "transducer"', 'kind = "hmm"'), kind="transducer")
    called = greenasr("table", recipe, "--out", tmp_path / "run")
    assert called.code == 2 and "kind is 'hmm': choose hybrid, transducer, ctc or keywords" in called.err


def test_a_search_chooses_among_the_rows_that_admm_trained(
    place: Place, corpus: Path, tmp_path: Path, write_recipe: Recipe, greenasr: Call
) -> None:
    run = tmp_path / "run"
    shutil.copytree(
        place.run, run, ignore=shutil.ignore_patterns("recipe.json", "acosr*", "none*", "kl*", "h*")
    )
    rows = FLOAT + row("admm", 2) + row("admm", 8) + row("search", 4.0)
    recipe = write_recipe(tmp_path, rows, kind="transducer")
    called = greenasr("table", recipe, "--data", corpus, "--out", run, "--only", "all/seed0/search-4/words")
    assert called.code == 0, called.err
    home = run / "all" / "seed0"
    assert (home / "float" / "model.packed").stat().st_mtime == (
        place.run / "all" / "seed0" / "float" / "model.packed"
    ).stat().st_mtime, "what was finished is not trained again"
    plan = rows_of(run)["search-4"]["plan"]
    assert set(plan.values()) <= {2, 8} and set(plan) == set(rows_of(place.run)["kl-4"]["plan"])
    assert read_json(home / "search-4" / "bit_map.json") and rows_of(run)["search-4"]["bits"] <= 4
