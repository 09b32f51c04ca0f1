"""One budget of bytes for a recogniser and its language model: the smallest pair whose words are as good.

    models of the recogniser's search  ×  models of the language model's search
    system/lists/<r>-<split>     lists of hypotheses of a recogniser
    system/weights               tuned on dev with both models in full precision, and kept
    system/pairs/<r>+<l>         the words of dev after rescoring; system/test/… those of test

A pair passes or fails on dev as one model does.  Where smaller is taken to be worse, the pairs that pass lie
on one side of a staircase, which is walked: from the largest recogniser with the smallest language model, on
to a smaller recogniser where the pair passes, to a larger language model where it does not; so R + L pairs
are heard, not R L.  The smallest that pass hear test once.  Bytes are of both files, without the n-gram.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from greenasr.data.files import atomic, read_json, write_atomic, write_json
from greenasr.data.text import Vocabulary
from greenasr.decode import rescore
from greenasr.decode.arpa import read_arpa
from greenasr.decode.nbest import NBest, read_nbest, write_nbest
from greenasr.pipeline import engines
from greenasr.pipeline.rescoring import scorer
from greenasr.score.decision import SHOWN, WORSE, Comparison, compare, decide
from greenasr.score.errors import wer
from greenasr.score.scored import read_scored, said, to_jsonl
from greenasr.shrinking.answer import FORMAT, sentence
from greenasr.shrinking.board import Board, Job, Result, Tell
from greenasr.shrinking.package import Package
from greenasr.shrinking.recognisers import ByGraph
from greenasr.shrinking.settings import Question
from greenasr.shrinking.task import ShrinkTask

LISTED = 20  # hypotheses an utterance
FULL = "full"
Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A model of one of the two searches."""

    name: str
    path: Path
    bytes: int


def parts_of(run: Path) -> list[Part]:
    """The full model of a finished search, those that pass on dev and those on its front, largest first."""
    if not (run / "answer.json").exists():
        raise ValueError(f"{run}: no answer.json: give the folder of a finished `greenasr shrink`.")
    value = read_json(run / "answer.json")
    if value.get("format") != FORMAT:
        raise ValueError(f"{run}/answer.json: is '{value.get('format')}', not '{FORMAT}': search again.")
    found = [Part(FULL, run / "full" / "model.packed", value["full"]["bytes"])]
    for row in value["models"]:
        if row["front"] or row["passes_dev"]:
            file = row.get("file", f"models/{row['name']}")
            name = row["name"] if file.startswith("models/") else f"{row['name']}-{row['activations']}"
            found.append(Part(name, run / file / "model.packed", row["bytes"]))
    return sorted(found, key=lambda part: -part.bytes)


