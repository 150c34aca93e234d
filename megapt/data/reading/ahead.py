"""Files are brought in the background before they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

from data_prep.manifest import FileInfo

_THREADS = 2


class _Wish(NamedTuple):
    """A file, and who asked for it."""

    reader: object
    info: FileInfo
    future: Future[Path]


class FetchAhead:
    """A few daemon threads that begin in the process that first asks for something.

    What a parent has asked for stays with it: a forked child begins with nothing, because the
    threads of its parent do not exist in it.

    Args:
        bring: makes a file present and returns its path; called in the threads.
        budget: most bytes that may be asked for at once, by all readers together.
    """

    def __init__(self, bring: Callable[[FileInfo], Path], budget: float) -> None:
        self._bring = bring
        self._budget = budget
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._asked: dict[str, _Wish] = {}
        self._jobs: SimpleQueue[_Wish | None] = SimpleQueue()
        self._threads = 0

    def ask(self, reader: object, infos: Sequence[FileInfo]) -> None:
        """Ask for files, the one needed first first; forget what else this reader has asked for.

        Files beyond the budget are left out: they would push out others that are needed earlier.
        What the other readers have asked for comes after it, as far as there is room.
        """
        if self._process != os.getpid():
            self._begin()
        asked: dict[str, _Wish] = {}
        room = self._budget
        others = [wish.info for wish in self._asked.values() if wish.reader != reader]
        for info in [*infos, *others]:
            room -= info.bytes
            if room < 0:
                break
            asked[info.file] = self._asked.get(info.file) or self._submit(reader, info)
        for file in self._asked.keys() - asked.keys():
            self._asked[file].future.cancel()
        self._asked = asked

    def take(self, info: FileInfo) -> Future[Path] | None:
        """The path of a file, or the error of bringing it, once a thread has it in hand.

        None if no thread has begun: then none will.
        """
        if self._process != os.getpid():
            self._begin()
        wish = self._asked.pop(info.file, None)
        return None if wish is None or wish.future.cancel() else wish.future

    def close(self) -> None:
        """End the threads, each after the file that it is at; waits for none of them."""
        if self._process == os.getpid():
            for wish in self._asked.values():
                wish.future.cancel()
            self._asked = {}
            for _ in range(self._threads):
                self._jobs.put(None)
            self._threads = 0

    def _submit(self, reader: object, info: FileInfo) -> _Wish:
        wish = _Wish(reader, info, Future())
        self._jobs.put(wish)
        if self._threads < _THREADS:
            self._threads += 1
            Thread(target=self._work, args=(self._jobs,), name="fetch ahead", daemon=True).start()
        return wish

    def _work(self, jobs: SimpleQueue[_Wish | None]) -> None:
        while (wish := jobs.get()) is not None:
            if not wish.future.set_running_or_notify_cancel():
                continue
            try:
                wish.future.set_result(self._bring(wish.info))
            except BaseException as error:
                wish.future.set_exception(error)
