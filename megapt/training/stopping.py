"""Requests to stop, Ctrl-C or a batch system's SIGTERM: a step is finished, a wait is not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class RunInterrupted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop (SIGINT or SIGTERM) and left a checkpoint."""


class StopRequested(BaseException):
    """A request to stop has ended a wait. What is waited for may handle no `Exception` of it."""


class StopRequests:
    """SIGINT and SIGTERM are remembered until a step is done, but end a wait at once.

    Attributes:
        received: whether there was one.
    """

    def __init__(self) -> None:
        self.received = False
        self._waiting = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Take the signals; those who handled them before get them back at the end."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a request end what is done inside, which must leave nothing half done.

        Raises:
            StopRequested: there was a request, before or meanwhile.
        """
        self._waiting = True
        try:
            if self.received:
                raise StopRequested
            yield
        finally:
            self._waiting = False

    def _hear(self, *_: object) -> None:
        self.received = True
        if self._waiting:
            self._waiting = False  # A second request does not disturb what is being put away.
            raise StopRequested
