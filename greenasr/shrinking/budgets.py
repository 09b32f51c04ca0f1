"""Which budget to try next: bisection on bytes, where smaller is taken to be worse.

    good   the smallest budget that has passed           bad   the largest below it that has not
    next   √(good · bad), until good / bad <= finer

The smallest budget of all is tried last: training at two bits everywhere seldom passes.  Where the edge can
be guessed, the guess takes the middle's place (`next_guess`).  Real fronts are not monotone by a hair: the
answer is right to within ``finer``, and every plan tried stays on the front.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence


def next_budget(lowest: int, highest: int, tried: Mapping[int, bool], finer: float) -> int | None:
    """The next budget in bytes, None when the search is done; ``tried`` says which have passed.

    >>> tried, found = {}, next_budget(100, 800, {}, 1.2)
    >>> while found is not None:
    ...     tried[found] = found >= 333
    ...     found = next_budget(100, 800, tried, 1.2)
    >>> list(tried)
    [800, 283, 476, 367, 322]
    """
    good = min((size for size, passed in tried.items() if passed), default=None)
    if good is None:
        return None if highest in tried else highest
    bad = max((size for size, passed in tried.items() if not passed and size < good), default=None)
    if good <= lowest or (bad is not None and good <= finer * bad):
        return None
    below = lowest if bad is None else bad
    if good <= finer * below:
        return lowest
    middle = min(max(round(math.sqrt(good * below)), below + 1), good - 1)
    return middle if middle not in tried else None


def next_guess(lowest: int, highest: int, tried: Mapping[int, bool], finer: float, guess: int) -> int | None:
    """As `next_budget`, but at ``guess``, the edge as far as it is known, or as near to it as is of use.

    A budget within ``finer`` of one that was tried tells nothing new.

    >>> next_guess(100, 800, {800: True}, 1.2, 340), next_guess(100, 800, {800: True, 340: True}, 1.2, 340)
    (340, 283)
    >>> next_guess(100, 800, {800: True, 340: False}, 1.2, 100), next_guess(100, 800, {800: True}, 1.2, 90)
    (408, 100)
    """
    now = next_budget(lowest, highest, tried, finer)
    good = min((size for size, passed in tried.items() if passed), default=None)
    if now is None or good is None:
        return now
    bad = max((size for size, passed in tried.items() if not passed and size < good), default=None)
    if bad is None and guess <= finer * lowest:
        return lowest
    least, most = math.ceil(finer * (lowest if bad is None else bad)), math.floor(good / finer)
    return now if least > most else min(max(guess, least), most)


def limit_of(found: Sequence[tuple[float | None, bool]]) -> float:
    """The divergence up to which models pass, from (divergence, whether it passed), in the order of finding.

    Between the largest that passed and the smallest that failed; where they contradict, the later is right.

    >>> round(limit_of([(0.01, True), (0.04, False)]), 3), limit_of([(0.01, True)]), limit_of([(0.04, False)])
    (0.02, 0.01, 0.04)
    >>> limit_of([(0.01, True), (0.04, False), (0.05, True)]), limit_of([(0.03, True), (0.02, False)])
    (0.05, 0.02)
    """
    known = [(distance, passed) for distance, passed in found if distance is not None]
    best = max((distance for distance, passed in known if passed), default=None)
    worst = min((distance for distance, passed in known if not passed), default=None)
    if best is not None and worst is not None and best < worst:
        return math.sqrt(best * worst)
    limit = 0.0
    for distance, passed in known:
        limit = max(limit, distance) if passed else min(limit or distance, distance)
    return limit


def smallest(low: int, high: int, finer: float, fits: Callable[[int], bool]) -> int:
    """The smallest size that ``fits``, of those ``finer`` apart from low to high; high where none does.

    >>> smallest(100, 800, 1.3, lambda size: size >= 300)
    367
    """
    steps = max(1, math.ceil(math.log(high / low) / math.log(finer)))
    sizes = [round(low * (high / low) ** (k / steps)) for k in range(steps + 1)]
    return sizes[bisect_left(sizes, True, key=fits, hi=steps)]


def after(
    now: int, tried: Mapping[int, bool], following: Callable[[dict[int, bool]], int | None]
) -> list[int]:
    """The budgets that may be next once ``now`` is known: if it does not pass, and if it does.

    ``following`` gives the next one of what was tried.
    """
    found = [following({**tried, now: passed}) for passed in (False, True)]
    return [budget for budget in dict.fromkeys(found) if budget is not None]
