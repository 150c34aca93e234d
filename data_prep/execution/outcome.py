"""The outcome of a task, as it is sent between processes."""

import pickle
import traceback
from dataclasses import dataclass
from typing import Any, TypeAlias


class RemoteTraceback(Exception):  # noqa: N818 - it is shown as a cause, never raised
    """The traceback of a worker, as the cause of the exception that the caller sees."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


@dataclass(frozen=True)
class Success:
    """The work function returned."""

    value: Any
    """The value that it returned."""


@dataclass(frozen=True)
class Failure:
    """The work function raised."""

    error: Exception
    """The exception that it raised."""
    trace: str
    """The traceback in the worker."""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Wrap an exception; one that cannot be pickled becomes a RuntimeError with its text."""
        trace = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)


@dataclass(frozen=True)
class Died:
    """Workers died on the task, and not at a single record that could be skipped."""

    times: int
    """Number of workers that died."""
    how: str
    """How the last one died."""


@dataclass(frozen=True)
class Cancelled:
    """The caller cancelled the task."""


Outcome: TypeAlias = Success | Failure | Died | Cancelled
