"""HCLG: everything that may be said, as one transducer from the network's outputs to words.

    H∘min(C∘det(L∘G))        G words (`grammar_fst`), L their phones (`lexicon_fst`), C and H the pdf map

C gives every phone after every left phone its entry and loop pdf; left contexts that no phone tells apart are
one state, so that a monophone map costs nothing.  Since C maps phones back uniquely, C∘LG stays deterministic
and needs no second determinization (nor, measured, a minimization before).  H comes last, on arrays: an arc
emits the entry pdf and ends in a state that loops on the loop pdf; a state that different loops reach gets
one looping copy each.  Mohri, Pereira and Riley 2008, §5; the order of Kaldi's mkgraph.sh.  The topology's
transition probabilities (one half each, one factor a frame) are the same for all paths and left out.

An input label is 1 + an index into ``pdf`` and ``kind``: the same pdf at a word's beginning, inside a word
and in the optional silence has three labels, so that an alignment tells where words begin.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kaldifst
import numpy as np

from greenasr.data.files import digest, read_json, write_atomic, write_json
from greenasr.data.lexicon import Lexicon
from greenasr.decode.arpa import read_arpa
from greenasr.decode.context import BOUNDARY, PdfMap
from greenasr.decode.fst import Fst, Ints, from_bytes, from_kaldi, to_bytes, to_kaldi, to_kaldi_vector
from greenasr.decode.grammar_fst import grammar
from greenasr.decode.lexicon_fst import FIRST, INSIDE, SILENCE, lexicon_fst, n_labels
from greenasr.decode.ngram import BOS, EOS

FilePath = str | os.PathLike[str]
FORMAT = "greenasr decoding graph 1"
RESERVED = ("<eps>", "#0")


@dataclass(frozen=True, eq=False)
class DecodingGraph:
    """HCLG with its labels: input i emits ``pdf[i - 1]`` as ``kind[i - 1]``, output o is ``words[o]``.

    ``words[0]`` is epsilon.  ``meta`` has what was counted while building, and the ``key`` of the inputs.
    """

    fst: Fst
    words: tuple[str, ...]
    pdf: Ints
    kind: Ints
    n_pdfs: int
    meta: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: FilePath) -> None:
        """Write HLG.fst, words.txt and, last, meta.json, which names the digests of the other two."""
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        (where / "meta.json").unlink(missing_ok=True)
        write_atomic(where / "HLG.fst", to_bytes(self.fst))
        write_atomic(where / "words.txt", "".join(f"{w} {i}\n" for i, w in enumerate(self.words)))
        value = {
            "format": FORMAT,
            "digests": {name: digest(where / name) for name in ("HLG.fst", "words.txt")},
            "n_pdfs": self.n_pdfs,
            "pdf": self.pdf.tolist(),
            "kind": self.kind.tolist(),
            "meta": dict(self.meta),
        }
        write_json(where / "meta.json", value)

    @classmethod
    def load(cls, folder: FilePath) -> DecodingGraph:
        """Read what `save` wrote; ValueError where it is not whole."""
        where = Path(folder)
        value = read_json(where / "meta.json")
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(f"{where / 'meta.json'}: not of a '{FORMAT}'. Build the graph again.")
        for name, expected in value["digests"].items():
            if (found := digest(where / name)) != expected:
                raise ValueError(
                    f"{where / name}: digest {found}, expected {expected}: it was changed or cut short. "
                    "Build the graph again."
                )
        lines = (where / "words.txt").read_text(encoding="utf-8").splitlines()
        return cls(
            from_bytes((where / "HLG.fst").read_bytes(), str(where / "HLG.fst")),
            tuple(line.split(" ")[0] for line in lines),
            np.array(value["pdf"], np.int64),
            np.array(value["kind"], np.int64),
            int(value["n_pdfs"]),
            value["meta"],
        )


def graph_key(
    lexicon: Lexicon, pdf_map: PdfMap, arpa: FilePath, silence_prob: float = 0.5, unk: str | None = None
) -> str:
    """Digest of everything that a graph is made of: equal keys, equal graphs."""
    value = [FORMAT, lexicon.to_json(), pdf_map.to_json(), digest(arpa), silence_prob, unk]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def cached_graph(
    folder: FilePath,
    lexicon: Lexicon,
    pdf_map: PdfMap,
    arpa: FilePath,
    silence_prob: float = 0.5,
    unk: str | None = None,
) -> DecodingGraph:
    """The graph in ``folder`` if it is whole and of the same inputs, else one built and saved there."""
    key = graph_key(lexicon, pdf_map, arpa, silence_prob, unk)
    return cached(folder, key, lambda: build_graph(lexicon, pdf_map, arpa, silence_prob, unk))


def cached(folder: FilePath, key: str, build: Callable[[], DecodingGraph]) -> DecodingGraph:
    """The graph in ``folder`` if it is whole and of the ``key``, else what ``build`` gives, saved there."""
    try:
        graph = DecodingGraph.load(folder)
        if graph.meta.get("key") == key:
            return graph
    except (FileNotFoundError, ValueError):
        pass
    graph = build()
    graph.save(folder)
    return graph


def build_graph(
    lexicon: Lexicon, pdf_map: PdfMap, arpa: FilePath, silence_prob: float = 0.5, unk: str | None = None
) -> DecodingGraph:
    """Compile a lexicon, a pdf map and an ARPA file (.gz too) into a `DecodingGraph`.

    Words of the model that the lexicon lacks are left out and counted.  ``unk`` names the model's unknown
    word (``<unk>``): its probability is shared evenly by the lexicon's words that the model lacks, which
    are left out otherwise.  ``silence_prob`` is the probability of a pause before, between and after words.
    """
    if not 0 <= silence_prob < 1:
        raise ValueError(f"silence probability is {silence_prob}, it should be at least 0 and below 1.")
    phone_ids = _phone_ids(lexicon, pdf_map)
    began = time.perf_counter()
    prons = {
        word: [tuple(phone_ids[phone] for phone in pron) for pron in some]
        for word, some in lexicon.prons.items()
    }
    said = said_graph(prons, len(pdf_map.phones), arpa, silence_prob, unk)
    c_fst, triples = context_fst(pdf_map, said.n_symbols)
    fst, pdf, kind = with_loops(over(c_fst, said.fst, len(triples)), triples)
    meta = {
        "key": graph_key(lexicon, pdf_map, arpa, silence_prob, unk),
        **said.meta,
        "states": fst.n_states,
        "arcs": fst.n_arcs,
        "seconds": round(time.perf_counter() - began, 3),
    }
    return DecodingGraph(fst, ("<eps>", *said.words), pdf, kind, pdf_map.n_pdfs, meta)


@dataclass(frozen=True, eq=False)
class SaidGraph:
    """det(L∘G): phones, with ``n_symbols`` disambiguation symbols above them, to ``words``, from 1 on."""

    fst: Fst
    n_symbols: int
    words: tuple[str, ...]
    meta: Mapping[str, Any]


def said_graph(
    prons: Mapping[str, Sequence[tuple[int, ...]]],
    n_phones: int,
    arpa: FilePath,
    silence_prob: float,
    unk: str | None,
) -> SaidGraph:
    """Pronunciations in phone ids, of which 0 is the silence, and an ARPA file; see `build_graph`."""
    if odd := [word for word in RESERVED if word in prons]:
        raise ValueError(f"the lexicon has the word '{odd[0]}', a symbol of the graph's own. Rename it.")
    lm = read_arpa(arpa)
    if unk is not None and unk not in lm.ids:
        raise ValueError(
            f"{arpa}: no unigram '{unk}' to share among unlisted words. Name the model's own, or none."
        )
    sayable = [word for word in prons if word not in (BOS, EOS)]
    unlisted = [word for word in sayable if word not in lm.ids]
    spoken = sayable if unk is not None else [word for word in sayable if word in lm.ids]
    if not spoken:
        raise ValueError(
            f"{arpa}: none of its {len(lm.words)} words is among the lexicon's {len(prons)}, e.g. "
            f"'{next(iter(prons), '')}'. Give a model and a lexicon of one spelling and case."
        )
    left_out = [word for word in lm.words if word not in prons and word not in (BOS, EOS, unk)]
    word_ids = {word: i for i, word in enumerate(spoken, 1)}
    backoff = len(spoken) + 1
    shared = {unk: [word_ids[word] for word in unlisted]} if unk is not None else {}
    g = grammar(lm, word_ids, backoff, shared)
    l_fst, n_symbols = lexicon_fst(
        {i: prons[word] for word, i in word_ids.items()}, n_phones, silence_prob, backoff
    )
    meta = {
        "words": len(spoken),
        "ngrams": list(lm.counts),
        "lm_words_left_out": len(left_out),
        "lm_words_left_out_first": sorted(left_out)[:20],
        "lexicon_words_unlisted": len(unlisted),
    }
    return SaidGraph(_determinized(l_fst, g, str(arpa)), n_symbols, tuple(spoken), meta)


def _phone_ids(lexicon: Lexicon, pdf_map: PdfMap) -> dict[str, int]:
    ids = {phone: i for i, phone in enumerate(pdf_map.phones)}
    if lexicon.silence != pdf_map.phones[0]:
        raise ValueError(
            f"the lexicon's silence is '{lexicon.silence}', the pdf map's '{pdf_map.phones[0]}'. "
            "Use the lexicon that the acoustic model was trained with."
        )
    if odd := sorted(set(lexicon.phones).difference(ids)):
        raise ValueError(
            f"the lexicon has the phone '{odd[0]}' ({len(odd)} such), which is not among the pdf map's "
            f"{len(ids)}. Use the phones that the acoustic model was trained with."
        )
    return ids


def _determinized(l_fst: Fst, g: Fst, where: str) -> Fst:
    """det(L∘G): at most one arc a label and state, the words' weights as early as that allows."""
    left = to_kaldi_vector(l_fst)
    kaldifst.arcsort(left, "olabel")
    lg = kaldifst.StdVectorFst(kaldifst.compose(left, to_kaldi(g)))
    if lg.start < 0:
        raise ValueError(
            f"{where}: no sentence of the lexicon's words has a probability. Give a model that lists "
            "</s>, and words of the lexicon after <s>."
        )
    kaldifst.determinize_star(lg, use_log=True)
    return from_kaldi(lg)


