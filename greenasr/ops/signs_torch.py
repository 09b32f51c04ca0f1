"""The matrices of `ops.signs` as tensors, generated on their device: int64 holds the 32-bit integers."""

from __future__ import annotations

import torch
from torch import Tensor

from greenasr.ops.signs import Signs, words


def signs(spec: Signs, start: int = 0, stop: int | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Rows ``start:stop`` as -1, 0, 1, int8 (stop - start, cols); the numbers of `Signs.rows_of`."""
    stop = spec.rows if stop is None else stop
    if not 0 <= start <= stop <= spec.rows:
        raise ValueError(f"rows {start}:{stop} of a matrix of {spec.rows}.")
    columns = torch.arange(-(-spec.cols // 32), device=device)
    counter = (torch.arange(start, stop, device=device)[:, None] << 12) + columns
    negative, mask = words(spec, counter)
    places = torch.arange(32, device=device)
    plus, minus = (
        (word[:, :, None] >> places & 1).to(torch.int8).flatten(1)[:, : spec.cols]
        for word in (mask, mask & negative)
    )
    return plus - 2 * minus
