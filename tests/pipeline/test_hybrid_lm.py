"""Rescoring of the recogniser's lists, and Table 3, on made-up lists: no speech, no search."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.data.lexicon import graphemes
from greenasr.decode import rescore
from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.nbest import NBest, read_nbest, write_nbest
from greenasr.pipeline import engines, hybrid_lm, lm
from greenasr.pipeline.hybrid import Place
from greenasr.pipeline.hybrid_recipe import HybridRecipe, load_hybrid
from greenasr.pipeline.models import load
from greenasr.pipeline.place import ALL, errors_of
from greenasr.pipeline.run import Stage, run_stages
from greenasr.pipeline.systems import System, systems
from greenasr.score.errors import read_errors, to_jsonl, wer

RECIPE = """
kind = "hybrid"
title = "Made up"
[corpus]
source = "x"
tests = ["test"]
folds = 2
[model]
layers = 1
dim = 8
bottleneck = 4
strides = [3]
[lhuc]
rows = ["bp-4"]
[lm]
rows = ["float", "bp-4"]
text = ["more.txt"]
[lm.model]
layers = 1
dim = 16
heads = 2
hidden = 32
dropout = 0.0
[lm.task]
length = 16
batch = 8
stride = 8
by_sentence = true
[lm.train]
epochs = 6
lr = 1e-2
[lm.compress]
widths = [1, 2, 4]
epochs = 6
lr = 1e-2
teach = 0.5
cost_batches = 2
cost_tolerance = 0.5
max_probes = 4
[[row]]
method = "float"
network = "manual"
[[row]]
method = "bp"
bits = 4
network = "manual"
"""
THINGS, PLACES = ("lamp", "radio", "door"), ("kitchen", "hall", "garden")
ACOUSTIC = {"float": 4000, "bp-4": 500}  # bytes


def quiet(*news: Any) -> None: ...


def recipe(folder: Path, text: str = RECIPE) -> HybridRecipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return load_hybrid(path)


def said(draw: np.random.Generator) -> str:
    return f"turn the {draw.choice(THINGS)} in the {draw.choice(PLACES)} on"


def heard(utt_id: str, ref: str, draw: np.random.Generator) -> NBest:
    """The reference among four copies with a word replaced, ranked at random."""
    hyps = [ref]
    while len(hyps) < 5:
        words = ref.split()
        words[draw.integers(len(words))] = str(draw.choice(["the", "on", "in", "lamp", "hall"]))
        if " ".join(words) not in hyps:
            hyps.append(" ".join(words))
    order = draw.permutation(5)
    return NBest(utt_id, ref, tuple(hyps[i] for i in order), tuple(-0.5 * k for k in range(5)))


@dataclasses.dataclass(frozen=True, eq=False)
class Paper(Place):
    """A place whose speech is transcripts alone."""

    def store(self, split: str) -> Any:
        return store_of_texts("test" if split == "test" else "train")


def store_of_texts(split: str) -> Any:
    draw = np.random.default_rng(len(split))
    ids = [f"{split}{i}" for i in range(60 if split == "test" else 120)]
    return SimpleNamespace(
        ids=(*ids, f"sp0.9-{ids[0]}"),
        speakers=(*(f"{split}-spk{i % 6}" for i in range(len(ids))), f"sp0.9-{split}-spk0"),
        texts=(*(said(draw) for _ in ids), "never said like this"),
        place={utt_id: i for i, utt_id in enumerate([*ids, f"sp0.9-{ids[0]}"])},
    )


def recognised(place: Place, part: str, row: str, folder: Path, tell: Any, extra: Any = None) -> Any:
    """What the stages words and lhuc leave, from no network."""
    draw = np.random.default_rng(sum(map(ord, part + row + folder.name)))
    sets = {}
    for name, ids in place.test_ids(part).items():
        store = place.store_of(part, name)
        lists = [heard(i, store.texts[store.place[i]], draw) for i in ids if not i.startswith("sp")]
        write_nbest(folder / f"{name}.nbest.jsonl", lists)
        errors = errors_of(store, lists)
        write_atomic(folder / f"{name}.errors.jsonl", to_jsonl(errors))
        sets[name] = {"wer": wer(errors)}
    return {"sets": sets, **(extra or {})}


def ngram(place: Place, part: str, folder: Path, tell: Any) -> Any:
    write_arpa(kneser_ney(place.transcripts(part), 2).lm, folder / "lm.arpa.gz")
    return {}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("place")
    (folder / "more.txt").write_text("turn the lamp on\n")
    words = {word for text in store_of_texts("train").texts for word in text.split()}
    write_json(folder / "run" / "corpus" / "lexicon.json", graphemes(sorted(words)).to_json())
    return Paper(recipe(folder), folder / "run", folder)


@pytest.fixture(scope="module")
def results(place: Place) -> Mapping[str, Mapping[str, Any]]:
    """All parts' models and rescored lists, about as `green.stages` asks for them."""
    stages = []
    for k, part in enumerate(place.parts):
        home, other = f"{part}/seed0", f"fold{k % 2}"
        stages.append(Stage(f"{part}/ngram", (), partial(ngram, place, part)))
        for row, size in ACOUSTIC.items():
            stages.append(Stage(f"{home}/{row}", (), lambda *_, size=size: {"bytes": size, "bits": 4}))
            stages.append(Stage(f"{home}/{row}/words", (), partial(recognised, place, part, row)))
        adapted = partial(recognised, place, part, "bp-4", extra={"parameters_a_speaker": 7})
        stages.append(Stage(f"{home}/bp-4/lhuc", (), adapted))
        stages += hybrid_lm.stages_of_part(place, part)
        stages += hybrid_lm.stages_of_seed(place, part, 0, (other, other))
    return run_stages(stages, place.run, quiet)


