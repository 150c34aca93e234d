"""What can go wrong, by kind: each kind is a class, with the exit code that the job ends with.

What is not here is a bug: a plain exception, which ends with its traceback.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """Exit code of every rank, and so of the job."""

    DONE = 0
    FAILED = 1
    """Training cannot go on; the same command would fail again."""
    WRONG_INPUT = 2
    DAMAGED = 65
    """A file is missing or holds something else than was written (EX_DATAERR of sysexits.h)."""
    START_AGAIN = 75
    """Saved after SIGTERM or SIGUSR1, or storage or a network is away: the same command goes on
    (EX_TEMPFAIL)."""
    LOST_PROCESS = 76
    """A process hung or died; the same command goes on from the last checkpoint."""
    INTERRUPTED = 130
    """Saved after Ctrl-C, as shells report SIGINT."""
    PIPE_CLOSED = 141


class MegaptError(Exception):
    """An error that a user can act on. Its text is one line: what, where, what would be right."""

    code: Exit = Exit.FAILED
    label: ClassVar[str] = "error"
    """What the line that is printed begins with."""

    def __init__(self, text: str) -> None:
        # What the text quotes, a key for instance, may hold line breaks.
        super().__init__(" ".join(text.splitlines()))


class ConfigError(MegaptError):
    """Wrong input: of a configuration, a command line, a text."""

    code = Exit.WRONG_INPUT


class DamagedError(MegaptError):
    """A file of a corpus or a run is missing or is not what was written; it stays so."""

    code = Exit.DAMAGED


class UnavailableError(MegaptError):
    """Storage or a network is away, also after all retries; later it may be there."""

    code = Exit.START_AGAIN


class LostProcessError(MegaptError):
    """A process of this rank, such as one that loads data, was killed."""

    code = Exit.LOST_PROCESS


_AWAY = {
    errno.EIO,
    errno.ENXIO,
    errno.ENODEV,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EREMOTEIO,
}


def is_away(error: Exception) -> bool:
    """Whether an error of the system tells that a disk or a mounted storage is away."""
    return isinstance(error, OSError) and error.errno in _AWAY


class TrainingError(MegaptError):
    """Training cannot go on, through no fault of the configuration."""

    label = "training failed"


class CheckpointError(MegaptError):
    """Checkpoints cannot be written."""

    label = "training failed"


class RanksLost(MegaptError):  # noqa: N818 - nothing is wrong with this rank
    """Other ranks hang, are gone or have failed, so that this one cannot go on.

    The ranks have not agreed on it: each that has a text prints it.
    """

    def __init__(self, text: str, code: Exit = Exit.LOST_PROCESS) -> None:
        """Take one line; empty where another rank speaks for all."""
        super().__init__(text)
        self.code = code


class RunInterrupted(MegaptError):  # noqa: N818 - it is no error
    """The run was asked to stop and left a checkpoint, if there was anything to save."""

    label = "interrupted"

    def __init__(self, text: str, code: Exit = Exit.INTERRUPTED) -> None:
        super().__init__(text)
        self.code = code
