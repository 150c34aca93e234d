"""Fetches files in the background before they are needed."""

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


class _Request(NamedTuple):
    reader: object
    """The reader that requested the file."""
    info: FileInfo
    future: Future[Path]


class FetchAhead:
    """A few daemon threads, started by the first request of a process.

    A forked child starts without requests, because the threads of its parent do not exist in it.

    Args:
        bring: makes a file present and returns its path; called in the threads.
        budget: most bytes that may be requested at once, by all readers together.
    """

    def __init__(self, bring: Callable[[FileInfo], Path], budget: float) -> None:
        self._bring = bring
        self._budget = budget
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._requests: dict[str, _Request] = {}
        self._jobs: SimpleQueue[_Request | None] = SimpleQueue()
        self._threads = 0

    def request(self, reader: object, infos: Sequence[FileInfo]) -> None:
        """Request files; drop all earlier requests of this reader.

        Files beyond the budget are skipped: they would evict others that are needed earlier.
        The requests of the other readers come last, as far as there is room.

        Args:
            reader: the object that will take the files.
            infos: the files, in the order in which they are needed.
        """
        if self._process != os.getpid():
            self._reset()
        requests: dict[str, _Request] = {}
        room = self._budget
        others = [other.info for other in self._requests.values() if other.reader != reader]
        for info in [*infos, *others]:
            room -= info.bytes
            if room < 0:
                break
            requests[info.file] = self._requests.get(info.file) or self._submit(reader, info)
        for file in self._requests.keys() - requests.keys():
            self._requests[file].future.cancel()
        self._requests = requests

    def take(self, info: FileInfo) -> Future[Path] | None:
        """Return the future path of a file if a thread has started to bring it.

        Otherwise the request is withdrawn and None is returned: the caller brings the file.
        """
        if self._process != os.getpid():
            self._reset()
        request = self._requests.pop(info.file, None)
        return None if request is None or request.future.cancel() else request.future

    def close(self) -> None:
        """End each thread after its current file, without waiting for it."""
        if self._process == os.getpid():
            for request in self._requests.values():
                request.future.cancel()
            self._requests = {}
            for _ in range(self._threads):
                self._jobs.put(None)
            self._threads = 0

    def _submit(self, reader: object, info: FileInfo) -> _Request:
        request = _Request(reader, info, Future())
        self._jobs.put(request)
        if self._threads < _THREADS:
            self._threads += 1
            Thread(target=self._work, args=(self._jobs,), name="fetch ahead", daemon=True).start()
        return request

    def _work(self, jobs: SimpleQueue[_Request | None]) -> None:
        while (request := jobs.get()) is not None:
            if not request.future.set_running_or_notify_cancel():
                continue
            try:
                request.future.set_result(self._bring(request.info))
            except BaseException as error:
                request.future.set_exception(error)
