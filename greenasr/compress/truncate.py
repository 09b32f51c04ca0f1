"""Fewer dimensions for trained bottlenecks: the nearest product of each layer's factors, by singular values.

    B_j A_k   for all taps j, k at once   =   [B_1; …; B_K] [A_1 … A_K]   =   U S Vᵀ      (K O, K I), rank b
    B <- U_d S_d^½,    A <- S_d^½ V_dᵀ

No product of rank d is nearer to the old one in squared weights (Eckart and Young 1936), and with d = b the
layer computes what it did.  QR of either factor first: the decomposition itself is of (b, b).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from greenasr.compress.bottleneck import Bottlenecked, Factors, shrink


def truncated(model: Bottlenecked, dims: Mapping[str, int]) -> nn.Module:
    """A network with bottlenecks ``dims``, layer -> dimension; layers that keep theirs are as they were.

    Raises ValueError for a layer without a bottleneck, and for a dimension that is not from 1 to the old one.
    """
    factors = model.bottlenecks()
    for name, dim in dims.items():
        if name not in factors:
            raise ValueError(f"no bottleneck is called '{name}': there are {', '.join(factors)}.")
        if not 1 <= dim <= factors[name][2]:
            raise ValueError(f"'{name}' has {factors[name][2]} dimensions: {dim} cannot be kept of them.")
    fewer = {name: dim for name, dim in dims.items() if dim < factors[name][2]}
    assert isinstance(model, nn.Module)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    sorted_(state, {name: factors[name] for name in fewer})
    whole = shrink(model, {}, inherit=False)
    whole.load_state_dict(state)
    small = shrink(whole, fewer)  # type: ignore[arg-type]
    return small.train(model.training)


def sorted_(state: dict[str, Tensor], factors: Factors) -> None:
    """Turn the bottlenecks of a state so that its first d dimensions are the best d, for every d."""
    for a, b, width in factors.values():
        first, second = state[a].unflatten(0, (-1, width)), state[b].unflatten(1, (-1, width))
        down = first.movedim(1, 0).flatten(1).double()  # (b, K I)
        up = second.flatten(0, 1).double()  # (O K, b)
        q_up, r_up = torch.linalg.qr(up)
        q_down, r_down = torch.linalg.qr(down.T)
        u, s, vt = torch.linalg.svd(r_up @ r_down.T)
        up, down = (q_up @ u) * s.sqrt(), s.sqrt()[:, None] * (vt @ q_down.T)
        state[a] = down.to(first).view(width, *first.movedim(1, 0).shape[1:]).movedim(0, 1).flatten(0, 1)
        state[b] = up.to(second).view(second.shape).flatten(1, 2)
