"""A packed model as ONNX files: what any ONNX Runtime runs, and sherpa-onnx where it knows such models.

    model.onnx                      language models, TDNN-F, QuartzNet, MatchboxNet
    encoder, decoder, joiner .onnx  transducers
    tokens.txt                      a line `token id` a label of a transducer or CTC model, <blk> 0

Tokens of word pieces are as sentencepiece has them, words begin with its mark of a space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from greenasr.data.features import Features
from greenasr.data.files import write_atomic
from greenasr.data.text import Letters, Vocabulary, WordPieces, tokenizer_from_json
from greenasr.runtime.format import Packed
from greenasr.runtime.onnx_lm import lstm_lm, transformer_lm
from greenasr.runtime.onnx_rnnt import rnnt
from greenasr.runtime.onnx_separable import matchboxnet, quartznet
from greenasr.runtime.onnx_tdnnf import tdnnf
from greenasr.runtime.weights import Weights

SPACE = "\u2581"
PLAIN = {"transformer": transformer_lm, "lstm": lstm_lm, "tdnnf": tdnnf, "matchboxnet": matchboxnet}


def models(packed: Packed, style: str = "nbits") -> dict[str, onnx.ModelProto]:
    """The ONNX models of a packed one, by name; ValueError for a network that none is written for.

    ``style`` "float" leaves out what MatMulNBits is for, "q8" and "q4" round weights anew: for comparison.
    """
    config, weights = packed.config, Weights(packed, "float32")
    weights.style = style
    about: dict[str, Any] = {"comment": f"greenasr {packed.model}", "version": 1, "model_author": "greenasr"}
    if packed.bit_map:
        about["average_bits"] = f"{packed.bit_map['average_bits']:.3f}"
    if packed.model in PLAIN:
        return {"model": PLAIN[packed.model](config, weights, about)}
    if packed.model not in ("rnnt", "quartznet"):
        raise ValueError(
            f"no ONNX is written for a '{packed.model}': choose {', '.join([*PLAIN, 'rnnt', 'quartznet'])}."
        )
    features = Features.from_json(packed.tokenizer["features"])
    about["features"] = json.dumps(features.to_json())
    if packed.model == "rnnt":
        return rnnt(config, weights, features, about)
    return {"model": quartznet(config, weights, features, about)}


def write(packed: Packed, folder: Path) -> list[Path]:
    """All files of a model into a folder, each whole or not at all; their paths."""
    made = models(packed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, each in made.items():
        paths.append(folder / f"{name}.onnx")
        write_atomic(paths[-1], each.SerializeToString())
    if packed.model in ("rnnt", "quartznet"):
        paths.append(folder / "tokens.txt")
        write_atomic(paths[-1], tokens(packed.tokenizer).encode())
    return paths


def tokens(units: Mapping[str, Any]) -> str:
    """The text of tokens.txt for labels of a tokenizer moved past the blank."""
    tokenizer = tokenizer_from_json(units["tokenizer"])
    names = list(tokenizer.pieces) if isinstance(tokenizer, WordPieces) else []
    if isinstance(tokenizer, Vocabulary):
        names = [SPACE + word for word in tokenizer.words]
    if isinstance(tokenizer, Letters):
        names = [letter.replace(" ", SPACE) for letter in tokenizer.letters]
    return "".join(f"{name} {i}\n" for i, name in enumerate(["<blk>", *names]))
