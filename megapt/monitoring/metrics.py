"""The records of a run: metrics.jsonl, one JSON object a line."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from megapt.errors import DamagedError
from megapt.files import write_text

log = logging.getLogger("megapt.monitoring")

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


def _finite(value: Any) -> Any:
    """Return `value` with None in the place of every NaN and infinity, which JSON has not."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Metrics) -> str:
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


class MetricsWriter:
    """Appends records; begins by dropping those after the step that the run resumes at.

    Args:
        file: metrics.jsonl of the run.
        resume_step: steps that the checkpoint holds; records beyond it will be written again.
    """

    def __init__(self, file: Path, resume_step: int) -> None:
        self.kept = [record for record in read_metrics(file) if record["step"] <= resume_step]
        """Records of earlier starts of the run."""
        # A run that died between its last record and its summary comes by the same step again.
        self._written = {
            (record["split"], record["step"]) for record in self.kept if record["split"] != EVENT
        }
        write_text(file, "".join(map(_line, self.kept)))
        self._file = file
        self._handle = os.open(file, os.O_WRONLY | os.O_APPEND)
        self._unwritten = b""
        self._warned = False

    def write(self, split: str, step: int, values: Metrics) -> bool:
        """Append one record of `split` after `step` updates; whether it was not there already.

        A number that is not finite is written as null, and an event `not_finite` names it.
        """
        if (split, step) in self._written:
            return False
        lost = [name for name, value in numbers(values) if not math.isfinite(value)]
        if lost:
            self.event(step, "not_finite", {"names": lost})
        self._append({"split": split, "step": step, **values})
        return True

    def event(self, step: int, kind: str, values: Metrics) -> None:
        """Append that something happened after `step` updates."""
        self._append({"split": EVENT, "step": step, "kind": kind, **values})

    def _append(self, record: Metrics) -> None:
        self._unwritten += _line(record).encode()
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._handle, self._unwritten) :]
        except OSError as error:
            if not self._warned:
                log.warning(
                    "%s: %s; training goes on, and what is missing is written as soon as it can be",
                    self._file,
                    error.strerror,
                )
            self._warned = True
        else:
            self._warned = False

    def close(self) -> None:
        """Close the file; what could not be written by now is lost, and was warned of."""
        os.close(self._handle)
