"""A packed file as a network that runs: NumPy and our kernels, no torch.

    load(path) -> network, tokenizer or units, recipe

Networks hold nothing that changes: recurrent state and the keys and values of a Transformer are values that
the caller keeps, so threads may share one network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.runtime import format as packed_format
from greenasr.runtime import numerics
from greenasr.runtime.activations import Activations
from greenasr.runtime.format import Packed
from greenasr.runtime.lstm_lm import LstmLm
from greenasr.runtime.matchboxnet import MatchboxNet
from greenasr.runtime.quartznet import QuartzNet
from greenasr.runtime.rnnt import Rnnt
from greenasr.runtime.tdnnf import Tdnnf
from greenasr.runtime.transformer_lm import TransformerLm
from greenasr.runtime.weights import Weights

Network = TransformerLm | LstmLm | Tdnnf | Rnnt | QuartzNet | MatchboxNet
FAMILIES: dict[str, Callable[[Mapping[str, Any], Weights], Network]] = {
    "transformer": TransformerLm,
    "lstm": LstmLm,
    "tdnnf": Tdnnf,
    "rnnt": Rnnt,
    "quartznet": QuartzNet,
    "matchboxnet": MatchboxNet,
}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network and what its file says of it: ``units`` is its tokenizer, or features and units."""

    kind: str
    network: Any
    config: Mapping[str, Any]
    units: dict[str, Any]
    bit_map: dict[str, Any]
    recipe: Mapping[str, Any]


def load(path: str | Path, activations: Activations | None = None) -> Loaded:
    """Read a packed file and make its network ready to run, with the activations that it names, or others.

    ValueError in one line for a file that is damaged or of a network that the runtime does not have.
    """
    packed = packed_format.read(path)
    return Loaded(
        packed.model, build(packed, activations, path), packed.config, packed.tokenizer, packed.bit_map,
        packed.recipe,
    )  # fmt: skip


def build(
    packed: Packed, activations: Activations | None = None, where: str | Path = "packed model"
) -> Network:
    """The network of a packed model, whose self test it has passed; ``where`` names it in errors.

    ``activations`` of another kind than the file's own are for comparing.
    """
    kind = activations or packed.rounding.kind
    if packed.model not in FAMILIES:
        raise ValueError(
            f"{where}: the network is a '{packed.model}', the runtime has {', '.join(FAMILIES)}: run it with "
            "--engine torch."
        )
    try:
        weights = Weights(packed, kind)
        network = FAMILIES[packed.model](packed.config, weights)
        weights.check_steps()
        if packed.self_test:
            test = numerics.SelfTest.from_json(packed.self_test)
            numerics.verify(packed.model, packed.config, network, test, kind)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise ValueError(
            f"{where}: its settings do not describe a '{packed.model}' ({error!r}): pack the model again."
        ) from error
    return network