Results = Mapping[str, Mapping[str, Any]]


def test_the_text_is_what_the_part_trains_on_and_the_further_files(place: Place) -> None:
    text = Counter(" ".join(words) for words in hybrid_lm.sentences(place, "fold0"))
    store = place.store("train")
    pairs = [pair for pair in zip(store.texts, store.speakers, strict=True) if not pair[1].startswith("sp")]
    expected = Counter(words for words, speaker in pairs if speaker not in place.fold("fold0"))
    assert text == expected + Counter({"turn the lamp on": 1})
    assert "never said like this" not in text


def test_both_models_know_the_language_and_the_second_is_of_two_bits(place: Place, results: Results) -> None:
    for part in place.parts:
        full, low = (results[f"{part}/lm/{model}"] for model in ("float", "low"))
        least = 9 ** (1 / 8)  # two of eight tokens are a choice of three
        assert least < full["ppl"] < 2.2 and least < full["ppl_ngram"] < 1.8 and least < low["ppl"] < 3
        assert full["bits"] == 32 and 1.5 < low["bits"] <= 2
        assert low["bytes"] == (place.run / part / "lm" / "low" / "model.packed").stat().st_size


def test_weights_come_from_the_other_parts_lists_and_model(place: Place, results: Results) -> None:
    found = results["all/seed0/lm-weights"]
    assert found["tuned_on"] == ["fold0", "fold0"] and found["kept"]
    saved = load(place.run / "fold0" / "lm" / "float" / "model.packed")
    lists = read_nbest(place.run / "fold0" / "seed0" / "float" / "words" / "fold0.nbest.jsonl")
    task = lm.task_of(saved, {})
    again = rescore.run(
        lists,
        read_arpa(place.run / "fold0" / "ngram" / "lm.arpa.gz"),
        lambda texts: task.hypothesis_logprobs(saved.model, texts),
        known=saved.tokenizer,  # type: ignore[arg-type]
        dev=lambda _: True,
        need_heldout=False,
        in_first=("ngram",),
    )
    assert again.weights == found["weights"] and found["weights"]["lm"] > 0
    assert len(again.dev.first) == len(lists) and not again.heldout.first


