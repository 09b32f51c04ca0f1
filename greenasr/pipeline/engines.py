"""Networks from packed files by one of two engines: the runtime, or torch for whoever wants to compare.

Both give arrays for arrays, so a recogniser does not know which it has.  Torch is imported where it is
asked for alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from greenasr.data.text import Tokenizer, Words, tokenizer_from_json
from greenasr.decode.sentence_scores import Progress, Score, hypothesis_logprobs
from greenasr.decode.transducer import Transducer
from greenasr.pipeline.units import KeywordUnits, Labels, Units, check_classes, check_outputs
from greenasr.runtime import engine as runtime
from greenasr.runtime import format as packed_format
from greenasr.runtime import scoring
from greenasr.runtime.format import Packed
from greenasr.runtime.kernels import native

Engine = Literal["runtime", "torch"]
ENGINES: tuple[Engine, ...] = ("runtime", "torch")
Around = TypeVar("Around")
Floats = NDArray[np.float32]


class Acoustic(Protocol):
    """A network from features to the logits of pdfs."""

    @property
    def ivector_dim(self) -> int:
        """Width of the i-vector that it reads, 0 for none."""
        ...

    def logits(self, feats: Floats, ivectors: Floats | None = None) -> Floats:
        """One utterance (T, F) -> (T', C)."""
        ...


class StreamingTransducer(Transducer, Protocol):
    """A transducer that says how long its encoder frames are."""

    @property
    def frames_joined(self) -> int:
        """Feature frames in one encoder frame."""
        ...


class Ctc(Protocol):
    """A network from features to the logits of labels and blank."""

    @property
    def stride(self) -> int:
        """Feature frames in one output frame."""
        ...

    def logits(self, feats: Floats) -> Floats:
        """One utterance (T, F) -> (T', C)."""
        ...


class Classifier(Protocol):
    """A network that says what a clip is."""

    def logits(self, feats: Floats) -> Floats:
        """One clip (T, F) -> (C,)."""
        ...


def check_engine(engine: str, what: str = "engine") -> None:
    """Refuse engines that there are not."""
    if engine not in ENGINES:
        raise ValueError(f"{what} '{engine}': choose {' or '.join(ENGINES)}.")


def engine_of_row(packed: Packed, wanted: str) -> Engine:
    """What hears the words of a table's row: what ships, hence torch in full precision or where wanted."""
    ships = packed.bit_map and packed.model in runtime.FAMILIES
    return "runtime" if ships and wanted == "runtime" else "torch"


@contextmanager
def on_one_core() -> Iterator[None]:
    """The runtime on the caller's thread alone inside the block, as an RTF of one core wants it."""
    if not native.available():
        yield
        return
    before = native.threads()
    native.set_threads(1)
    try:
        yield
    finally:
        native.set_threads(before)


def acoustic(path: Path, packed: Packed, engine: Engine = "runtime") -> tuple[Acoustic, Units]:
    """The network of a packed acoustic model; ValueError when it is of another kind."""
    if engine == "torch":
        from greenasr.models.on_arrays import TdnnfOnArrays
        from greenasr.pipeline.acoustic_models import load_acoustic

        saved = load_acoustic(path)
        return TdnnfOnArrays(saved.model), saved.units
    cure = "give one that `greenasr table` made of a hybrid recipe"
    units = _around(path, packed, ("tdnnf",), Units.from_json, f"no acoustic model ({{}}): {cure}")
    return _network(packed, path), units


def transducer(path: Path, packed: Packed, engine: Engine = "runtime") -> tuple[StreamingTransducer, Labels]:
    """The network of a packed transducer; ValueError when it is of another kind."""
    if engine == "torch":
        from greenasr.models.on_arrays import RnntOnArrays
        from greenasr.pipeline.transducer_models import load_transducer

        saved = load_transducer(path)
        return RnntOnArrays(saved.model), saved.units
    cure = "give one that `greenasr table` made of a recipe of kind transducer"
    units = _around(path, packed, ("rnnt",), Labels.from_json, f"no transducer ({{}}): {cure}")
    check_outputs(path, int(packed.config["vocab"]), units)
    return _network(packed, path), units


@dataclass(frozen=True, eq=False)
class LanguageScorer:
    """A language model as rescoring asks for it."""

    tokenizer: Tokenizer
    length: int
    score: Score
    engine: Engine

    def hypothesis_logprobs(
        self, sentences: Sequence[Words], progress: Progress | None = None
    ) -> list[NDArray[np.float32]]:
        """Natural log-probability of every word and of the end of each sentence, [(words + 1,)]."""
        return hypothesis_logprobs(self.score, self.tokenizer, sentences, self.length, progress)


def language_model(path: Path, engine: Engine = "runtime") -> LanguageScorer:
    """The scorer of a packed language model; ValueError when it is of another kind."""
    if engine == "torch":
        from greenasr.pipeline.lm import task_of
        from greenasr.pipeline.models import load

        saved = load(path)
        task = task_of(saved, {})
        return LanguageScorer(saved.tokenizer, task.length, task.scoring(saved.model), engine)
    packed = read(path)
    what = "no language model ({}): give one that `greenasr train` or `greenasr compress` wrote"
    tokenizer = _around(path, packed, ("transformer", "lstm"), tokenizer_from_json, what)
    length = int(packed.recipe["windows"]["length"])
    return LanguageScorer(tokenizer, length, partial(scoring.logprobs, _network(packed, path)), engine)


def language_model_of_row(path: Path, wanted: str) -> LanguageScorer:
    """The scorer of a table's row, on the engine of such rows."""
    return language_model(path, engine_of_row(read(path), wanted))


def ctc(path: Path, packed: Packed, engine: Engine = "runtime") -> tuple[Ctc, Labels]:
    """The network of a packed CTC model; ValueError when it is of another kind."""
    if engine == "torch":
        from greenasr.models.on_arrays import LogitsOnArrays
        from greenasr.pipeline.ctc_models import load_ctc

        saved = load_ctc(path)
        return LogitsOnArrays(saved.model), saved.units
    cure = "give one that `greenasr table` made of a recipe of kind ctc"
    units = _around(path, packed, ("quartznet",), Labels.from_json, f"no CTC network ({{}}): {cure}")
    check_outputs(path, int(packed.config["vocab"]), units)
    return _network(packed, path), units


def keywords(path: Path, packed: Packed, engine: Engine = "runtime") -> tuple[Classifier, KeywordUnits]:
    """The network of a packed keyword model; ValueError when it is of another kind."""
    if engine == "torch":
        from greenasr.models.on_arrays import LogitsOnArrays
        from greenasr.pipeline.keyword_models import load_keyword_model

        saved = load_keyword_model(path)
        return LogitsOnArrays(saved.model), saved.units
    cure = "give one that `greenasr table` made of a recipe of kind keywords"
    units = _around(
        path, packed, ("matchboxnet",), KeywordUnits.from_json, f"no keyword model ({{}}): {cure}"
    )
    check_classes(path, int(packed.config["classes"]), units)
    return _network(packed, path), units


def read(path: Path) -> Packed:
    """The packed file, verified."""
    return packed_format.read(path)


def _around(
    path: Path, packed: Packed, kinds: tuple[str, ...], from_json: Callable[[Any], Around], what: str
) -> Around:
    try:
        if packed.model not in kinds:
            raise ValueError(f"the network is a '{packed.model}'")
        return from_json(packed.tokenizer)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: a packed file, but {what.format(reason)}") from error


def _network(packed: Packed, path: Path) -> Any:
    return runtime.build(packed, where=path)