def context_fst(pdf_map: PdfMap, n_symbols: int) -> tuple[Fst, Ints]:
    """C: what every phone emits after every left phone; its inputs' rows (kind, phone, entry, loop pdf).

    Input 1 + i is row i, and those above are the disambiguation symbols; outputs are `lexicon_fst`'s inputs.
    """
    table = pdf_map.table.astype(np.int64)
    n_phones = len(pdf_map.phones)
    unique, context = np.unique(table.reshape(n_phones + 1, -1), axis=0, return_inverse=True)
    context = context.reshape(-1)
    n = len(unique)
    pairs = unique.reshape(n, n_phones, 2)
    sources, rows, outputs, targets = [], [], [], []
    for kind, phones in (
        (INSIDE, np.arange(n_phones)),
        (FIRST, np.arange(n_phones)),
        (SILENCE, np.array([0])),
    ):
        src, phone = (grid.reshape(-1) for grid in np.meshgrid(np.arange(n), phones, indexing="ij"))
        emits = pairs[src, phone]
        sources.append(src)
        rows.append(np.column_stack([np.full_like(phone, kind), phone, emits]))
        outputs.append(1 + kind * n_phones + phone)
        targets.append(context[1 + phone])
    triples, label = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
    src, symbol = (
        grid.reshape(-1) for grid in np.meshgrid(np.arange(n), np.arange(n_symbols), indexing="ij")
    )
    fst = Fst.of(
        int(context[BOUNDARY]),
        np.zeros(n),
        np.concatenate([*sources, src]),
        np.concatenate([*targets, src]),
        np.concatenate([1 + label.reshape(-1), 1 + len(triples) + symbol]),
        np.concatenate([*outputs, n_labels(n_phones) + symbol]),
        np.zeros(len(label.reshape(-1)) + len(src)),
    )
    return fst, triples


