"""Alignments as sclite writes them with `-o sgml`, which is what sc_stats reads.

    <SPEAKER id="s1"> <PATH id="(s1-u1)" …>
    C,"the","the":S,"cat","hat":D,"sat",:I,,"on"          one column each, words in quotes
    </PATH> </SPEAKER>

Further fields of a column (times, confidences) are passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from greenasr.score.align import Pair
from greenasr.score.lines import text_lines

COLUMN = re.compile(r'([CSDI]),(?:"([^"]*)")?,(?:"([^"]*)")?[^:"]*(?::|$)')
ATTRIBUTE = re.compile(r'\bid="\(?([^"]*?)\)?"')


@dataclass(frozen=True)
class Alignment:
    """One utterance's alignment."""

    utt_id: str
    speaker: str
    pairs: tuple[Pair, ...]

    @property
    def ops(self) -> str:
        """Its letters C, S, D, I."""
        return "".join(pair.op for pair in self.pairs)


def read_sgml(path: str | Path) -> list[Alignment]:
    """Every utterance's alignment, in the file's order."""
    alignments: list[Alignment] = []
    speaker = utt_id = ""
    inside = False
    pairs: list[Pair] = []
    for where, line in text_lines(path):
        text = line.strip()
        if text.startswith(("<SPEAKER", "<PATH")):
            found = ATTRIBUTE.search(text)
            if not found:
                raise ValueError(
                    f'{where}: found no id="…" in {text[:40]}, expected one. '
                    "Write the file with sclite -o sgml."
                )
            if text.startswith("<SPEAKER"):
                speaker = found[1]
            else:
                utt_id, pairs, inside = found[1], [], True
        elif text.startswith("</PATH"):
            alignments.append(Alignment(utt_id, speaker, tuple(pairs)))
            inside = False
        elif inside:
            pairs.extend(_columns(text, where))
    if not alignments or inside:
        raise ValueError(
            f"{path}: found no complete <PATH>…</PATH>, expected alignments. Write them with sclite -o sgml."
        )
    return alignments


def _columns(text: str, where: str) -> list[Pair]:
    """The columns of one line, which they must fill."""
    pairs: list[Pair] = []
    at = 0
    while at < len(text):
        found = COLUMN.match(text, at)
        if not found:
            raise ValueError(
                f'{where}: found \'{text[at : at + 30]}\', expected a column like C,"word","word". '
                "Write the file with sclite -o sgml."
            )
        op, ref, hyp = found.groups()
        pairs.append(Pair(op, None if op == "I" else ref, None if op == "D" else hyp))
        at = found.end()
    return pairs
