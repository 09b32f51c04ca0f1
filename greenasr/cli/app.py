"""The `greenasr` command: one subcommand a file, one way to fail.

Bad input ends with one line on standard error and exit code 2; results go to standard output, as one
JSON object with ``--json``; progress goes to standard error.
"""

from __future__ import annotations

import sys

import typer

from greenasr.cli.allocate import allocate
from greenasr.cli.compress import compress
from greenasr.cli.costs import costs
from greenasr.cli.inspect import inspect
from greenasr.cli.ngram import ngram
from greenasr.cli.perplexity import perplexity
from greenasr.cli.rescore import rescore
from greenasr.cli.score import score
from greenasr.cli.table import table
from greenasr.cli.train import train

app = typer.Typer(
    name="greenasr",
    help="Make a speech recogniser small without losing a word.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (train, costs, allocate, compress, perplexity, ngram, rescore, score, inspect, table):
    app.command()(command)


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        first = " ".join(str(error).split())
        print(f"greenasr: {first}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
