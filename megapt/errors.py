"""Errors by kind. Each kind is a class, with the exit code that the job ends with.

Any other exception is a bug and ends with its traceback.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """Exit codes. All ranks end with the same one, so it is also that of the job."""

    DONE = 0
    FAILED = 1
    """Training cannot continue, or not before the cause is removed."""
    WRONG_INPUT = 2
    DAMAGED = 65
    """A file is missing or corrupt (EX_DATAERR of sysexits.h)."""
    RESTART = 75
    """Saved after SIGTERM or SIGUSR1, or storage or a network is unavailable. The same command
    resumes (EX_TEMPFAIL of sysexits.h)."""
    LOST_PROCESS = 76
    """A process hung or died; the same command resumes from the last checkpoint."""
    INTERRUPTED = 130
    """Saved after Ctrl-C; shells report SIGINT with this code."""
    PIPE_CLOSED = 141
    """The reader of the output has closed it; shells report SIGPIPE with this code."""


class MegaptError(Exception):
    """An error that a user can act on. Its text is one line: what, where, what would be right."""

    code: Exit = Exit.FAILED
    label: ClassVar[str] = "error"
    """First word of the printed line."""

    def __init__(self, text: str) -> None:
        # Quoted text, for example a key, may contain line breaks.
        super().__init__(" ".join(text.splitlines()))


class ConfigError(MegaptError):
    """Wrong input: a configuration, a command line or a text."""

    code = Exit.WRONG_INPUT


class DamagedError(MegaptError):
    """A file of a corpus or a run is missing or corrupt, and stays so."""

    code = Exit.DAMAGED


class UnavailableError(MegaptError):
    """Storage or a network is unavailable, even after all retries; it may recover."""

    code = Exit.RESTART


class LostProcessError(MegaptError):
    """A process of this rank, such as one that loads data, was killed."""

    code = Exit.LOST_PROCESS


_UNAVAILABLE = {
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


def is_unavailable(error: Exception) -> bool:
    """Return whether a system error means that a disk or mounted storage is unavailable."""
    return isinstance(error, OSError) and error.errno in _UNAVAILABLE


class TrainingError(MegaptError):
    """Training cannot continue, although the configuration is valid."""

    label = "training failed"


class CheckpointError(MegaptError):
    """Checkpoints cannot be written."""

    label = "training failed"


class RanksLost(MegaptError):  # noqa: N818 - nothing is wrong with this rank
    """Other ranks hang, are gone or have failed, so this rank cannot continue.

    The ranks have not agreed on this error: each rank that has a text prints it.
    """

    def __init__(self, text: str, code: Exit = Exit.LOST_PROCESS) -> None:
        """Take one line of text; it is empty if another rank prints the error for all."""
        super().__init__(text)
        self.code = code


class RunInterrupted(MegaptError):  # noqa: N818 - not an error
    """The run was asked to stop. It has saved a checkpoint, if there was anything to save."""

    label = "interrupted"

    def __init__(self, text: str, code: Exit = Exit.INTERRUPTED) -> None:
        super().__init__(text)
        self.code = code
