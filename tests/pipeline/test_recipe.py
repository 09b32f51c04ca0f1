"""Recipes: what a file says is what the table does, and what it cannot say is refused with its name."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from greenasr.pipeline.ctc_recipe import load_ctc_recipe
from greenasr.pipeline.hybrid_recipe import load_hybrid
from greenasr.pipeline.keywords_recipe import load_keywords
from greenasr.pipeline.recipe import Row, load_recipe
from greenasr.pipeline.speech_recipe import Corpus
from greenasr.pipeline.transducer_recipe import load_transducers

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))
SMALLEST = """
title = "Smallest"
[model]
layers = 1
dim = 8
[[row]]
method = "float"
"""


def written(folder: Path, text: str) -> Path:
    (folder / "r.toml").write_text(text)
    return folder / "r.toml"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recipe_that_we_ship_can_be_read(path: Path) -> None:
    loaders = {
        "hybrid": load_hybrid,
        "transducer": load_transducers,
        "ctc": load_ctc_recipe,
        "keywords": load_keywords,
    }
    kind = tomllib.loads(path.read_text()).get("kind", "")
    rows: Sequence[Row] = loaders[kind](path).rows if kind else load_recipe(path).rows
    assert rows[0].method == "float" and len({row.name for row in rows}) == len(rows) > 3


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, SMALLEST))
    assert (recipe.title, recipe.ngram_order, recipe.task.length, recipe.rescore) == ("Smallest", 4, 64, None)


def test_a_row_is_named_by_method_bits_and_what_is_special() -> None:
    rows = [Row("float"), Row("bp", 2), Row("hessian", 2.5, fit="admm"), Row("admm", 4, step="group:64")]
    assert [row.name for row in rows] == ["float", "bp-2", "hessian-2.5-admm", "admm-4-group64"]
    assert Row("acosr", 8, activations="float32").name == "acosr-8-float32"


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [
        ("[model]", "[modle]", "model is missing"),
        ("layers = 1", "layer = 1", "network 'transformer': .*'layer'; its settings are vocab, layers"),
        ("title =", "titel =", "title is missing"),
        ("[[row]]", '[[row]]\ncolour = "red"', r"\[row\] has no 'colour'; it knows"),
        ("[[row]]", "[train]\nepoch = 3\n[[row]]", r"\[train\] has no 'epoch'"),
        ("[[row]]", '[train]\nepochs = "3"\n[[row]]', r"\[train\] epochs: found '3', expected float"),
        ("[[row]]", "[task]\nlength = 0\n[[row]]", "windows of 0 tokens"),
        ("[[row]]", "[extra]\n[[row]]", "unknown key 'extra'; a recipe has title"),
        ("[[row]]", "[compress]\nwidths = [5]\n[[row]]", "widths has 5: choose from 1, 2, 3"),
        ('"Smallest"', '"Smallest"\nngram_order = 9', "ngram_order is 9, expected 1 to 5"),
        ('"Smallest"', '"Smallest', r"not TOML: .*line 2"),
        ('"float"', '"bp"\nbits = 2', "one must be the float model"),
        ('"float"', '"float"\nactivations = "float32"', "in full precision computes in float32 as it is"),
        ('"float"', '"bp"\nbits = 2\nactivations = "static"', "activations of a row are 'static': choose"),
        ('"float"', '"magic"', "unknown method 'magic'"),
        ('"float"', '"float"\n[[row]]\nmethod = "bp"\nbits = 5', "'bp' has 5 bits: choose from"),
        ('"float"', '"float"\n[[row]]\nmethod = "kl"\nbits = 0.5', "'kl-0.5' asks for 0.5 bits .* 1 to 8"),
        ('"float"', '"float"\n[[row]]\nmethod = "search"\nbits = 2', "chooses between admm rows"),
        ("[[row]]", '[data]\ntrain = ["a.txt"]\n[[row]]', "name dev and test texts too"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_with_file_and_key(
    change: str, to: str, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, SMALLEST.replace(change, to))
    with pytest.raises(ValueError, match=rf"^\S*r\.toml: .*{message}") as failure:
        load_recipe(path)
    assert "\n" not in str(failure.value)


def test_a_corpus_that_is_generated_says_of_which_domain_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="domain 'hotel': choose from speech, assistant"):
        Corpus(domain="hotel")
    with pytest.raises(ValueError, match="utterances of a test set must not be negative"):
        Corpus(utterances=-1)
    text = SMALLEST.replace("[model]", '[corpus]\ndomain = "assistant"\n[model]')
    told = load_hybrid(written(tmp_path, text.replace('"float"', '"float"\nnetwork = "manual"')))
    plain = dataclasses.replace(told, corpus=Corpus())
    assert told.to_json()["corpus"]["domain"] == "assistant"
    assert {"domain", "utterances"}.isdisjoint(plain.to_json()["corpus"])  # as in runs before there were any
