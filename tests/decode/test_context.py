"""Every left context and phone has two pdfs, and tying leaves none without data."""

import json

import numpy as np
import pytest

from greenasr.decode.context import BOUNDARY, PdfMap

PHONES = ("SIL", "A", "B", "C")


def random_counts(seed: int) -> dict[tuple[int, int], float]:
    rng = np.random.default_rng(seed)
    pairs = [(left, phone) for left in range(5) for phone in range(4)]
    return {pair: int(rng.integers(0, 20)) for pair in pairs if rng.random() < 0.7}


def test_monophone_pdfs_do_not_depend_on_the_left_phone() -> None:
    table = PdfMap.monophone(PHONES).table
    assert (table == table[BOUNDARY]).all()
    assert sorted(table[0].ravel()) == list(range(8))


@pytest.mark.parametrize("seed", range(5))
def test_every_pdf_is_used_and_every_seen_phone_pdf_has_a_seen_context(seed: int) -> None:
    counts = random_counts(seed)
    pdfs = PdfMap.left_biphone(PHONES, counts, 10)
    assert sorted(set(pdfs.table.ravel().tolist())) == list(range(pdfs.n_pdfs))
    with_data = {int(pdf) for (left, phone), n in counts.items() if n for pdf in pdfs.table[left, phone]}
    of_seen_phones = {int(p) for (_, phone), n in counts.items() if n for p in pdfs.table[:, phone].ravel()}
    assert with_data == of_seen_phones


def test_frequent_contexts_stand_alone_and_rare_ones_together() -> None:
    counts = {(0, 1): 10, (2, 1): 11, (3, 1): 9, (4, 1): 1, (1, 2): 50}
    table = PdfMap.left_biphone(PHONES, counts, 10).table[:, :, 0]
    assert len({table[0, 1], table[2, 1], table[3, 1]}) == 3
    assert table[3, 1] == table[4, 1] == table[1, 1]  # rare and never seen
    assert len(set(table[:, 2])) == 1  # the only context serves all
    assert len(set(table[:, 0])) == 1  # silence


def test_min_count_above_everything_is_the_monophone_map() -> None:
    pdfs = PdfMap.left_biphone(PHONES, random_counts(0), 1e9)
    assert (pdfs.table == PdfMap.monophone(PHONES).table).all()


def test_json_gives_back_the_map() -> None:
    pdfs = PdfMap.left_biphone(PHONES, random_counts(1), 5)
    again = PdfMap.from_json(json.loads(json.dumps(pdfs.to_json())))
    assert again.phones == pdfs.phones and again.n_pdfs == pdfs.n_pdfs
    assert again.table.dtype == np.int32 and (again.table == pdfs.table).all()


def test_refuses_what_is_not_a_map() -> None:
    with pytest.raises(ValueError, match="'format' should be 'greenasr pdf map 1'"):
        PdfMap.from_json({"format": "greenasr bit map 1"})
    with pytest.raises(ValueError, match="left 9, phone 1"):
        PdfMap.left_biphone(PHONES, {(9, 1): 3})
    with pytest.raises(ValueError, match="4 phones need"):
        PdfMap(PHONES, np.zeros((4, 4, 2), np.int32), 8)
    with pytest.raises(ValueError, match="there are 3"):
        PdfMap(PHONES, PdfMap.monophone(PHONES).table, 3)
