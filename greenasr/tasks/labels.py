"""What end-to-end networks are taught to say: labels of texts as batches, and which of them fit their frames.

Shapes: N batch, U labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from greenasr.data.feature_store import FeatureStore
from greenasr.data.text import Tokenizer
from greenasr.decode.labels import labels_of
from greenasr.decode.transducer import BLANK


def padded_labels(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts as labels, [N] -> (N, U) padded with the blank, and their numbers (N,).

    >>> from greenasr.data.text import Vocabulary
    >>> padded_labels(Vocabulary(("<eos>", "a", "b", "<unk>")), ["b a", ""])
    (tensor([[3, 2],
            [0, 0]]), tensor([2, 0]))
    """
    rows = [labels_of(tokenizer, text) for text in texts]
    lens = torch.tensor([len(row) for row in rows])
    padded = torch.full((len(rows), int(lens.max())), BLANK)
    for row, labels in zip(padded, rows, strict=True):
        row[: len(labels)] = torch.tensor(labels, dtype=torch.int64)
    return padded, lens


def n_labels(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """The number of labels of texts, the end of each counted as one.

    >>> from greenasr.data.text import Vocabulary
    >>> n_labels(Vocabulary(("<eos>", "a", "b", "<unk>")), ["b a", ""])
    4
    """
    return sum(len(labels_of(tokenizer, text)) + 1 for text in texts)


def with_room(
    store: FeatureStore,
    ids: Sequence[str],
    tokenizer: Tokenizer,
    needs: Callable[[list[int]], int],
    room: Any,
) -> list[str]:
    """The utterances whose labels need no more than there is: ``room`` (U,) is of the store's utterances."""
    counted: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in counted:
            counted[text] = needs(labels_of(tokenizer, text))
        return counted[text]

    places = ((utt_id, store.place[utt_id]) for utt_id in ids)
    return [utt_id for utt_id, place in places if count(store.texts[place]) <= room[place]]


def check_outputs(outputs: int, tokenizer: Tokenizer) -> None:
    """Refuse a network whose outputs are not a blank and the tokenizer's ids."""
    if outputs != tokenizer.size + 1:
        raise ValueError(
            f"the network has {outputs} outputs, the tokenizer {tokenizer.size} ids and "
            "the blank: use the tokenizer that the model was made with."
        )
