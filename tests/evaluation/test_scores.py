"""Scores of shares, and Wilson intervals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.evaluation.scores import Score, share_score, wilson_interval


def test_a_share_is_that_of_the_right_items_which_it_keeps() -> None:
    score = share_score([True, False, True, True])
    assert score == Score(value=0.75, interval=wilson_interval(3, 4), items=[1, 0, 1, 1])


def test_what_is_not_finite_survives_in_standard_json() -> None:
    score = Score(value=math.nan, items=[math.inf, None, 0.5])
    text = score.model_dump_json()
    assert text == '{"value":"NaN","interval":null,"items":["Infinity",null,0.5]}'
    found = Score.model_validate_json(text)
    assert math.isnan(found.value)
    assert found.items == score.items


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval_of_known_values(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    correct, total = counts
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1
    mirrored = wilson_interval(total - correct, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses_what_is_no_share(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match=r"must|least"):
        wilson_interval(correct, total)
