"""The processes of a loader: they end with it, and it tells when one of them has died."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from megapt.errors import LostProcessError

Item = TypeVar("Item", covariant=True)

_PATIENCE = 5.0
"""Seconds that a process gets to end by itself; it takes milliseconds."""


class LoaderProcesses:
    """The processes of one `DataLoader`; they run until `close`, and not longer than this one."""

    def __init__(self) -> None:
        self._told, self._tell = os.pipe()
        self._all: list[BaseProcess] = []
        self._items: Any = None

    def start(self, loader: DataLoader[Item]) -> Iterator[Item]:
        """Return the iterator of a loader that has `serve` as its `worker_init_fn`."""
        before = signal.getsignal(signal.SIGCHLD)
        items = self._items = iter(loader)
        self._all = getattr(items, "_workers", [])
        if self._watches:
            # Torch's handler raises wherever the main thread is, within an update for instance.
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
        return items

    def serve(self, _: int) -> None:
        """Leave signals that reach the whole job to the rank: it saves, then ends us.

        That is when it writes to the pipe, or is no more; even a transfer that stalls, and would
        go on for minutes, does not keep a process from ending then.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        os.close(self._tell)
        Thread(target=_end_when_told, args=(self._told,), daemon=True).start()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let the death of a process end the wait for an item.

        The item may never come, nor torch see why: who dies while it writes to a queue leaves
        half a message there, on which its reader waits.

        Raises:
            LostProcessError: one has died, before or meanwhile.
        """
        before = signal.getsignal(signal.SIGCHLD)

        def hear(number: int, frame: Any) -> None:
            if callable(before):
                before(number, frame)
            self._check()

        watches = self._watches
        try:
            if watches:
                signal.signal(signal.SIGCHLD, hear)
            self._check()
            yield
        except RuntimeError:  # of torch, which has seen it too
            self._check()
            raise
        finally:
            if watches:
                signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)

    def close(self) -> None:
        """End the processes.

        Torch would first take a lock to tell them. One that has ended while it held the lock, as
        a killed one or one of ours may, would make it wait for ever.
        """
        os.write(self._tell, bytes(len(self._all)))
        os.close(self._tell)
        os.close(self._told)
        if not self._all:
            return
        self._items._shutdown = True
        signal_handling._remove_worker_pids(id(self._items))  # type: ignore[attr-defined]
        for process in self._all:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
        for queue in (*self._items._index_queues, self._items._worker_result_queue):
            queue.cancel_join_thread()
            queue.close()

    @property
    def _watches(self) -> bool:
        """Whether there is something to watch, from the only thread that gets signals."""
        return bool(self._all) and current_thread() is main_thread()

    def _check(self) -> None:
        for process in self._all:
            if code := process.exitcode:
                how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
                raise LostProcessError(
                    f"a loader process has died ({how}); out of memory? lower data.num_workers or "
                    f"data.shuffle_blocks"
                ) from None


def _end_when_told(told: int) -> None:
    os.read(told, 1)
    os._exit(0)
