"""NIST's time-marked formats: segments of reference text (stm), hypothesis words with times (ctm).

    stm   file channel speaker start end [<labels>] the words
    ctm   file channel start duration word [confidence]

Words of the ctm go to the segments of the same file and channel as sclite deals them out
(`stm2ctm.c`): in order, a segment takes every word whose midpoint lies before the segment's end, the
last one all that are left.  A segment whose text is IGNORE_TIME_SEGMENT_IN_SCORING takes its words
out of the scoring.  Between <ALT_BEGIN>, <ALT> and <ALT_END> a ctm has alternatives; they go by the
latest midpoint among them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from greenasr.score.lines import Fold, Utterance, fold, is_comment, marked, text_lines
from greenasr.score.markup import NULL, Alternatives, Token, clean_word

IGNORED = ("ignore_time_segment_in_scoring", "ignoretimesegmentinscoring")


@dataclass(frozen=True)
class Segment:
    """A line of an stm; times in seconds."""

    file: str
    channel: str
    speaker: str
    start: float
    end: float
    text: str
    where: str

    @property
    def ignored(self) -> bool:
        """Whether the segment is marked as not to be scored."""
        return any(mark in self.text.lower() for mark in IGNORED)


@dataclass(frozen=True)
class Timed:
    """A word of a ctm, or alternatives, with the times that decide its segment."""

    file: str
    channel: str
    start: float
    end: float
    midpoint: float
    token: Token
    where: str


def read_stm(path: str | Path, change: Fold = fold) -> list[Segment]:
    """The segments of an stm, in its order."""
    segments = []
    for where, line in text_lines(path):
        if is_comment(line):
            continue
        fields = change(line).split(maxsplit=5)
        try:
            file, channel, speaker, start, end = (
                fields[0],
                fields[1],
                fields[2],
                float(fields[3]),
                float(fields[4]),
            )
        except (IndexError, ValueError):
            raise ValueError(
                f"{where}: found '{line[:40]}', expected 'file channel speaker start end <labels> words'. "
                "Give an stm, or name the file's format with --format."
            ) from None
        text = fields[5] if len(fields) > 5 else ""
        if text.startswith("<"):
            text = text.partition(" ")[2]
        segments.append(Segment(file, channel, speaker, start, end, text.strip(), where))
    if not segments:
        raise ValueError(f"{path}: found no segment, expected 'file channel speaker start end the words'.")
    return segments


def read_ctm(path: str | Path, change: Fold = fold) -> list[Timed]:
    """The words of a ctm, in its order; an empty file is a system that heard nothing."""
    rows: list[Timed] = []
    for where, line in text_lines(path):
        if is_comment(line) or line.startswith(";"):
            continue
        fields = change(line).split()
        try:
            numbers = [0.0 if f == "*" else float(f.removeprefix("&&")) for f in fields[2:4]]
            file, channel, raw, start, duration = fields[0], fields[1], fields[4], numbers[0], numbers[1]
        except (IndexError, ValueError):
            raise ValueError(
                f"{where}: found '{line[:40]}', expected 'file channel start duration word'. "
                "Give a ctm, or name the file's format with --format."
            ) from None
        token = raw if raw.lower().startswith("<alt") else clean_word(raw)
        end = start + duration
        rows.append(Timed(file, channel, start, end, start + duration / 2, token, where))
    return _with_alternatives(rows)


def _with_alternatives(rows: list[Timed]) -> list[Timed]:
    """Words between the marks of alternatives become one `Alternatives`."""
    out: list[Timed] = []
    options: list[list[Timed]] = []
    begin: Timed | None = None
    for row in rows:
        mark = row.token.lower() if isinstance(row.token, str) else ""
        if mark == "<alt_begin>":
            begin, options = row, [[]]
        elif mark.startswith("<alt") and begin is None:
            raise ValueError(
                f"{row.where}: found {row.token}, expected <ALT_BEGIN> before it. Repair the ctm."
            )
        elif mark == "<alt>":
            options.append([])
        elif mark == "<alt_end>" and begin is not None:
            words = [w for option in options for w in option]
            token = Alternatives(tuple(tuple(w.token for w in option) or (NULL,) for option in options))
            out.append(
                Timed(
                    begin.file,
                    begin.channel,
                    min((w.start for w in words), default=0.0),
                    max((w.end for w in words), default=0.0),
                    max((w.midpoint for w in words), default=0.0),
                    token,
                    begin.where,
                )
            )
            begin = None
        elif begin is None:
            out.append(row)
        else:
            options[-1].append(row)
    if begin is not None:
        raise ValueError(
            f"{begin.where}: found <ALT_BEGIN> without <ALT_END>, expected both. Repair the ctm."
        )
    return out


def deal(
    segments: Iterable[Segment], words: Iterable[Timed], reduce: Collection[str] = ()
) -> tuple[list[Utterance], list[Utterance]]:
    """Reference and hypothesis utterances, segment by segment, named speaker-000, speaker-001 and so on.

    ``reduce`` is sclite's -m: with "ref", segments entirely before the first word or after the last
    are left out; with "hyp", words before the first segment or after the last.  Raises ValueError
    for words of a file and channel without segments.
    """
    by_channel: dict[tuple[str, str], list[Timed]] = {}
    for word in words:
        by_channel.setdefault((word.file, word.channel), []).append(word)
    refs: list[Utterance] = []
    hyps: list[Utterance] = []
    counts: dict[str, int] = {}
    for channel, group in groupby(segments, key=lambda s: (s.file, s.channel)):
        heard = by_channel.pop(channel, [])
        chosen = list(group)
        if "ref" in reduce and heard:
            chosen = [s for s in chosen if heard[0].start < s.end and heard[-1].end > s.start]
        if "hyp" in reduce and chosen:
            begin, end = min(s.start for s in chosen), max(s.end for s in chosen)
            heard = [w for w in heard if w.start <= end and w.end >= begin]
        at = 0
        for number, segment in enumerate(chosen):
            start = at
            while at < len(heard) and (number == len(chosen) - 1 or heard[at].midpoint < segment.end):
                at += 1
            if segment.ignored:
                continue
            index = counts.get(segment.speaker, 0)
            counts[segment.speaker] = index + 1
            utt_id = f"{segment.speaker}-{index:03d}"
            tokens = tuple(w.token for w in heard[start:at])
            where = heard[start].where if tokens else segment.where
            refs.append(
                Utterance(utt_id, marked(segment.text, segment.where), segment.where, segment.speaker)
            )
            hyps.append(Utterance(utt_id, tokens, where, segment.speaker))
    if by_channel:
        (file, channel_name), left = next(iter(by_channel.items()))
        raise ValueError(
            f"{left[0].where}: found words of file '{file}' channel '{channel_name}', expected only files "
            "and channels of the stm, each in one run of lines. Remove the words, or add their segments."
        )
    return refs, hyps
