"""TLG: everything that may be said, as one transducer from a CTC network's outputs to words.

    min(T∘det(L∘G))       G words (`grammar_fst`), L their spellings in the network's labels (`lexicon_fst`)

T has a state for the blank, where it begins, and one for each label k:

    any --k:k--> k   (not k itself)       k --k:ε--> k       any --blank:ε--> blank

so that every alignment of a labelling is one path and equal neighbours need a blank between them, within
words and across them.  Graves et al. 2006, §4.1; Miao et al. 2015 (EESEN, arXiv 1507.08240), whose token
transducers are the same but for the last point.  No pause is modelled: that is the blank's part.

The result is a `DecodingGraph` whose "pdfs" are the network's outputs, searched by `wfst.Decoder`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from greenasr.data.files import digest
from greenasr.decode.fst import Fst, Ints
from greenasr.decode.graph import DecodingGraph, FilePath, cached, over, said_graph
from greenasr.decode.lexicon_fst import BLANK, FIRST, INSIDE, n_labels

FORMAT = "greenasr ctc graph 1"
Spellings = Mapping[str, Sequence[int]]


def ctc_graph_key(spellings: Spellings, classes: int, arpa: FilePath, unk: str | None = None) -> str:
    """Digest of everything that a graph is made of."""
    value: list[Any] = [FORMAT, {word: list(y) for word, y in spellings.items()}, classes, digest(arpa), unk]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def cached_ctc_graph(
    folder: FilePath, spellings: Spellings, classes: int, arpa: FilePath, unk: str | None = None
) -> DecodingGraph:
    """The graph in ``folder`` if it is whole and of the same inputs, else one built and saved there."""
    key = ctc_graph_key(spellings, classes, arpa, unk)
    return cached(folder, key, lambda: build_ctc_graph(spellings, classes, arpa, unk))


def build_ctc_graph(
    spellings: Spellings, classes: int, arpa: FilePath, unk: str | None = None
) -> DecodingGraph:
    """Compile each word's labels (1 to ``classes`` - 1, 0 is the blank) and an ARPA file into a graph.

    Words of the model without a spelling are left out and counted; ``unk`` as in `graph.build_graph`.
    """
    began = time.perf_counter()
    for word, labels in spellings.items():
        if not labels or not 1 <= min(labels) <= max(labels) < classes:
            raise ValueError(
                f"'{word}' is spelled {list(labels)}, labels are 1 to {classes - 1}: spell words by the "
                "tokenizer that the network was made with."
            )
    said = said_graph({word: [tuple(y)] for word, y in spellings.items()}, classes, arpa, 0.0, unk)
    topology, outputs, kind = ctc_fst(classes, said.n_symbols)
    fst = over(topology, said.fst, len(outputs))
    meta = {
        "key": ctc_graph_key(spellings, classes, arpa, unk),
        **said.meta,
        "states": fst.n_states,
        "arcs": fst.n_arcs,
        "seconds": round(time.perf_counter() - began, 3),
    }
    return DecodingGraph(fst, ("<eps>", *said.words), outputs, kind, classes, meta)


def ctc_fst(classes: int, n_symbols: int) -> tuple[Fst, Ints, Ints]:
    """T; and what its inputs 1, 2, … emit: the network's output and its kind, (2C - 1,) each.

    Inputs above those are the disambiguation symbols; outputs are `lexicon_fst`'s inputs.
    """
    states = np.arange(classes)  # 0 is the blank's
    labels = np.arange(1, classes)
    outputs = np.concatenate([[0], labels, labels])
    kind = np.concatenate([[BLANK], np.full(classes - 1, INSIDE), np.full(classes - 1, FIRST)])
    src, label = (grid.reshape(-1) for grid in np.meshgrid(states, labels, indexing="ij"))
    src, label = src[src != label], label[src != label]
    at, symbol = (grid.reshape(-1) for grid in np.meshgrid(states, np.arange(n_symbols), indexing="ij"))
    none = np.zeros(classes, np.int64)
    columns = [
        (src, label, 1 + label, 1 + label),  # inside a word: row ``label``, which is input 1 + label
        (src, label, classes + label, 1 + classes + label),  # a word's first
        (labels, labels, 1 + labels, none[1:]),
        (states, none, none + 1, none),
        (at, at, 1 + len(outputs) + symbol, n_labels(classes) + symbol),
    ]
    begin, end, reads, writes = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Fst.of(0, np.zeros(classes), begin, end, reads, writes, np.zeros(len(begin))), outputs, kind