@dataclass(frozen=True, eq=False)
class System:
    """Two finished searches, the recogniser's in the folder of ``board``, and what rescoring needs."""

    task: ShrinkTask
    package: Package
    board: Board
    lm_run: Path
    arpa: Path
    question: Question
    activations: str = "auto"

    def run(self) -> Row:
        """Walk the staircase, score the finalists on test, write ``system/answer.json`` and both files."""
        recognisers, models = parts_of(self.board.run), parts_of(self.lm_run)
        full = recognisers[0], models[0]
        self.board.do([Job("system/weights", partial(self._tune, *full))])
        self.board.do([self._pair(*full, "dev")])
        at, small, rows = 0, len(models) - 1, []
        while at < len(recognisers) and small >= 0:
            pair = recognisers[at], models[small]
            self.board.do([self._pair(*pair, "dev")])
            passes = self._passes(*pair)
            rows.append(self._row(*pair, full, passes))
            at, small = (at + 1, small) if passes else (at, small - 1)
        rows.sort(key=lambda row: row["bytes"])
        return self._answer(full, rows)

    def _answer(self, full: tuple[Part, Part], rows: list[Row]) -> Row:
        margin, of = self.question.max_wer_increase, {p.name: p for p in parts_of(self.board.run)}
        models = {p.name: p for p in parts_of(self.lm_run)}
        whole = f"{FULL}+{FULL}"
        chosen = [r for r in rows if r["passes_dev"] and r["name"] != whole][: self.question.finalists]
        pairs = [full, *((of[r["recogniser"]], models[r["lm"]]) for r in chosen)]
        self.board.do([self._pair(*pair, "test") for pair in pairs])
        tested = {r["name"]: self._against(r["name"], "test") for r in chosen}
        looked = len(list((self.board.run / "system" / "test").glob("*/result.json"))) - 1
        verdicts = decide(tested, margin, looked=looked)
        for row in chosen:
            row |= {**self._result(row["name"], "test"), **verdicts[row["name"]]}
            row["against"] = tested[row["name"]].to_json()
        good = [r for r in chosen if r["verdict"] != WORSE]
        shown = [r for r in good if r["verdict"] == SHOWN]
        likely = [r for r in good if tested[r["name"]].within(margin)]
        picked = next(iter(shown or likely), None)
        found = tested[picked["name"]] if picked else None
        both: Row = {"bytes": sum(part.bytes for part in full)}
        value = {
            "full": both | self._result(whole, "dev") | self._result(whole, "test"),
            "pairs": rows,
            "smallest": picked["name"] if picked else None,
            "looked": looked,
            "sentence": sentence(both, picked, found, margin, looked),
        }
        if picked is not None:
            for part, name in ((of[picked["recogniser"]], "recogniser"), (models[picked["lm"]], "lm")):
                with atomic(self.board.run / "system" / f"{name}.packed") as temporary:
                    shutil.copyfile(part.path, temporary)
        write_json(self.board.run / "system" / "answer.json", value)
        return value

    def _row(self, recogniser: Part, lm: Part, full: tuple[Part, Part], passes: bool) -> Row:
        size, name = recogniser.bytes + lm.bytes, f"{recogniser.name}+{lm.name}"
        return {
            "name": name,
            "recogniser": recogniser.name,
            "lm": lm.name,
            "bytes": size,
            "bytes_recogniser": recogniser.bytes,
            "bytes_lm": lm.bytes,
            "ratio": sum(part.bytes for part in full) / size,
            "passes_dev": passes,
            **self._result(name, "dev"),
        }

    def _passes(self, recogniser: Part, lm: Part) -> bool:
        found = self._against(f"{recogniser.name}+{lm.name}", "dev")
        return not found.worse and found.within(self.question.max_wer_increase)

    def _against(self, name: str, split: str) -> Comparison:
        folder = self.board.run / _folder(split)
        one, two = (read_scored(folder / each / "words.jsonl") for each in (f"{FULL}+{FULL}", name))
        return compare(one, two, self.question.max_wer_increase)

    def _result(self, name: str, split: str) -> Row:
        return {split: (self.board.done(f"{_folder(split)}/{name}") or {})[split]}

    def _lists(self, recogniser: Part, split: str) -> list[NBest]:
        name = f"system/lists/{recogniser.name}-{split}"

        def work(folder: Path, tell: Tell) -> Result:
            hear = getattr(self.task, "hear", None)
            if not isinstance(hear, ByGraph):
                raise ValueError("only a hybrid gives lists of hypotheses that a language model can reorder.")
            tell(0, 1, f"lists of {split}")
            model, _ = self.package.judged(recogniser.path, self.activations, "cpu")
            with engines.on_one_core():
                write_nbest(folder / "nbest.jsonl", hear.lists(model, split, LISTED))
            return {"hypotheses": LISTED}

        self.board.do([Job(name, work)])
        return read_nbest(self.board.run / name / "nbest.jsonl")

    def _tune(self, recogniser: Part, lm: Part, folder: Path, tell: Tell) -> Result:
        """The weights of the fewest errors on dev, by both models in full precision."""
        found = self._run(self._lists(recogniser, "dev"), lm, "dev", None, tell)
        return {"weights": dict(found.weights)}

    def _run(
        self, lists: Sequence[NBest], lm: Part, split: str, weights: Mapping[str, float] | None, tell: Tell
    ) -> rescore.Rescoring:
        wanted = "torch" if self.activations == "float32" else "runtime"
        model = engines.language_model_of_row(lm.path, wanted)
        known = model.tokenizer if isinstance(model.tokenizer, Vocabulary) else None
        return rescore.run(
            lists, read_arpa(self.arpa), scorer(model, tell, split), known, dev=lambda _: True,
            need_heldout=False, weights=weights, in_first=("ngram",),
        )  # fmt: skip

    def _pair(self, recogniser: Part, lm: Part, split: str) -> Job:
        def work(folder: Path, tell: Tell) -> Result:
            weights = (self.board.done("system/weights") or {})["weights"]
            lists = self._lists(recogniser, split)
            best = {e.id: e for e in self._run(lists, lm, split, weights, tell).nbest}
            speakers = {row.errors.utt_id: row.errors.speaker for row in self._first(split)}
            rows = [
                said(each.id, (each.ref or "").split(), best[each.id].hyps[0].split(), speakers[each.id])
                for each in lists
            ]
            write_atomic(folder / "words.jsonl", to_jsonl(rows))
            return {split: {"wer": wer([row.errors for row in rows])}}

        return Job(f"{_folder(split)}/{recogniser.name}+{lm.name}", work)

    def _first(self, split: str) -> Any:
        """The full recogniser's own words of a set."""
        folder = self.board.run / ("full" if split == "dev" else "test/full")
        return read_scored(folder / f"{split}.jsonl")


def _folder(split: str) -> str:
    return "system/pairs" if split == "dev" else "system/test"
