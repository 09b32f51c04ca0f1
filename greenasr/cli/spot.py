"""`greenasr spot`: keywords with times from sound files or a raw stream."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.progress import bars
from greenasr.cli.transcribe import HIGHEST, STDIN, checked_rate, named, note
from greenasr.data.audio import LOWEST
from greenasr.data.features import RATE
from greenasr.data.segmenting import Samples
from greenasr.data.streams import file_blocks, raw_blocks
from greenasr.pipeline import engines
from greenasr.pipeline.engines import Engine
from greenasr.pipeline.spotting import Spotting, keywords_in

NO_BACKGROUND = (
    "it has no class for sound without a keyword, so it will find some in noise: train it with [labels] "
    "background, or raise --threshold."
)


def spot(
    model: Annotated[Path, typer.Argument(help="A packed keyword model.")],
    audio: Annotated[list[str], typer.Argument(help="Sound files; - is raw 16-bit mono on standard input.")],
    threshold: Annotated[float, typer.Option(help="Least confidence of a word.")] = Spotting.threshold,
    rest: Annotated[float, typer.Option(help="Least seconds between two words.")] = Spotting.rest,
    smooth: Annotated[
        float, typer.Option(help="Seconds over which confidence is averaged.")
    ] = Spotting.smooth,
    hop: Annotated[float, typer.Option(help="Seconds between two looks.")] = Spotting.hop,
    rate: Annotated[int, typer.Option(help="Samples a second on standard input.")] = RATE,
    mix: Annotated[bool, typer.Option("--mix", help="Mix stereo files down instead of refusing.")] = False,
    engine: Annotated[Engine, typer.Option(help="What runs the network.")] = "runtime",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a word.")] = False,
) -> None:
    """Print a line `source second word confidence` for every keyword, as it is heard.

    Of a microphone: arecord -q -t raw -f S16_LE -r 16000 | greenasr spot model.packed -

    Example: greenasr spot runs/keywords/model.packed talk.wav --threshold 0.9
    """
    if not LOWEST <= rate <= HIGHEST:
        raise ValueError(f"--rate {rate}: expected {LOWEST} to {HIGHEST} samples a second, {RATE} is usual.")
    settings, sources = Spotting(threshold, hop, smooth, rest), named(audio)
    engines.check_engine(engine)
    network, units = engines.keywords(model, engines.read(model), engine)
    if not units.has_background:
        note(f"{model}: {NO_BACKGROUND}")
    rates = {path: checked_rate(path, rate, mix) for path in sources}
    stdout, words, seconds, began = sys.stdout, 0, 0.0, time.process_time()
    with nullcontext() if stdout.isatty() else bars() as tell:

        def blocks(path: str) -> Iterator[Samples]:
            nonlocal seconds
            progress = tell.of(path) if tell else None
            found = (
                raw_blocks(sys.stdin.buffer, rate)
                if path == STDIN
                else file_blocks(Path(path), mix, progress)
            )
            for block in found:
                seconds += len(block) / rates[path]
                yield block

        for path, source in sources.items():
            for found in keywords_in(network, units, blocks(path), rates[path], source, settings):
                line = json.dumps(found.to_json(), ensure_ascii=False) + "\n" if as_json else found.line()
                stdout.write(line)
                stdout.flush()
                words += 1
    spent = (time.process_time() - began) / seconds
    note(f"{words:,} keywords in {seconds:,.1f} s; RTF {spent:.4f} on one core")
