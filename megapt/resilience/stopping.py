"""Handles requests to stop (Ctrl-C, SIGTERM, SIGUSR1): a step is finished, a wait is interrupted.

Nothing here imports torch: a rank must handle requests before that import, which takes seconds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import NoReturn

from megapt.errors import Exit, RunInterrupted
from megapt.exits import run_and_report

_RESTART_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that batch systems send before they end a job that they may restart."""

_early_requests: set[int] = set()


def record_early_requests() -> None:
    """Remember a SIGTERM or SIGUSR1 that comes before `StopRequests` handles it.

    Without a handler it would kill the process. `StopRequests.handling` counts it as received.
    """

    def remember(number: int, _: object) -> None:
        _early_requests.add(number)

    for number in _RESTART_SIGNALS:
        signal.signal(number, remember)


def _interrupt() -> NoReturn:
    raise RunInterrupted("stopped before all ranks were connected", Exit.RESTART)


@contextmanager
def exit_on_request() -> Iterator[None]:
    """Let a SIGTERM or SIGUSR1 inside end the process at once: there is nothing to save yet.

    During a wait in C++, such as that of the ranks for each other, Python runs no signal handler,
    and no exception can end the wait. Therefore a thread ends the process.

    Raises:
        RunInterrupted: there was a request before.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        with open(read, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in _RESTART_SIGNALS:
                    os._exit(run_and_report(_interrupt))

    before = signal.set_wakeup_fd(write)
    Thread(target=watch, name="requests", daemon=True).start()
    try:
        if _early_requests:
            _interrupt()
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)


class StopRequested(BaseException):
    """A request to stop has interrupted a wait. No `Exception`, so that no handler catches it."""


class StopRequests:
    """Remembers SIGINT, SIGTERM and SIGUSR1 until a step is done, but interrupts a wait at once."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._waiting = False

    @property
    def received(self) -> bool:
        """Whether there was a request."""
        return bool(self._numbers)

    @property
    def interrupted(self) -> bool:
        """Whether a request was Ctrl-C. It has priority: the job must not be restarted."""
        return signal.SIGINT in self._numbers

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Handle the signals inside; restore the previous handlers at the end."""
        numbers = (signal.SIGINT, *_RESTART_SIGNALS)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        self._numbers |= _early_requests
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a request interrupt the code inside, which must leave nothing half done.

        Raises:
            StopRequested: there was a request, before or inside.
        """
        self._waiting = True
        try:
            if self.received:
                raise StopRequested
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, _: object) -> None:
        self._numbers.add(number)
        if self._waiting:
            self._waiting = False  # A second request does not interrupt the cleanup.
            raise StopRequested
