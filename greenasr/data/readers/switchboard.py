"""Switchboard as the LDC and Mississippi State give it, in Kaldi's splits.

    train, dev   *-trans.text of swb_ms98_transcriptions, sw0NNNN.sph of LDC97S62
    eval2000     hub5e00.english.*.stm of LDC2002T43, its sph of LDC2002S09
    rt02, rt03   the stm and sph below English conversational speech of LDC2004S11 and LDC2007S10

They lie anywhere below one folder, links to folders included; which set an stm is of shows in its path,
sounds are found by name (wav or flac, where they were converted, before sph).  As in Kaldi's egs/swbd/s5c:
conversation sides are the speakers and channels; [silence] and asides go, [laughter-word] is the word; dev is
the first 4,000 utterances in order of their ids, from the others repeated transcripts are thinned to about
300; segments of eval2000 grow by 0.1 s.
Otherwise than there: acronyms stay as transcribed, and no conversation is taken away in silence.

The words of a test set here are plain: the first of alternatives, optional words said.  Scores to compare
with other people's need the corpus's stm and sclite's rules (`greenasr score`).  Its labels, such
as en-F, stand in the cut's custom field `labels`, and the collection that a conversation's name tells, as
Kaldi scores them apart, in `subset`: callhm and swbd of eval2000, fsh and swbd of rt03.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from greenasr.data.lexicon import Lexicon
from greenasr.data.readers.lines import numbered_lines
from greenasr.data.readers.rows import OVERSHOOT, Row

DEV = 4_000  # utterances; a tenth of a corpus that is a miniature
REPEATS = 300
GROW = 0.1  # seconds
SETS = {  # what the path of a test set's stm has in it
    "eval2000": re.compile(r"hub5e_?00|eval2000|LDC2002T43", re.I),
    "rt02": re.compile(r"rt-?02|eval02|LDC2004S11", re.I),
    "rt03": re.compile(r"rt-?03|eval03|LDC2007S10", re.I),
}
SUBSETS = {  # of a test set, by what the conversation's name begins with
    "eval2000": {"en": "callhm", "sw": "swbd"},
    "rt03": {"fsh": "fsh", "sw": "swbd"},
}
SOUND = (".sph", ".flac", ".wav")  # of one name the last counts
IGNORED = ("ignore_time_segment", "inter_segment_gap")
# Transcribers' marks, in Kaldi's order (swbd1_map_words.pl): (what is found, what it becomes).
MARKS = tuple(
    (re.compile(found, re.I), becomes)
    for found, becomes in (
        (r"^(-?)\[laughter-(.+)\](-?)$", r"\1\2\3"),
        (r"^\[(.+)/.+\](-?)$", r"\1\2"),  # [it'n/isn't], what was said for what was meant
        (r"^-?\[[^][]+\](.+)$", r"-\1"),  # -[an]y
        (r"^(.+)\[[^][]+\]-?$", r"\1-"),  # ab[solute]-
        (r"([^][]+)\[.+\]$", r"\1"),  # ex[specially]-/especially]
        (r"^\{(.+)\}$", r"\1"),  # {yuppiedom}, a word of the speaker's own
        (r"([a-z])\[([^][])+\]([a-z])", r"\1-\3"),  # ammu[n]it-
        (r"_\d", ""),  # them_1
    )
)


def below(path: Path) -> list[Path]:
    """All files below a folder in order, those of linked folders too: releases may lie on several disks."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()  # a link to a folder that it lies in, or to one that was read already
            continue
        seen.add(real)
        found += [Path(folder, name) for name in names]
    return sorted(found)


def is_corpus(path: Path) -> bool:
    """Whether a transcript or a test set's stm lies below."""
    files = below(path)
    return bool(transcripts(files) or stms(path, files))


def transcripts(files: Sequence[Path]) -> list[Path]:
    """The training transcripts, a conversation side each."""
    return [file for file in files if file.name.endswith("-trans.text")]


