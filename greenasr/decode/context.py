"""Which pdf a phone emits, given the phone before it: the chain topology and its tied left biphones.

    entry(left, phone)  loop(left, phone) …  loop(left, phone)      one state a phone, frames >= 1

The first frame (at the network's output rate) of a phone emits its entry pdf, every further one its loop pdf,
so that one frame is enough for a phone (Povey et al. 2016, "Purely sequence-trained neural networks for ASR
based on lattice-free MMI").  The context is one phone to the left.  Instead of growing a decision tree, a
left context that is rare in training shares the phone's pdfs with the other rare ones; end-to-end LF-MMI
(Hadian et al. 2018) leaves all biphones untied, which is ``min_count=0``.  Silence has no context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOUNDARY = 0  # the left context of an utterance's first phone; a phone is 1 + its id
FORMAT = "greenasr pdf map 1"


@dataclass(frozen=True, eq=False)
class PdfMap:
    """``table[left, phone, 0 | 1]`` is the pdf of a phone's first | further frames, (P + 1, P, 2) int32.

    ``phones`` has the silence first; ``left`` is `BOUNDARY` at the utterance's start, else 1 + phone id.
    """

    phones: tuple[str, ...]
    table: NDArray[np.int32]
    n_pdfs: int

    def __post_init__(self) -> None:
        """Refuse a table of another shape, or with pdfs that do not exist."""
        n = len(self.phones)
        if not n or len(set(self.phones)) != n:
            raise ValueError(
                f"a pdf map needs different phones, silence first; it was given {self.phones[:5]}"
            )
        if self.table.shape != (n + 1, n, 2):
            raise ValueError(f"the pdf table is {self.table.shape}, {n} phones need {(n + 1, n, 2)}")
        if self.table.min() < 0 or self.table.max() >= self.n_pdfs:
            raise ValueError(
                f"the pdf table names pdfs {self.table.min()} to {self.table.max()}, there are {self.n_pdfs}"
            )

    @classmethod
    def monophone(cls, phones: Sequence[str]) -> PdfMap:
        """Two pdfs a phone, whatever stands before it.

        >>> PdfMap.monophone(["SIL", "AA"]).table[0].tolist()
        [[0, 1], [2, 3]]
        """
        n = len(phones)
        return cls(tuple(phones), np.broadcast_to(_pair(np.arange(n)), (n + 1, n, 2)).copy(), 2 * n)

    @classmethod
    def left_biphone(
        cls, phones: Sequence[str], counts: Mapping[tuple[int, int], float], min_count: float = 10
    ) -> PdfMap:
        """Two pdfs for every (left, phone id) of ``min_count`` and more; the phone's rarer ones share two.

        ``counts`` are `phone_lm.left_counts`.  A pair never seen goes with the rare ones, or where there are
        none with the phone's most frequent left context, so that no pdf is without training data, but those
        of phones that never occur.

        >>> counts = {(0, 1): 12, (2, 1): 30, (1, 2): 3}
        >>> PdfMap.left_biphone(["SIL", "A", "B"], counts, 10).table[:, :, 0].tolist()
        [[0, 2, 6], [0, 4, 6], [0, 4, 6], [0, 4, 6]]
        """
        n = len(phones)
        seen = np.zeros((n + 1, n))
        for (left, phone), count in counts.items():
            if not (0 <= left <= n and 0 <= phone < n):
                raise ValueError(
                    f"the pair (left {left}, phone {phone}) is counted, but {n} phones have left contexts 0 "
                    f"to {n} and ids 0 to {n - 1}. Count with the same phones."
                )
            seen[left, phone] = count
        group = np.zeros((n + 1, n), np.int32)
        n_groups = 1  # silence
        for phone in range(1, n):
            frequent = seen[:, phone] >= min_count
            rare = (seen[:, phone] > 0) & ~frequent
            own = np.cumsum(frequent) - 1 + n_groups
            n_groups += int(frequent.sum())
            if rare.any() or not frequent.any():
                shared = n_groups
                n_groups += 1
            else:
                shared = own[seen[:, phone].argmax()]
            group[:, phone] = np.where(frequent, own, shared)
        return cls(tuple(phones), _pair(group), 2 * n_groups)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {"format": FORMAT, "n_pdfs": self.n_pdfs, "phones": self.phones, "table": self.table.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PdfMap:
        """Read what `to_json` wrote."""
        if value.get("format") != FORMAT:
            raise ValueError(f"not a pdf map: 'format' should be '{FORMAT}', it is '{value.get('format')}'.")
        return cls(tuple(value["phones"]), np.array(value["table"], np.int32), int(value["n_pdfs"]))


def _pair(group: NDArray[Any]) -> NDArray[np.int32]:
    """Entry and loop pdf of a group, (…) -> (…, 2)."""
    return np.stack([2 * group, 2 * group + 1], -1).astype(np.int32)
