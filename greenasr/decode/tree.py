"""A decision tree that ties the states of phones in context by how alike their frames are.

    L(S)    = -½ n_S ( Σ_d log max(σ²_Sd, floor_d) + F log 2π + F )      one Gaussian for all frames of S
    gain(q) = L(those of S with q) + L(the others of S) - L(S)            a question's worth

Every phone has one root.  A question is "is the left phone one of these?" or "is the state one of these?".
The leaf and question with the largest gain are split first, until there are enough leaves, no gain is large
enough, or a side would have too few frames.  The sets asked about are found by splitting all phones top-down
into sets that sound alike, so no phonetics are needed.  Young, Odell and Woodland 1994, "Tree-based state
tying for high accuracy acoustic modelling"; automatic questions as in Kaldi's cluster-phones.

The states are a HMM's three, or the two of the chain topology (0 the first frame, 1 the further ones); a tree
over the latter becomes the chain's `PdfMap`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from greenasr.decode.context import BOUNDARY, PdfMap

Floats = npt.NDArray[np.float64]

FORMAT = "greenasr tree 1"
SILENCE = 0  # the id of the phone that has no context


@dataclass(frozen=True)
class Leaf:
    """The pdf of every context that ends here."""

    pdf: int


@dataclass(frozen=True)
class Split:
    """Go to ``yes`` if the context's "left" (0 boundary, 1 + phone id) or "state" is in ``among``."""

    ask: Literal["left", "state"]
    among: tuple[int, ...]
    yes: Node
    no: Node


Node = Leaf | Split


@dataclass(frozen=True)
class Tree:
    """The pdf of every (left, phone, state): one root a phone.

    >>> tree = Tree(("SIL", "A"), 2, (Leaf(0), Split("left", (0, 1), Leaf(1), Leaf(2))))
    >>> tree.pdf(left=1, phone=1, state=0), tree.pdf(left=2, phone=1, state=0), tree.n_pdfs
    (1, 2, 3)
    >>> Tree.from_json(tree.to_json()) == tree
    True
    """

    phones: tuple[str, ...]
    n_states: int
    roots: tuple[Node, ...]

    @property
    def n_pdfs(self) -> int:
        """Number of leaves."""
        return sum(1 for root in self.roots for _ in leaves(root))

    def pdf(self, left: int, phone: int, state: int) -> int:
        """The leaf that a context ends in."""
        node = self.roots[phone]
        while isinstance(node, Split):
            node = node.yes if (left if node.ask == "left" else state) in node.among else node.no
        return node.pdf

    def table(self) -> npt.NDArray[np.int32]:
        """The pdf of all contexts, [left, phone, state], (P + 1, P, states)."""
        n = len(self.phones)
        every = np.ndindex(n + 1, n, self.n_states)
        return np.array([self.pdf(*c) for c in every], np.int32).reshape(n + 1, n, self.n_states)

    def pdf_map(self) -> PdfMap:
        """The chain topology's pdfs; the tree's states must be its two, entry and loop."""
        if self.n_states != 2:
            raise ValueError(
                f"the tree ties {self.n_states} states a phone, the chain topology has 2. Grow a tree over "
                "entry and loop frames (`flat_start.chain_moments`)."
            )
        return PdfMap(self.phones, self.table(), self.n_pdfs)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "format": FORMAT,
            "phones": list(self.phones),
            "n_states": self.n_states,
            "roots": [_node_to_json(root) for root in self.roots],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tree:
        """Read what `to_json` wrote."""
        if value.get("format") != FORMAT:
            raise ValueError(f"not a tree: 'format' should be '{FORMAT}', it is '{value.get('format')}'.")
        roots = tuple(_node_from_json(root) for root in value["roots"])
        return cls(tuple(value["phones"]), int(value["n_states"]), roots)


def leaves(node: Node) -> Iterator[Leaf]:
    """All leaves below a node, the "yes" side first."""
    if isinstance(node, Leaf):
        yield node
    else:
        yield from leaves(node.yes)
        yield from leaves(node.no)