def stms(path: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Test set -> its stm files; English and conversational ones where others lie beside them."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for file in (file for file in files if file.suffix == ".stm"):
        inside = str(file.relative_to(path))
        names = [name for name, pattern in SETS.items() if pattern.search(inside)]
        names += [name for name, pattern in SETS.items() if pattern.search(path.name)]  # a set by itself
        if names:
            found[names[0]].append(file)
    for name, of_set in found.items():
        for word in ("english", "cts"):
            found[name] = of_set = [file for file in of_set if word in str(file).lower()] or of_set
    return dict(found)


def read(path: Path) -> Iterator[Row]:
    """The utterances of train, dev and the test sets that are there."""
    path = path.resolve()
    files = below(path)
    sounds = {p.stem.lower(): p for end in SOUND for p in files if p.suffix.lower() == end}
    spoken = (row for file in transcripts(files) for row in _read_ms98(file, sounds))
    rows = sorted(spoken, key=lambda row: row.utt_id)
    n_dev = min(DEV, len(rows) // 10)
    yield from (replace(row, split="dev") for row in rows[:n_dev])
    yield from thin(rows[n_dev:], REPEATS)
    for name, references in stms(path, files).items():
        scored = sorted(
            (row for f in references for row in _read_stm(f, name, sounds)), key=lambda row: row.utt_id
        )
        yield from grow(scored, GROW) if name == "eval2000" else scored


def plain_lexicon(lexicon: Lexicon) -> Lexicon:
    """The dictionary sw-ms98-dict.text in the words of the transcripts: without marks, in lower case.

    Marked forms of one word become its variants, as in Kaldi's swbd1_prepare_dict.sh; entries in brackets,
    which are sounds and no words, go.

    >>> plain_lexicon(Lexicon({"them": (("dh", "eh", "m"),), "them_1": (("eh", "m"),)})).prons
    {'them': (('dh', 'eh', 'm'), ('eh', 'm'))}
    """
    found: defaultdict[str, dict[tuple[str, ...], None]] = defaultdict(dict)
    for marked, prons in lexicon.prons.items():
        word = plain_word(marked).lower()
        if word and not re.fullmatch(r"\[.*\]|<.*>", word):
            found[word] |= dict.fromkeys(prons)
    return Lexicon({word: tuple(prons) for word, prons in found.items()}, lexicon.silence)


def plain_word(word: str) -> str:
    """A word of the Mississippi State transcripts without the transcribers' marks.

    >>> [plain_word(w) for w in ["[laughter-yeah]", "[it'n/isn't]", "ab[solute]-", "them_1", "[noise]"]]
    ['yeah', "it'n", 'ab-', 'them', '[noise]']
    """
    for found, becomes in MARKS:
        word = found.sub(becomes, word, count=1)
    return word


def plain_text(text: str) -> str:
    """The words of a stm line: lower case, first of alternatives, optional words without brackets.

    >>> plain_text("(%HESITATION) I { gonna / going to } <B_ASIDE> go @ (UH-)")
    '%hesitation i gonna go uh-'
    """
    text = re.sub(r"\{([^/}]*)(?:/[^}]*)?\}", r"\1", text.lower())
    text = re.sub(r"<[be]_aside>|(?<!\S)@(?!\S)", " ", text)
    return " ".join(text.replace("(", " ").replace(")", " ").split())


def thin(rows: Sequence[Row], most: int) -> Iterator[Row]:
    """Rows of which no text comes much more than ``most`` times, as Kaldi's remove_dup_utts.sh chooses.

        keep where n < most or u_k < most / n,    u_k = (103349 k mod 71147) / 71147,   n of the same text

    k counts the draws, which are made for rows of frequent texts alone.
    """
    counts = Counter(row.text for row in rows)
    draw = 0
    for row in rows:
        n = counts[row.text]
        if n >= most:
            draw = (draw + 103_349) % 71_147
            if draw / 71_147 >= most / n:
                continue
        yield row


def grow(rows: Sequence[Row], seconds: float) -> list[Row]:
    """Segments that begin and end so much wider, neighbours of a side meeting half way at most.

    Neighbours that overlap already keep their times, as in Kaldi's extend_segments.pl.
    """
    sides: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        sides[row.speaker].append(row)
    grown = {}
    for side in sides.values():
        side.sort(key=lambda row: row.start)
        gaps = [0.5 * (b.start - (a.end or a.start)) for a, b in pairwise(side)]
        room = [seconds, *(min(seconds, gap) if gap > 0 else 0.0 for gap in gaps), seconds]
        for row, before, after in zip(side, room, room[1:], strict=False):
            end = None if row.end is None else row.end + after
            grown[row.utt_id] = replace(row, start=max(0.0, row.start - before), end=end)
    return [grown[row.utt_id] for row in rows]


def _read_ms98(path: Path, sounds: dict[str, Path]) -> Iterator[Row]:
    """Lines "sw2001A-ms98-a-0001 start end the words" that hold more than silence."""
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        fields = line.split()
        try:
            name, side, start, end = fields[0][2:6], fields[0][6], float(fields[1]), float(fields[2])
        except (IndexError, ValueError):
            raise ValueError(
                f"{where}: found '{line[:40]}', expected 'sw2001A-ms98-a-0001 start end words'."
            ) from None
        words = [w for w in fields[3:] if w.lower() not in ("[silence]", "<b_aside>", "<e_aside>")]
        if words:
            text = " ".join(filter(None, map(plain_word, words)))
            yield _row(f"sw0{name}", side, start, end, text, where, "train", sounds)


def _read_stm(path: Path, split: str, sounds: dict[str, Path]) -> Iterator[Row]:
    """Lines "file channel speaker start end <labels> the words" that are to be scored."""
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        if line.startswith(";;") or any(mark in line.lower() for mark in IGNORED):
            continue
        fields = line.split(maxsplit=5)
        try:
            name, side, start, end = fields[0], fields[1].upper(), float(fields[3]), float(fields[4])
        except (IndexError, ValueError):
            raise ValueError(
                f"{where}: found '{line[:40]}', expected 'file channel speaker start end <labels> words'."
            ) from None
        labels, _, said = f"{fields[5]} ".partition(" ") if len(fields) > 5 else ("", "", "")
        if not labels.startswith("<"):
            labels, said = "", f"{labels} {said}"
        if text := plain_text(said):
            row = _row(name, {"1": "A", "2": "B"}.get(side, side), start, end, text, where, split, sounds)
            custom = {"labels": labels.strip("<>")} if labels else {}
            if subset := SUBSETS.get(split, {}).get(name.lower().partition("_")[0]):
                custom["subset"] = subset
            yield replace(row, custom=custom)


def _row(
    name: str, side: str, start: float, end: float, text: str, where: str, split: str, sounds: dict[str, Path]
) -> Row:
    """A row with Kaldi's ids: name-side_start-end, times in hundredths of a second, cut off in test sets."""
    if side not in "AB":
        raise ValueError(f"{where}: the channel '{side}' of {name}, expected A or B (1 or 2 in a stm).")
    half = 0.5 if split == "train" else 0.0
    times = "-".join(f"{int(100 * time + half):06d}" for time in (start, end))
    audio = sounds.get(name.lower())
    return Row(
        f"{name}-{side}_{times}", audio or Path(f"{name}.sph"), text, where, split, f"{name}-{side}",
        start, end, overshoot=OVERSHOOT, channel="AB".index(side),
    )  # fmt: skip
