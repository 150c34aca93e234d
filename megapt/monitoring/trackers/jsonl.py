"""metrics.jsonl: one JSON object per line, read by resumes, `megapt status` and reports."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from megapt.checkpoint.run_folder import RunFolder
from megapt.files import write_text
from megapt.monitoring.metrics import EVENT, Metrics, numbers
from megapt.monitoring.trackers.base import Start, Tracker


def _finite(value: Any) -> Any:
    """Return `value` with None for every NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Metrics) -> str:
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


class JsonLines(Tracker):
    """Appends records. At the start it removes the records of steps that are repeated."""

    name = "jsonl"

    def __init__(self, own: Any, start: Start) -> None:
        self._file = RunFolder(start.folder).metrics_file
        write_text(self._file, "".join(map(_line, start.records)))
        self._handle = os.open(self._file, os.O_WRONLY | os.O_APPEND)
        self._unwritten = b""

    def record(self, split: str, step: int, values: Metrics) -> None:
        """Append one record.

        A number that is not finite is written as null, and an event `not_finite` names it.
        """
        not_finite = [name for name, value in numbers(values) if not math.isfinite(value)]
        lines = [{"split": split, "step": step, **values}]
        if not_finite:
            event = {"split": EVENT, "step": step, "kind": "not_finite", "names": not_finite}
            lines.insert(0, event)
        self._append(*lines)

    def event(self, step: int, kind: str, values: Metrics) -> None:
        """Append an event."""
        self._append({"split": EVENT, "step": step, "kind": kind, **values})

    def _append(self, *records: Metrics) -> None:
        """Append records, after those that could not be written before.

        Raises:
            OSError: if they cannot be written; they are kept for the next call.
        """
        self._unwritten += "".join(map(_line, records)).encode()
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._handle, self._unwritten) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._file)) from None

    def close(self) -> None:
        """Close the file. Records that could not be written are lost; a warning has said so."""
        os.close(self._handle)
