"""Models as files: the packed file is the only one, for float and for quantized models alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from greenasr.data.text import Tokenizer, tokenizer_from_json
from greenasr.pipeline.self_tests import measured
from greenasr.roles import BitMap, Quantized
from greenasr.runtime.activations import Rounding
from greenasr.runtime.pack import pack, unpack
from greenasr.tasks.networks import LANGUAGE_MODELS, NETWORKS, Kinds, build

Units = TypeVar("Units")


class Describable(Protocol):
    """What stands around a network, as plain data: a tokenizer, or features and units."""

    def to_json(self) -> dict[str, Any]:
        """A JSON value that its reader takes."""
        ...


class Opened(Protocol):
    """What every packed network gives."""

    @property
    def model(self) -> nn.Module:
        """In evaluation mode."""
        ...

    @property
    def bit_map(self) -> BitMap | None:
        """Its plan; None in full precision."""
        ...


@dataclass(frozen=True)
class Saved:
    """A model read from its file, with everything that it needs."""

    model: nn.Module
    tokenizer: Tokenizer
    bit_map: BitMap | None
    recipe: Mapping[str, Any]


def save(
    path: Path,
    model: nn.Module,
    units: Describable,
    recipe: Mapping[str, Any],
    quantized: Mapping[str, Quantized] | None = None,
    bit_map: BitMap | None = None,
    rounding: Rounding | None = None,
) -> int:
    """Pack a model with what stands around it and its self test; returns the file's size in bytes."""
    name = next(name for name, (network, _) in NETWORKS.items() if isinstance(model, network))
    config = model.to_config()  # type: ignore[operator]
    return pack(
        path,
        name,
        config,
        model.state_dict(),
        dict(quantized or {}),
        bit_map,
        units.to_json(),
        dict(recipe),
        measure=measured,
        rounding=rounding,
    )


def load(path: str | Path) -> Saved:
    """Read a packed language model; ValueError when it is damaged or of another kind."""
    cure = "give one that `greenasr train` or `greenasr compress` wrote"
    return Saved(*opened(path, LANGUAGE_MODELS, tokenizer_from_json, "language model", cure))


def opened(
    path: str | Path, kinds: Kinds, read: Callable[[dict[str, Any]], Units], what: str, cure: str
) -> tuple[Any, Units, BitMap | None, Mapping[str, Any]]:
    """Network in evaluation mode, units, plan and recipe of a packed file; ``read`` makes units of JSON.

    ValueError, which says that it is no ``what`` and its ``cure``, where the network is not of ``kinds``.
    """
    packed, state = unpack(path)
    try:
        if packed.model not in kinds:
            raise ValueError(f"the network is a '{packed.model}'")
        units = read(packed.tokenizer)
        model = build(packed.model, packed.config)
        model.load_state_dict(state)
        bit_map = BitMap.from_json(packed.bit_map) if packed.bit_map else None
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path}: a packed file, but no {what} ({str(error).splitlines()[0]}): {cure}"
        ) from error
    model.eval()
    return model, units, bit_map, packed.recipe


def span_weights(path: str | Path) -> dict[str, Tensor]:
    """The quantized weights of a packed model, span key -> (rows, cols), and all others by their name."""
    packed, state = unpack(path)
    spans = {key: state[span.name].flatten(1)[span.start : span.stop] for key, span in packed.spans.items()}
    quantized = {span.name for span in packed.spans.values()}
    rest = {name: tensor for name, tensor in state.items() if name not in quantized}
    return spans | rest
