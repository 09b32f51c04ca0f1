"""Transducers as arrays: the bytes are OpenFst's own, there and back."""

from __future__ import annotations

import kaldifst
import numpy as np
import pytest

from greenasr.decode.fst import Fst, from_bytes, from_kaldi, lattice_from_kaldi, to_bytes, to_kaldi

TEXT = "0 1 3 0 0.5\n0 2 1 4 0.25\n1 2 0 5 1.5\n2 0 2 2 0.125\n2 0.75\n"


def columns(fst: Fst) -> list[list[float]]:
    return [getattr(fst, name).tolist() for name in ("final", "src", "dst", "ilabel", "olabel", "weight")]


def test_arrays_have_the_arcs_of_openfsts_text_format() -> None:
    fst = from_kaldi(kaldifst.compile(TEXT))
    arcs = zip(fst.src, fst.dst, fst.ilabel, fst.olabel, fst.weight, strict=True)
    assert fst.start == 0
    lines = [f"{s} {d} {i} {o} {w:g}" for s, d, i, o, w in arcs]
    assert lines == TEXT.splitlines()[:4]
    assert fst.final.tolist() == [np.inf, np.inf, 0.75]


def test_bytes_equal_those_that_openfst_writes_but_for_its_properties() -> None:
    fst = from_kaldi(kaldifst.compile(TEXT))
    ordered = Fst.of(fst.start, fst.final, fst.src, fst.dst, fst.ilabel, fst.olabel, fst.weight)
    again = from_kaldi(to_kaldi(ordered))
    assert columns(again) == columns(ordered)
    assert columns(from_bytes(to_bytes(ordered))) == columns(ordered)
    assert sorted(zip(*columns(fst)[1:], strict=True)) == sorted(zip(*columns(ordered)[1:], strict=True))


@pytest.mark.parametrize("size", [0, 3, 30, 90])
def test_a_file_that_was_cut_short_is_named(size: int) -> None:
    data = to_bytes(from_kaldi(kaldifst.compile(TEXT)))
    with pytest.raises(ValueError, match=r"HLG.fst: .*Build the graph again"):
        from_bytes(data[:size], "HLG.fst")


def test_a_lattices_arrays_have_the_arcs_of_its_text() -> None:
    lattice = kaldifst.Lattice()
    for _ in range(3):
        lattice.add_state()
    lattice.start = 0
    pairs = {(0, 1): (0.5, -2.0), (1, 2): (0.25, 3.0), (0, 2): (1.0, 0.0)}
    for (src, dst), (graph, acoustic) in pairs.items():
        weight = kaldifst.LatticeWeight(graph, acoustic)
        lattice.add_arc(src, kaldifst.LatticeArc(src + 1, dst + 1, weight, dst))
    lattice.set_final(2, kaldifst.LatticeWeight(0.125, 0.0625))
    found = lattice_from_kaldi(lattice)
    arcs = zip(found.src, found.dst, found.ilabel, found.olabel, found.graph, found.acoustic, strict=True)
    assert {(s, d): (g, a) for s, d, _, _, g, a in arcs} == pairs
    assert (found.ilabel == found.src + 1).all() and (found.olabel == found.dst + 1).all()
    assert found.final[2].tolist() == [0.125, 0.0625] and np.isinf(found.final[:2]).all()
