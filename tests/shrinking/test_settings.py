"""Questions and spaces that mean nothing are refused in a line."""

from __future__ import annotations

import pytest

from greenasr.shrinking.budgets import next_budget, next_guess
from greenasr.shrinking.settings import Question, Space


def test_bisection_finds_the_edge_within_its_ratio() -> None:
    for edge in range(100, 801, 7):
        tried: dict[int, bool] = {}
        while (size := next_budget(100, 800, tried, 1.1)) is not None:
            assert size not in tried
            tried[size] = size >= edge
        assert min(size for size in tried if tried[size]) <= 1.1 * edge + 1
        assert len(tried) <= 9


def test_a_good_guess_takes_two_budgets_where_bisection_takes_more() -> None:
    for edge in range(120, 690, 7):
        tried, bisected = {800: True}, {800: True}
        for _ in range(2):
            size = next_guess(100, 800, tried, 1.1, edge)
            if size is not None:
                assert size not in tried
                tried[size] = size >= edge
        assert min(size for size in tried if tried[size]) <= 1.1 * edge + 1
        while (size := next_budget(100, 800, bisected, 1.1)) is not None:
            bisected[size] = size >= edge
        assert len(bisected) > len(tried)


def test_a_guess_that_is_wrong_still_ends_at_the_edge() -> None:
    for edge, guess in ((300, 100), (300, 800), (110, 500), (700, 100)):
        tried: dict[int, bool] = {}
        while (size := next_guess(100, 800, tried, 1.1, guess)) is not None:
            assert size not in tried
            tried[size] = size >= edge
        assert min(size for size in tried if tried[size]) <= 1.1**2 * edge + 1


def test_a_search_where_nothing_passes_tries_the_largest_alone() -> None:
    assert next_budget(100, 800, {800: False}, 1.1) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"costs": ("guess",)}, "costs are guess: give different ones of hessian, kl"),
        ({"widths": (2, 5)}, "widths are 2, 5"),
        ({"estimators": ()}, "estimators are none"),
        ({"finer": 1.0}, "finer is 1"),
        ({"brief": 0.0}, "brief is 0: give the share of a training"),
        ({"teach": 1.5}, "teach is 1.5, dropout None: give shares"),
    ],
)
def test_odd_spaces_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Space(**settings)  # type: ignore[arg-type]


def test_odd_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="max WER increase is -1"):
        Question(max_wer_increase=-1)
    with pytest.raises(ValueError, match="time must be 0 or more"):
        Question(seconds=-1)
    with pytest.raises(ValueError, match="trainings are -2"):
        Question(trainings=-2)
    with pytest.raises(ValueError, match="max bytes is 0"):
        Question(max_bytes=0)
