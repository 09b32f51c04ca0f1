from __future__ import annotations

import math

import pytest

from greenasr.score.perplexity import perplexity


def test_a_uniform_model_has_the_size_of_its_vocabulary() -> None:
    assert perplexity(-7 * math.log(1000), 7) == pytest.approx(1000)


def test_perplexity_of_all_text_is_the_token_weighted_geometric_mean() -> None:
    whole = perplexity(-30.0 - 8.0, 10 + 4)
    assert math.log(whole) == pytest.approx(
        (10 * math.log(perplexity(-30.0, 10)) + 4 * math.log(perplexity(-8.0, 4))) / 14
    )


@pytest.mark.parametrize(("logprob", "tokens"), [(-1.0, 0), (1.0, 3), (math.nan, 3)])
def test_what_is_no_probability_is_refused(logprob: float, tokens: int) -> None:
    with pytest.raises(ValueError, match="perplexity: found"):
        perplexity(logprob, tokens)