def over(first: Fst, lg: Fst, n_rows: int) -> Fst:
    """min(first∘LG) without disambiguation symbols, which are the inputs above ``n_rows``."""
    left = to_kaldi_vector(first)
    kaldifst.arcsort(left, "olabel")
    clg = from_kaldi(kaldifst.compose(left, to_kaldi(lg)))
    plain = np.where(clg.ilabel > n_rows, 0, clg.ilabel)
    fst = to_kaldi_vector(Fst.of(clg.start, clg.final, clg.src, clg.dst, plain, clg.olabel, clg.weight))
    kaldifst.minimize_encoded(fst)
    return from_kaldi(fst)


def with_loops(fst: Fst, triples: Ints) -> tuple[Fst, Ints, Ints]:
    """H: entry pdfs on the arcs, loop pdfs on the states they reach; the labels' pdfs and kinds, (L,) each.

    A state that is reached with one loop pdf alone loops itself; any other gets, for each loop pdf, a looping
    state before it.
    """
    emits = fst.ilabel > 0
    kind, entry, loop = triples[fst.ilabel[emits] - 1][:, [0, 2, 3]].T
    n_pdfs = 1 + int(triples[:, 2:].max())
    arrivals, which = np.unique(fst.dst[emits] * n_pdfs + loop, return_inverse=True)
    state, loop_pdf = np.divmod(arrivals, n_pdfs)
    ways = np.bincount(state, minlength=fst.n_states)
    ways += np.bincount(fst.dst[~emits], minlength=fst.n_states)
    ways[fst.start] += 1
    own = ways[state] == 1
    looping = np.where(own, state, fst.n_states + np.cumsum(~own) - 1)
    n_new = int((~own).sum())
    dst = fst.dst.copy()
    dst[emits] = looping[which]
    codes = np.concatenate([3 * entry + kind, 3 * loop_pdf + INSIDE])
    used, code = np.unique(codes, return_inverse=True)
    ilabel = np.zeros(fst.n_arcs, np.int64)
    ilabel[emits] = 1 + code[: len(entry)]
    zeros = np.zeros(len(looping) + n_new, np.int64)
    whole = Fst.of(
        fst.start,
        np.concatenate([fst.final, np.full(n_new, np.inf)]),
        np.concatenate([fst.src, looping, looping[~own]]),
        np.concatenate([dst, looping, state[~own]]),
        np.concatenate([ilabel, 1 + code[len(entry) :], zeros[:n_new]]),
        np.concatenate([fst.olabel, zeros]),
        np.concatenate([fst.weight, zeros]),
    )
    return whole, used // 3, used % 3
