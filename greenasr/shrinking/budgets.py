"""Which budget to try next: bisection on bytes, where smaller is taken to be worse.

    good   the smallest budget that has passed           bad   the largest below it that has not
    next   √(good · bad), until good / bad <= finer

The smallest budget of all is tried last: training at two bits everywhere seldom passes.  Real fronts are
not monotone by a hair: the answer is right to within ``finer``, and every plan tried stays on the front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


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


def after(lowest: int, highest: int, tried: Mapping[int, bool], finer: float) -> list[int]:
    """The budgets that may be next once the next one is known: if it passes, and if it does not."""
    now = next_budget(lowest, highest, tried, finer)
    if now is None:
        return []
    found = [next_budget(lowest, highest, {**tried, now: passed}, finer) for passed in (False, True)]
    return [budget for budget in dict.fromkeys(found) if budget is not None]
