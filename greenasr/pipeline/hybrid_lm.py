"""Rescoring of a recogniser's n-best lists by a Transformer, full-precision and low-bit.

    <part>/lm/float ─▶ <part>/lm/low         the Transformer of the part's transcripts, and its low-bit child
    <part>/seed<k>/lm-weights                log-linear weights
    <part>/seed<k>/<row>/rescored            lists by both models, <model>/<set>.nbest.jsonl
    <part>/seed<k>/<row>/lhuc-rescored       the same of the second pass

A list's total is that of `greenasr.decode.rescore`, where the n-gram, which the first pass holds already, may
lose weight to the Transformer, down to none.  Weights are tuned once for each part and seed, as the acoustic
scale is: with the full-precision model on lists of the full-precision recogniser, of speech that neither was
trained on (another part's fold with that part's own models, or the split dev).  All rows and both models use
them, so that a difference is the models' and not their tuning's.  GREEN §5, Table 3; low-bit language models:
Xu et al. 2021, arXiv 2112.11438.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from greenasr.compress.allocate import allocate
from greenasr.compress.clusters import make_clusters
from greenasr.data.files import read_json, write_atomic, write_json
from greenasr.data.text import Vocabulary, check_covers, read_sentences
from greenasr.decode import rescore
from greenasr.decode.arpa import read_arpa
from greenasr.decode.nbest import read_nbest, write_nbest
from greenasr.decode.ngram import NGram
from greenasr.models.dropout import set_dropout_
from greenasr.pipeline import engines, lm
from greenasr.pipeline.engines import LanguageScorer
from greenasr.pipeline.models import load
from greenasr.pipeline.place import AnyPlace, Tell, errors_of
from greenasr.pipeline.plans import read_costs
from greenasr.pipeline.rescoring import scorer
from greenasr.pipeline.run import Stage
from greenasr.score.errors import to_jsonl, wer

MODELS = {"float": "full precision", "low": "low-bit"}  # folders of the two language models
PASSES = {"words": "rescored", "lhuc": "lhuc-rescored"}  # lists -> the stage that rescores them


def stages_of_part(place: AnyPlace, part: str) -> list[Stage]:
    """Both language models of a part; none where nothing is rescored.

    Raises ValueError for a text that is not there.
    """
    settings = place.recipe.lm
    if not settings.rows:
        return []
    for name in settings.text:
        if place.data is None:
            raise ValueError(f"'{place.recipe.title}' has the text {name}: give its folder with --data.")
        if not (place.data / name).is_file():
            raise ValueError(f"{place.data / name}: no such file, which [lm] text names.")
    model, low = f"{part}/lm/float", f"{part}/lm/low"
    return [
        Stage(model, (f"{part}/ngram",), partial(_train, place, part), trains=True),
        Stage(low, (model,), partial(_compress, place, part), trains=True),
    ]


def stages_of_seed(place: AnyPlace, part: str, seed: int, tuned_on: tuple[str, str]) -> list[Stage]:
    """Weights and rescored lists; ``tuned_on`` is the part and set of the lists that weights are tuned on."""
    settings, home = place.recipe.lm, f"{part}/seed{seed}"
    if not settings.rows:
        return []
    other, name = tuned_on
    weights = f"{home}/lm-weights"
    lists_of_other = f"{other}/seed{seed}/float/words"
    made = [Stage(weights, (f"{other}/lm/float", lists_of_other), partial(_tune, place, other, seed, name))]
    for row in settings.rows:
        for lists, stage in PASSES.items():
            if lists == "words" or row in place.recipe.adapted:
                needs = (weights, f"{part}/lm/float", f"{part}/lm/low", f"{home}/{row}/{lists}")
                made.append(Stage(f"{home}/{row}/{stage}", needs, partial(_rescore, place, part, lists)))
    return made


def sentences(place: AnyPlace, part: str) -> list[list[str]]:
    """The text of a part's language models: its training transcripts, and the recipe's further files."""
    text = [words for words in place.transcripts(part) if words]
    for name in place.recipe.lm.text:
        assert place.data is not None
        more = read_sentences(place.data / name)
        check_covers(place.lexicon.prons, place.data / name, more)
        text += more
    return text


def _train(place: AnyPlace, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    settings, text = place.recipe.lm, sentences(place, part)
    tokenizer = lm.make_tokenizer(settings.tokenizer, settings.vocab, text)
    task = lm.make_task(tokenizer, settings.task, {"train": text})
    path = lm.train_float(
        folder, tokenizer, task, settings.task, settings.model, settings.train,
        device=place.device, on_step=lm.teller(tell),
    )  # fmt: skip
    return _describe(place, part, path, folder)


def _compress(place: AnyPlace, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """Costs, plan and training onto it; a killed run keeps the costs that it has."""
    settings, teacher = place.recipe.lm, folder.parent / "float" / "model.packed"
    compress, saved = settings.compress, load(teacher)
    task = lm.task_of(saved, {"train": sentences(place, part)})
    costs_file = folder / "costs.json"
    if not costs_file.exists():
        costs = lm.measure_costs(
            settings.plan, saved.model, task, make_clusters(saved.model, compress.by, compress.bands),
            compress.widths, step=compress.step, n_batches=compress.cost_batches,
            tolerance=compress.cost_tolerance, max_probes=compress.max_probes,
            kept=folder / "probes.json", tell=tell,
        )  # fmt: skip
        write_json(costs_file, costs.to_json())
        (folder / "probes.json").unlink(missing_ok=True)
    bit_map = allocate(
        read_costs(costs_file), average_bits=settings.bits, pinned=compress.pin, step=compress.step
    )
    if compress.dropout is not None:
        set_dropout_(saved.model, compress.dropout)
    if compress.teach:
        task = lm.taught(task, teacher, compress.teach, saved, place.device)
    training = replace(
        settings.train, epochs=compress.epochs, lr=compress.lr, weight_decay=compress.weight_decay
    )
    path = lm.compress_onto(
        folder, saved, task, bit_map, settings.fit, training, device=place.device, on_step=lm.teller(tell)
    )
    return _describe(place, part, path, folder)


def _describe(place: AnyPlace, part: str, path: Path, folder: Path) -> dict[str, Any]:
    """Size, plan, perplexity of the part's test transcripts, beside that of its n-gram, and seconds."""
    saved, refs = load(path), []
    for name, ids in place.test_ids(part).items():
        store = place.store_of(part, name)
        refs += [store.texts[store.place[utt_id]].split() for utt_id in ids]
    logprobs = lm.task_of(saved, {}).hypothesis_logprobs(saved.model, refs)
    log = (folder / "log.jsonl").read_text().splitlines() if (folder / "log.jsonl").exists() else []
    return lm.describe(path, saved) | {
        "ppl": lm.perplexity(np.concatenate(logprobs)),
        "ppl_ngram": lm.perplexity(np.concatenate(_ngram(place, part).score(refs))),
        "seconds_train": json.loads(log[-1])["seconds"] if log else 0.0,
    }


