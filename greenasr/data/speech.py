"""Generated speech: what a text sounds like in a voice of espeak-ng, 16 kHz, the same bytes every time.

    speaker = accent x variant x pitch x rate            Speaker("train07", "en-us", "f3", 180, 55, 50)

An accent is one of espeak's voices of English, a variant one of its vocal tracts.  The variants of the
three rosters differ, so a test speaker is new to the recogniser in more than pitch and rate.  Left out are
variants that whisper, have formants where no vowel has them, or repeat another one, and accents far from
the pronunciations of `grammar_lexicon.txt`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from greenasr.data import espeak
from greenasr.data.features import RATE
from greenasr.data.resample import resample

ACCENTS = ("en-us", "en", "en-us-nyc", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan")
VARIANTS = {
    "train": (
        "m1 f1 m3 f3 m4 Andrea m7 Alicia Alex steph Gene Gene2 Mario Mike Reed antonio david ed john max "
        "mike2 pedro quincy rob robert sandro"
    ).split(),
    "dev": "m6 linda edward belinda".split(),
    "test": "m2 f2 m5 f4 m8 Annie adam Nguyen pablo paul".split(),
}
SPEAKERS = {"train": 78, "dev": 8, "test": 20}
# What espeak would say otherwise than people do ("a_" is the letter).
RESPELLED = {
    "a_": "eigh",
    "ahmed": "ahh med",
    "excuse": "ekskyuze",
    "kowalski": "kuhwolski",
    "ortega": "ortayga",
    "polish": "poelish",
    "reggae": "reggay",
    "reyes": "rayess",
    "rosa": "roza",
    "scissors": "sizzers",
    "tucson": "twosahn",
    "use": "yooze",
}
PAUSE = 0.05  # probability of a short pause between two words
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Speaker:
    """Who speaks: ``rate`` in words a minute, ``pitch`` and intonation ``range`` from 0 to 99."""

    name: str
    accent: str
    variant: str
    rate: int
    pitch: int
    range: int

    @property
    def voice(self) -> str:
        """The voice as espeak calls it."""
        return f"{self.accent}+{self.variant}"


def speakers(roster: str, count: int = 0) -> tuple[Speaker, ...]:
    """The speakers of "train", "dev" or "test", always the same ones; the first ``count`` of any number.

    >>> [speaker.voice for speaker in speakers("dev")][:5]
    ['en-us+m6', 'en+linda', 'en-us-nyc+edward', 'en-gb-scotland+belinda', 'en+m6']
    """
    variants, rng = VARIANTS[roster], random.Random(f"greenasr speakers 1, {roster}")
    found = []
    for i in range(count or SPEAKERS[roster]):
        turn, variant = divmod(i, len(variants))
        accent = ACCENTS[(variant + turn) % len(ACCENTS)]
        rate, pitch, range_ = (
            low + int(rng.random() * wide) for low, wide in ((150, 50), (35, 31), (35, 31))
        )
        found.append(Speaker(f"{roster}{i:02d}", accent, variants[variant], rate, pitch, range_))
    return tuple(found)


def respelled(words: Sequence[str], rng: random.Random) -> str:
    """Words as espeak says them right, with a comma for a pause here and there.

    >>> respelled("seat two a_ excuse me".split(), random.Random(1))
    'seat two eigh ekskyuze me.'
    """
    said = [RESPELLED.get(word, word) for word in words]
    return " ".join(w + ("," if rng.random() < PAUSE else "") for w in said[:-1]) + f" {said[-1]}."


class Synthesiser:
    """espeak-ng in another process; a context that ends it.

    ``say(speaker, texts, rng)`` gives the samples of one chunk: they depend on all of its arguments and on
    nothing that was said before.
    """

    def __init__(self) -> None:
        """Start the engine; ValueError when the package with it is not there, or there is no fork."""
        try:
            import espeakng_loader
        except ImportError:
            raise ValueError(
                "generated speech needs the package espeakng_loader, which is not installed: "
                "pip install greenasr[demo]."
            ) from None
        if not hasattr(os, "fork"):
            raise ValueError("generated speech needs a system with fork (Linux, macOS): run it there.")
        where = [espeakng_loader.get_library_path(), espeakng_loader.get_data_path()]
        # -I: neither the folder of espeak.py nor the environment adds modules to the small process.
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(espeak.__file__)), *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=1 << 20,
            start_new_session=True,  # an interrupt is for this process alone, which then ends that one
        )
        self._rate = self._int32()

    def __enter__(self) -> Synthesiser:
        """The synthesiser itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        if kind is not None:
            self._process.kill()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def say(self, speaker: Speaker, texts: Sequence[str], rng: random.Random) -> list[Samples]:
        """One utterance a text (as `respelled` writes it), float32 (n,) at 16 kHz in -1 … 1.

        ``rng`` varies rate and pitch from utterance to utterance as people do.
        """
        chunk = []
        for text in texts:
            rate = round(speaker.rate * (0.94 + 0.12 * rng.random()))
            pitch = speaker.pitch - 4 + int(9 * rng.random())
            chunk.append([text, speaker.voice, rate, pitch, speaker.range])
        assert self._process.stdin
        self._process.stdin.write(json.dumps(chunk).encode() + b"\n")
        self._process.stdin.flush()
        return [self._sound(text) for text in texts]

    def _sound(self, text: str) -> Samples:
        n = self._int32()
        if n < 1:
            raise ValueError(f"espeak said nothing for '{text}': is the package espeakng_loader whole?")
        pcm = np.frombuffer(self._read(2 * n), np.int16)
        return resample(pcm.astype(np.float32) * np.float32(2**-15), self._rate, RATE)

    def _int32(self) -> int:
        return int.from_bytes(self._read(espeak.COUNT), sys.byteorder, signed=True)

    def _read(self, n: int) -> bytes:
        assert self._process.stdout
        found = self._process.stdout.read(n)
        if len(found) < n:
            raise ValueError("espeak ended early: is the package espeakng_loader whole? Install it again.")
        return found
