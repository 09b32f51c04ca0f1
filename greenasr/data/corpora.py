"""A corpus, whatever its format, as one lhotse CutSet a split; every cut is one utterance.

    read_corpus(path)  ->  {split: CutSet}  ->  save_cuts  ->  SPLIT.cuts.jsonl.gz  ->  load_cuts

A cut's id is the utterance's, its one supervision has text and speaker, its audio an absolute path.
No sound is held: `audio.samples` reads one cut when it is wanted.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from greenasr.data.audio import samples
from greenasr.data.files import atomic
from greenasr.data.lexicon import Lexicon, read_lexicon
from greenasr.data.readers import commands, kaldi, librispeech, manifests, nemo, switchboard, tsv
from greenasr.data.readers.lines import json_lines
from greenasr.data.readers.rows import OnBad, Row, cut_sets

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.cut import Cut

READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "kaldi": kaldi.read,
    "lhotse": manifests.read,
    "nemo": nemo.read,
    "tsv": tsv.read,
    "librispeech": librispeech.read,
    "switchboard": switchboard.read,
    "commands": commands.read,
}


# Dictionaries whose words are marked as transcripts are on disk, where the reader takes the marks away.
LEXICONS: dict[str, Callable[[Lexicon], Lexicon]] = {"switchboard": switchboard.plain_lexicon}


def guess_kind(path: str | Path) -> str:
    """Which of `READERS` reads a file or folder; ValueError where none does."""
    path = Path(path)
    if path.is_file():
        if path.suffix == ".tsv" or tsv.is_manifest(path):
            return "tsv"
        if nemo.is_manifest(path):
            return "nemo"
        if manifests.is_manifest(path):
            return "lhotse"
    elif path.is_dir():
        signs: tuple[tuple[str, Callable[[Path], object]], ...] = (
            ("kaldi", kaldi.data_dirs),
            ("tsv", tsv.manifests),
            ("lhotse", manifests.manifests),
            ("nemo", nemo.manifests),
            ("librispeech", lambda p: next(librispeech.transcripts(p), None)),
            ("switchboard", switchboard.is_corpus),
            ("commands", commands.is_corpus),
        )
        for kind, sign in signs:
            if sign(path):
                return kind
    else:
        raise FileNotFoundError(2, "no such file or folder", str(path))
    raise ValueError(
        f"{path}: not a corpus of a known format ({', '.join(READERS)}); give the folder or file that its "
        "format begins with, or name the format."
    )


def read_corpus(
    path: str | Path,
    kind: str | None = None,
    *,
    splits: Sequence[str] | None = None,
    mix: bool = False,
    on_bad: OnBad | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, CutSet]:
    """The cuts of every split, or of those named in ``splits``.

    ``kind`` is one of `READERS`, guessed when not given.  Manifests and headers of sound files are read and
    checked, no samples.  The first utterance that cannot be used raises ValueError, or each is told to
    ``on_bad`` and left out; ``mix`` averages the channels of a stereo file instead of refusing it.
    ``progress`` is told (utterances done, utterances).
    """
    path = Path(path)
    kind = kind or guess_kind(path)
    if kind not in READERS:
        raise ValueError(f"no corpus format '{kind}': expected one of {', '.join(READERS)}.")
    rows = list(READERS[kind](path))
    if not rows:
        raise ValueError(f"{path}: no utterances found, read as {kind}; is the corpus whole?")
    if splits is not None:
        there = dict.fromkeys(row.split for row in rows)
        if lacking := [split for split in splits if split not in there]:
            raise ValueError(f"{path}: no split '{lacking[0]}', expected some of {', '.join(there)}.")
        rows = [row for row in rows if row.split in splits]
    found = cut_sets(rows, mix=mix, on_bad=on_bad, progress=progress)
    if not found:
        raise ValueError(f"{path}: none of its {len(rows):,} utterances can be used.")
    return found


def with_subsets(found: Mapping[str, CutSet], names: Iterable[str]) -> dict[str, CutSet]:
    """The splits and those of ``names`` that are "SPLIT.SUBSET" or "SPLIT+SPLIT".

    A subset is the cuts whose custom field says so.  ValueError where a split has no such subset; names with
    parts that there are not are passed over.
    """
    from lhotse import CutSet

    splits = dict(found)
    for name in names:
        if name in found:
            continue
        parts = [_subset(found, part) for part in name.split("+")]
        if all(part is not None for part in parts):
            splits[name] = CutSet.from_cuts([cut for part in parts for cut in part or ()])
    return splits


def _subset(found: Mapping[str, CutSet], name: str) -> list[Cut] | None:
    """Cuts of a split or its subset; None where there is no such split."""
    split, dot, subset = name.rpartition(".")
    if name in found:
        return list(found[name])
    if not dot or split not in found:
        return None
    cuts = [cut for cut in found[split] if subset_of(cut) == subset]
    if not cuts:
        known = sorted({subset_of(cut) for cut in found[split]} - {""})
        raise ValueError(
            f"the split '{split}' has no subset '{subset}', it has {', '.join(known) or 'none'}."
        )
    return cuts


def subset_of(cut: Cut) -> str:
    """The subset of its split that a corpus has a cut in, "" for none."""
    return str((cut.supervisions[0].custom or {}).get("subset", ""))


def corpus_lexicon(path: str | Path, kind: str, *, stress: bool = True) -> Lexicon:
    """A dictionary (`read_lexicon`) in the words that a corpus of this kind has."""
    lexicon = read_lexicon(path, stress=stress)
    return LEXICONS[kind](lexicon) if kind in LEXICONS else lexicon


def heard(
    cuts: CutSet,
    on_bad: OnBad | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> CutSet:
    """The cuts whose samples are all there and finite; reads every one, as `read_corpus` does not.

    The first that fails raises `audio.samples`' error, or each is told to ``on_bad`` and left out.
    """
    from lhotse import CutSet

    good, of = [], len(cuts)
    for done, cut in enumerate(cuts, 1):
        try:
            samples(cut)
            good.append(cut)
        except (ValueError, OSError) as error:
            if on_bad is None:
                raise
            on_bad(error)
        progress(done, of)
    return CutSet.from_cuts(good)


def words(cut: Cut) -> list[str]:
    """The words of a cut's transcript."""
    return (cut.supervisions[0].text or "").split()


def speaker(cut: Cut) -> str:
    """Who speaks; the utterance's id where nobody knows."""
    return cut.supervisions[0].speaker or cut.id


def save_cuts(path: str | Path, cuts: Iterable[Cut]) -> None:
    """Write cuts as JSON lines, compressed, whole or not at all; the same cuts give the same bytes."""
    with atomic(path) as temporary, temporary.open("wb") as raw:
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            for cut in cuts:
                file.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")


def load_cuts(path: str | Path) -> CutSet:
    """Read what `save_cuts` wrote, in its order; ValueError with file:line for anything else."""
    from lhotse import CutSet
    from lhotse.serialization import deserialize_item

    cuts = []
    for where, value in json_lines(path):
        try:
            cut = deserialize_item(value)
            said = cut.supervisions
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError):
            said = []
        if len(said) != 1:
            raise ValueError(
                f"{where}: not a cut of one utterance; make the file from a corpus with `greenasr prepare`."
            )
        cuts.append(cut)
    if not cuts:
        raise ValueError(f"{path}: no cuts in it; make the file from a corpus with `greenasr prepare`.")
    return CutSet.from_cuts(cuts)
