"""Transducers as arrays: a weighted finite-state transducer is columns of arcs and a row of final costs.

    arc a:  src[a] --ilabel[a]:olabel[a] / weight[a]--> dst[a]     label 0 is epsilon, weights are costs -ln p

kaldifst keeps a transducer behind one Python call an arc; its files are plain records, so a graph of a
million arcs goes through `numpy.frombuffer` instead.  Layout: OpenFst 1.8, ``fst.h`` (header),
``const-fst.h`` (20 bytes a state, 16 an arc) and, for lattices, ``vector-fst.h`` (arcs behind their state).
"""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kaldifst
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Costs = npt.NDArray[np.float64]

MAGIC = 2125659606
EXPANDED = 1  # the one property that is claimed; OpenFst works out the others when it needs them
STATE = np.dtype([("final", "<f4"), ("at", "<u4"), ("arcs", "<u4"), ("ieps", "<u4"), ("oeps", "<u4")])
ARC = np.dtype([("ilabel", "<i4"), ("olabel", "<i4"), ("weight", "<f4"), ("dst", "<i4")])
LATTICE_ARC = np.dtype(
    [("ilabel", "<i4"), ("olabel", "<i4"), ("graph", "<f4"), ("acoustic", "<f4"), ("dst", "<i4")]
)


@dataclass(frozen=True, eq=False)
class Fst:
    """A transducer: ``final`` (S,) costs, inf where not final; arcs (A,), sorted by ``src``."""

    start: int
    final: Costs
    src: Ints
    dst: Ints
    ilabel: Ints
    olabel: Ints
    weight: Costs

    @classmethod
    def of(cls, start: int, final: Any, src: Any, dst: Any, ilabel: Any, olabel: Any, weight: Any) -> Fst:
        """From columns in any order; arcs of one state are sorted by input label, then by output label."""
        order = np.lexsort((olabel, ilabel, src))
        s, d, i, o = (np.asarray(column, np.int64)[order] for column in (src, dst, ilabel, olabel))
        return cls(start, np.asarray(final, np.float64), s, d, i, o, np.asarray(weight, np.float64)[order])

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return len(self.final)

    @property
    def n_arcs(self) -> int:
        """Number of arcs A."""
        return len(self.src)


def to_bytes(fst: Fst) -> bytes:
    """The file of an OpenFst ConstFst over the tropical semiring."""
    counts = np.bincount(fst.src, minlength=fst.n_states)
    states = np.zeros(fst.n_states, STATE)
    states["final"], states["arcs"], states["at"] = fst.final, counts, np.cumsum(counts) - counts
    states["ieps"] = np.bincount(fst.src[fst.ilabel == 0], minlength=fst.n_states)
    states["oeps"] = np.bincount(fst.src[fst.olabel == 0], minlength=fst.n_states)
    arcs = np.empty(fst.n_arcs, ARC)
    for name in ARC.names or ():
        arcs[name] = getattr(fst, name)
    names = b"".join(struct.pack("<i", len(text)) + text for text in (b"const", b"standard"))
    sizes = struct.pack("<iiQqqq", 2, 0, EXPANDED, fst.start, fst.n_states, fst.n_arcs)
    return struct.pack("<i", MAGIC) + names + sizes + states.tobytes() + arcs.tobytes()


def from_bytes(data: bytes, where: str = "graph") -> Fst:
    """Read what `to_bytes` or kaldifst's ``StdConstFst.write`` wrote; ValueError naming ``where``."""
    kind, arc, start, n_states, n_arcs, at = _header(data, where)
    if (kind, arc) != ("const", "standard") or len(
        data
    ) != at + STATE.itemsize * n_states + ARC.itemsize * n_arcs:
        raise ValueError(
            f"{where}: a {kind} transducer of {arc} arcs in {len(data)} bytes, expected a whole const one of "
            "standard arcs. Build the graph again."
        )
    states = np.frombuffer(data, STATE, n_states, at)
    arcs = np.frombuffer(data, ARC, n_arcs, at + STATE.itemsize * n_states)
    src = np.repeat(np.arange(n_states), states["arcs"])
    dst, ilabel, olabel = (arcs[name].astype(np.int64) for name in ("dst", "ilabel", "olabel"))
    final, weight = states["final"].astype(np.float64), arcs["weight"].astype(np.float64)
    return Fst(start, final, src, dst, ilabel, olabel, weight)


def _header(data: bytes, where: str) -> tuple[str, str, int, int, int, int]:
    """Fst type, arc type, start, states, arcs, and the offset of what follows."""
    try:
        (magic,), at = struct.unpack_from("<i", data), 4
        texts = []
        for _ in range(2):
            (length,) = struct.unpack_from("<i", data, at)
            texts.append(data[at + 4 : at + 4 + length].decode("ascii", "replace"))
            at += 4 + length
        _, _, _, start, n_states, n_arcs = struct.unpack_from("<iiQqqq", data, at)
    except struct.error:
        magic = 0
    if magic != MAGIC:
        raise ValueError(f"{where}: not an OpenFst file, or cut short. Build the graph again.")
    return texts[0], texts[1], start, n_states, n_arcs, at + 40


def to_kaldi(fst: Fst) -> Any:
    """A ``kaldifst.StdConstFst`` of the same arcs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "const.fst"
        path.write_bytes(to_bytes(fst))
        return kaldifst.StdConstFst.read(str(path))


def to_kaldi_vector(fst: Fst) -> Any:
    """A ``kaldifst.StdVectorFst``, which kaldifst's algorithms change in place."""
    return kaldifst.StdVectorFst(to_kaldi(fst))


def from_kaldi(fst: Any) -> Fst:
    """The arrays of any kaldifst transducer, in its order of arcs."""
    return from_bytes(_written(kaldifst.StdConstFst(fst)))


def _written(fst: Any) -> bytes:
    """What kaldifst writes for a transducer or lattice."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kaldi.fst")
        if not fst.write(path):
            raise OSError(f"cannot write a transducer below {folder}. Make room there, or set TMPDIR")
        return Path(path).read_bytes()


@dataclass(frozen=True, eq=False)
class Lattice:
    """What a search kept: arcs (A,), graph and acoustic costs apart; ``final`` (S, 2) too, inf if not."""

    start: int
    final: Costs
    src: Ints
    dst: Ints
    ilabel: Ints
    olabel: Ints
    graph: Costs
    acoustic: Costs

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return len(self.final)


def lattice_from_kaldi(lattice: Any) -> Lattice:
    """The arrays of a ``kaldifst.Lattice``, in its order of arcs."""
    data = _written(lattice)
    _, _, start, n_states, _, at = _header(data, "lattice")
    finals, counts, offsets = [], [], []
    for _ in range(n_states):
        graph, acoustic, count = struct.unpack_from("<ffq", data, at)
        finals.append((graph, acoustic))
        counts.append(count)
        offsets.append(at + 16)
        at += 16 + LATTICE_ARC.itemsize * count
    arcs = np.frombuffer(
        b"".join(data[o : o + LATTICE_ARC.itemsize * n] for o, n in zip(offsets, counts, strict=True)),
        LATTICE_ARC,
    )
    src = np.repeat(np.arange(n_states), counts)
    dst, ilabel, olabel = (arcs[name].astype(np.int64) for name in ("dst", "ilabel", "olabel"))
    graph, acoustic = (arcs[name].astype(np.float64) for name in ("graph", "acoustic"))
    final = np.array(finals, np.float64).reshape(n_states, 2)
    return Lattice(start, final, src, dst, ilabel, olabel, graph, acoustic)