def _node_to_json(node: Node) -> dict[str, Any]:
    if isinstance(node, Leaf):
        return {"pdf": node.pdf}
    sides = {"yes": _node_to_json(node.yes), "no": _node_to_json(node.no)}
    return {"ask": node.ask, "among": list(node.among), **sides}


def _node_from_json(value: Mapping[str, Any]) -> Node:
    if "pdf" in value:
        return Leaf(int(value["pdf"]))
    sides = (_node_from_json(value["yes"]), _node_from_json(value["no"]))
    return Split(value["ask"], tuple(value["among"]), *sides)


def gaussian_logprob(moments: Floats, floor: Floats) -> Floats:
    """L of sets of frames under the best Gaussian of each, (…, 1 + 2F) -> (…).

    ``moments`` are n, Σ x and Σ x² side by side; ``floor`` (F,) bounds the variances from below.

    >>> x = np.array([1.0, 2.0, 6.0])
    >>> found = gaussian_logprob(np.array([3, x.sum(), (x * x).sum()]), np.array([1e-3]))
    >>> bool(np.isclose(found, sum(-0.5 * np.log(2 * np.pi * x.var()) - (x - x.mean())**2 / 2 / x.var())))
    True
    """
    dim = len(floor)
    count = moments[..., 0]
    safe = np.maximum(count, 1e-10)[..., None]
    mean = moments[..., 1 : 1 + dim] / safe
    var = np.maximum(moments[..., 1 + dim :] / safe - mean**2, floor)
    return -0.5 * count * (np.log(var).sum(-1) + dim * (np.log(2 * np.pi) + 1))


def phone_questions(moments: Floats, floor: Floats) -> tuple[tuple[int, ...], ...]:
    """Sets of phones that sound alike: all phones split in two, each part again, down to single phones.

    ``moments`` (P, 1 + 2F) of the phones.  A part is split by k-means in likelihood, from the cut at the mean
    of the feature that varies most between its phones.  The answer is in left contexts (1 + phone
    id), and the boundary sits with silence.
    """
    found: list[tuple[int, ...]] = []
    pending = [np.flatnonzero(moments[:, 0] > 0)]
    while pending:
        part = pending.pop(0)
        if len(part) < 2:
            continue
        sides = _halves(moments[part], floor)
        for side in (part[sides], part[~sides]):
            contexts = [1 + int(p) for p in side]
            found.append(tuple([BOUNDARY] * (SILENCE in side) + contexts))
            pending.append(side)
    return tuple(dict.fromkeys(found))


def _halves(moments: Floats, floor: Floats) -> npt.NDArray[np.bool_]:
    """Two-means over two or more Gaussians, (K, 1 + 2F) -> which side, (K,); both sides have some."""
    dim = len(floor)
    count = moments[:, :1]
    means, seconds = moments[:, 1 : 1 + dim] / count, moments[:, 1 + dim :] / count
    centre = (count * means).sum(0) / count.sum()
    between = (count * (means - centre) ** 2).sum(0) / count.sum()
    within = (count * np.maximum(seconds - means**2, floor)).sum(0) / count.sum()
    widest = means[:, (between / within).argmax()]
    side = widest > np.average(widest, weights=count[:, 0])
    if side.all() or not side.any():
        side = np.arange(len(moments)) == 0
    best = -np.inf
    while True:
        pair = np.stack([moments[side].sum(0), moments[~side].sum(0)])
        total = float(gaussian_logprob(pair, floor).sum())
        if total <= best + 1e-9 * abs(total):
            return side
        best, kept = total, side
        mean = pair[:, 1 : 1 + dim] / pair[:, :1]
        var = np.maximum(pair[:, 1 + dim :] / pair[:, :1] - mean**2, floor)
        apart = seconds[:, None] - 2 * means[:, None] * mean + mean**2
        cost = (np.log(var) + apart / var).sum(-1)
        side = cost[:, 0] < cost[:, 1]
        if side.all() or not side.any():
            return kept


