"""The embedded speech corpora: requests said by espeak's voices, in noise and in rooms.

Splits, speakers and conditions are those of `generated_splits.py`.  The SNR is that of the whole utterance,
its quarter second of silence at both ends included, after the room.  The texts are streams of their own (see
`grammar.py`): not those that `grammar.generate` gives a language model.  Everything follows from (domain,
seed, hours, utterances): the same call gives the same bytes on one machine, however many jobs share the work.

    OUT/SPLIT.cuts.jsonl.gz  SPLIT.text  lexicon.json  corpus.json  audio/SPLIT/SPEAKER.wav
"""

from __future__ import annotations

import hashlib
import json
import math
import queue
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from greenasr.data import rooms
from greenasr.data.corpora import save_cuts
from greenasr.data.features import RATE
from greenasr.data.files import atomic, read_json, write_atomic, write_json
from greenasr.data.generated_splits import COMMANDS, Condition, Part, Where, parts_of, sayings
from greenasr.data.lexicon import Lexicon, graphemes, read_lexicon
from greenasr.data.readers.rows import Row, cut_sets
from greenasr.data.rooms import COLOURS, Room, Samples, babble, coloured_noise, mix, response, reverberate
from greenasr.data.speech import Speaker, Synthesiser, respelled, speakers

FORMAT = "greenasr generated speech 1"
CHUNK = 5  # utterances said by one fork; part of what makes the bytes
LEAST_SECONDS, LEAST_UTTERANCES = 10, 5  # of a speaker: a small corpus has fewer of them
TALKERS, AT_ONCE = 8, 4  # who is heard in babble, of a split and at once
LOUDNESS = (-32.0, -20.0)  # dB below full scale, of the whole utterance's mean square
PEAK = 0.95
Tell = Callable[[int, int, str], None]


def grammar_lexicon() -> Lexicon:
    """Pronunciations of every word that the grammar can say, from `grammar_lexicon.txt`."""
    with resources.as_file(resources.files("greenasr.data") / "grammar_lexicon.txt") as path:
        return read_lexicon(path)


def degrade(
    speech: Samples, condition: Condition, talkers: Sequence[Samples], rng: np.random.Generator
) -> tuple[Samples, dict[str, Any]]:
    """Speech as heard in a condition, (n,) -> (n,) in -1 … 1, and what was done: condition, snr, noise, rt60.

    ``talkers`` are heard in babble, each from somewhere on.
    """
    facts: dict[str, Any] = {"condition": condition.name}
    if condition.rt60:
        room = Room.draw(condition.rt60, rng)
        speech = reverberate(speech, response(room, rng))
        facts["rt60"] = round(room.rt60, 3)
    kind = condition.noises[rng.integers(len(condition.noises))]
    if kind == "babble":
        noise = babble([np.roll(talker, rng.integers(len(talker))) for talker in talkers], len(speech))
    else:
        noise = coloured_noise(len(speech), COLOURS[kind], rng)
    facts |= {"noise": kind, "snr": round(float(rng.uniform(*condition.snr)), 2)}
    heard = mix(speech, noise, facts["snr"])
    loudness = 10 ** (rng.uniform(*LOUDNESS) / 20)
    gain = min(loudness / rooms.rms(heard), PEAK / float(np.abs(heard).max()))
    return heard * np.float32(gain), facts


def generate_speech(
    out: str | Path,
    hours: float = 1.0,
    seed: int = 0,
    jobs: int = 2,
    tell: Tell = lambda done, of, note: None,
    utterances: int = 500,
    domain: str = "speech",
) -> None:
    """Write a domain's corpus: ``hours`` of training speech, ``utterances`` a test set, half as many of dev.

    A split whose cuts are there is not made again; ``tell`` hears (speakers done, of, split).  ValueError
    when ``out`` holds a corpus of other settings, or espeak is not installed.
    """
    if not (hours > 0 and utterances > 0 and jobs > 0):
        raise ValueError(
            f"hours = {hours}, utterances = {utterances}, jobs = {jobs}: each must be above zero"
        )
    out = Path(out)
    parts = parts_of(domain)
    settings = {"format": FORMAT, "seed": seed, "hours": hours, "utterances": utterances}
    _claim(out, settings if domain == "speech" else {**settings, "domain": domain}, parts)
    lexicon = graphemes(COMMANDS) if domain == "commands" else grammar_lexicon()
    write_json(out / "lexicon.json", lexicon.to_json())
    missing = [split for split in parts if not _cuts(out, split).exists()]
    if not missing:
        return
    with ExitStack() as stack:
        idle: queue.SimpleQueue[Synthesiser] = queue.SimpleQueue()
        for _ in range(jobs):
            idle.put(stack.enter_context(Synthesiser()))
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        for split in missing:
            _make_split(out, _Split(split, parts[split], domain, seed, hours, utterances), pool, idle, tell)


def _cuts(out: Path, split: str) -> Path:
    return out / f"{split}.cuts.jsonl.gz"


def _claim(out: Path, settings: dict[str, Any], splits: Iterable[str]) -> None:
    """Note the settings in an empty folder; refuse one that was begun with others."""
    note = out / "corpus.json"
    if note.exists():
        there = read_json(note)
        for name in {**settings, **there}:
            if there.get(name) != settings.get(name):
                raise ValueError(
                    f"{note}: the corpus there has {name} = {json.dumps(there.get(name))}, asked for is "
                    f"{json.dumps(settings.get(name))}; give another folder or remove this one."
                )
    elif any(_cuts(out, split).exists() for split in splits):
        raise ValueError(f"{out}: holds another corpus's cuts; give another folder.")
    else:
        write_json(note, settings)


