"""The caller's side of a supervisor: starts it, communicates with it and ends it."""

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from typing import Any

from data_prep.errors import PrepError
from data_prep.execution.worker import Stage

MAX_RESTARTS = 3
"""Deaths of a supervisor before an error. It uses little memory and runs no third-party code."""
_END_SECONDS = 10.0

# An MPI library that a worker loads must not assume that it is the rank that started the worker.
_MPI_PREFIXES = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "MPI_LOCAL", "HYDI_")
# A worker has one core; thread pools in every worker would compete for the cores.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def worker_environment() -> dict[str, str]:
    """Return the environment for workers: this one without MPI, and one thread per library."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_MPI_PREFIXES)}
    return {**_ONE_THREAD, **kept}


class Client:
    """Drives one supervisor process, and starts another if it is killed.

    Tasks are `(index, pickled task)`, outcomes `(index, pickled Outcome)`.

    Args:
        preload: modules that the supervisor imports while the caller prepares the work.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = list(preload)
        self._stage: Stage | None = None
        self._in_flight: dict[int, bytes] = {}
        self._restarts = 0
        self._start()

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        handle = theirs.fileno()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from data_prep.execution.supervisor import main; main({handle}, {self._preload!r})"
        )
        # Ctrl-C must not reach the supervisor before it ignores SIGINT: the caller handles it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[handle],
                env=worker_environment(),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()

    def start_stage(
        self, module: str, function: bytes, workers: int, record_seconds: float
    ) -> None:
        """Run the next tasks in new workers; the arguments are fields of `Stage`."""
        self._restarts = 0
        self._stage = Stage(
            function=function,
            module=module,
            workers=workers,
            record_seconds=record_seconds,
            folder=os.getcwd(),
            path=list(sys.path),
            environment=worker_environment(),
        )
        self._send(self._stage)

    def submit(self, tasks: Sequence[tuple[int, bytes]]) -> None:
        """Submit tasks, possibly none, and request outcomes; call `collect` next."""
        self._in_flight.update(tasks)
        self._send(list(tasks))

    def poll(self, seconds: float) -> bool:
        """Wait for outcomes; return whether `collect` would return at once."""
        return self._connection.poll(seconds)

    def collect(self) -> list[tuple[int, bytes]]:
        """Wait for one outcome or more.

        Raises:
            PrepError: the supervisor was killed more than `MAX_RESTARTS` times.
        """
        while True:
            try:
                outcomes: list[tuple[int, bytes]] = self._connection.recv()
            except (EOFError, OSError):
                self._restart()
            else:
                for index, _ in outcomes:
                    self._in_flight.pop(index, None)
                return outcomes

    def stop(self) -> None:
        """End all workers and the stage; unfinished tasks are lost."""
        self._in_flight.clear()
        self._stage = None
        try:
            self._connection.send(None)
            while self._connection.recv():
                pass
        except (EOFError, OSError):  # the supervisor was killed, and so were the workers
            self.end()
            self._start()

    def end(self) -> None:
        """End the supervisor and its workers, in any state."""
        self._connection.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._restart()

    def _restart(self) -> None:
        """Start another supervisor with the stage and the unfinished tasks of the dead one."""
        self.end()
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise PrepError(
                f"the process that supervises the workers ended {self._restarts} times (the last "
                f"time with exit code {self._process.returncode}); if memory ran out, use fewer "
                "--workers (with MPI: fewer ranks per machine)"
            )
        self._start()
        self._send(self._stage)
        self._send(list(self._in_flight.items()))


_idle: list[Client] = []


def acquire_client(preload: Sequence[str] = ()) -> Client:
    """Return a released client, whose supervisor already runs, or a new client."""
    return _idle.pop() if _idle else Client(preload)


def release_client(client: Client) -> None:
    """End the workers of a client and keep its supervisor for the next executor."""
    client.stop()
    _idle.append(client)


@atexit.register
def _end_idle() -> None:
    while _idle:
        _idle.pop().end()
