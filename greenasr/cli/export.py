"""`greenasr export`: a packed model as ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.progress import show
from greenasr.runtime import format as packed_format


def export(
    model: Annotated[Path, typer.Argument(help="A packed model.")],
    onnx: Annotated[Path, typer.Option(help="Folder for the ONNX files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write ONNX that ONNX Runtime runs, low-bit layers as MatMulNBits of 2, 4 or 8 bits.

    Transducers and CTC models also run in sherpa-onnx: encoder.onnx, decoder.onnx and joiner.onnx, or
    model.onnx, with tokens.txt; they take raw fbank and do CMVN themselves.

    Example: greenasr export runs/lm2/model.packed --onnx runs/lm2/onnx
    """
    packed = packed_format.read(model)
    try:
        from greenasr.runtime import onnx_export
    except ImportError:
        raise ValueError(
            "writing ONNX needs the package onnx, which is not installed: pip install greenasr[export]."
        ) from None
    try:
        paths = onnx_export.write(packed, onnx)
    except ValueError as error:
        raise ValueError(f"{model}: {error}") from None
    sizes = {path.name: path.stat().st_size for path in paths}
    line = f"{onnx}: {', '.join(f'{name} {size / 1e6:.3g} MB' for name, size in sizes.items())}"
    show({"out": str(onnx), "bytes": sizes}, as_json, line)
