"""What stands around a network in its file: features before it, and behind it the words that it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenasr.data.features import Features
from greenasr.data.lexicon import Lexicon
from greenasr.data.text import Tokenizer, tokenizer_from_json
from greenasr.decode.context import PdfMap

HYBRID, TRANSDUCER = "greenasr hybrid units 1", "greenasr transducer units 1"


@dataclass(frozen=True, eq=False)
class Units:
    """What stands before and behind the network: features in, pdfs out, and the words that they spell."""

    features: Features
    pdf_map: PdfMap
    lexicon: Lexicon

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": HYBRID,
            "features": self.features.to_json(),
            "pdf_map": self.pdf_map.to_json(),
            "lexicon": self.lexicon.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Units:
        """Read what `to_json` wrote."""
        if value.get("format") != HYBRID:
            raise ValueError(f"its units are not '{HYBRID}'")
        return cls(
            Features.from_json(value["features"]),
            PdfMap.from_json(value["pdf_map"]),
            Lexicon.from_json(value["lexicon"]),
        )


@dataclass(frozen=True, eq=False)
class Labels:
    """What stands before and behind the network: features in, and words out of its labels."""

    features: Features
    tokenizer: Tokenizer

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": TRANSDUCER,
            "features": self.features.to_json(),
            "tokenizer": self.tokenizer.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Labels:
        """Read what `to_json` wrote."""
        if value.get("format") != TRANSDUCER:
            raise ValueError(f"its units are not '{TRANSDUCER}'")
        return cls(Features.from_json(value["features"]), tokenizer_from_json(value["tokenizer"]))


def check_outputs(path: str | Path, outputs: int, labels: Labels) -> None:
    """Refuse a transducer whose outputs are not its tokenizer's ids and a blank."""
    if outputs != labels.tokenizer.size + 1:
        raise ValueError(
            f"{path}: {outputs} outputs, but a tokenizer of {labels.tokenizer.size} ids beside the blank: "
            "pack it again with the tokenizer that it was trained with."
        )
