"""The records of a run: metrics.jsonl, one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from megapt.config import BudgetConfig
from megapt.data.budget import Spent
from megapt.errors import DamagedError

Metrics = dict[str, Any]

CLOCK = "clock"
"""Key of a record for all values that depend on the speed of the machine, except for the budget
axis `wall_clock`."""
EVENT = "event"
"""`split` of event records; the other splits are "train" and "valid"."""


def read_metrics(file: Path) -> list[Metrics]:
    """Return the records of a metrics file, without a last line that a crash has cut off.

    Raises:
        DamagedError: if any other line is corrupt.
    """
    if not file.is_file():
        return []
    records = []
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise DamagedError(f"{file}: line {number} is corrupt: not JSON") from None
    return records


def without_clock(records: Iterable[Metrics]) -> list[Metrics]:
    """Return the part of the records that is bitwise identical in repetitions of a run.

    Events are excluded, because they depend on interruptions.
    """
    clocks = {CLOCK, "wall_clock"}
    return [
        {key: value for key, value in record.items() if key not in clocks}
        for record in records
        if record["split"] != EVENT
    ]


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield (name, value) of every number; in a section, the name is SECTION/NAME."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value


def budget_share(record: Metrics, budget: BudgetConfig) -> float:
    """Return the share of the budget that was spent at a record."""
    return Spent(**{budget.axis: record[budget.axis]}).share(budget)
