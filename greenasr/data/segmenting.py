"""Long sound to utterances: cut where it is quiet for long enough, and nowhere later than half a minute.

    level_t = 10 log10 mean x²  over 50 ms                      dB below full scale, never under `SILENT`
    voiced_t = level_t ≥ low + `SHARE` (high - low)  and  high - low ≥ `RISE`
               low, high: extremes of the last 30 s; until so much was heard low is at most `FLOOR`

An utterance goes from its first voiced level to the first pause of `Pauses.pause` seconds, with half a
pause kept on either side; what lies between utterances is left out.  One that finds no pause in
`Pauses.longest` seconds is cut in its second half, at the quietest quarter of a second.  `FLOOR` is what
hears a sound that begins at once; half a minute in which nothing stands out is noise, however loud.

Only the past decides, so a stream is cut exactly as a file of the same samples is, in blocks of any size,
with no more memory than the longest utterance and one block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05  # seconds of a level
HISTORY = 600  # levels that a threshold looks back: 30 s
SHARE = 0.3  # of the way from the lowest to the highest level
RISE = 5.0  # dB that speech stands out by at the least
FLOOR = -55.0  # dB below full scale: the noise that is expected of a sound that has just begun
SILENT = -70.0  # dB below full scale; nothing under it is heard
DIP = 5  # levels over which the quietest place of an unbroken stretch is measured
Samples = NDArray[np.float32]
Levels = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Pauses:
    """Where utterances end: after ``pause`` seconds of quiet, or ``longest`` seconds without one."""

    pause: float = 0.5
    longest: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cuts words or never cuts."""
        if not 0.1 <= self.pause <= 10:
            raise ValueError(f"a pause of {self.pause:g} s: expected 0.1 to 10 seconds, 0.5 is usual.")
        if not max(1.0, 2 * self.pause) <= self.longest <= 300:
            raise ValueError(
                f"utterances of at most {self.longest:g} s: expected two pauses ({2 * self.pause:g} s), "
                "a second and more, up to 300; 30 is usual."
            )


@dataclass(frozen=True, eq=False)
class Utterance:
    """Samples (n,) of a longer sound, and the index in it of the first."""

    start: int
    samples: Samples


@dataclass(frozen=True, eq=False)
class Piece:
    """The next samples (n,) of the utterance that begins at ``start``; it ends with the ``last`` piece."""

    start: int
    samples: Samples
    last: bool


def split(samples: Samples, rate: int, how: Pauses | None = None) -> list[tuple[int, int]]:
    """The utterances of a sound, (n,) -> [(start, end), …] in samples, in order and without overlap.

    >>> quiet, tone = np.zeros(16_000), np.sin(np.arange(16_000.0))
    >>> split(np.concatenate([quiet, tone, quiet, tone]), 16_000)
    [(12000, 36000), (44000, 64000)]
    """
    return [(u.start, u.start + len(u.samples)) for u in utterances([samples], rate, how)]


def utterances(blocks: Iterable[Samples], rate: int, how: Pauses | None = None) -> Iterator[Utterance]:
    """Cut a sound that comes in blocks; an utterance is handed on as soon as its end is known.

    The blocks' sizes make no difference.
    """
    how, size = how or Pauses(), level_size(rate)
    margin = _margin(how)
    kept, at = np.zeros(0, np.float32), 0  # samples not yet handed on, and where they begin
    level, voiced, past = np.zeros(0), np.zeros(0, np.bool_), np.zeros(0)
    for block in _then_none(blocks):
        ended = block is None
        if block is not None:
            kept = np.concatenate([kept, block])
        whole = len(kept) if ended else len(kept) // size * size
        fresh = levels(kept[len(level) * size : whole], rate)
        level = np.concatenate([level, fresh])
        voiced = np.concatenate([voiced, is_voiced(fresh, past)])
        past = np.concatenate([past, fresh])[-HISTORY:]
        while (found := first_utterance(level, voiced, how, ended)) is not None:
            start, end = found
            yield Utterance(at + start * size, kept[start * size : end * size].copy())
            kept, level, voiced, at = kept[end * size :], level[end:], voiced[end:], at + end * size
        first = int(voiced.argmax()) if voiced.any() else len(voiced)
        quiet = max(0, first - margin)
        kept, level, voiced, at = kept[quiet * size :], level[quiet:], voiced[quiet:], at + quiet * size


