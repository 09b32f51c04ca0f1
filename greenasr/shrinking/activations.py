"""Which activations a model ships with: of static, row by row and float32 the cheapest that loses nothing.

    e(kind)        errors on dev, of the words that the runtime finds of the file as it would ship
    kind may ship  where it passes on dev as any model must, and MAPSSWE does not call it worse than the kind
                   of fewest errors; static besides where e(static) <= 1.02 min e

Of those the first of `CHEAPEST` ships.  Static steps save little against row by row, so that nothing is
risked for them: 2 % more errors are the loss up to which a model may be called lossless.  Float32 takes four
bytes a weight in memory and several times the time, so it ships on evidence alone.

The smallest finalist is heard twice more on dev, without a training: once in float32, which also measures its
static steps, and once by these.  Its files with the steps and in float32 lie in activations/<model>/<kind>.
The larger ones, which stand by for the case that test turns it down, ship as the search heard them, row by
row; where one kind alone is allowed every finalist is heard with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from greenasr.score.decision import LOSSLESS, matched_pairs
from greenasr.score.scored import Scored
from greenasr.shrinking.board import Job
from greenasr.shrinking.package import Rounds
from greenasr.shrinking.search import Search

Row = dict[str, Any]
CHEAPEST: tuple[str, ...] = ("static", "int8", "float32")  # the cheapest first
ALLOWED: Mapping[str, tuple[str, ...]] = {
    "auto": CHEAPEST,
    "static": ("static",),
    "int8": ("int8",),
    "float32": ("float32",),
}


def choose(heard: Mapping[str, Sequence[Scored]], passes: Callable[[str], bool]) -> str | None:
    """The cheapest kind of what was ``heard`` on dev that loses nothing; None where none passes."""
    kinds = [kind for kind in CHEAPEST if kind in heard]
    errors = {kind: sum(row.errors.total for row in heard[kind]) for kind in kinds}
    best = min(kinds, key=lambda kind: errors[kind])
    for kind in kinds:
        few = kind != "static" or errors[kind] <= (1 + LOSSLESS) * errors[best]
        if few and matched_pairs(heard[best], heard[kind]).better != "a" and passes(kind):
            return kind
    return None


def shipped(search: Search, row: Row, stands_by: bool = False) -> Row | None:
    """A finalist's row with the activations that it ships with; None where none of the allowed kinds may.

    A question of ``max_bytes`` leaves out files that are larger, and asks for no passing on dev.
    Models that the runtime does not run have nothing to choose, nor have searches that allow int8 alone.
    """
    kinds, max_bytes = ALLOWED[search.space.activations], search.question.max_bytes
    as_heard = kinds == ("int8",) or (stands_by and "int8" in kinds)
    if as_heard or not isinstance(search.package, Rounds):
        return row
    job = f"activations/{row['name']}"
    (result,) = search.board.do([Job(job, partial(search.works.activations, row["name"]))])
    found = {"int8": {key: row[key] for key in ("bytes", "dev")}, **result["kinds"]}
    places = {kind: row["file"] if kind == "int8" else f"{job}/{kind}" for kind in kinds}
    fitting = {
        kind: search.words(place, "dev")
        for kind, place in places.items()
        if max_bytes is None or found[kind]["bytes"] <= max_bytes
    }
    if not fitting:
        return None
    kind = choose(fitting, lambda kind: max_bytes is not None or search.passes(places[kind]))
    if kind is None:
        return None
    return {
        **row,
        **found[kind],
        "ratio": row["ratio"] * row["bytes"] / found[kind]["bytes"],
        "dev_against": search.against_full(places[kind], "dev").to_json(),
        "passes_dev": search.passes(places[kind]),
        "activations": kind,
        "kinds": {each: found[each] for each in kinds},
        "file": places[kind],
    }
