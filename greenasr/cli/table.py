"""`greenasr table`: train and print every row of a recipe's table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from greenasr.cli.progress import bars, err, out
from greenasr.pipeline import ctc, green, keywords, lm, together, transducer
from greenasr.pipeline import run as running
from greenasr.pipeline import table as tables
from greenasr.pipeline.ctc_recipe import CtcRecipe, load_ctc_recipe
from greenasr.pipeline.ctc_table import table as ctc_figures
from greenasr.pipeline.hybrid import Place as HybridPlace
from greenasr.pipeline.hybrid_recipe import HybridRecipe, load_hybrid
from greenasr.pipeline.keywords_recipe import KeywordRecipe, load_keywords
from greenasr.pipeline.keywords_table import table as keyword_figures
from greenasr.pipeline.recipe import load_recipe
from greenasr.pipeline.speech_recipe import kind_of
from greenasr.pipeline.transducer import Place as TransducerPlace
from greenasr.pipeline.transducer_recipe import TransducerRecipe, load_transducers
from greenasr.pipeline.transducer_table import table as transducer_figures
from greenasr.report import acosr as acosr_report
from greenasr.report import ctc as ctc_report
from greenasr.report import hybrid as hybrid_report
from greenasr.report import keywords as keyword_report
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
    if (kind := kind_of(recipe)) == "hybrid":
        return hybrid_table(load_hybrid(recipe), run, data, only, jobs, device, as_json)
    if kind == "transducer":
        return transducer_table(load_transducers(recipe), run, data, only, jobs, device, as_json)
    if kind == "ctc":
        return ctc_table(load_ctc_recipe(recipe), run, data, only, jobs, device, as_json)
    if kind == "keywords":
        return keyword_table(load_keywords(recipe), run, data, only, jobs, device, as_json)
    if kind:
        raise ValueError(
            f"{recipe}: kind is '{kind}': choose hybrid, transducer, ctc or keywords, or none for LMs."
        )
    made = load_recipe(recipe)
    place = tables.Place(made, run, data, nbest, device)
    stages = tables.stages(place)
    if only:
        stages = running.needed(stages, only.split(","))
    with running.claimed(run, made.to_json()), bars() as tell:
        running.check_same(run / "texts.json", place.digests())
        results = running.run_stages(stages, run, tell, jobs)
        if not together.first():
            return
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
    _speech_table(place, green.stages(place), green.table, hybrid_report.write, only, as_json)


def transducer_table(
    made: TransducerRecipe, run: Path, data: Path | None, only: str, jobs: int, device: str, as_json: bool
) -> None:
    """ACosR's tables: a recipe of kind "transducer"."""
    place = TransducerPlace(made, run, data, device, jobs)
    _speech_table(place, transducer.stages(place), transducer_figures, acosr_report.write, only, as_json)


def ctc_table(
    made: CtcRecipe, run: Path, data: Path | None, only: str, jobs: int, device: str, as_json: bool
) -> None:
    """The ternary paper's tables: a recipe of kind "ctc"."""
    place = ctc.Place(made, run, data, device, jobs)
    _speech_table(place, ctc.stages(place), ctc_figures, ctc_report.write, only, as_json)


def keyword_table(
    made: KeywordRecipe, run: Path, data: Path | None, only: str, jobs: int, device: str, as_json: bool
) -> None:
    """TERNARY's Table 1: kind "keywords"; without data, where the recipe says so, on generated commands."""
    if data is None and made.may_generate:
        made = made.generated()
        err.print(f"no --data: {made.title}", markup=False, highlight=False)
    place = keywords.Place(made, run, data, device, jobs)
    _speech_table(place, keywords.stages(place), keyword_figures, keyword_report.write, only, as_json)


def _speech_table(
    place: Any,
    stages: Sequence[running.Stage],
    table_of: Callable[[Any, Mapping[str, Mapping[str, Any]]], dict[str, Any]],
    write: Callable[[Mapping[str, Any], Path], None],
    only: str,
    as_json: bool,
) -> None:
    """Run what is asked for, write the tables of all that is finished, print them."""
    run = place.run
    chosen = running.needed(stages, only.split(",")) if only else stages
    with running.claimed(run, place.recipe.to_json()), bars() as tell:
        results = running.run_stages(chosen, run, tell, place.jobs)
        if not together.first():
            return
        results = {**running.finished(stages, run), **results}
        value = table_of(place, results)
        write(value, run)
    if as_json:
        print(json.dumps(value))
    else:
        out.print((run / "table.md").read_text(), markup=False, highlight=False, soft_wrap=True)
        page = f"the page of it: {run / 'report.html'}; " if (run / "report.html").exists() else ""
        out.print(f"{page}table.md and table.json are in {run}", highlight=False)
