"""From a trained model to the packed file and back: where torch meets the format.

    codes, step = finish_(model)        w = codes * step, exactly, before packing and after unpacking

A parameter that appears under two names (a tied embedding and output layer) is stored once.  A generated
matrix is a buffer ``….signs`` of a ``state_dict`` (`ops.signs.Signs.to_numbers`) and a line of the file's
table of seeds, under the name ``….weight``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from greenasr.compress.clusters import span_key
from greenasr.ops import bits as bitpack
from greenasr.ops.signs import Signs
from greenasr.roles import BitMap, Quantized, Span
from greenasr.runtime import format as packed_format
from greenasr.runtime.activations import Rounding
from greenasr.runtime.format import Array, Packed, PackedSpan

SIGNS = ".signs"  # the end of the name of a buffer that names a generated matrix


def pack(
    path: str | Path,
    model_name: str,
    config: dict[str, Any],
    state_dict: Mapping[str, Tensor],
    quantized: Mapping[str, Quantized],
    bit_map: BitMap | None,
    tokenizer: dict[str, Any],
    recipe: dict[str, Any],
    rest_dtype: Literal["bfloat16", "float32"] = "bfloat16",
    measure: Callable[[Packed], dict[str, Any]] | None = None,
    rounding: Rounding | None = None,
) -> int:
    """Write a model to ``path``; the number of bytes on disk.

    ``quantized`` maps the span key ``name[start:stop]`` to codes and step, as `Compressor.finish_`
    returns it; what it does not name is stored in ``rest_dtype`` (integers as they are).  Without a
    ``bit_map`` everything is stored in float32: the full-precision model in the same format.

    ``measure`` gives the model's self test; without a ``rounding`` activations are int8 row by row.

    Raises ValueError if the bit map's spans are not exactly those of ``quantized``, or if a weight of
    ``state_dict`` is not exactly its codes times its step.
    """
    if rest_dtype not in ("bfloat16", "float32"):
        raise ValueError(f"the rest is stored in bfloat16 or float32, not {rest_dtype}")
    first = _first_names(state_dict, prefer={key.rsplit("[", 1)[0] for key in quantized})
    ties = {alias: name for alias, name in first.items() if alias != name}
    spans = _spans(state_dict, quantized, bit_map, ties)
    shapes = {span.name: tuple(state_dict[span.name].shape) for span in spans.values()}
    half = rest_dtype == "bfloat16" and bit_map is not None
    seeds = {
        f"{name.removesuffix(SIGNS)}.weight": Signs.from_numbers(tensor.tolist())
        for name, tensor in state_dict.items()
        if name.endswith(SIGNS)
    }
    rest = {
        name: _rest(tensor, half)
        for name, tensor in state_dict.items()
        if name not in shapes and name not in ties and not name.endswith(SIGNS)
    }
    plan = bit_map.to_json() if bit_map is not None else {}
    about = dict(tokenizer), dict(recipe)
    packed = Packed(
        model_name, dict(config), plan, spans, rest, *about, shapes, ties, seeds,
        rounding=rounding or Rounding(),
    )  # fmt: skip
    if measure is not None:
        packed = replace(packed, self_test=measure(packed))
    return packed_format.write(path, packed)


def unpack(path: str | Path) -> tuple[Packed, dict[str, Tensor]]:
    """Read a packed file: what it says of itself, and a ``state_dict`` in float32.

    Quantized weights equal the trained ones bit for bit; names that were tied share one tensor.  Generated
    matrices are named, as in the network's own ``state_dict``: the network generates them.
    """
    packed = packed_format.read(path)
    return packed, state_of(packed)


def state_of(packed: Packed) -> dict[str, Tensor]:
    """The ``state_dict`` of a packed model, see `unpack`."""
    tensors = {
        name: torch.from_numpy(np.array(array))
        for name, array in replace(packed, seeds={}).weights().items()
        if name not in packed.ties
    }
    for name, signs in packed.seeds.items():
        tensors[name.removesuffix(".weight") + SIGNS] = torch.tensor(signs.to_numbers())
    return tensors | {alias: tensors[name] for alias, name in packed.ties.items()}


def _first_names(state_dict: Mapping[str, Tensor], prefer: set[str]) -> dict[str, str]:
    """Every name -> the name under which its tensor is stored: a quantized one, else the first."""
    names: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in state_dict.items():
        same = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        names.setdefault(same if tensor.numel() else (name,), []).append(name)
    return {
        name: next((n for n in group if n in prefer), group[0]) for group in names.values() for name in group
    }


def _spans(
    state_dict: Mapping[str, Tensor],
    quantized: Mapping[str, Quantized],
    bit_map: BitMap | None,
    ties: Mapping[str, str],
) -> dict[str, PackedSpan]:
    """Codes of every span of the bit map as bytes, checked against the weights that they stand for."""
    planned: dict[str, tuple[Span, int]] = {}
    for cluster in bit_map.clusters if bit_map is not None else ():
        for span in cluster.spans:
            planned[span_key(span)] = (span, bit_map.bits[cluster.name] if bit_map else 0)
    if odd := sorted(planned.keys() ^ quantized.keys()):
        found, missing = (
            ("bit map", "quantized weights") if odd[0] in planned else ("quantized weights", "bit map")
        )
        raise ValueError(
            f"{odd[0]} is in the {found} and not in the {missing}: pack what `finish_` returned together "
            "with the bit map it trained for"
        )
    spans = {}
    for key, (span, bits) in planned.items():
        if span.name not in state_dict:
            raise ValueError(
                f"the bit map names {span.name}, which the model lacks: make it from this model's costs"
            )
        if span.name in ties:
            raise ValueError(
                f"{span.name} is tied to {ties[span.name]}, quantized too: count tied weights once"
            )
        weight = state_dict[span.name].detach()
        rows = weight.reshape(len(weight), math.prod(weight.shape[1:]))[span.start : span.stop].cpu()
        given = quantized[key]
        negative = None if given.negative is None else given.negative.detach().cpu().float()
        value = Quantized(given.codes.detach().cpu(), given.step.detach().cpu().float(), negative)
        if value.codes.shape != rows.shape or not torch.equal(value.dequantize(), rows.float()):
            raise ValueError(
                f"{key}: the model's weight {tuple(rows.shape)} is not its codes {tuple(value.codes.shape)} "
                "times their step: pack the model as `finish_` left it"
            )
        packed = bitpack.pack(_integers(value.codes, key), bits)
        spans[key] = PackedSpan(
            span.name,
            span.start,
            span.stop,
            rows.shape[1],
            bits,
            packed,
            value.step.numpy(),
            None if value.negative is None else value.negative.numpy(),
        )
    return spans


def _integers(codes: Tensor, key: str) -> Array:
    """Codes as int32; floats are accepted if they hold integers, as grids compute with them."""
    whole = codes.to(torch.int32)
    if codes.is_floating_point() and not torch.equal(whole.to(codes.dtype), codes):
        raise ValueError(f"{key}: its codes are not integers: pack level indices, not weights")
    return whole.numpy()


def _rest(tensor: Tensor, half: bool) -> Array:
    """An unquantized tensor as the file keeps it: float32, bfloat16 patterns, or integers."""
    if not tensor.is_floating_point():
        return tensor.detach().cpu().numpy()
    values: Array = tensor.detach().cpu().float().numpy()
    return packed_format.to_bfloat16(values) if half else values
