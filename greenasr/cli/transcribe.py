"""`greenasr transcribe`: words with times from sound files or a raw stream."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import typer

from greenasr.cli.progress import bars, err
from greenasr.data.audio import LOWEST
from greenasr.data.features import RATE
from greenasr.data.files import check_writable
from greenasr.data.segmenting import Pauses, Samples
from greenasr.data.streams import check_sound, file_blocks, raw_blocks
from greenasr.decode.nbest import write_nbest
from greenasr.pipeline.engines import Engine
from greenasr.pipeline.streaming import Partial, TransducerRecogniser, load_any, stream
from greenasr.pipeline.transcribe import Transcript
from greenasr.pipeline.transcribe import transcribe as transcripts

STDIN = "-"
HIGHEST = 192_000  # Hz
NO_STREAM = (
    "its features have cmvn '{}', which needs whole utterances: words come as utterances end. A transducer "
    'that is trained with cmvn "running" says them while they are said.'
)


def transcribe(
    model: Annotated[Path, typer.Argument(help="A packed acoustic model, transducer or CTC network.")],
    audio: Annotated[list[str], typer.Argument(help="Sound files; - is raw 16-bit mono on standard input.")],
    graph: Annotated[Path | None, typer.Option(help="Folder of the model's decoding graph.")] = None,
    arpa: Annotated[
        Path | None, typer.Option(help="Or an ARPA file, .gz too; its graph is kept beside MODEL.")
    ] = None,
    rate: Annotated[int, typer.Option(help="Samples a second on standard input.")] = RATE,
    mix: Annotated[bool, typer.Option("--mix", help="Mix stereo files down instead of refusing.")] = False,
    pause: Annotated[float, typer.Option(help="Seconds of quiet that end an utterance.")] = Pauses.pause,
    acoustic_scale: Annotated[float, typer.Option(help="Weight of the network against the graph.")] = 1.0,
    word_penalty: Annotated[float, typer.Option(help="Cost a word; above 0 words get fewer.")] = 0.0,
    beam: Annotated[
        float | None,
        typer.Option(help="Width of the search: cost in a graph (15), or hypotheses without one."),
    ] = None,
    lm_weight: Annotated[
        float | None,
        typer.Option(help="Ask --arpa inside a CTC network's beam, for any words, instead of in a graph."),
    ] = None,
    label_reward: Annotated[
        float | None,
        typer.Option(help="Nats that a transducer gains a label, by default its recipe's."),
    ] = None,
    nbest: Annotated[int, typer.Option(help="Also so many hypotheses an utterance, into --out.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON lines that `greenasr rescore` reads.")] = None,
    engine: Annotated[Engine, typer.Option(help="What runs the network.")] = "runtime",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object an utterance.")] = False,
) -> None:
    """Print a line `source 1 start duration word` for every word (NIST's ctm), as utterances end.

    Sound of any rate and length is cut at pauses, at the latest after 30 s. Features are normalised as the
    model says, by utterance or, each file being one speaker, by all that was said in the file so far.
    A transducer has no graph, a CTC network needs none. Of standard input a transducer prints words while
    they are said, `;; second words …`.

    Example: greenasr transcribe runs/an4/model.packed talk.flac --arpa lm.arpa.gz --json
    """
    if (nbest > 0) != (out is not None) or nbest < 0:
        raise ValueError("N-best lists need a number above 0 and a file: give --nbest N and --out FILE.")
    if not LOWEST <= rate <= HIGHEST:
        raise ValueError(f"--rate {rate}: expected {LOWEST} to {HIGHEST} samples a second, {RATE} is usual.")
    if out is not None:
        check_writable(out)
    sources, pauses = named(audio), Pauses(pause)
    recogniser = load_any(
        model, graph, arpa, n=nbest, acoustic_scale=acoustic_scale, word_penalty=word_penalty, beam=beam,
        lm_weight=lm_weight, label_reward=label_reward, engine=engine,
    )  # fmt: skip
    rates = {path: checked_rate(path, rate, mix) for path in sources}
    spent = Spent()
    stdout = sys.stdout  # bars would take what is printed to standard error
    with nullcontext() if stdout.isatty() else bars() as tell:

        def blocks(path: str) -> Iterator[Samples]:
            if path == STDIN:
                return raw_blocks(sys.stdin.buffer, rate)
            return file_blocks(Path(path), mix, tell.of(path) if tell else None)

        def heard(path: str, source: str) -> Iterator[Transcript | Partial]:
            if path == STDIN and isinstance(recogniser, TransducerRecogniser):
                if recogniser.streams:
                    return stream(recogniser, blocks(path), rates[path], source, pauses)
                note(f"{model}: {NO_STREAM.format(recogniser.features.cmvn)}")
            return transcripts(recogniser, blocks(path), rates[path], source, pauses)

        found = (each for path, source in sources.items() for each in heard(path, source))
        shown = printed(found, stdout, as_json, spent)
        if out is None:
            for _ in shown:
                pass
        else:
            write_nbest(out, map(recogniser.nbest, shown))
    note(spent.line())


@dataclass
class Spent:
    """What was heard and what it cost: utterances, words, seconds of speech, of network and of search."""

    utterances: int = 0
    words: int = 0
    speech: float = 0.0
    network: float = 0.0
    search: float = 0.0

    def add_(self, found: Transcript) -> None:
        """Count one utterance."""
        self.utterances += 1
        self.words += len(found.hyps[0].words)
        self.speech += found.end - found.start
        self.network += found.work[0]
        self.search += found.work[1]

    def line(self) -> str:
        """For people."""
        if not self.utterances:
            return "nothing but silence was heard"
        network, search = self.network / self.speech, self.search / self.speech
        return (
            f"{self.words:,} words in {self.utterances:,} utterances of {self.speech:,.1f} s; RTF "
            f"{network + search:.4f} on one core (network {network:.4f}, search {search:.4f})"
        )


def named(audio: Sequence[str]) -> dict[str, str]:
    """What to call each source: a file by its name without ending, or by its path where names are shared.

    >>> named(["a/x.wav", "b/x.wav", "y.wav", "-"])
    {'a/x.wav': 'a/x.wav', 'b/x.wav': 'b/x.wav', 'y.wav': 'y', '-': 'stdin'}
    """
    if twice := [path for path, n in Counter(audio).items() if n > 1]:
        raise ValueError(f"{twice[0]}: given twice; give every sound once.")
    stems = Counter(Path(path).stem for path in audio)
    names = {path: Path(path).stem if stems[Path(path).stem] == 1 else path for path in audio}
    return names | ({STDIN: "stdin"} if STDIN in names else {})


def checked_rate(path: str, rate: int, mix: bool) -> int:
    """Samples a second of a source; a file is read to its end: nothing is printed of what is damaged."""
    if path == STDIN:
        if sys.stdin.isatty():
            raise ValueError(
                "standard input is a terminal: send it raw 16-bit mono, as `arecord -t raw` does."
            )
        found = rate
    else:
        found = check_sound(Path(path), mix).rate
    if found < RATE:
        note(f"{path}: {found} Hz has nothing above {found // 2} Hz, expect more errors")
    return found


def printed(
    found: Iterable[Transcript | Partial], stdout: IO[str], as_json: bool, spent: Spent
) -> Iterator[Transcript]:
    """Print every transcript and partial one at once; count transcripts and hand them on."""
    for each in found:
        stdout.write(json.dumps(each.to_json(), ensure_ascii=False) + "\n" if as_json else each.ctm())
        stdout.flush()
        if isinstance(each, Transcript):
            spent.add_(each)
            yield each


def note(line: str) -> None:
    """A line for people on standard error."""
    err.print(line, markup=False, highlight=False, soft_wrap=True)
