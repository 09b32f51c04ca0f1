"""Sound of any length in blocks: of a file, or raw samples as a microphone's program writes them.

    file_blocks(path)          float32 (n,) blocks, one channel, at the file's own rate
    raw_blocks(stream, name)   the same of 16-bit little-endian samples of one channel

Nothing is held but a block.  What cannot be used raises ValueError with file, cause and cure: what
`audio.header` refuses, more than one channel, less than 25 ms, an early end, samples that are no numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
from numpy.typing import NDArray

from greenasr.data.audio import Header, header, too_short
from greenasr.data.features import RATE

FILE_BLOCK = 10.0  # seconds
RAW_BLOCK = 0.05  # seconds: a stream's samples are handed on as soon as there are so many
CONTAINERS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg", b"NIST": "SPHERE", b"FORM": "aiff"}
Progress = Callable[[int, int], None]
Samples = NDArray[np.float32]


def check_sound(path: Path, mix: bool = False) -> Header:
    """A file's header, after every sample was looked at; ValueError where it cannot be used."""
    for _ in file_blocks(path, mix):
        pass
    return header(path)


def file_blocks(path: Path, mix: bool = False, progress: Progress | None = None) -> Iterator[Samples]:
    """The samples of a file in blocks of ten seconds; ``mix`` averages channels instead of refusing them.

    ``progress`` is told (seconds read, seconds of the file).
    """
    head = header(path)
    if head.channels > 1 and not mix:
        raise ValueError(
            f"{path}: {head.channels} channels, expected one; convert it, or let the channels be mixed "
            "down (--mix)."
        )
    if too_short(head.frames, head.rate):
        raise ValueError(
            f"{path}: {1000 * head.frames / head.rate:.3g} ms long, expected 25 or more; record it again."
        )
    done = 0
    try:
        with soundfile.SoundFile(path) as file:
            while len(read := file.read(round(FILE_BLOCK * head.rate), dtype="float32", always_2d=True)):
                bad = ~np.isfinite(read)
                if bad.any():
                    first = (done + int(np.flatnonzero(bad.any(1))[0])) / head.rate
                    raise ValueError(
                        f"{path}: samples that are NaN or infinite, the first at {first:.3f} s; record or "
                        "convert it again."
                    )
                done += len(read)
                yield read.mean(1) if head.channels > 1 else read[:, 0]
                if progress is not None:
                    progress(done // head.rate, head.frames // head.rate)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{path}: cannot be read behind {done / head.rate:.1f} s ({error.error_string}); is the file "
            "whole? Make or copy it again."
        ) from None
    if done < head.frames:
        raise ValueError(
            f"{path}: ends after {done:,} samples, its header promises {head.frames:,}; it is cut short: "
            "make or copy it again."
        )


def raw_blocks(stream: IO[bytes], rate: int = RATE, name: str = "standard input") -> Iterator[Samples]:
    """Samples of a stream that never says how long it is, in -1 … 1, as they come."""
    size, rest, done = 2 * max(1, round(RAW_BLOCK * rate)), b"", 0
    read = getattr(stream, "read1", stream.read)  # what is there, rather than wait for a whole block
    while part := read(size):
        rest += part
        if not done and (kind := CONTAINERS.get(rest[:4])):
            raise ValueError(
                f"{name}: a {kind} file ({rest[:4]!r}), not raw 16-bit samples; give it by its name."
            )
        if len(rest) >= size:
            whole = len(rest) // 2 * 2
            yield _from_pcm(rest[:whole])
            rest, done = rest[whole:], done + whole // 2
    if len(rest) > 1:
        yield _from_pcm(rest[: len(rest) // 2 * 2])
        done += len(rest) // 2
    if not done:
        raise ValueError(f"{name}: no samples in it; send raw 16-bit little-endian mono.")
    if len(rest) % 2:
        raise ValueError(
            f"{name}: ends in the middle of a sample, behind {done:,}; send raw 16-bit little-endian mono."
        )


def _from_pcm(data: bytes) -> Samples:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32_768)
