"""`greenasr allocate`: the bit map of least cost under a budget."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from greenasr.cli.progress import bars, show
from greenasr.compress import allocate as allocation
from greenasr.data.files import write_json
from greenasr.pipeline.plans import read_costs


def allocate(
    costs: Annotated[Path, typer.Argument(help="A cost table, from `greenasr costs`.")],
    out: Annotated[Path, typer.Option(help="The bit map to write, as JSON.")],
    bits: Annotated[float | None, typer.Option(help="Budget: average bits of the quantized weights.")] = None,
    bytes: Annotated[int | None, typer.Option(help="Budget: bytes of packed codes and steps.")] = None,
    pin: Annotated[list[str], typer.Option(help="Keep a width: NAME=BITS; NAME may be a pattern.")] = [],
    step: Annotated[str, typer.Option(help="A step per cluster, row or group:N.")] = "cluster",
    front: Annotated[Path | None, typer.Option(help="Write the whole front of size and cost there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Give every cluster its width: the least total cost within the budget, exactly.

    Example: greenasr allocate costs.json --bits 2.0 --pin 'embedding*=4' --out bit_map.json
    """
    table = read_costs(costs)
    if (bits is None) == (bytes is None):
        raise ValueError("give one budget: --bits AVERAGE or --bytes N")
    pinned = pins(pin, [cluster.name for cluster in table.clusters])
    try:
        bit_map = allocation.allocate(table, average_bits=bits, bytes=bytes, pinned=pinned, step=step)
    except ValueError as error:
        raise ValueError(f"{costs}: {error}") from error
    plan = allocation.plan(table, bit_map)
    write_json(out, bit_map.to_json())
    result: dict[str, Any] = {
        "bit_map": str(out),
        "average_bits": plan.average_bits,
        "bytes": plan.bytes,
        "cost": plan.cost,
        "bits": dict(bit_map.bits),
    }
    if front is not None:
        by: allocation.Measure = "bits" if bits is not None else "bytes"
        with bars() as tell:
            plans = allocation.front(
                table, by=by, pinned=pinned, step=step, on_plan=lambda done, of: tell("front", done, of, "")
            )
        write_json(front, front_json(plans))
        result |= {"front": str(front), "front_plans": len(plans)}
    counts = ", ".join(
        f"{n} at {b}"
        for b, n in sorted((b, list(bit_map.bits.values()).count(b)) for b in set(bit_map.bits.values()))
    )
    note = f"; {front}: {result['front_plans']} plans" if front is not None else ""
    show(
        result,
        as_json,
        f"{out}: {plan.average_bits:.3f} bits on average, {plan.bytes:,} bytes of codes and steps, "
        f"cost {plan.cost:.4g}; clusters by bits: {counts}{note}",
    )


def pins(options: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """NAME=BITS options as widths of clusters; a pattern pins all that it matches, later options win.

    >>> pins(["layers*=4", "layers.1=8"], ["embedding", "layers.0", "layers.1"])
    {'layers.0': 4, 'layers.1': 8}

    A name that matches nothing is kept, so that allocation can say which names are close.
    """
    pinned: dict[str, int] = {}
    for option in options:
        name, _, width = option.rpartition("=")
        if not name or not width.isdigit():
            raise ValueError(f"--pin {option}: expected NAME=BITS, for example 'embedding*=4'")
        matching = [name] if name in names else fnmatch.filter(names, name)
        pinned |= dict.fromkeys(matching or [name], int(width))
    return pinned


def front_json(plans: Sequence[allocation.Plan]) -> dict[str, Any]:
    """The front as a JSON value: sizes, costs and the width of every cluster."""
    return {
        "format": "greenasr front 1",
        "plans": [
            {"average_bits": p.average_bits, "bytes": p.bytes, "cost": p.cost, "bits": dict(p.bit_map.bits)}
            for p in plans
        ],
    }
