"""Workers on the ranks of an MPI job, by `mpi4py.futures`.

Rank 0 is the master: it hands out tasks and works on none. Every other rank serves: it has one
task at a time done in a worker process of its own, below its own supervisor, so that a document
that kills a process never kills a rank, which would end the whole job.

Import this module only to use it: importing `mpi4py.MPI` initializes MPI.
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

_Answer: TypeAlias = Future[list[tuple[int, bytes]]]

_MASTER = 0
_CANCEL_TAG = 1
_LOOK_SECONDS = 0.2
"""How often a rank whose worker is busy looks whether the result is still wanted."""


@dataclass(frozen=True)
class _RankStage:
    """The work of one `map`, sent with each task; `number` counts the maps."""

    number: int
    module: str
    function: bytes
    record_seconds: float


class _Server:
    """A rank that serves: its workers, and which maps the master has cancelled."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._stage = 0
        self._cancelled = 0

    def run(self, stage: _RankStage, index: int, task: bytes) -> list[tuple[int, bytes]]:
        """Do a task in this rank's worker process."""
        self._client = self._client or Client()
        if self._stage != stage.number:
            self._client.start_stage(stage.module, stage.function, 1, stage.record_seconds)
            self._stage = stage.number
        self._client.submit([(index, task)])
        while not self._client.poll(_LOOK_SECONDS):
            self.read_cancellations()
            if stage.number <= self._cancelled:
                self._client.stop()
                self._stage = 0
                return [(index, pickle.dumps(Cancelled()))]
        return self._client.collect()

    def read_cancellations(self) -> None:
        """Take all messages that cancel a map."""
        while MPI.COMM_WORLD.iprobe(_MASTER, _CANCEL_TAG):
            self._cancelled = MPI.COMM_WORLD.recv(None, _MASTER, _CANCEL_TAG)

    def close(self) -> None:
        self.read_cancellations()
        if self._client:
            self._client.end()


_server = _Server()


def _run(stage: _RankStage, index: int, task: bytes) -> list[tuple[int, bytes]]:
    return _server.run(stage, index, task)


class MpiExecutor(Executor):
    """The master's view of the ranks that serve; see `open_ranks`.

    Args:
        pool: connects the master with them.
    """

    def __init__(self, pool: MPIPoolExecutor) -> None:
        self.workers = MPI.COMM_WORLD.size - 1
        self._pool = pool
        self.record_seconds = 60.0
        self._maps = 0
        self._stage: _RankStage | None = None
        self._in_flight: set[_Answer] = set()
        self._done: SimpleQueue[_Answer] = SimpleQueue()
        self._messages: list[MPI.Request] = []

    def _begin(self, module: str, function: bytes) -> None:
        self._maps += 1
        self._stage = _RankStage(self._maps, module, function, self.record_seconds)
        self._done = SimpleQueue()

    def _submit(self, tasks: Sequence[tuple[int, bytes]]) -> None:
        assert self._stage is not None
        for index, task in tasks:
            answer = self._pool.submit(_run, self._stage, index, task)
            self._in_flight.add(answer)
            answer.add_done_callback(self._done.put)

    def _collect(self) -> Sequence[tuple[int, bytes]]:
        answer = self._done.get()
        self._in_flight.discard(answer)
        return answer.result()

    def _stop(self) -> None:
        # The ranks go on serving until `open_ranks` ends.
        if not self._in_flight:
            return
        for rank in range(1, MPI.COMM_WORLD.size):
            self._messages.append(MPI.COMM_WORLD.isend(self._maps, rank, _CANCEL_TAG))
        wait(self._in_flight)
        self._in_flight.clear()


@contextmanager
def open_ranks() -> Iterator[Executor | None]:
    """Enter on every rank: an executor on the master; None on the others, once they have served.

    A job of one rank works itself, in one worker process.

    Raises:
        PrepError: the MPI library cannot be used by several threads.
    """
    world = MPI.COMM_WORLD
    if world.size == 1:
        with LocalExecutor(1) as local:
            yield local
        return
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise PrepError(
            "--executor mpi: this MPI library runs without MPI_THREAD_MULTIPLE; use Open MPI or "
            "MPICH as they are built by default"
        )
    if world.rank == _MASTER:
        with (
            MPICommExecutor(world, _MASTER) as pool,
            # The stubs of mpi4py say that the manager gives itself; it gives the pool.
            MpiExecutor(cast(MPIPoolExecutor, pool)) as executor,
        ):
            yield executor
    else:
        _serve()
        yield None


def _serve() -> None:
    # A rank that is told to end has nothing to save: its worker ends with it.
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
