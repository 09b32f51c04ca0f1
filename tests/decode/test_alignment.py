"""Alignments: what follows from phones and states, and their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from greenasr.decode.alignment import (
    Alignment,
    Segment,
    equal_alignment,
    read_alignments,
    write_alignments,
)

SIL, A, OH, T = range(4)


def test_segments_and_left_contexts_tell_apart_a_phone_that_comes_twice() -> None:
    found = Alignment(np.array([A] * 7 + [T] * 3), np.array([0, 1, 2, 0, 0, 1, 2, 0, 1, 2]))
    assert found.segments == (Segment(A, 0, 3), Segment(A, 3, 4), Segment(T, 7, 3))
    assert found.left.tolist() == [0] * 3 + [1 + A] * 4 + [1 + A] * 3
    assert found.begins.tolist() == [i in (0, 3, 7) for i in range(10)]


def test_equal_alignment_differs_by_at_most_a_frame_a_state() -> None:
    found = equal_alignment(29, [SIL, A, T])
    runs = np.diff(np.flatnonzero(np.append(True, np.diff(found.state) != 0)), append=29)
    assert len(runs) == 9 and set(runs.tolist()) == {3, 4}


def test_the_file_gives_the_alignments_back(tmp_path: Path) -> None:
    alignments = {"u1": equal_alignment(17, [SIL, A]), "u2": Alignment(np.full(3, T), np.arange(3), -12.5)}
    write_alignments(tmp_path / "ali.npz", alignments, ["SIL", "A", "OH", "T"])
    found, phones = read_alignments(tmp_path / "ali.npz")
    assert phones == ("SIL", "A", "OH", "T") and list(found) == ["u1", "u2"]
    for utt_id, one in alignments.items():
        assert (found[utt_id].phone == one.phone).all() and (found[utt_id].state == one.state).all()
        assert found[utt_id].logprob == one.logprob
    write_alignments(tmp_path / "none.npz", {}, ["SIL"])
    assert read_alignments(tmp_path / "none.npz") == ({}, ("SIL",))


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="5 frames are too few for 2 phones"):
        equal_alignment(5, [A, T])
    (tmp_path / "cut.npz").write_bytes(b"PK no more")
    with pytest.raises(ValueError, match=r"cut.npz: not an alignment file .*Align the corpus again"):
        read_alignments(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"other.npz: not an alignment file: 'format' should be"):
        read_alignments(tmp_path / "other.npz")
