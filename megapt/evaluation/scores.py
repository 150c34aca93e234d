"""What a model reaches on a measure, and the interval of a share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(strict=False)]
"""JSON has no number for what is not finite, so that is written as a string: "NaN"."""
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
    """What one model reaches on a measure."""

    value: Number
    """In the measure's unit."""
    interval: Interval | None = None
    """Around the value; None if the measure knows none."""
    items: list[Number | None] = Field(default_factory=list)
    """The value of each item, in the order that is the same for all members, so that differences
    can be tested by pairs; None for an item that has none. Empty if there is nothing by item."""


def share_score(right: Sequence[bool]) -> Score:
    """Return the share of the items that are right, with its 95 % score interval.

    Raises:
        ValueError: if there is no item.
    """
    correct, total = sum(right), len(right)
    interval = wilson_interval(correct, total)
    return Score(value=correct / total, interval=interval, items=[float(item) for item in right])


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927).

    Unlike the normal approximation it stays within [0, 1] and keeps its width at shares of 0 and 1.

    Raises:
        ValueError: unless 0 <= correct <= total and total > 0.
    """
    # A second, which only the rank that scores has to wait for.
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
