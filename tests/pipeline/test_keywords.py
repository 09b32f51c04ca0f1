"""Keyword models from word folders to TERNARY's table: networks, compressed rows, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from greenasr.data.clip_features import BACKGROUND
from greenasr.data.feature_store import FeatureStore
from greenasr.data.files import read_json
from greenasr.decode.nbest import read_nbest
from greenasr.pipeline import engines
from greenasr.pipeline.keyword_models import load_keyword_model
from greenasr.pipeline.keywords import Place, make_task, stages
from greenasr.pipeline.keywords_recipe import load_keywords
from greenasr.pipeline.run import finished, needed, run_stages
from greenasr.score.errors import read_errors, wer
from greenasr.score.significance import permutation_test

Call = Callable[..., Any]
NAMES = ["float", "rt", "rt-bp-8", "rt-kl-5", "none-2"]


@pytest.fixture
def place(spotted: Path) -> Place:
    return Place(load_keywords(spotted.parent / "recipe.toml"), spotted, spotted.parent)


def rows_of(run: Path) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in read_json(run / "table.json")["rows"]}


def test_every_row_is_in_the_table_with_its_files_size(spotted: Path) -> None:
    rows = rows_of(spotted)
    assert list(rows) == NAMES
    for name, each in rows.items():
        sizes = [(spotted / "all" / f"seed{k}" / name / "model.packed").stat().st_size for k in (0, 1)]
        assert each["bytes"] == np.mean(sizes) and each["runs"] == 2 and each["words"] == 12
        assert each["rtf"] > 0
    assert rows["float"]["pooled"][0] < 30, "of three words, guessing has 67"
    assert rows["rt-kl-5"]["bits"] <= 5 and rows["rt-bp-8"]["start"] == "rt"


def test_generated_weights_and_identity_skips_are_no_parameters(spotted: Path) -> None:
    rows = rows_of(spotted)
    matrices = 24 * 16 + 24 * 16  # the block's 1x1 convolution and its skip's
    norm = 2 * 16
    assert rows["float"]["parameters"] - rows["rt"]["parameters"] == matrices + norm


def test_figures_are_those_of_the_lists(spotted: Path) -> None:
    for name, each in rows_of(spotted).items():
        rates = []
        for seed in (0, 1):
            folder = spotted / "all" / f"seed{seed}" / name / "words"
            lists, errors = read_nbest(folder / "test.nbest.jsonl"), read_errors(folder / "test.errors.jsonl")
            assert all(len(entry.hyps) == 2 and BACKGROUND not in entry.hyps for entry in lists)
            assert [e.n_sub for e in errors] == [int(entry.hyps[0] != entry.ref) for entry in lists]
            rates.append(wer(errors))
        assert list(each["rates"].values()) == rates
        assert each["pooled"] == [pytest.approx(np.mean(rates)), pytest.approx(np.std(rates)), 2]
        if name != "float":
            full = list(rows_of(spotted)["float"]["rates"].values())
            assert each["against"]["difference"] == pytest.approx(np.mean(rates) - np.mean(full))
            assert each["against"]["seeds_p"] == permutation_test(full, rates)


def test_a_packed_model_gives_the_logprobs_that_were_written(spotted: Path, place: Place) -> None:
    home = spotted / "all" / "seed1" / "rt-bp-8"
    saved = load_keyword_model(home / "model.packed")
    assert saved.units.words == ("go", "left", "stop", BACKGROUND) and saved.units.frames == 60
    assert saved.bit_map is not None and set(saved.bit_map.bits.values()) == {8}
    assert saved.model.config.ternary is not None and saved.model.config.ternary.seed == 1
    store = place.store("test")
    from greenasr.tasks.keywords import Clips, Keywords

    clips = Clips.of(store, None, saved.units.frames, saved.units.every)
    task = Keywords({"test": clips}, saved.units.words, saved.units.features, torch.zeros(0))
    network, _ = engines.keywords(home / "model.packed", engines.read(home / "model.packed"))
    lists = read_nbest(home / "words" / "test.nbest.jsonl")
    exact = task.nbest(task.logprobs(saved.model, "test"), "test", 2)
    for entry, again, torchs in zip(
        lists, task.nbest(task.heard(network, "test"), "test", 2), exact, strict=True
    ):
        assert (entry.id, entry.hyps) == (again.id, again.hyps)
        assert entry.scores == pytest.approx(again.scores, abs=1e-5)
        assert entry.hyps[0] == torchs.hyps[0] and entry.scores == pytest.approx(torchs.scores, abs=0.1)


def test_recorded_noise_is_what_is_mixed_in(spotted: Path, place: Place) -> None:
    recorded = FeatureStore.open(read_json(spotted / "features" / "background.json")).raw("fan")
    powers = np.exp(recorded) / np.exp(recorded).mean()
    np.testing.assert_allclose(make_task(place, "all")[0].noise.numpy(), powers[::2], rtol=1e-5)
    assert finished(stages(place), spotted)["corpus"]["recorded_noise"] == 1


def test_the_page_has_tables_and_the_figure(spotted: Path) -> None:
    text, html = (spotted / "table.md").read_text(), (spotted / "report.html").read_text()
    assert "97.41" in text and "1x1x16, identity skips, ternary, t = 0.3" in text and "nan" not in text
    assert "Fig. 3: error against parameters" in html and "42 shorter" not in text


@pytest.mark.parametrize(
    ("what", "becomes", "message"),
    [
        ('start = "rt"\n[[row]]\nmethod = "kl"', 'start = "no"\n[[row]]\nmethod = "kl"', "starts from 'no'"),
        ("threshold = 0.3", "threshold = 1.0", "t = 1 makes every ternary weight zero"),
        ("frames = 60", "frames = 6", "a clip has 20 to 1,000 frames"),
        ('network = "rt"', 'network = "a/b"', "network 'a/b' is to be a folder"),
        ("shift = 3", "shift = -3", "must not be negative"),
        ("bins = 16", 'bins = 16\ncmvn = "running"', 'with cmvn "utterance" or "none"'),
        ("background = 0.3", 'background = 0.3\nwords = ["go"]', "'left' is said in training clips and none"),
        ("background = 0.3", 'background = 0.3\nwords = ["hop"]', "no training clip says 'hop'"),
    ],
)
def test_odd_recipes_are_refused(
    spotted: Path, tmp_path: Path, greenasr: Call, what: str, becomes: str, message: str
) -> None:
    text = (spotted.parent / "recipe.toml").read_text()
    assert what in text
    (tmp_path / "recipe.toml").write_text(text.replace(what, becomes, 1))
    called = greenasr("table", tmp_path / "recipe.toml", "--data", spotted.parent, "--out", tmp_path / "run")
    assert called.code == 2
    import re

    assert re.search(message, called.err), called.err


def test_generated_commands_that_say_its_words_may_be_trained_on_too(spotted: Path, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    text = (spotted.parent / "recipe.toml").read_text()
    text = text.replace("shift = 3", "shift = 3\ngenerated = 0.01\nband = 4000.0")
    (tmp_path / "recipe.toml").write_text(text)
    place = Place(load_keywords(tmp_path / "recipe.toml"), tmp_path / "run", spotted.parent)
    run_stages(needed(stages(place), ["all/labels"]), place.run, lambda *_: None)
    task, _ = make_task(place, "all")
    own = len(place.training_ids("all"))
    more = task.clips["train"].ids[own:]
    assert own == 27 and more and all(name.startswith("train-train") for name in more)
    assert set(task.clips["train"].words[own:]) <= {"go", "left", "stop"} and task.band == 4000.0


def test_other_words_may_be_left_out_or_be_no_word(spotted: Path, tmp_path: Path) -> None:
    text = (spotted.parent / "recipe.toml").read_text()
    text = text.replace("background = 0.3", 'words = ["go", "stop"]\nothers = "leave"')
    (tmp_path / "recipe.toml").write_text(text)
    place = Place(load_keywords(tmp_path / "recipe.toml"), tmp_path / "run", spotted.parent)
    shutil.copytree(spotted / "corpus", tmp_path / "run" / "corpus")
    shutil.copytree(spotted / "features", tmp_path / "run" / "features")
    label = next(stage for stage in stages(place) if stage.name == "all/labels")
    (tmp_path / "run" / "all" / "labels").mkdir(parents=True)
    assert label.work(tmp_path / "run" / "all" / "labels", lambda *_: None)["words"] == 2
    task, left_out = make_task(place, "all")
    assert left_out == len(place.training_ids("all")) // 3
    assert task.words == ("go", "stop") and set(task.clips["train"].words) == {"go", "stop"}
    text = text.replace('"leave"', '"background"\nbackground = 0.1')
    (tmp_path / "recipe.toml").write_text(text)
    place = replace(place, recipe=load_keywords(tmp_path / "recipe.toml"))
    next(s for s in stages(place) if s.name == "all/labels").work(
        tmp_path / "run" / "all" / "labels", lambda *_: None
    )
    task, left_out = make_task(place, "all")
    assert task.words == ("go", "stop", BACKGROUND) and left_out == 0
    assert task.clips["train"].words.count(BACKGROUND) == len(place.training_ids("all")) // 3


def test_without_data_commands_are_generated_where_the_recipe_says_so(spotted: Path) -> None:
    own = load_keywords(spotted.parent / "recipe.toml")
    assert not own.may_generate, "it says nothing of commands"
    both = replace(own, corpus=replace(own.corpus, domain="commands"))
    assert both.may_generate and not both.generated().may_generate
    recipe = both.generated()
    assert (recipe.corpus.source, recipe.corpus.domain) == ("", "commands")
    assert recipe.title == "Miniature, on generated commands" and recipe.task == own.task