def _ngram(place: AnyPlace, part: str) -> NGram:
    """The n-gram of a part's decoding graph."""
    return read_arpa(place.run / part / "ngram" / "lm.arpa.gz")


def _known(model: LanguageScorer | None) -> Vocabulary | None:
    """Words that the model knows; None, hence those of the n-gram, where every word has pieces."""
    return model.tokenizer if model is not None and isinstance(model.tokenizer, Vocabulary) else None


def _scorer(place: AnyPlace, part: str, model: str) -> LanguageScorer:
    """One of a part's language models, on the engine of such rows."""
    path = place.run / part / "lm" / model / "model.packed"
    return engines.language_model_of_row(path, place.recipe.decode.engine)


def _tune(place: AnyPlace, other: str, seed: int, name: str, folder: Path, tell: Tell) -> dict[str, Any]:
    return tuned_weights(place, other, seed, name, _scorer(place, other, "float"), tell)


def tuned_weights(
    place: AnyPlace, other: str, seed: int, name: str, model: LanguageScorer | None, tell: Tell
) -> dict[str, Any]:
    """Weights of the fewest errors on all lists of a set of the part ``other``, by that part's models.

    Without a language ``model`` they are those of the n-gram alone.
    """
    lists = read_nbest(place.run / other / f"seed{seed}" / "float" / "words" / f"{name}.nbest.jsonl")
    score = None if model is None else scorer(model, tell, name)
    found = rescore.run(
        lists, _ngram(place, other), score, _known(model), dev=lambda _: True, need_heldout=False, seed=seed,
        in_first=("ngram",) if place.recipe.ngram_in_first_pass else (),
        tell=lambda what, done, of: tell(done, of, f"{name}: {what}"),
    )  # fmt: skip
    return {"tuned_on": [other, name], **found.to_json()}


def _rescore(place: AnyPlace, part: str, lists: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """All utterances of a part's test sets in the order of both models; errors and WER of each."""
    weights = read_json(folder.parent.parent / "lm-weights" / "result.json")["weights"]
    return {
        model: reordered(
            place, part, folder.parent / lists, folder / model, weights,
            _scorer(place, part, model), tell,
        )
        for model in MODELS
    }  # fmt: skip


def reordered(
    place: AnyPlace,
    part: str,
    lists: Path,
    out: Path,
    weights: Mapping[str, float],
    model: LanguageScorer | None,
    tell: Tell,
) -> dict[str, Any]:
    """All utterances of a part's test sets by ``weights``, from the folder ``lists`` into ``out``."""
    ngram, sets, seconds = _ngram(place, part), {}, 0.0
    for name in place.test_ids(part):
        first = read_nbest(lists / f"{name}.nbest.jsonl")
        score = None if model is None else scorer(model, tell, name)
        found = rescore.run(first, ngram, score, _known(model), weights=weights)
        errors = errors_of(place.store_of(part, name), found.nbest)
        write_nbest(out / f"{name}.nbest.jsonl", found.nbest)
        write_atomic(out / f"{name}.errors.jsonl", to_jsonl(errors))
        changed = sum(a.hyps[0] != b.hyps[0] for a, b in zip(first, found.nbest, strict=True))
        sets[name] = {"wer": wer(errors), "changed": changed}
        seconds += found.seconds.get("lm", 0.0)
    return {"sets": sets, "seconds": seconds, "engine": None if model is None else model.engine}