@dataclass(frozen=True)
class _Split:
    """What a split shall be."""

    name: str
    part: Part
    domain: str
    seed: int
    hours: float
    utterances: int

    def share(self) -> tuple[tuple[Speaker, ...], float, int]:
        """Its speakers, and the least seconds and utterances of each."""
        everybody = speakers(self.part.roster, self.part.speakers)
        if self.name == "train":
            seconds = 3600 * self.hours
            used = everybody[: max(1, int(seconds / LEAST_SECONDS))]
            return used, seconds / len(used), 1
        wanted = self.utterances if self.name != "dev" else math.ceil(self.utterances / 2)
        used = everybody[: math.ceil(wanted / LEAST_UTTERANCES)]
        return used, 0.0, math.ceil(wanted / len(used))

    def key(self, *what: object) -> str:
        """What a random stream of this split is seeded with."""
        return ", ".join(map(str, (f"greenasr {self.domain} 1", self.name, self.seed, *what)))


def _numpy_rng(key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))


def _said(
    split: _Split, speaker: Speaker, engine: Synthesiser, use: str = "says"
) -> Iterator[tuple[str, Samples]]:
    """Text and sound of what a speaker says, without end; silence of about a quarter second around it."""
    rng = random.Random(split.key(speaker.name, use))
    said = sayings(split.part.kind, rng)
    while True:
        texts = [next(said) for _ in range(CHUNK)]
        sounds = engine.say(speaker, [respelled(text.split(), rng) for text in texts], rng)
        for text, sound in zip(texts, sounds, strict=True):
            before, after = (round(RATE * (0.15 + 0.2 * rng.random())) for _ in range(2))
            yield text.replace("a_", "a"), np.pad(sound, (before, after))


def _make_split(
    out: Path, split: _Split, pool: ThreadPoolExecutor, idle: queue.SimpleQueue[Synthesiser], tell: Tell
) -> None:
    """All speakers of a split, side by side; its manifest comes last."""
    for left in (out / "audio" / split.name).glob(".*.wav"):  # by a run that was killed
        left.unlink()
    used, seconds, utterances = split.share()

    def with_engine(work: Callable[[Synthesiser, Speaker], Any], speaker: Speaker) -> Any:
        engine = idle.get()
        try:
            return work(engine, speaker)
        finally:
            idle.put(engine)

    def chatter(engine: Synthesiser, speaker: Speaker) -> tuple[str, Samples]:
        sounds = _said(split, speaker, engine, "chatters")
        return speaker.name, np.concatenate([next(sounds)[1] for _ in range(CHUNK)])

    heard = any("babble" in condition.noises for _, condition in split.part.where)
    talkers = speakers(split.part.roster, split.part.speakers)[-TALKERS:] if heard else ()
    background = list(pool.map(partial(with_engine, chatter), talkers))

    def speak(engine: Synthesiser, speaker: Speaker) -> list[Row]:
        others = [sound for name, sound in background if name != speaker.name]
        path = out / "audio" / split.name / f"{speaker.name}.wav"
        return _record(split, speaker, engine, others, path, seconds, utterances)

    working = {pool.submit(with_engine, speak, speaker): speaker.name for speaker in used}
    rows: dict[str, list[Row]] = {}
    tell(0, len(used), split.name)
    for done, future in enumerate(as_completed(working), 1):
        rows[working[future]] = future.result()
        tell(done, len(used), split.name)
    ordered = [row for speaker in used for row in rows[speaker.name]]
    write_atomic(out / f"{split.name}.text", "".join(f"{row.utt_id} {row.text}\n" for row in ordered))
    save_cuts(_cuts(out, split.name), cut_sets(ordered)[split.name])


def _record(
    split: _Split,
    speaker: Speaker,
    engine: Synthesiser,
    others: Sequence[Samples],
    path: Path,
    seconds: float,
    utterances: int,
) -> list[Row]:
    """One speaker's utterances as one file, until there are so many seconds and utterances; a row each."""
    rows: list[Row] = []
    end = 0
    sounds = _said(split, speaker, engine)
    with atomic(path) as temporary, soundfile.SoundFile(temporary, "w", RATE, 1, "PCM_16") as file:
        while end < RATE * seconds or len(rows) < utterances:
            text, speech = next(sounds)
            rng = _numpy_rng(split.key(speaker.name, len(rows)))
            condition = _drawn(split.part.where, rng)
            talkers = [others[i] for i in rng.permutation(len(others))[:AT_ONCE]]
            heard, facts = degrade(speech, condition, talkers, rng)
            file.write(np.rint(heard * 32767).astype(np.int16))
            start, end = end, end + len(heard)
            rows.append(
                Row(
                    f"{split.name}-{speaker.name}-{len(rows):04d}", path, text, "generated", split.name,
                    speaker.name, start, end, in_samples=True, custom={"voice": speaker.voice, **facts},
                )
            )  # fmt: skip
    return rows


def _drawn(shares: Where, rng: np.random.Generator) -> Condition:
    """One condition by its share."""
    point = rng.random()
    for share, condition in shares:
        if point < share:
            return condition
        point -= share
    return shares[-1][1]
