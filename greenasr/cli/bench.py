"""`greenasr bench`: time, bytes and kernels of a packed model's layers, beside the machine and its peers."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from greenasr.cli.progress import out
from greenasr.runtime import bench as benches
from greenasr.runtime import format as packed_format
from greenasr.runtime.kernels import native


def bench(
    model: Annotated[Path, typer.Argument(help="A packed model.")],
    rows: Annotated[int, typer.Option(help="Rows that a layer gets at once; one is a step.")] = 1,
    peers: Annotated[bool, typer.Option(help="Also torch, ONNX Runtime and OpenVINO, as installed.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of every engine.")] = 1,
    rounds: Annotated[int, typer.Option(help="Turns of every engine.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print bits, bytes, kernel, time and share of the machine's ceiling, layer by layer and in all.

    The whole model runs a workload of its kind; with --peers other engines take turns with it on the same.

    Example: greenasr bench runs/lm2/model.packed --rows 20 --peers
    """
    if min(rows, threads, rounds) < 1:
        raise ValueError("--rows, --threads and --rounds are 1 or more.")
    if native.available():
        native.set_threads(threads)
    packed = packed_format.read(model)
    layers, ceiling, network = benches.layers(packed, rows)
    given = benches.inputs(packed.model, packed.config)
    contestants = {"greenasr": benches.ours(packed.model, network, given)}
    if peers:
        from greenasr.pipeline.peers import peers as others

        contestants |= dict(others(packed, given, threads))
    times = benches.interleaved(contestants, rounds)
    found: dict[str, Any] = {
        "layers": [asdict(layer) for layer in layers],
        "bytes": sum(layer.nbytes for layer in layers),
        "ms": sum(layer.ms for layer in layers),
        "ceiling": None if ceiling is None else asdict(ceiling),
        "workload": benches.WORKLOADS[packed.model],
        "whole_ms": times,
    }
    if as_json:
        print(dumps(found))
        return
    table = Table("layer", "shape", "bits", "bytes", "kernel", "ms", "of ceiling")
    for layer in layers:
        share = "-" if layer.share is None else f"{100 * layer.share:.0f} %"
        shape = " x ".join(map(str, layer.shape))
        cells = (layer.bits, f"{layer.nbytes:,}", layer.kernel, f"{layer.ms:.4f}", share)
        table.add_row(layer.name, shape, *cells)
    table.add_row("all products", "", "", f"{found['bytes']:,}", "", f"{found['ms']:.4f}", "")
    out.print(table)
    if ceiling is not None:
        line = f"ceiling: {ceiling.read / 1e9:.1f} GB/s read, {ceiling.operations / 1e12:.2f} T operations/s"
        out.print(f"{line}, {native.isa()}, {threads} thread(s), {rows} row(s)", highlight=False)
    out.print(f"whole model, {found['workload']}:", highlight=False)
    for name, ms in times.items():
        out.print(f"  {name:<26}{ms:>10.3f} ms  {ms / times['greenasr']:.2f}", highlight=False)
