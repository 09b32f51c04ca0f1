"""`greenasr import-nemo`: a QuartzNet or MatchboxNet of NeMo as a packed file."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.progress import out
from greenasr.pipeline.models import save
from greenasr.pipeline.nemo import import_nemo as read


def import_nemo(
    checkpoint: Annotated[Path, typer.Argument(help="A .nemo file of a QuartzNet or a MatchboxNet.")],
    to: Annotated[Path, typer.Option("--out", help="Where to put the packed model.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read a checkpoint of NeMo and pack it, in full precision, with its features and labels.

    Example: greenasr import-nemo QuartzNet15x5Base-En.nemo --out quartznet.packed
    """
    found = read(checkpoint)
    recipe = {"imported": checkpoint.name}
    size = save(to, found.model, found, recipe)
    told = {
        "network": found.kind,
        "parameters": sum(p.numel() for p in found.model.parameters()),
        "features": found.features.kind,
        "labels": len(found.labels),
        "bytes": size,
        "out": str(to),
    }
    if json:
        print(dumps(told))
        return
    out.print(
        f"{to}: {told['network']} of {told['parameters']:,} parameters, {told['features']} features, "
        f"{told['labels']} labels, {size:,} bytes",
        highlight=False,
        soft_wrap=True,
    )
