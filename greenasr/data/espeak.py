"""espeak-ng in a process of its own: chunks of requests as JSON lines in, 16-bit sound out.

    chunk    [[text, voice, rate, pitch, range], …]  on one line
    answer   for every request: number of samples (int32), samples (int16)         -1 where it failed

The engine keeps state from one utterance to the next, so what it says depends on what it said before, and
it takes a seed for its noise from the clock.  Here every chunk is said in a fresh fork of a process that
loaded the engine and never spoke, with the seed given: the same chunk gives the same bytes, whatever was
said before.  The process needs the standard library alone, so that a fork copies little; `speech.py` starts
it and reads from it.  espeak-ng is GPL-3: this file calls its C interface (speak_lib.h) and holds none of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any, BinaryIO

RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER
SYNCHRONOUS, DO_NOT_EXIT, UTF8, PHONEMES = 2, 0x8000, 1, 0x100
SEED = 1  # of the engine's noise, which it would take from the clock
COUNT = 4  # bytes of a count of samples
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def load(library: str, data: str) -> tuple[ctypes.CDLL, int]:
    """The engine and its sampling rate in Hz; OSError when it cannot be started."""
    engine = ctypes.CDLL(library)
    rate = engine.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), DO_NOT_EXIT)
    if rate <= 0:
        raise OSError(f"{library}: espeak_Initialize gave {rate}; are the voices in {data}?")
    engine.espeak_ListVoices(None)  # reads every voice file once, here and not in every fork
    return engine, rate


def synthesise(engine: ctypes.CDLL, text: str, voice: str, rate: int, pitch: int, range_: int) -> bytes:
    """Little-endian 16-bit samples of ``text``; ``[[...]]`` in it holds phonemes.

    ``rate`` in words a minute, ``pitch`` and ``range_`` (of the intonation) from 0 to 99.
    """
    said: list[bytes] = []

    def collect(samples: int | None, n: int, _: int | None) -> int:
        if samples and n > 0:
            said.append(ctypes.string_at(samples, 2 * n))
        return 0

    callback = CALLBACK(collect)
    engine.espeak_SetSynthCallback(callback)
    if engine.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"espeak has no voice '{voice}'")
    for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, range_)):
        engine.espeak_SetParameter(parameter, value, 0)
    engine.espeak_ng_SetRandSeed(SEED)
    encoded = text.encode()
    if engine.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, UTF8 | PHONEMES, None, None):
        raise ValueError(f"espeak did not say '{text}'")
    engine.espeak_Synchronize()
    return b"".join(said)


def serve(library: str, data: str, chunks: BinaryIO, sound: BinaryIO) -> None:
    """Answer chunks until there are none; before all, one int32 says the sampling rate."""
    engine, rate = load(library, data)
    sound.write(_int32(rate))
    sound.flush()
    for line in chunks:
        child = os.fork()
        if child == 0:
            _answer(engine, json.loads(line), sound)
        os.waitpid(child, 0)


def _answer(engine: ctypes.CDLL, chunk: list[list[Any]], sound: BinaryIO) -> None:
    """Say one chunk and end this process."""
    try:
        for request in chunk:
            try:
                said = synthesise(engine, *request)
                sound.write(_int32(len(said) // 2) + said)
            except ValueError as error:
                print(error, file=sys.stderr)
                sound.write(_int32(-1))
        sound.flush()
    finally:
        os._exit(0)


def _int32(value: int) -> bytes:
    return value.to_bytes(COUNT, sys.byteorder, signed=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], sys.stdin.buffer, sys.stdout.buffer)
