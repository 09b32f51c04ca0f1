"""The networks by name, as recipes and packed files call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from greenasr.models.lstm_lm import LSTMLM, LSTMConfig
from greenasr.models.matchboxnet import MatchboxNet, MatchboxNetConfig
from greenasr.models.quartznet import QuartzNet, QuartzNetConfig
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig
from greenasr.models.transformer_lm import TransformerConfig, TransformerLM

Kinds = dict[str, tuple[type[Any], type[Any]]]

LANGUAGE_MODELS: Kinds = {
    "transformer": (TransformerLM, TransformerConfig),
    "lstm": (LSTMLM, LSTMConfig),
}
ACOUSTIC_MODELS: Kinds = {
    "tdnnf": (Tdnnf, TdnnfConfig),
}
TRANSDUCERS: Kinds = {
    "rnnt": (Rnnt, RnntConfig),
}
CTC_MODELS: Kinds = {
    "quartznet": (QuartzNet, QuartzNetConfig),
}
KEYWORD_MODELS: Kinds = {
    "matchboxnet": (MatchboxNet, MatchboxNetConfig),
}
NETWORKS: Kinds = LANGUAGE_MODELS | ACOUSTIC_MODELS | TRANSDUCERS | CTC_MODELS | KEYWORD_MODELS


def configure(name: str, config: Mapping[str, Any]) -> Any:
    """The settings of a network, checked: ValueError for names and settings that do not exist or fit."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network '{name}': choose {' or '.join(NETWORKS)}.")
    settings = NETWORKS[name][1]
    try:
        return settings(**config)
    except TypeError as error:
        wrong = str(error).partition(") ")[2] or str(error)
        known = ", ".join(field.name for field in fields(settings))
        raise ValueError(f"network '{name}': {wrong}; its settings are {known}.") from None


def build(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A new network of that name and configuration, with random weights.

    >>> build("lstm", {"vocab": 5, "dim": 4, "layers": 1}).output
    Linear(in_features=4, out_features=5, bias=True)

    Raises ValueError as `configure` does.
    """
    settings = configure(name, config)
    model = NETWORKS[name][0](settings)
    assert isinstance(model, nn.Module)
    return model
