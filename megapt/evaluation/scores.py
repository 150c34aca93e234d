"""The score of a model on a measure, and the interval of a share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(strict=False)]
"""JSON has no number for values that are not finite, so they are written as strings: "NaN"."""
Interval = tuple[Number, Number]
"""Low and high end of a 95 % confidence interval."""


class Record(BaseModel):
    """Base of all records: unknown keys and wrong types are refused, values cannot change."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
    )


class Score(Record):
    """The score of one model on a measure."""

    value: Number
    """In the measure's unit."""
    interval: Interval | None = None
    """Around the value; None if the measure gives none."""
    items: list[Number | None] = Field(default_factory=list)
    """The value of each item; None for an item without a value. The order is the same for all
    members, so that differences can be tested in pairs. Empty if there are no values per item."""


def share_score(right: Sequence[bool]) -> Score:
    """Return the share of correct items, with its 95 % score interval.

    Raises:
        ValueError: if there is no item.
    """
    correct, total = sum(right), len(right)
    interval = wilson_interval(correct, total)
    return Score(value=correct / total, interval=interval, items=[float(item) for item in right])


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927).

    Unlike the normal approximation, it is always within [0, 1] and has a width above 0 at shares of
    0 and 1.

    Raises:
        ValueError: unless 0 <= correct <= total and total > 0.
    """
    # This import takes a second; only the rank that scores waits for it.
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
