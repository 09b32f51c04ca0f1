"""Rows to cuts: an utterance as a corpus lists it, checked against its sound, becomes a lhotse cut.

Every reader beside this file yields `Row`; all that can be wrong with an utterance is found here, once:
no transcript, no or unusable audio, two channels where one is wanted, a segment beyond the end of its
file, an id that is there already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greenasr.data.audio import Header, header, too_short

if TYPE_CHECKING:
    from lhotse import CutSet, Recording
    from lhotse.cut import Cut

OVERSHOOT = 0.5  # seconds that a segment given in rounded seconds may reach beyond its file, as in Kaldi
DIGITS = 8  # of times in seconds, as lhotse rounds
OnBad = Callable[[ValueError | OSError], None]


@dataclass(frozen=True)
class Row:
    """One utterance as listed at ``where`` (file:line).

    ``audio`` is a path, a lhotse recording that is more than a file, or None where the corpus has none;
    ``start`` and ``end`` are seconds, or samples ``in_samples``; no ``end`` is the file's end.  Without a
    ``channel`` the file must have one, or all are mixed.  No ``speaker`` makes the utterance its own.
    """

    utt_id: str
    audio: Path | Recording | None
    text: str | None
    where: str
    split: str
    speaker: str = ""
    start: float = 0.0
    end: float | None = None
    in_samples: bool = False
    overshoot: float = 0.0
    channel: int | None = None
    custom: Mapping[str, Any] = field(default_factory=dict)


def cut_sets(
    rows: Iterable[Row],
    *,
    mix: bool = False,
    on_bad: OnBad | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, CutSet]:
    """The cuts of every split, in the rows' order; ids are unique within a split.

    A bad row raises its ValueError or OSError, or is told to ``on_bad`` and left out.  ``mix`` averages the
    channels of a file instead of refusing it.  ``progress`` is told (rows done, rows).
    """
    from lhotse import CutSet

    rows = list(rows)
    recordings: dict[Path, Recording | ValueError | OSError] = {}
    splits: defaultdict[str, list[Cut]] = defaultdict(list)
    seen: dict[tuple[str, str], str] = {}
    for done, row in enumerate(rows, 1):
        try:
            if before := seen.get((row.split, row.utt_id)):
                raise ValueError(
                    f"{row.where}: utterance '{row.utt_id}' is there already, at {before}; "
                    "give every utterance its own id."
                )
            splits[row.split].append(cut_of(row, _recording(row, recordings), mix))
            seen[row.split, row.utt_id] = row.where
        except (ValueError, OSError) as error:
            if on_bad is None:
                raise
            on_bad(error)
        progress(done, len(rows))
    return {split: CutSet.from_cuts(cuts) for split, cuts in splits.items()}


def cut_of(row: Row, recording: Recording, mix: bool = False) -> Cut:
    """The checked cut of one row."""
    from lhotse import MonoCut, MultiCut, SupervisionSegment

    if not (row.text or "").strip():
        found = "no" if row.text is None else "an empty"
        raise ValueError(
            f"{row.where}: utterance '{row.utt_id}' has {found} transcript; add one or take it out."
        )
    start, end = _stretch(row, recording)
    channel: int | list[int]
    if row.channel is not None:
        if row.channel not in recording.channel_ids:
            raise ValueError(
                f"{row.where}: utterance '{row.utt_id}' is in channel {row.channel}, its file has "
                f"{recording.num_channels} (counted from 0); correct it."
            )
        channel = row.channel
    elif recording.num_channels == 1:
        channel = recording.channel_ids[0]
    elif mix:
        channel = list(recording.channel_ids)
    else:
        raise ValueError(
            f"{_name(recording)}: {recording.num_channels} channels, expected one; convert it, or let "
            "the channels be mixed down (--mix)."
        )
    duration = round(end - start, DIGITS)
    supervision = SupervisionSegment(
        id=row.utt_id,
        recording_id=recording.id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=" ".join((row.text or "").split()),
        speaker=row.speaker or row.utt_id,
        custom=dict(row.custom) or None,
    )
    kind = MonoCut if isinstance(channel, int) else MultiCut
    return kind(row.utt_id, round(start, DIGITS), duration, channel, [supervision], recording=recording)


def _recording(row: Row, known: dict[Path, Recording | ValueError | OSError]) -> Recording:
    """The recording of a row's file, its header read once."""
    if row.audio is None:
        raise ValueError(f"{row.where}: utterance '{row.utt_id}' has no audio listed; add it or take it out.")
    if not isinstance(row.audio, Path):
        return row.audio
    path = row.audio
    if path not in known:
        try:
            known[path] = recording_of(path, header(path))
        except (ValueError, OSError) as error:
            known[path] = error
    found = known[path]
    if isinstance(found, FileNotFoundError):
        raise ValueError(
            f"{row.where}: there is no audio file {path} (utterance '{row.utt_id}'); is the corpus whole?"
        )
    if isinstance(found, ValueError | OSError):
        raise found
    return found


def recording_of(path: Path, head: Header) -> Recording:
    """A lhotse recording of a file, by its absolute path."""
    from lhotse import AudioSource, Recording

    return Recording(
        id=path.stem,
        sources=[AudioSource("file", list(range(head.channels)), str(path.absolute()))],
        sampling_rate=head.rate,
        num_samples=head.frames,
        duration=round(head.frames / head.rate, DIGITS),
    )


def _stretch(row: Row, recording: Recording) -> tuple[float, float]:
    """Start and end in seconds, within the recording."""
    rate, whole = recording.sampling_rate, recording.num_samples / recording.sampling_rate
    start, end = row.start, row.end
    if row.in_samples:
        start, end = start / rate, None if end is None else end / rate
    end = whole if end is None else end
    if start < 0 or end <= start:
        raise ValueError(
            f"{row.where}: utterance '{row.utt_id}' goes from {start:g} to {end:g} s, which is no stretch of "
            "time; correct its times or take it out."
        )
    if end > whole + row.overshoot + 0.5 / rate or start >= whole:
        raise ValueError(
            f"{row.where}: utterance '{row.utt_id}' ends at {end:g} s, but {_name(recording)} ends at "
            f"{whole:g} s; correct the segment, or copy the file again if it was cut short."
        )
    end = min(end, whole)
    if too_short(round((end - start) * rate), rate):
        raise ValueError(
            f"{row.where}: utterance '{row.utt_id}' is {1000 * (end - start):.3g} ms long, expected 25 or "
            "more; take it out."
        )
    return start, end


def _name(recording: Recording) -> str:
    """What to call a recording in a message."""
    return str(recording.sources[0].source) if len(recording.sources) == 1 else str(recording.id)


def existing(path: str, *folders: Path) -> Path:
    """A listed path: as it is when absolute, else in the first of the folders that has it."""
    given = Path(path)
    if given.is_absolute():
        return given
    tried = [folder / given for folder in folders]
    return next((p for p in tried if p.exists()), tried[0])
