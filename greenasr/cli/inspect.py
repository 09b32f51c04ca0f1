"""`greenasr inspect`: what a file holds, cluster by cluster, and what it really weighs."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from greenasr.cli.progress import out
from greenasr.compress.allocate import cluster_bytes
from greenasr.compress.clusters import span_key
from greenasr.data.files import read_json
from greenasr.roles import BitMap, CostTable
from greenasr.runtime import format as packed_format
from greenasr.runtime.format import Packed


def inspect(
    path: Annotated[Path, typer.Argument(help="A packed model, a bit_map.json or a costs.json.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List a file's clusters, bits and bytes; a packed model is verified against its checksum.

    Example: greenasr inspect runs/lm2/model.packed
    """
    found = describe(path)
    if json:
        print(dumps(found))
        return
    rows = found["clusters"]
    if rows:
        table = Table(*(key.replace("_", " ") for key in rows[0]))
        for column, value in zip(table.columns, rows[0].values(), strict=True):
            column.justify = "left" if isinstance(value, str) else "right"
        for row in rows:
            table.add_row(*(_cell(key, value) for key, value in row.items()))
        out.print(table)
    for key, value in found.items():
        if key != "clusters":
            out.print(f"{key.replace('_', ' ')}: {_cell(key, value)}", highlight=False, soft_wrap=True)


def describe(path: Path) -> dict[str, Any]:
    """A file's kind, clusters and totals as plain values.

    Raises ValueError for a file that is none of the three kinds, and for a damaged one.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if start[:1] not in (b"{", b"[") or start[4:] == bytes(4):  # a header length, not text
        return _packed(packed_format.read(path), path)
    value = read_json(path)
    try:
        kind = value.get("format")
        if kind == "greenasr bit map 1":
            return _bit_map(BitMap.from_json(value))
        if kind == "greenasr costs 1":
            return _costs(CostTable.from_json(value))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: a damaged JSON file ({error!r}): make it again") from error
    raise ValueError(f"{path}: format is {kind!r}, expected a packed model, a bit map or a cost table")


def _packed(packed: Packed, path: Path) -> dict[str, Any]:
    """Clusters of a packed model, then where every byte of the file goes."""
    size = path.stat().st_size
    plan = BitMap.from_json(packed.bit_map) if packed.bit_map else None
    rows = []
    for cluster in plan.clusters if plan else ():
        held = sum(packed.spans[span_key(s)].nbytes for s in cluster.spans)
        bits = plan.bits[cluster.name] if plan else 0
        rows.append(
            {
                "cluster": cluster.name,
                "bits": bits,
                "weights": cluster.numel,
                "bytes": held,
                "share": held / size,
            }
        )
    quantized = sum(span.nbytes for span in packed.spans.values())
    rest = sum(array.nbytes for array in packed.rest.values())
    generated = {
        "generated_weights": sum(signs.rows * signs.cols for signs in packed.seeds.values()),
        "seeds": {name: str(signs) for name, signs in packed.seeds.items()},
    }
    return {
        "kind": "packed model",
        "model": packed.model,
        "config": packed.config,
        "clusters": rows,
        "step": plan.step if plan else None,
        "average_bits": plan.average_bits if plan else None,
        "quantized_weights": sum(span.numel for span in packed.spans.values()),
        "quantized_bytes": quantized,
        "unquantized_weights": sum(array.size for array in packed.rest.values()),
        "unquantized_bytes": rest,
        **(generated if packed.seeds else {}),
        "metadata_bytes": size - quantized - rest,
        "file_bytes": size,
        "fp32_weight_bytes": packed.unquantized_bytes,
        "ratio": packed.unquantized_bytes / size,
        "activations": packed.rounding.kind,
        "difference_from_torch": packed.self_test.get("difference"),
        "recipe": packed.recipe,
    }


def _bit_map(plan: BitMap) -> dict[str, Any]:
    """Clusters of a plan, with the bytes that they will take."""
    sizes = {c.name: cluster_bytes(c, plan.bits[c.name], plan.step) for c in plan.clusters}
    total = sum(sizes.values())
    return {
        "kind": "bit map",
        "clusters": [
            {
                "cluster": c.name,
                "bits": plan.bits[c.name],
                "weights": c.numel,
                "bytes": sizes[c.name],
                "share": sizes[c.name] / total,
            }
            for c in plan.clusters
        ],
        "step": plan.step,
        "average_bits": plan.average_bits,
        "quantized_weights": sum(c.numel for c in plan.clusters),
        "quantized_bytes": total,
    }


def _costs(table: CostTable) -> dict[str, Any]:
    """Clusters of a cost table, one column a width."""
    widths = sorted({bits for row in table.costs.values() for bits in row})
    return {
        "kind": "cost table",
        "method": table.method,
        "clusters": [
            {"cluster": c.name, "weights": c.numel}
            | {f"{bits} bits": table.costs[c.name].get(bits) for bits in widths}
            for c in table.clusters
        ],
        "quantized_weights": sum(c.numel for c in table.clusters),
    }


def _cell(key: str, value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if key == "share":
        return f"{100 * value:.1f} %"
    if key == "ratio":
        return f"{value:.2f} (weights in fp32 over this file)"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(value if isinstance(value, str) else dumps(value, ensure_ascii=False))
