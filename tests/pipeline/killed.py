"""The command line in processes that are killed, over and over, until it comes through.

    python killed.py LOG ARGUMENT …

Each process is killed (SIGKILL) where no process was before: when a stage's first checkpoint, or its result,
is written but not yet at its place.  LOG gets a line `killed PATH` or `wrote PATH` each.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from greenasr.cli.app import main

MOMENTS = ("checkpoint.pt", "result.json")
AT_MOST = 100  # processes


def attempt(log: Path, arguments: Sequence[str]) -> None:
    """Run the command; die at the first moment at which no process died before."""
    done = log.read_text() if log.exists() else ""
    replace = os.replace

    def killing_replace(source: str | Path, target: str | Path) -> None:
        fatal = Path(target).name in MOMENTS and f"killed {target}\n" not in done
        with open(log, "a") as file:
            file.write(f"{'killed' if fatal else 'wrote'} {target}\n")
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = killing_replace
    main(arguments)


def until_it_comes_through(log: Path, arguments: Sequence[str]) -> int:
    """The exit code of the first process that nobody killed."""
    for _ in range(AT_MOST):
        child = os.fork()
        if not child:
            attempt(log, arguments)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return os.waitstatus_to_exitcode(status)
    return 1


if __name__ == "__main__":
    for heavy in ("lhotse", "matplotlib.pyplot", "torch._dynamo"):
        import_module(heavy)  # once, rather than in every process
    sys.exit(until_it_comes_through(Path(sys.argv[1]), sys.argv[2:]))
