"""Sound on disk to samples: what a file says of itself, whether to believe it, and reading a cut.

    header(path)   rate, frames, channels            cheap: no sample is read
    samples(cut)   float32 (n,) at 16 kHz, mono      one cut's stretch of its file, and nothing else

Everything libsndfile reads is read: wav, flac, ogg, mp3, and NIST SPHERE where it is PCM or μ-law;
SPHERE compressed with shorten has to be converted first.  Other rates than 16 kHz are resampled
(`resample.py`).  What cannot be used raises ValueError with file, cause and cure.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from greenasr.data.features import RATE, WINDOW
from greenasr.data.resample import resample

if TYPE_CHECKING:
    from lhotse.cut import Cut

UNKNOWN = 0x7FFF0000  # sizes from here on are those of a program that wrote to a pipe and did not know
LOWEST = 4_000  # Hz


@dataclass(frozen=True)
class Header:
    """What a sound file says of itself: samples a second, samples a channel, channels."""

    rate: int
    frames: int
    channels: int


def header(path: str | Path) -> Header:
    """Read and check a file's header.

    FileNotFoundError where there is none; ValueError for an empty file, one that is no sound, one shorter
    than its header says (wav, aiff and SPHERE; other formats show it in reading), and one without a sample.
    """
    size = os.stat(path).st_size
    if not size:
        raise ValueError(f"{path}: the file is empty (0 bytes); make or copy it again.")
    with open(path, "rb") as file:
        start = file.read(4096)
    _check_whole(path, start, size)
    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError:
        raise ValueError(
            f"{path}: not a sound file that can be read (it begins {start[:4]!r}); convert it to wav or flac."
        ) from None
    if info.frames <= 0:
        raise ValueError(f"{path}: has no samples (length 0); record it again or take it out.")
    if info.samplerate < LOWEST:
        raise ValueError(f"{path}: {info.samplerate} Hz, expected {RATE} Hz, or at least {LOWEST}.")
    return Header(int(info.samplerate), int(info.frames), int(info.channels))


def _check_whole(path: str | Path, start: bytes, size: int) -> None:
    """Compare the length that a wav, aiff or SPHERE header states with the file's."""
    if start.startswith(b"NIST_1A"):
        fields = dict((words[0], words[2]) for line in start.split(b"\n") if len(words := line.split()) == 3)
        if b"shorten" in fields.get(b"sample_coding", b""):
            raise ValueError(
                f"{path}: SPHERE compressed with shorten, which libsndfile cannot read; convert it: "
                f"sph2pipe -f wav {path} {Path(path).with_suffix('.wav')}"
            )
        try:
            counts = [int(fields[key]) for key in (b"sample_count", b"channel_count", b"sample_n_bytes")]
            states = int(start.split()[1]) + counts[0] * counts[1] * counts[2]
        except (KeyError, IndexError, ValueError):
            return  # libsndfile decides
    elif start.startswith(b"RIFF") and start[8:12] == b"WAVE":
        at, states = 12, 0
        while at + 8 <= len(start):
            name, length = struct.unpack_from("<4sI", start, at)
            at += 8
            if name == b"data":
                states = 0 if length >= UNKNOWN else at + length
                break
            at += length + length % 2
    elif start.startswith(b"FORM") and start[8:12] in (b"AIFF", b"AIFC"):
        states = 8 + struct.unpack_from(">I", start, 4)[0]
    else:
        return
    if size < states:
        raise ValueError(
            f"{path}: cut short: {size:,} bytes, its header promises {states:,}; make or copy it again."
        )


def samples(cut: Cut) -> NDArray[np.float32]:
    """The samples of a cut, (n,) float32 at 16 kHz, in -1 … 1; several channels of a cut are averaged.

    ValueError names the cut and its file where they cannot be read, end too early, or are not finite.
    """
    plain = _plain_source(cut)
    source = plain or "its audio"
    try:
        found = _read(plain, cut) if plain else np.atleast_2d(cut.load_audio())
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        detail = str(error).strip().splitlines()
        raise ValueError(
            f"{source}: cut '{cut.id}' cannot be read ({detail[0] if detail else type(error).__name__}); "
            "is the file whole? Make or copy it again."
        ) from None
    if found.shape[-1] < cut.num_samples - 1:
        raise ValueError(
            f"{source}: ends within cut '{cut.id}': {found.shape[-1]:,} samples of {cut.num_samples:,}; "
            "the file is cut short or was changed: copy it again and prepare anew."
        )
    mono = found.mean(0) if len(found) > 1 else found[0]
    if not np.isfinite(mono).all():
        bad = int(np.count_nonzero(~np.isfinite(mono)))
        raise ValueError(
            f"{source}: cut '{cut.id}' has {bad:,} samples of {len(mono):,} that are NaN or infinite; "
            "record or convert it again."
        )
    return resample(mono.astype(np.float32, copy=False), int(cut.sampling_rate), RATE)


def too_short(n: int, rate: int) -> bool:
    """Whether n samples are less than one window of features."""
    return n * RATE < WINDOW * rate


def _plain_source(cut: Any) -> str:
    """The path of a cut that is a stretch of one file as it is; "" for any other."""
    recording = getattr(cut, "recording", None)
    if recording is None or recording.transforms or len(recording.sources) != 1:
        return ""
    source = recording.sources[0]
    return str(source.source) if source.type == "file" else ""


def _read(path: str, cut: Any) -> NDArray[np.float32]:
    """The cut's channels and samples of the file at its own rate, (channels, n)."""
    if not os.path.exists(path):
        raise FileNotFoundError(2, f"no such audio file (cut '{cut.id}')", path)
    with soundfile.SoundFile(path) as file:
        if file.samplerate != cut.sampling_rate:
            raise ValueError(f"{file.samplerate} Hz, but {cut.sampling_rate} when it was prepared")
        file.seek(round(cut.start * cut.sampling_rate))
        read = file.read(cut.num_samples, dtype="float32", always_2d=True)
    wanted = [cut.channel] if isinstance(cut.channel, int) else list(cut.channel)
    channels: NDArray[np.float32] = read.T[[cut.recording.channel_ids.index(c) for c in wanted]]
    return channels
