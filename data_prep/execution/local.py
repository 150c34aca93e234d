"""An executor with worker processes on this machine."""

import os
from collections.abc import Sequence

from data_prep.execution.client import Client, acquire_client, release_client
from data_prep.execution.executor import Executor


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


class LocalExecutor(Executor):
    """Runs worker processes on this machine under one supervisor.

    Args:
        workers: number of processes.
        record_seconds: seconds that a record may take for each started MB of its size.
        preload: modules that the work needs; they are imported in the background.
    """

    def __init__(
        self, workers: int, record_seconds: float = 60.0, preload: Sequence[str] = ()
    ) -> None:
        self.workers = workers
        self.record_seconds = record_seconds
        self._client: Client | None = acquire_client(preload)

    def _begin(self, module: str, function: bytes) -> None:
        self._client = self._client or acquire_client()
        self._client.start_stage(module, function, self.workers, self.record_seconds)

    def _submit(self, tasks: Sequence[tuple[int, bytes]]) -> None:
        assert self._client is not None
        self._client.submit(tasks)

    def _collect(self) -> Sequence[tuple[int, bytes]]:
        assert self._client is not None
        return self._client.collect()

    def _stop(self) -> None:
        # The workers end; their supervisor stays for the next executor of this process.
        if self._client:
            release_client(self._client)
        self._client = None

    def _kill(self) -> None:
        if self._client:
            self._client.end()
        self._client = None
