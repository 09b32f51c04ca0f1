"""Where recognisers are made, hybrid or transducer: the parts of a corpus, and the stages before any network.

corpus ─▶ features ─▶ <part>: all training speakers, or all but one fold, which is then its test set
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from greenasr.data.audio import samples
from greenasr.data.corpora import (
    corpus_lexicon,
    guess_kind,
    load_cuts,
    read_corpus,
    save_cuts,
    speaker,
    with_subsets,
    words,
)
from greenasr.data.feature_store import FeatureStore, Samples, extract
from greenasr.data.features import Features
from greenasr.data.files import read_json, write_json
from greenasr.data.ivectors import load_vectors
from greenasr.data.lexicon import SPELLED, Lexicon, graphemes
from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.nbest import NBest
from greenasr.decode.ngram import NGram
from greenasr.pipeline.speech_recipe import SpeechRecipe
from greenasr.score.errors import Errors, count_errors
from greenasr.tasks.chain import original

Tell = Callable[[int, int, str], None]
R = TypeVar("R", bound=SpeechRecipe, covariant=True)
ALL = "all"
FOLD_SEED = 1


@dataclass(frozen=True, eq=False)
class SpeechPlace(Generic[R]):
    """Where recognisers are made: the recipe, its run folder, the user's corpus."""

    recipe: R
    run: Path
    data: Path | None = None
    device: str = "cpu"
    jobs: int = 1

    @property
    def parts(self) -> tuple[str, ...]:
        """All training speakers, and all but each fold; or the latter alone."""
        folds = tuple(f"fold{k}" for k in range(self.recipe.corpus.folds))
        return folds if self.recipe.corpus.only_folds else (ALL, *folds)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits of the corpus by name, as found in its folder."""
        return tuple(read_json(self.run / "corpus" / "splits.json"))

    @property
    def tests(self) -> tuple[str, ...]:
        """The test sets."""
        corpus = self.recipe.corpus
        return corpus.tests or tuple(s for s in self.splits if s not in (corpus.train, corpus.dev))

    def store(self, split: str) -> FeatureStore:
        """The features of a split, wherever the run's folder has been moved since."""
        there = self.run / "features"
        return FeatureStore.open(there.joinpath(*Path(read_json(there / "folders.json")[split]).parts[-2:]))

    def store_of(self, part: str, name: str) -> FeatureStore:
        """The features that hold a set of a part: its own, or for a fold those of the training split."""
        return self.store(name if part == ALL else self.recipe.corpus.train)

    @cached_property
    def lexicon(self) -> Lexicon:
        """The corpus's lexicon."""
        return Lexicon.from_json(read_json(self.run / "corpus" / "lexicon.json"))

    def ivectors(self, part: str, name: str) -> dict[str, NDArray[np.float32]] | None:
        """A part's i-vectors of a set by utterance, (D,) each; None where the recipe has none."""
        if not self.recipe.features.ivectors:
            return None
        return load_vectors(self.run / part / "ivectors" / f"{name}.npz")

    def fold(self, part: str) -> frozenset[str]:
        """Speakers that a part does not train on: every n-th of them in an order by `FOLD_SEED`."""
        if part == ALL:
            return frozenset()
        store = self.store(self.recipe.corpus.train)
        pairs = zip(store.ids, store.speakers, strict=True)
        speakers = sorted({speaker for utt_id, speaker in pairs if original(utt_id)[1] == 1.0})
        random.Random(FOLD_SEED).shuffle(speakers)
        return frozenset(speakers[int(part.removeprefix("fold")) :: self.recipe.corpus.folds])

    def training_ids(self, part: str) -> list[str]:
        """Utterances that a part trains on, copies at other speeds included."""
        store, held = self.store(self.recipe.corpus.train), self.fold(part)
        rows = zip(store.ids, store.speakers, strict=True)
        return [utt_id for utt_id, speaker in rows if original(speaker)[0] not in held]

    def test_ids(self, part: str) -> dict[str, list[str]]:
        """Utterances of each test set of a part: the corpus's own sets, or the fold held out."""
        if part == ALL:
            return {name: list(self.store(name).ids) for name in self.tests}
        store, held = self.store(self.recipe.corpus.train), self.fold(part)
        rows = zip(store.ids, store.speakers, strict=True)
        return {part: [utt_id for utt_id, speaker in rows if speaker in held]}

    def transcripts(self, part: str) -> list[list[str]]:
        """The words of every utterance that a part trains on, each said once."""
        store = self.store(self.recipe.corpus.train)
        ids = [utt_id for utt_id in self.training_ids(part) if original(utt_id)[1] == 1.0]
        return [store.texts[store.place[utt_id]].split() for utt_id in ids]

    def decoded_sets(self, part: str) -> list[str]:
        """The test sets of a part, and the split dev where rescoring is tuned on it."""
        corpus, names = self.recipe.corpus, list(self.test_ids(part))
        tunes = self.recipe.lists_are_tuned and not corpus.folds and corpus.dev not in names
        return [*names, corpus.dev] if tunes else names


AnyPlace = SpeechPlace[SpeechRecipe]