@dataclass(frozen=True)
class _Growing:
    """A leaf while the tree grows: its rows of the phone's contexts, and the best split of them."""

    rows: npt.NDArray[np.bool_]
    gain: float
    ask: Literal["left", "state"]
    among: tuple[int, ...]
    yes: npt.NDArray[np.bool_]


def grow_tree(
    phones: Sequence[str],
    moments: Floats,
    questions: Sequence[Sequence[int]],
    floor: Floats,
    n_leaves: int,
    min_count: float = 100.0,
    min_gain: float = 200.0,
) -> Tree:
    """Split greedily: ``moments`` (P + 1, P, states, 1 + 2F) of the frames of each [left, phone, state].

    ``questions`` are sets of left contexts (`phone_questions`); single left contexts and first states are
    always asked for.  Every leaf keeps at least ``min_count`` frames, every split gains at least
    ``min_gain``.  Silence is never asked for its left phone.  Pdfs are numbered from phone to phone.
    """
    n, n_states = moments.shape[1], moments.shape[2]
    if moments.shape[0] != n + 1 or n != len(phones):
        raise ValueError(
            f"moments are of {moments.shape[:2]} left contexts and phones, {len(phones)} phones need "
            f"{(len(phones) + 1, len(phones))}. Collect them with the same phones."
        )
    if n_leaves < n:
        raise ValueError(f"{n_leaves} leaves are too few for {n} phones, which have one each at the least.")
    lefts = dict.fromkeys([*(tuple(sorted(q)) for q in questions), *((c,) for c in range(n + 1))])
    left, state = np.repeat(np.arange(n + 1), n_states), np.tile(np.arange(n_states), n + 1)
    asked: list[tuple[Literal["left", "state"], tuple[int, ...]]] = [
        ("state", tuple(range(k))) for k in range(1, n_states)
    ]
    asked += [("left", q) for q in lefts]
    member = np.array([np.isin(left if ask == "left" else state, among) for ask, among in asked])
    member_of_silence = member[: n_states - 1]

    def best_split(phone: int, rows: npt.NDArray[np.bool_]) -> _Growing | None:
        here = moments[:, phone].reshape(len(left), -1) * rows[:, None]
        sides = member_of_silence if phone == SILENCE else member
        if not len(sides):
            return None
        total = here.sum(0)
        yes = sides @ here
        no = total - yes
        gain = gaussian_logprob(yes, floor) + gaussian_logprob(no, floor) - gaussian_logprob(total, floor)
        gain[np.minimum(yes[:, 0], no[:, 0]) < max(min_count, 1e-6)] = -np.inf
        q = int(gain.argmax())
        if not gain[q] >= max(min_gain, 1e-9):
            return None
        return _Growing(rows, float(gain[q]), *asked[q], sides[q])

    # A leaf's path is its phone and the answers on the way; splits are kept by path.
    made: dict[tuple[int, ...], _Growing] = {}
    queue: list[tuple[float, tuple[int, ...], _Growing]] = []

    def consider(path: tuple[int, ...], rows: npt.NDArray[np.bool_]) -> None:
        if (found := best_split(path[0], rows)) is not None:
            heapq.heappush(queue, (-found.gain, path, found))

    for phone in range(n):
        consider((phone,), np.ones(len(left), bool))
    for _ in range(n_leaves - n):
        if not queue:
            break
        _, path, best = heapq.heappop(queue)
        made[path] = best
        consider((*path, 1), best.rows & best.yes)
        consider((*path, 0), best.rows & ~best.yes)

    count = iter(range(n_leaves))

    def node(path: tuple[int, ...]) -> Node:
        if path not in made:
            return Leaf(next(count))
        split = made[path]
        return Split(split.ask, split.among, node((*path, 1)), node((*path, 0)))

    return Tree(tuple(phones), n_states, tuple(node((phone,)) for phone in range(n)))
