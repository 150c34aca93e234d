"""An executor with workers on the ranks of an MPI job, through `mpi4py.futures`.

Rank 0 is the master: it distributes tasks and runs none. Every other rank serves: it runs one task
at a time in its own worker process, under its own supervisor. A document that kills a process then
never kills a rank, which would end the whole job.

Import this module only when it is used: importing `mpi4py.MPI` initializes MPI.
"""

import pickle
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeAlias, cast

from mpi4py import MPI
from mpi4py.futures import Future, MPICommExecutor, MPIPoolExecutor

from data_prep.errors import PrepError
from data_prep.execution.client import Client
from data_prep.execution.executor import Executor
from data_prep.execution.local import LocalExecutor
from data_prep.execution.outcome import Cancelled

_Reply: TypeAlias = Future[list[tuple[int, bytes]]]

_MASTER = 0
_CANCEL_TAG = 1
_POLL_SECONDS = 0.2
"""How often a rank with a busy worker checks whether its task was cancelled."""


@dataclass(frozen=True)
class _RankStage:
    """The function of one `map`, sent with each task; `number` counts the maps."""

    number: int
    module: str
    function: bytes
    record_seconds: float


class _Server:
    """A rank that serves: its worker, and the last map that the master has cancelled."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._stage = 0
        self._cancelled = 0

    def run(self, stage: _RankStage, index: int, task: bytes) -> list[tuple[int, bytes]]:
        """Run a task in this rank's worker process."""
        self._client = self._client or Client()
        if self._stage != stage.number:
            self._client.start_stage(stage.module, stage.function, 1, stage.record_seconds)
            self._stage = stage.number
        self._client.submit([(index, task)])
        while not self._client.poll(_POLL_SECONDS):
            self.read_cancellations()
            if stage.number <= self._cancelled:
                self._client.stop()
                self._stage = 0
                return [(index, pickle.dumps(Cancelled()))]
        return self._client.collect()

    def read_cancellations(self) -> None:
        """Receive all messages that cancel a map."""
        while MPI.COMM_WORLD.iprobe(_MASTER, _CANCEL_TAG):
            self._cancelled = MPI.COMM_WORLD.recv(None, _MASTER, _CANCEL_TAG)

    def close(self) -> None:
        """End the worker and its supervisor."""
        self.read_cancellations()
        if self._client:
            self._client.end()


_server = _Server()


def _run(stage: _RankStage, index: int, task: bytes) -> list[tuple[int, bytes]]:
    return _server.run(stage, index, task)


class MpiExecutor(Executor):
    """The master's executor on the ranks that serve; see `open_ranks`.

    Args:
        pool: connects the master with these ranks.
    """

    def __init__(self, pool: MPIPoolExecutor) -> None:
        self.workers = MPI.COMM_WORLD.size - 1
        self._pool = pool
        self.record_seconds = 60.0
        self._maps = 0
        self._stage: _RankStage | None = None
        self._in_flight: set[_Reply] = set()
        self._done: SimpleQueue[_Reply] = SimpleQueue()
        self._messages: list[MPI.Request] = []

    def _begin(self, module: str, function: bytes) -> None:
        self._maps += 1
        self._stage = _RankStage(self._maps, module, function, self.record_seconds)
        self._done = SimpleQueue()

    def _submit(self, tasks: Sequence[tuple[int, bytes]]) -> None:
        assert self._stage is not None
        for index, task in tasks:
            reply = self._pool.submit(_run, self._stage, index, task)
            self._in_flight.add(reply)
            reply.add_done_callback(self._done.put)

    def _collect(self) -> Sequence[tuple[int, bytes]]:
        reply = self._done.get()
        self._in_flight.discard(reply)
        return reply.result()

    def _stop(self) -> None:
        # The ranks continue to serve until `open_ranks` ends.
        if not self._in_flight:
            return
        for rank in range(1, MPI.COMM_WORLD.size):
            self._messages.append(MPI.COMM_WORLD.isend(self._maps, rank, _CANCEL_TAG))
        wait(self._in_flight)
        self._in_flight.clear()


@contextmanager
def open_ranks() -> Iterator[Executor | None]:
    """Open the executor of an MPI job; every rank must enter the `with` block.

    In a job of one rank, this rank runs the work in one worker process.

    Yields:
        The executor on the master; None on the other ranks, after they have served.

    Raises:
        PrepError: the MPI library does not support several threads.
    """
    world = MPI.COMM_WORLD
    if world.size == 1:
        with LocalExecutor(1) as local:
            yield local
        return
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise PrepError(
            "--executor mpi: this MPI library runs without MPI_THREAD_MULTIPLE; use a "
            "default build of Open MPI or MPICH"
        )
    if world.rank == _MASTER:
        with (
            MPICommExecutor(world, _MASTER) as pool,
            # The stubs of mpi4py say that `with` returns the manager; it returns the pool.
            MpiExecutor(cast(MPIPoolExecutor, pool)) as executor,
        ):
            yield executor
    else:
        _serve()
        yield None


def _serve() -> None:
    # A rank has nothing to save when it receives a signal: its worker ends with it.
    handlers: dict[signal.Signals, Any] = {
        number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with MPICommExecutor(MPI.COMM_WORLD, _MASTER):
            pass
        _server.close()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
