"""The records of a run: metrics.jsonl, one JSON object a line."""

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
"""Key of a record under which everything stands that depends on how fast the machine was, but for
the budget's own axis `wall_clock`."""
EVENT = "event"
"""`split` of the records that tell what happened; the others are "train" and "valid"."""


def read_metrics(file: Path) -> list[Metrics]:
    """Return the records of a metrics file; a last line cut by a crash is left out.

    Raises:
        DamagedError: if another line is damaged.
    """
    if not file.is_file():
        return []
    records = []
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise DamagedError(f"{file}: line {number} is damaged: not JSON") from None
    return records


def without_clock(records: Iterable[Metrics]) -> list[Metrics]:
    """Return what two runs of the same training have alike: their scores, bit for bit.

    Events are left out, because they tell of interruptions too.
    """
    clocks = {CLOCK, "wall_clock"}
    return [
        {key: value for key, value in record.items() if key not in clocks}
        for record in records
        if record["split"] != EVENT
    ]


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield (name, value) of every number; one in a section has the name SECTION/NAME."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value


def budget_share(record: Metrics, budget: BudgetConfig) -> float:
    """Return the share of the budget that was spent when a record was made."""
    return Spent(**{budget.axis: record[budget.axis]}).share(budget)
