"""The `greenasr` command: one subcommand a file, one way to fail.

Bad input ends with one line on standard error and exit code 2; results go to standard output, as one
JSON object with ``--json``; progress goes to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import typer

from greenasr.pipeline import together
from greenasr.pipeline.memory import keep_heap

TOGETHER = ("train", "costs", "compress", "table", "demo")  # several processes of torchrun do one of these
COMMANDS = (
    *(
        "prepare",
        "import_nemo",
        "train",
        "costs",
        "allocate",
        "compress",
        "inspect",
        "export",
        "bench",
    ),  # from data to a small model
    *("perplexity", "ngram", "transcribe", "spot", "rescore", "score"),  # what it says, and how good that is
    *("shrink", "report"),  # the smallest that loses no words
    *("table", "demo"),  # all of it
)


def make_app(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The commands of these names, each the function of its name in the file of its name.

    A command that is not asked for is not imported: what only transcribes needs no torch.
    """
    app = typer.Typer(
        name="greenasr",
        help="Make a speech recogniser small without losing a word.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_group)
    for name in names:
        app.command()(getattr(import_module(f"greenasr.cli.{name}"), name))
    return app


def _group() -> None:
    """A command is always named, even where there is one alone."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; whatever is wrong with the input is one line and exit code 2.

    Exits with 130 when interrupted: every command goes on from what is finished when it is given again.
    Of several processes of one run the first to fail says why.
    """
    keep_heap()
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = given[0].replace("-", "_") if given else ""
    app = make_app([asked] if asked in COMMANDS else COMMANDS)
    try:
        if asked in TOGETHER:
            together.begin()
        code = app(given, prog_name="greenasr", standalone_mode=False)
        if code != 130:
            together.end()
    except typer.BadParameter as error:
        _stop(f"{error.format_message()} (see --help)")
    except typer.TyperException as error:
        if str(error):  # without a command the help has been shown
            _stop(f"{error} (see --help)")
        sys.exit(2)
    except OSError as error:
        what = (error.strerror or "cannot be used").lower()
        _stop(f"{error.filename}: {what}: check the path or choose another" if error.filename else str(error))
    except ValueError as error:
        _stop(str(error))
    if code == 130 and together.first():
        print("greenasr: stopped; give the same command again to go on", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str) -> NoReturn:
    if together.first_to_fail():
        print(f"greenasr: {together.name()}{' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
