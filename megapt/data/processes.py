"""The processes of a loader: they end with it, and their death is reported."""

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

_EXIT_TIMEOUT = 5.0
"""Seconds until a process that does not end is killed; usually it ends in milliseconds."""


class LoaderProcesses:
    """The processes of one `DataLoader`; they run until `close` or the end of this process."""

    def __init__(self) -> None:
        # Written to, or closed by the end of this process, when the workers are to end.
        self._stop_reader, self._stop_writer = os.pipe()
        self._workers: list[BaseProcess] = []
        self._iterator: Any = None

    def start(self, loader: DataLoader[Item]) -> Iterator[Item]:
        """Return the iterator of a loader whose `worker_init_fn` is `serve`."""
        before = signal.getsignal(signal.SIGCHLD)
        iterator = self._iterator = iter(loader)
        self._workers = getattr(iterator, "_workers", [])
        if self._can_watch:
            # Torch's handler would raise at any point of the main thread, even within a step.
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
        return iterator

    def serve(self, _: int) -> None:
        """Ignore signals that reach the whole job, and exit when the rank wants it or has ended.

        The rank handles the signals: it saves and then writes to the pipe. A thread waits for
        that, so a stalled transfer does not delay the exit.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        os.close(self._stop_writer)
        Thread(target=_exit_on_stop, args=(self._stop_reader,), daemon=True).start()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End the wait for an item when a process dies.

        Otherwise the wait could be endless, unnoticed by torch: a process that dies while it
        writes to a queue leaves half a message, and the reader waits for the rest.

        Raises:
            LostProcessError: if a process has died, before or during the wait.
        """
        before = signal.getsignal(signal.SIGCHLD)

        def on_child_exit(number: int, frame: Any) -> None:
            if callable(before):
                before(number, frame)
            self._raise_if_dead()

        can_watch = self._can_watch
        try:
            if can_watch:
                signal.signal(signal.SIGCHLD, on_child_exit)
            self._raise_if_dead()
            yield
        except RuntimeError:  # from torch, which also notices dead workers
            self._raise_if_dead()
            raise
        finally:
            if can_watch:
                signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)

    def close(self) -> None:
        """End the processes.

        Torch's own shutdown takes a lock first. It would wait without end if a process died while
        it held that lock, which may happen to killed processes and to those that exit here.
        """
        os.write(self._stop_writer, bytes(len(self._workers)))
        os.close(self._stop_writer)
        os.close(self._stop_reader)
        if not self._workers:
            return
        self._iterator._shutdown = True
        signal_handling._remove_worker_pids(id(self._iterator))  # type: ignore[attr-defined]
        for process in self._workers:
            process.join(_EXIT_TIMEOUT)
            if process.is_alive():
                process.kill()
                process.join()
        for queue in (*self._iterator._index_queues, self._iterator._worker_result_queue):
            queue.cancel_join_thread()
            queue.close()

    @property
    def _can_watch(self) -> bool:
        """Whether there are processes and this is the main thread, which receives the signals."""
        return bool(self._workers) and current_thread() is main_thread()

    def _raise_if_dead(self) -> None:
        for process in self._workers:
            if code := process.exitcode:
                how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
                raise LostProcessError(
                    f"a loader process has died ({how}); out of memory? lower data.num_workers or "
                    f"data.shuffle_buffer_blocks"
                ) from None


def _exit_on_stop(stop_reader: int) -> None:
    os.read(stop_reader, 1)
    os._exit(0)