@pytest.mark.parametrize("model", ["float", "low"])
def test_every_utterance_is_in_the_order_of_the_weighted_sum(
    place: Place, results: Results, model: str
) -> None:
    home = place.run / "all" / "seed0"
    weights = read_json(home / "lm-weights" / "result.json")["weights"]
    path = place.run / "all" / "lm" / model / "model.packed"
    engine: engines.Engine = "torch" if model == "float" else "runtime"
    assert results["all/seed0/bp-4/rescored"][model]["engine"] == engine
    saved = load(path)
    ngram = read_arpa(place.run / "all" / "ngram" / "lm.arpa.gz")
    first = {e.id: e for e in read_nbest(home / "bp-4" / "words" / "test.nbest.jsonl")}
    after = read_nbest(home / "bp-4" / "rescored" / model / "test.nbest.jsonl")
    assert [e.id for e in after] == list(first) and len(after) == 60
    best = []
    for entry in first.values():
        scores = engines.language_model(path, engine).hypothesis_logprobs([h.split() for h in entry.hyps])
        known = [sum(word not in saved.tokenizer for word in hyp.split()) for hyp in entry.hyps]  # type: ignore[operator]
        rows = zip(entry.hyps, entry.scores, scores, known, strict=True)
        total = {
            hyp: weights["first"] * score
            + weights["words"] * len(hyp.split())
            + weights["unknown"] * unknown
            + weights["ngram"] * float(ngram.score([hyp.split()])[0].sum())
            + weights["lm"] * float(logprobs.sum())
            for hyp, score, logprobs, unknown in rows
        }
        best.append(max(total, key=lambda hyp: total[hyp]))
    assert [e.hyps[0] for e in after] == best
    errors = read_errors(home / "bp-4" / "rescored" / model / "test.errors.jsonl")
    assert {e.speaker for e in errors} == {f"test-spk{i}" for i in range(6)}
    assert results["all/seed0/bp-4/rescored"][model]["sets"]["test"]["wer"] == wer(errors)


def test_table_3_has_every_system_with_its_size_and_marks(place: Place, results: Results) -> None:
    lines = {line["name"]: line for line in systems(place, results)}
    assert list(lines) == [
        *(
            f"{row}, {model}"
            for row in ("float", "bp-4")
            for model in ("no LM", "full precision LM", "low-bit LM")
        ),
        *(f"bp-4 + LHUC, {model}" for model in ("no LM", "full precision LM", "low-bit LM")),
    ]
    full, best, none = lines["float, full precision LM"], lines["bp-4, low-bit LM"], lines["bp-4, no LM"]
    assert full["ratio"] == 1 and full["mark"] == "" and full["against"]["full"] is None
    sizes = [results[f"{part}/lm/low"]["bytes"] + 500 for part in place.parts]
    assert best["bytes"] == pytest.approx(np.mean(sizes))
    whole = [results[f"{part}/lm/float"]["bytes"] + 4000 for part in place.parts]
    assert best["ratio"] == pytest.approx(np.mean([w / s for w, s in zip(whole, sizes, strict=True)]))
    assert none["ratio"] is None and none["bytes"] == 500
    assert none["mark"] == none["sets"]["test"]["mark"] == "*" and none["sets"]["test"]["p"][0] < 0.05
    assert best["pooled"][0] < none["pooled"][0] - 4
    errors = [
        error
        for part in place.parts
        for name in place.test_ids(part)
        for error in read_errors(
            place.run / part / "seed0" / "bp-4" / "rescored" / "low" / f"{name}.errors.jsonl"
        )
    ]
    assert len(errors) == 180 and best["pooled"] == [pytest.approx(wer(errors)), 0, 1]
    assert lines["bp-4 + LHUC, low-bit LM"]["parameters_a_speaker"] == 7
    assert lines["bp-4 + LHUC, no LM"]["against"]["unadapted"]["seeds"].keys() == {"0"}


