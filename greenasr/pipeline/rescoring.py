"""Rescoring N-best lists with every row of a table: MPLM's Tables 1 and 3.

Weights are tuned with the full-precision model on the dev half of the utterances; every compressed row
is rescored with the same weights, so that a difference is the model's and not its tuning's.  WER is
that of the held-out half.  Marks come from MAPSSWE at 0.05 (two-sided):

    *   significantly worse than full precision      +   significantly better
    †   significantly better than the first pass
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from greenasr.data.confusions import generate_nbest
from greenasr.data.files import read_json, write_json
from greenasr.decode import rescore
from greenasr.decode.nbest import NBest, read_nbest, write_nbest
from greenasr.decode.ngram import NGram
from greenasr.pipeline.engines import LanguageScorer
from greenasr.pipeline.recipe import Lists
from greenasr.score.errors import bootstrap_ci95, wer
from greenasr.score.significance import Mapsswe, difference_ci95, mapsswe

Tell = Callable[[int, int, str], None]


def read_sets(lists: Lists, folder: Path | None) -> dict[str, list[NBest]]:
    """The recipe's N-best lists by name; utterances whose references join the training text apart.

    Raises ValueError when lists are named and no folder is given.
    """
    if not lists.sets:
        made = generate_nbest(lists.generate, seed=1)
        return {"generated": [NBest(e["id"], e["ref"], tuple(e["hyps"]), tuple(e["scores"])) for e in made]}
    if folder is None:
        raise ValueError(
            f"the recipe rescores {lists.sets[0]}: give the folder of its n-best lists with --nbest."
        )
    rank = set(lists.rank)
    return {
        Path(name).stem: read_nbest(folder / name, "rank" if name in rank else "scores")
        for name in lists.sets
    }


def training_refs(lists: Lists, folder: Path | None) -> list[list[str]]:
    """References of the quarter that joins the training text, ``refs_in_training`` times over."""
    if not lists.refs_in_training:
        return []
    sets = read_sets(lists, folder).items()
    refs = [(e.ref or "").split() for name, entries in sets for e in entries if lists.gives(name, e.id)]
    return [words for words in refs if words] * lists.refs_in_training


def rescore_sets(
    lists: Lists,
    folder: Path | None,
    model: LanguageScorer,
    ngram: NGram,
    out: Path,
    float_out: Path | None,
    tell: Tell = lambda done, of, note: None,
) -> dict[str, Any]:
    """Rescore every set with one model into ``out/<set>.jsonl``; set -> wer, ci95, mark and its tests.

    ``float_out`` is the folder of the full-precision model's rescoring, whose weights are used and against
    which the marks are made; None for the full-precision model itself.
    """
    results: dict[str, Any] = {}
    seconds = 0.0
    for name, entries in read_sets(lists, folder).items():
        kept = [e for e in entries if not lists.gives(name, e.id)]
        weights = None if float_out is None else read_json(float_out / f"{name}.weights.json")["weights"]
        found = rescore.run(kept, ngram, scorer(model, tell, name), weights=weights, tell=_parts(tell, name))
        write_nbest(out / f"{name}.jsonl", found.nbest)
        write_json(out / f"{name}.weights.json", found.to_json())
        seconds += found.seconds["lm"]
        errors = found.heldout.rescored
        first = compare(kept, kept, found.nbest)
        result = {
            "wer": wer(errors),
            "ci95": list(bootstrap_ci95(errors)),
            "first_pass": wer(found.heldout.first),
            "utterances": len(errors),
            "against_first_pass": asdict(first),
            "weights": found.weights,
        }
        mark = "†" if first.better == "b" else ""
        if float_out is not None:
            against = compare(kept, read_nbest(float_out / f"{name}.jsonl"), found.nbest)
            low, high = difference_ci95(against, sum(e.n_ref for e in errors))
            result |= {"against_float": asdict(against), "difference_ci95": [low, high]}
            mark += {"a": "*", "b": "+"}.get(against.better or "", "")
        results[name] = result | {"mark": mark}
    return {"sets": results, "seconds_eval": seconds, "engine": model.engine}


def scorer(model: LanguageScorer, tell: Tell, name: str) -> rescore.Score:
    """The model as rescoring asks for it; progress under the set's name."""
    return lambda sentences: model.hypothesis_logprobs(
        sentences, lambda done, of: tell(done, of, f"{name}: neural LM")
    )


def _parts(tell: Tell, name: str) -> Callable[[str, int, int], None]:
    return lambda part, done, of: tell(done, of, f"{name}: {part}")


def compare(refs: Sequence[NBest], a: Sequence[NBest], b: Sequence[NBest]) -> Mapsswe:
    """MAPSSWE of the best hypotheses of two rescorings on the held-out half."""
    best_a, best_b = ({e.id: e.hyps[0].split() for e in lists} for lists in (a, b))
    held = [e for e in refs if not rescore.in_dev(e.id)]
    words = [(e.ref or "").split() for e in held]
    return mapsswe(words, [best_a[e.id] for e in held], [best_b[e.id] for e in held])