def make_corpus(place: AnyPlace, folder: Path, tell: Tell) -> dict[str, Any]:
    """Cuts of every split, and the lexicon with what it lacks."""
    corpus = place.recipe.corpus
    if not corpus.source:
        from greenasr.data.generated import generate_speech

        utterances = corpus.utterances or min(500, max(10, round(500 * corpus.hours)))
        generate_speech(
            folder, corpus.hours, corpus.seeds[0], max(1, place.jobs), tell, utterances, corpus.domain
        )
        names = [path.name.removesuffix(".cuts.jsonl.gz") for path in sorted(folder.glob("*.cuts.jsonl.gz"))]
        write_json(folder / "splits.json", names)
        return {"splits": names}
    if place.data is None:
        raise ValueError(f"'{place.recipe.title}' is made from {corpus.source}: give its folder with --data.")
    arpa = place.recipe.decode.arpa
    if arpa and not (place.data / arpa).is_file():
        raise ValueError(f"{place.data / arpa}: no such file, which [decode] arpa names.")
    kind = corpus.kind or guess_kind(place.data / corpus.source)
    found = read_corpus(place.data / corpus.source, kind, progress=noted(tell, "headers"))
    found = with_subsets(found, (corpus.train, corpus.dev, *corpus.tests))
    if corpus.train not in found:
        raise ValueError(
            f"{place.data / corpus.source}: no split '{corpus.train}', found {', '.join(found)}."
        )
    if corpus.held_out:
        if corpus.dev in found:
            raise ValueError(
                f"{place.data / corpus.source} has a split '{corpus.dev}': leave [corpus] held_out out."
            )
        kept, held = parted(found[corpus.train], corpus.held_out)
        found |= {corpus.train: kept, corpus.dev: held}
    wanted = {corpus.train, corpus.dev, *corpus.tests} if corpus.tests else set(found)
    if lacking := set(corpus.tests) - set(found):
        raise ValueError(
            f"{place.data / corpus.source}: no test set '{min(lacking)}', found {', '.join(found)}."
        )
    found = {split: cuts for split, cuts in found.items() if split in wanted}
    for split, cuts in found.items():
        save_cuts(folder / f"{split}.cuts.jsonl.gz", cuts)
    counts = Counter(word for cut in found[corpus.train] for word in words(cut))
    lexicon = None
    if corpus.lexicon:
        lexicon = corpus_lexicon(place.data / corpus.lexicon, kind, stress=corpus.stress)
    missing = lexicon.missing(counts.elements()) if lexicon else []
    if lexicon is None or corpus.grapheme and missing:
        spelled = graphemes([word for word, _ in missing], SPELLED) if lexicon else graphemes(counts)
        lexicon = lexicon.extended(spelled) if lexicon else spelled
    elif missing:
        word, near = missing[0]
        raise ValueError(
            f"{place.data / corpus.lexicon}: {len(missing)} words of the training text lack a pronunciation, "
            f"the first is '{word}' (near '{near}'): add them, or set grapheme = true to spell them."
        )
    write_json(folder / "lexicon.json", lexicon.to_json())
    write_json(folder / "splits.json", list(found))
    hours = {split: sum(cut.duration for cut in cuts) / 3600 for split, cuts in found.items()}
    return {"splits": list(found), "hours": hours, "words": len(lexicon.words)}


def parted(cuts: Sequence[Any], share: float) -> tuple[list[Any], list[Any]]:
    """Cuts of most speakers, and of a ``share`` of them, at least one, in an order by `FOLD_SEED`.

    ValueError for a single speaker.
    """
    speakers = sorted({speaker(cut) for cut in cuts})
    if len(speakers) < 2:
        raise ValueError("[corpus] held_out needs two training speakers or more: leave it out.")
    random.Random(FOLD_SEED).shuffle(speakers)
    held = set(speakers[: max(1, round(share * len(speakers)))])
    return [c for c in cuts if speaker(c) not in held], [c for c in cuts if speaker(c) in held]


def make_features(
    place: AnyPlace,
    folder: Path,
    tell: Tell,
    features: Features | None = None,
    samples: Samples = samples,
) -> dict[str, Any]:
    """Features of every split; copies at other speeds of the training split alone.

    They are the recipe's unless given; ``samples`` reads a cut.
    """
    settings = place.recipe.features
    features = features or Features(settings.kind, settings.bins, settings.cmvn)  # type: ignore[arg-type]
    folders, frames = {}, {}
    for split in place.splits:
        cuts = load_cuts(place.run / "corpus" / f"{split}.cuts.jsonl.gz")
        speeds = place.recipe.corpus.speeds if split == place.recipe.corpus.train else (1.0,)
        store = extract(
            cuts, folder / split, features, samples, speeds=speeds, jobs=place.jobs,
            progress=noted(tell, f"features of {split}"),
        )  # fmt: skip
        folders[split], frames[split] = f"{split}/{store.folder.name}", int(store.frames.sum())
    write_json(folder / "folders.json", folders)
    return {"frames": frames}


def write_ngram(place: AnyPlace, part: str, folder: Path) -> NGram:
    """The n-gram of a part's transcripts, or the recipe's own, into ``folder/lm.arpa.gz``."""
    settings = place.recipe.decode
    given = place.data / settings.arpa if place.data and settings.arpa else None
    lm = read_arpa(given) if given else kneser_ney(place.transcripts(part), settings.order).lm
    write_arpa(lm, folder / "lm.arpa.gz")
    return lm


def tuned_on(place: AnyPlace, part: str) -> tuple[str, str]:
    """The part and set on which a part's search is tuned: the split dev, or another part's fold."""
    if place.recipe.corpus.folds:
        k = 0 if part == ALL else int(part.removeprefix("fold")) + 1
        other = f"fold{k % place.recipe.corpus.folds}"
        return other, other
    return ALL, place.recipe.corpus.dev


def errors_of(store: FeatureStore, lists: Sequence[NBest]) -> list[Errors]:
    """Errors of every list's best hypothesis, with its speaker."""
    return [
        count_errors(e.id, (e.ref or "").split(), e.hyps[0].split(), store.speakers[store.place[e.id]])
        for e in lists
    ]


def noted(tell: Tell, note: str) -> Callable[[int, int], None]:
    """Progress under a name."""
    return lambda done, of: tell(done, of, note)
