"""Files are brought in the background before they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from data_prep.manifest import FileInfo

_THREADS = 2


class FetchAhead:
    """A few daemon threads that begin in the process that first asks for something.

    What a parent has asked for stays with it: a forked child begins with nothing, because the
    threads of its parent do not exist in it.

    Args:
        bring: makes a file present and returns its path; called in the threads.
        budget: most bytes that may be asked for at once.
    """

    def __init__(self, bring: Callable[[FileInfo], Path], budget: float) -> None:
        self._bring = bring
        self._budget = budget
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._asked: dict[str, Future[Path]] = {}
        self._jobs: SimpleQueue[tuple[FileInfo, Future[Path]] | None] = SimpleQueue()
        self._threads = 0

    def ask(self, infos: Sequence[FileInfo]) -> None:
        """Ask for files, the one needed first first; forget what was asked and is not among them.

        Files beyond the budget are left out: they would push out others that are needed earlier.
        """
        if self._process != os.getpid():
            self._begin()
        asked: dict[str, Future[Path]] = {}
        room = self._budget
        for info in infos:
            room -= info.bytes
            if room < 0:
                break
            asked[info.file] = self._asked.get(info.file) or self._submit(info)
        for file in self._asked.keys() - asked.keys():
            self._asked[file].cancel()
        self._asked = asked

    def take(self, info: FileInfo) -> Future[Path] | None:
        """The path of a file, or the error of bringing it, once a thread has it in hand.

        None if no thread has begun: then none will.
        """
        if self._process != os.getpid():
            self._begin()
        future = self._asked.pop(info.file, None)
        return None if future is None or future.cancel() else future

    def close(self) -> None:
        """End the threads, each after the file that it is at; waits for none of them."""
        if self._process == os.getpid():
            self.ask([])
            for _ in range(self._threads):
                self._jobs.put(None)
            self._threads = 0

    def _submit(self, info: FileInfo) -> Future[Path]:
        future: Future[Path] = Future()
        self._jobs.put((info, future))
        if self._threads < _THREADS:
            self._threads += 1
            Thread(target=self._work, args=(self._jobs,), name="fetch ahead", daemon=True).start()
        return future

    def _work(self, jobs: SimpleQueue[tuple[FileInfo, Future[Path]] | None]) -> None:
        while (job := jobs.get()) is not None:
            info, future = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._bring(info))
            except BaseException as error:
                future.set_exception(error)
