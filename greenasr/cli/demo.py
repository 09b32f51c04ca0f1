"""`greenasr demo`: the whole of it on generated speech, from nothing to GREEN's tables."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.table import hybrid_table
from greenasr.pipeline.hybrid_recipe import HybridRecipe, load_hybrid


def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    hours: Annotated[float, typer.Option(help="Hours of speech to generate for training.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the speech and of every training.")] = 0,
    jobs: Annotated[int, typer.Option(help="Stages at a time; each gets its share of the cores.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as one JSON object.")] = False,
) -> None:
    """Generate speech, train a recogniser, make it small, and show what that cost; writes report.html.

    A killed run goes on when the same command is given again.

    Example: greenasr demo --out runs/demo --hours 1
    """
    hybrid_table(demo_recipe(hours, seed), out, None, "", jobs, "cpu", as_json)


def demo_recipe(hours: float = 1.0, seed: int = 0) -> HybridRecipe:
    """The packaged recipe with so many hours of speech and this seed; ValueError for odd numbers."""
    if not 0 < hours < math.inf:
        raise ValueError(f"--hours {hours:g}: give a number above 0, for example 1.")
    if seed < 0:
        raise ValueError(f"--seed {seed}: give 0 or a number above.")
    with resources.as_file(resources.files("greenasr.pipeline") / "demo.toml") as path:
        recipe = load_hybrid(path)
    return replace(recipe, corpus=replace(recipe.corpus, hours=hours, seeds=(seed,)))
