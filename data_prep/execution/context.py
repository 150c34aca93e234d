"""The context of a task for the work function, and its position for the supervisor."""

import mmap
import signal
from collections.abc import Mapping
from types import MappingProxyType

MEGABYTE = 1_000_000
_NO_RECORD = -1.0
_NONE: Mapping[int, str] = MappingProxyType({})


class Cursor:
    """The record that a worker processes, in memory that survives the worker.

    It is created before the worker is forked, so that both processes share two float64: the record,
    exact up to 2^53, and its time limit in seconds.
    """

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, 16)).cast("d")
        self.cells[0] = _NO_RECORD

    @property
    def record(self) -> int | None:
        """The current record, or None if there is none."""
        return None if self.cells[0] == _NO_RECORD else int(self.cells[0])

    @property
    def seconds(self) -> float:
        """The time limit of the last record or batch; 0 before the first."""
        return self.cells[1]


class Context:
    """The context that the work function gets with each task.

    A work function that processes many records calls `enter` before each and `leave` after the
    last. A record that hangs or kills the process can then be identified and skipped.

    Args:
        poisoned: see the attribute.
        careful: see the attribute.
        cursor: where `enter` stores the record; without it, as in the caller's own process,
            `enter` and `leave` do nothing.
        record_seconds: seconds that a record may take for each started MB of its size.

    Attributes:
        poisoned: records of this task to skip, with how the process died at each, such as
            "killed by signal 11 (SIGSEGV)" or "took more than 60 s".
        careful: whether a process died on this task. The function must then process one record
            at a time, so that the next death identifies the record.
    """

    def __init__(
        self,
        poisoned: Mapping[int, str] = _NONE,
        careful: bool = False,
        cursor: Cursor | None = None,
        record_seconds: float = 60.0,
    ) -> None:
        self.poisoned = poisoned
        self.careful = careful
        self._cells = cursor.cells if cursor else None
        self._record_seconds = record_seconds

    def enter(self, record: int, size: int) -> None:
        """Begin record number `record` of `size` bytes, and start its time limit.

        At the limit SIGALRM ends the process with its default action. C code and regular
        expressions cannot delay this action, as they could delay a Python handler.
        """
        self._enter(record, size)

    def enter_many(self, size: int) -> None:
        """Begin several records of `size` bytes in total, with one time limit.

        A death then shows that the task must be done carefully, but not which record caused it.
        """
        self._enter(_NO_RECORD, size)

    def _enter(self, record: float, size: int) -> None:
        if self._cells is not None:
            seconds = self._record_seconds * max(1, -(-size // MEGABYTE))
            self._cells[0], self._cells[1] = record, seconds
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def leave(self) -> None:
        """End the current record or batch, and stop its time limit."""
        if self._cells is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._cells[0] = _NO_RECORD
