"""Requests to stop, Ctrl-C or a batch system's SIGTERM: a step is finished, a wait is not.

Nothing here imports torch: a rank hears requests before it spends seconds on that.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import NoReturn

from megapt.errors import Exit, RunInterrupted
from megapt.exits import guarded

_AGAIN = (signal.SIGTERM, signal.SIGUSR1)
"""What batch systems send before they end a job that they may start again."""

_early: set[int] = set()


def remember_requests() -> None:
    """Remember a SIGTERM or SIGUSR1 that comes before anybody hears it: it would kill the process.

    The first `StopRequests.heard` finds it.
    """

    def remember(number: int, _: object) -> None:
        _early.add(number)

    for number in _AGAIN:
        signal.signal(number, remember)


def _interrupt() -> NoReturn:
    raise RunInterrupted("stopped before the ranks have met", Exit.START_AGAIN)


@contextmanager
def ended_by_requests() -> Iterator[None]:
    """Inside, a SIGTERM or SIGUSR1 ends the process at once: nothing is there yet to be saved.

    A wait in C++, such as that of ranks for each other, lets no handler of Python's run and can be
    left by no exception. What runs meanwhile is a thread.

    Raises:
        RunInterrupted: there was a request before.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        with open(read, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in _AGAIN:
                    os._exit(guarded(_interrupt))

    before = signal.set_wakeup_fd(write)
    Thread(target=watch, name="requests", daemon=True).start()
    try:
        if _early:
            _interrupt()
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)


class StopRequested(BaseException):
    """A request to stop has ended a wait. What is waited for may handle no `Exception` of it."""


class StopRequests:
    """SIGINT, SIGTERM and SIGUSR1 are remembered until a step is done, but end a wait at once."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._waiting = False

    @property
    def received(self) -> bool:
        """Whether there was a request."""
        return bool(self._numbers)

    @property
    def interrupted(self) -> bool:
        """Whether one of them was Ctrl-C, which is stronger: nobody is to start the job again."""
        return signal.SIGINT in self._numbers

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Take the signals; those who handled them before get them back at the end."""
        numbers = (signal.SIGINT, *_AGAIN)
        before = {number: signal.signal(number, self._hear) for number in numbers}
        self._numbers |= _early
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

    def _hear(self, number: int, _: object) -> None:
        self._numbers.add(number)
        if self._waiting:
            self._waiting = False  # A second request does not disturb what is being put away.
            raise StopRequested