def test_a_system_of_unfinished_stages_is_no_line_and_its_parts_are_not_pooled(
    place: Place, results: Results
) -> None:
    some = {name: found for name, found in results.items() if "rescored" not in name or "fold1" not in name}
    lines = {line["name"]: line for line in systems(place, some)}
    assert lines["bp-4, low-bit LM"]["runs"] == 2 and lines["bp-4, no LM"]["runs"] == 3
    assert lines["bp-4, no LM"]["against"]["full"]["seeds"]["0"]["changed"] <= 120
    none = {name: found for name, found in results.items() if "rescored" not in name}
    assert {line["lm"] for line in systems(place, none)} == {None}
    without = dataclasses.replace(place.recipe, lm=dataclasses.replace(place.recipe.lm, rows=()))
    adapted = dataclasses.replace(place, recipe=without)
    assert [line["name"] for line in systems(adapted, none)] == ["bp-4, no LM", "bp-4 + LHUC, no LM"]
    assert (
        hybrid_lm.stages_of_part(adapted, ALL) == hybrid_lm.stages_of_seed(adapted, ALL, 0, ("a", "b")) == []
    )


def test_a_systems_folder_is_where_its_stage_writes() -> None:
    assert (System("kl-4").stage, System("kl-4").folder) == ("kl-4/words", "kl-4/words")
    both = System("kl-4", "lhuc", "low")
    assert (both.stage, both.folder) == ("kl-4/lhuc-rescored", "kl-4/lhuc-rescored/low")


def test_a_split_dev_is_decoded_where_rescoring_is_tuned_on_it(place: Place) -> None:
    plain = dataclasses.replace(place.recipe.corpus, folds=0)
    by_dev = dataclasses.replace(place, recipe=dataclasses.replace(place.recipe, corpus=plain))
    assert by_dev.decoded_sets(ALL) == ["test", "dev"] and list(by_dev.test_ids(ALL)) == ["test"]
    assert place.decoded_sets(ALL) == ["test"] and place.decoded_sets("fold1") == ["fold1"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('rows = ["float", "bp-4"]', 'rows = ["float", "kl-4"]', r"\[lm\] rows names 'kl-4'"),
        ('rows = ["float", "bp-4"]', 'rows = ["bp-4"]', r"\[lm\] rows lacks 'float'"),
        (
            'text = ["more.txt"]',
            "bits = 5.0",
            r"\[lm\] asks for 5 bits on average, its widths go from 1 to 4",
        ),
        ('text = ["more.txt"]', 'plan = "search"', r"\[lm\] plan is 'search': choose hessian or kl"),
        ('text = ["more.txt"]', 'fit = "sgd"', r"\[lm\] fit is 'sgd': choose from none, bp"),
        (
            'text = ["more.txt"]',
            'tokenizer = "bytes"',
            r"\[lm\] tokenizer is 'bytes': choose words or pieces",
        ),
        ("teach = 0.5", "tech = 0.5", r"\[lm.compress\] has no 'tech'"),
        ("heads = 2", "heads = 3", "dim 16 is not a multiple of heads 3"),
        ("dropout = 0.0", "depth = 2", "network 'transformer': .*depth"),
    ],
)
def test_a_section_that_would_fail_late_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"recipe.toml: .*{message}"):
        recipe(tmp_path, RECIPE.replace(old, new))


def test_a_text_that_is_missing_or_of_another_language_is_named(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'Made up' has the text more.txt: give its folder with --data"):
        hybrid_lm.stages_of_part(dataclasses.replace(place, data=None), ALL)
    elsewhere = dataclasses.replace(place, data=tmp_path)
    with pytest.raises(ValueError, match=r"more.txt: no such file, which \[lm\] text names"):
        hybrid_lm.stages_of_part(elsewhere, ALL)
    (tmp_path / "more.txt").write_text("TURN THE LAMP ON\n")
    with pytest.raises(ValueError, match=r"more.txt: the word list lacks 4 of the text's 4 words"):
        hybrid_lm.sentences(elsewhere, ALL)