def pieces(blocks: Iterable[Samples], rate: int, how: Pauses | None = None) -> Iterator[Piece]:
    """The utterances of `utterances` while they are being said: samples as soon as they surely belong.

    In quiet that may end the utterance or not, a piece of no samples says at every level that time goes by.
    Where no pause comes in `Pauses.longest` seconds an utterance ends at once, not at a quiet place before.
    """
    how, size = how or Pauses(), level_size(rate)
    margin, pause, longest = _margin(how), round(how.pause / LEVEL), round(how.longest / LEVEL)
    kept, at = np.zeros(0, np.float32), 0  # samples not yet handed on, and where they begin
    seen = 0  # samples of them whose level is known
    past = np.zeros(0)
    start: int | None = None  # of the utterance that goes on
    quiet = 0  # levels since the last voiced one
    for block in _then_none(blocks):
        if block is not None:
            kept = np.concatenate([kept, block])
        whole = len(kept) if block is None else len(kept) // size * size
        fresh = levels(kept[seen:whole], rate)
        voiced, past = is_voiced(fresh, past), np.concatenate([past, fresh])[-HISTORY:]
        for heard in voiced.tolist():
            seen, quiet = min(seen + size, len(kept)), 0 if heard else quiet + 1
            if start is None:
                unneeded = max(0, -(-seen // size) - margin - heard) * size
                kept, at, seen = kept[unneeded:], at + unneeded, seen - unneeded
                if not heard:
                    continue
                start = at
            ends = quiet == pause or at + seen - start >= longest * size
            upto = seen if quiet <= margin else 0
            yield Piece(start, kept[:upto].copy(), ends)
            kept, at, seen = kept[upto:], at + upto, seen - upto
            if ends:
                start = None
        if block is None and start is not None:
            yield Piece(start, kept[:0], True)


def level_size(rate: int) -> int:
    """Samples of a level."""
    return max(1, round(LEVEL * rate))


def levels(samples: Samples, rate: int) -> Levels:
    """10 log10 of the mean square of every 50 ms, (n,) -> (L,); the last may be of fewer samples.

    >>> levels(np.ones(1_000, np.float32), 16_000).tolist(), levels(np.zeros(3, np.float32), 16_000).tolist()
    ([0.0, 0.0], [-70.0])
    """
    starts = np.arange(0, len(samples), level_size(rate))
    if not len(starts):
        return np.zeros(0)
    sums = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    power = sums / np.diff(np.append(starts, len(samples)))
    found: Levels = 10 * np.log10(np.maximum(power, 10 ** (SILENT / 10)))
    return found


def is_voiced(level: Levels, past: Levels) -> Bools:
    """Whether each level stands out from those of the last 30 s, (L,), (P,) before them -> (L,)."""
    if not len(level):
        return np.zeros(0, np.bool_)
    before = past[-(HISTORY - 1) :]
    unheard = HISTORY - 1 - len(before)
    low = _windows(np.concatenate([np.full(unheard, FLOOR), before, level])).min(1)
    high = _windows(np.concatenate([np.full(unheard, SILENT), before, level])).max(1)
    found: Bools = (high - low >= RISE) & (level >= low + SHARE * (high - low))
    return found


def first_utterance(level: Levels, voiced: Bools, how: Pauses, ended: bool) -> tuple[int, int] | None:
    """Start and end in levels of the first utterance, (L,), (L,); None while there is none or no end to it.

    ``ended``: nothing follows, so that the end of the levels ends an utterance as well.
    """
    if not voiced.any():
        return None
    margin, pause, longest = _margin(how), round(how.pause / LEVEL), round(how.longest / LEVEL)
    start = max(0, int(voiced.argmax()) - margin)
    heard = voiced[start : start + longest]
    index = np.arange(len(heard))
    quiet_for = index - np.maximum.accumulate(np.where(heard, index, -1))
    pauses = np.flatnonzero(quiet_for == pause)
    if len(pauses):
        return start, start + int(pauses[0]) + 1 - pause + margin
    if len(heard) == longest:
        half = longest // 2
        dips = np.convolve(level[start + half : start + longest], np.ones(DIP) / DIP, "valid")
        return start, start + half + int(dips.argmin()) + DIP // 2
    if ended:
        return start, min(start + len(heard), start + int(np.flatnonzero(heard)[-1]) + 1 + margin)
    return None


def _windows(level: Levels) -> Levels:
    """The last `HISTORY` levels at each of them but the first ones, (L,) -> (L - HISTORY + 1, HISTORY)."""
    return np.lib.stride_tricks.sliding_window_view(level, HISTORY)


def _margin(how: Pauses) -> int:
    """Levels of a pause that stay with the utterance before it, and with the one behind it."""
    return round(how.pause / LEVEL) // 2


def _then_none(blocks: Iterable[Samples]) -> Iterator[Samples | None]:
    """The blocks, and None at their end; an error of theirs comes behind it: what was heard counts."""
    broken: ValueError | None = None
    try:
        yield from blocks
    except ValueError as error:
        broken = error
    yield None
    if broken is not None:
        raise broken
