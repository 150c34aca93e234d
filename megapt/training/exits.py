"""How a job ends: its exit codes, and the errors that choose among them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit code of every rank, and so of the job."""

    DONE = 0
    FAILED = 1
    """Training cannot go on; the same command would fail again."""
    WRONG_INPUT = 2
    START_AGAIN = 75
    """Saved after SIGTERM or SIGUSR1: the same command goes on (EX_TEMPFAIL of sysexits.h)."""
    LOST_RANK = 76
    """A rank hung or died; the same command goes on from the last checkpoint."""
    INTERRUPTED = 130
    """Saved after Ctrl-C, as shells report SIGINT."""
    PIPE_CLOSED = 141


class TrainingError(Exception):
    """Training cannot go on, through no fault of the configuration."""


class RanksLost(Exception):  # noqa: N818 - nothing is wrong with this rank
    """Other ranks hang, are gone or have failed, so that this one cannot go on.

    Attributes:
        code: what this rank ends with.
    """

    def __init__(self, message: str, code: Exit = Exit.LOST_RANK) -> None:
        """Take one line; empty where another rank speaks for all."""
        super().__init__(message)
        self.code = code
