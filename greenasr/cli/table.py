"""`greenasr table`: train and print every row of a recipe's table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.progress import bars, out
from greenasr.pipeline import green, lm
from greenasr.pipeline import run as running
from greenasr.pipeline import table as tables
from greenasr.pipeline.hybrid import Place as HybridPlace
from greenasr.pipeline.hybrid_recipe import HybridRecipe, load_hybrid
from greenasr.pipeline.recipe import load_recipe
from greenasr.pipeline.speech_recipe import kind_of
from greenasr.report import hybrid as hybrid_report
from greenasr.report import language_models as report


def table(
    recipe: Annotated[Path, typer.Argument(help="A recipe, for example recipes/penn_treebank/tiny.toml.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the texts that the recipe names.")] = None,
    nbest: Annotated[
        Path | None, typer.Option(help="Folder of the n-best lists that the recipe names.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Run folder; runs/<recipe> if not given.")
    ] = None,
    only: Annotated[str, typer.Option(help="Only these stages and what they need, comma-separated.")] = "",
    jobs: Annotated[int, typer.Option(help="Stages at a time; each gets its share of the cores.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as one JSON object.")] = False,
) -> None:
    """Train, compress, pack and score every row of a recipe; writes table.md, table.json and plots.

    A killed run goes on when the same command is given again.

    Example: greenasr table recipes/penn_treebank/small.toml --data ptb --out runs/ptb_small --jobs 2
    """
    lm.check_device(device)
    run = out_dir or Path("runs") / f"{recipe.parent.name}_{recipe.stem}"
    if kind_of(recipe) == "hybrid":
        return hybrid_table(load_hybrid(recipe), run, data, only, jobs, device, as_json)
    made = load_recipe(recipe)
    place = tables.Place(made, run, data, nbest, device)
    stages = tables.stages(place)
    if only:
        stages = running.needed(stages, only.split(","))
    with running.claimed(run, made.to_json()), bars() as tell:
        running.check_same(run / "texts.json", place.digests())
        results = running.run_stages(stages, run, tell, jobs)
        results = {**running.finished(tables.stages(place), run), **results}
        value = tables.table(place, results) if "float" in results else {"stages": list(results)}
        if "float" in results:
            report.write(value, run)
    if as_json:
        print(json.dumps(value))
    elif "float" not in results:
        out.print(f"{', '.join(results)} done in {run}; a table needs the row 'float' too", highlight=False)
    else:
        out.print((run / "table.md").read_text(), markup=False, highlight=False, soft_wrap=True)
        out.print(f"table.md, table.json and plots are in {run}", highlight=False)


def hybrid_table(
    made: HybridRecipe, run: Path, data: Path | None, only: str, jobs: int, device: str, as_json: bool
) -> None:
    """GREEN's tables: a recipe of kind "hybrid"."""
    place = HybridPlace(made, run, data, device, jobs)
    stages = green.stages(place)
    chosen = running.needed(stages, only.split(",")) if only else stages
    with running.claimed(run, made.to_json()), bars() as tell:
        results = running.run_stages(chosen, run, tell, jobs)
        results = {**running.finished(stages, run), **results}
        value = green.table(place, results)
        hybrid_report.write(value, run)
    if as_json:
        print(json.dumps(value))
    else:
        out.print((run / "table.md").read_text(), markup=False, highlight=False, soft_wrap=True)
        out.print(
            f"the page of it: {run / 'report.html'}; table.md and table.json beside it", highlight=False
        )
